"""fastarch list: the architectures."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastarch import models


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
    if options.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    name_width = max(len("name"), *(len(row["name"]) for row in rows))
    print(f"{'name':<{name_width}}  {'parameters':>11}  {'input':<11}  what it is")
    for row in rows:
        shape = "x".join(str(side) for side in row["input"])
        print(f"{row['name']:<{name_width}}  {row['parameters']:>11,}  {shape:<11}  {row['description']}")
        print(f"{'':<{name_width + 28}}{row['paper']}")
    return 0
