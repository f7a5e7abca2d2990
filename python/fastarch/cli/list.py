"""fastarch list: the architectures."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastarch import models
from fastarch.estimators import ESTIMATORS


def run(options: argparse.Namespace) -> int:
    """Prints the table of architectures."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "title": info.title,
            "parameters": info.parameters,
            "input": list(info.input_shape),
            "description": info.description,
            "paper": info.paper,
        }
        for name, info in models.MODELS.items()
    ]
    rows += [
        {
            "name": name,
            "title": info.title,
            "parameters": None,
            "input": None,
            "description": info.description,
            "paper": info.paper,
        }
        for name, info in ESTIMATORS.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    name_width = max(len("name"), *(len(row["name"]) for row in rows))
    print(f"{'name':<{name_width}}  {'parameters':>11}  {'input':<11}  what it is")
    for row in rows:
        # An estimator takes what comes, and is as large as its arguments say.
        shape = "x".join(str(side) for side in row["input"]) if row["input"] else "any"
        size = f"{row['parameters']:,}" if row["parameters"] else "-"
        print(f"{row['name']:<{name_width}}  {size:>11}  {shape:<11}  {row['description']}")
        print(f"{'':<{name_width + 28}}{row['paper']}")
    return 0
