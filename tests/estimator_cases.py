"""Arguments that keep the estimators cheap in the tests that run over all of them."""

from __future__ import annotations

from typing import Any

ARGUMENTS: dict[str, dict[str, Any]] = {}
