"""CVC-ClinicDB, split by video sequence: no sequence lies in two parts of the split.

The same files as `cvc_clinicdb`, but a data set of its own: what is measured on frames
of unseen sequences is another quantity than the paper's, and the two never share a
table.
"""

from dataclasses import replace
from pathlib import Path

from data_io.datasets import cvc_clinicdb
from data_io.datasets.cvc_clinicdb import (
    DEFAULT,
    cases,
    check,
    files,
    groups,
    interface,
    locate,
    picture,
    references,
    regions,
    remarks,
    roles,
)
from data_io.datasets.record import Record

__all__ = [
    "DEFAULT", "RECORD", "cases", "check", "files", "groups", "interface", "locate",
    "picture", "record", "references", "regions", "remarks", "roles",
]  # fmt: skip

RECORD = replace(
    cvc_clinicdb.RECORD,
    name="cvc-clinicdb-sequence",
    title="CVC-ClinicDB by sequence",
    split_by="sequence",
)


def record(root: Path) -> Record:
    """The record of the data set at `root`; always the same."""
    return RECORD
