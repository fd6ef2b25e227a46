"""Tables, verdicts, pages and figures of the runs at hand, from their files alone."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["DATA", "data"]

DATA = Path(__file__).parent / "data"
"""Columns, rules, questions and words; each file says what is in it."""


@cache
def data(name: str) -> Any:
    """Read a YAML file of `DATA`, such as "columns"."""
    return yaml.safe_load((DATA / f"{name}.yaml").read_text("utf-8"))
