"""fastarch info: what this installation can do."""

from __future__ import annotations

import argparse
import json

import fastarch


def run(options: argparse.Namespace) -> int:
    """Prints `fa.info()`."""
    information = fastarch.info()
    print(json.dumps(information.to_dict(), indent=2) if options.json else information)
    return 0
