"""The data sets, one module each.

Every module offers the same doors: `RECORD`, `record`, `locate`, `roles`, `files`,
`references`, `regions`, `interface`, `check` and `remarks`; and `split` where the split
is fixed, else `cases` (see `data_io.splits`).
"""

from importlib import import_module
from types import ModuleType

from data_io.errors import InputError

__all__ = ["by_name", "names"]

NAMES = ("drive", "dsb2018", "phantom")


def names() -> list[str]:
    """Names of the data sets, as `--dataset` takes them."""
    return list(NAMES)


def by_name(name: str) -> ModuleType:
    """Returns the module of a data set.

    Args:
        name: one of `names()`, in any case.

    Raises:
        InputError: no data set has this name.
    """
    if name.lower() not in NAMES:
        known = ", ".join(NAMES)
        raise InputError(
            f"--dataset {name}: expected one of {known}, received {name!r}. "
            "Name one of these."
        )
    return import_module(f"{__name__}.{name.lower()}")
