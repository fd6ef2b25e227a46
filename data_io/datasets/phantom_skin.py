"""Phantoms of skin, a data set of their own; see `data_io.datasets.phantom`."""

from pathlib import Path

from data_io.datasets import phantom
from data_io.datasets.phantom import (
    check,
    files,
    interface,
    posterior,
    record,
    references,
    regions,
    remarks,
    roles,
    split,
)
from data_io.datasets.phantom_kinds import SKIN

__all__ = [
    "RECORD", "check", "files", "interface", "locate", "posterior", "record",
    "references", "regions", "remarks", "roles", "split",
]  # fmt: skip

RECORD = phantom.record_of(SKIN)


def locate(data: Path | None) -> Path:
    """Finds a set of these phantoms, or generates the default one."""
    return phantom.locate(data, SKIN)
