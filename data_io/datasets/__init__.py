"""The data sets, each a class in a module of its own; see `dataset.Dataset`."""

import re
from importlib import import_module
from typing import TYPE_CHECKING

from data_io.errors import InputError

if TYPE_CHECKING:  # Names of data sets are wanted where nothing is read.
    from data_io.datasets.dataset import Dataset

__all__ = ["NAMES", "SIMULATED", "by_name", "is_own", "simulated", "split_by"]

NAMES = (
    "drive", "bus2017", "dsb2018", "isic2018", "cvc-clinicdb", "cvc-clinicdb-sequence",
    "kits19", "kits19-simulated", "hippocampus", "phantom", "phantom-lesion",
    "phantom-skin", "phantom-polyp", "phantom-nuclei",
)  # fmt: skip
"""Names of the data sets, as `--dataset` takes them."""
# What is simulated in place of each.
SIMULATED = {
    "drive": "phantom",
    "kits19": "kits19-simulated",
    "bus2017": "phantom-lesion",
    "dsb2018": "phantom-nuclei",
    "isic2018": "phantom-skin",
    "cvc-clinicdb": "phantom-polyp",
    "cvc-clinicdb-sequence": "phantom-polyp",
}
# Where the module is not called as the data set.
_MODULES = {
    "cvc-clinicdb-sequence": "cvc_clinicdb",
    "own": "folder",
    **{name: "phantom" for name in NAMES if name.startswith("phantom-")},
}


def is_own(name: str) -> bool:
    """Whether a name is one of own images: `own`, or `own-` with words and hyphens."""
    return re.fullmatch(r"own(-[a-z0-9]+)*", name) is not None


def by_name(name: str) -> "Dataset":
    """Return a data set, the same object each time.

    Args:
        name: one of `NAMES`, in any case; or `own`, `own-...`: a user's own images.

    Raises:
        InputError: no data set has this name.
    """
    wanted = "own" if is_own(name.lower()) else name.lower()
    if wanted not in (*NAMES, "own"):
        known = ", ".join(NAMES)
        raise InputError(
            f"--dataset {name}: expected one of {known}, received {name!r}. "
            "Name one of these, or give your own: --images FOLDER --masks FOLDER."
        )
    from data_io.datasets.dataset import Dataset

    module = _MODULES.get(wanted, wanted.replace("-", "_"))
    objects = vars(import_module(f"{__name__}.{module}")).values()
    sets = (each for each in objects if isinstance(each, Dataset))
    return next(each for each in sets if each.RECORD.name == wanted)


def split_by(name: str, kind: str) -> str:
    """Name of a data set whose split keeps groups of cases together.

    It is a data set of its own: what is measured on cases of unseen groups is another
    quantity, and the two never share a table.

    Raises:
        InputError: the data set has no such groups.
    """
    whole = f"{name.lower()}-{kind}"
    if whole in NAMES and by_name(whole).RECORD.split_by == kind:
        return whole
    records = (by_name(other).RECORD for other in NAMES)
    known = [r.name.removesuffix(f"-{kind}") for r in records if r.split_by == kind]
    raise InputError(
        f"--split-by {kind}: expected a data set whose files tell such groups "
        f"({', '.join(known) or 'none does'}), received {name}. Give a split of yours: "
        "--split FILE"
    )


def simulated(name: str) -> str:
    """Name of the data set that stands in for one: made, not taken."""
    record = by_name(name).RECORD
    if record.simulated:
        return record.name
    if record.name not in SIMULATED:
        raise InputError(
            f"phantom: expected a data set that has simulated images ("
            f"{', '.join(SIMULATED)}), received {name!r}. Take one of these, or give "
            "the data."
        )
    return SIMULATED[record.name]
