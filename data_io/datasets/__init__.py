"""The data sets, one module each.

Every module offers the same doors: `RECORD`, `record`, `locate`, `roles`, `files`,
`references`, `regions`, `interface`, `check` and `remarks`; and `split` where the split
is fixed, else `cases` (see `data_io.splits`). Modules of volumes also have `geometry`.
"""

from importlib import import_module
from types import ModuleType

from data_io.errors import InputError

__all__ = ["by_name", "names", "simulated"]

NAMES = (
    "drive", "bus2017", "dsb2018", "isic2018", "cvc-clinicdb", "cvc-clinicdb-sequence",
    "kits19", "kits19-simulated", "phantom",
)  # fmt: skip


def names() -> list[str]:
    """Names of the data sets, as `--dataset` takes them."""
    return list(NAMES)


def by_name(name: str) -> ModuleType:
    """Returns the module of a data set.

    Args:
        name: one of `names()`, in any case; or `own`, `own-...`: a user's own images.

    Raises:
        InputError: no data set has this name.
    """
    if name.lower().partition("-")[0] == "own":
        return import_module(f"{__name__}.folder")
    if name.lower() not in NAMES:
        known = ", ".join(NAMES)
        raise InputError(
            f"--dataset {name}: expected one of {known}, received {name!r}. "
            "Name one of these, or give your own: --images FOLDER --masks FOLDER."
        )
    return import_module(f"{__name__}.{name.lower().replace('-', '_')}")


def simulated(name: str) -> str:
    """Name of the data set that stands in for one: made, not taken."""
    volumes = by_name(name).RECORD.is_3d
    return "kits19-simulated" if volumes else "phantom"
