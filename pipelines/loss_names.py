"""The study's losses by name, for the command line, run folders and tables.

Importing `losses` imports Keras, which takes seconds; its `titles` are plain Python.
"""

import importlib.machinery
import math
from pathlib import Path
from types import ModuleType

from data_io.errors import InputError

_TITLES = ModuleType("losses.titles")
importlib.machinery.SourceFileLoader(
    _TITLES.__name__, str(Path(__file__).parents[1] / "losses" / "titles.py")
).exec_module(_TITLES)

NAMES: tuple[str, ...] = _TITLES.NAMES
"""All losses, by the names that are printed."""

BEYOND: tuple[str, ...] = _TITLES.BEYOND
"""Those that are not of the paper's family."""


def slug(name: str) -> str:
    """Return the name in file names: "dscpp" for "DSC++"."""
    return str(_TITLES.slug(checked(name)[0]))


def checked(name: str, gamma: float | None = None) -> tuple[str, float | None]:
    """Return a loss as the paper prints it, and its ++ exponent or None.

    Args:
        name: a loss, any case.
        gamma: the exponent asked for, above 0; None for the loss's default.

    Raises:
        InputError: no such loss; `gamma` is not above 0, the loss has no such exponent,
            or it is a plain form and `gamma` is not 1.
    """
    try:
        title: str = _TITLES.find(name)
    except ValueError as error:
        raise InputError(str(error)) from error
    default: float | None = _TITLES.default_gamma(title)
    if gamma is None:
        return title, default
    hint = ". Its own exponent is focal_gamma" if "Focal" in title else ""
    if default is None:
        raise InputError(
            f"gamma: expected none, since {title} has no ++ exponent, received "
            f"{gamma!r}{hint or '. Leave gamma out'}"
        )
    number = isinstance(gamma, int | float) and not isinstance(gamma, bool)
    if not (number and math.isfinite(gamma) and gamma > 0):
        raise InputError(f"gamma: expected a number above 0, received {gamma!r}")
    if default == 1 and gamma != 1:
        raise InputError(
            f"gamma: {title} is the plain form, expected 1, received {gamma:g}. "
            f"For another exponent take {title}++{hint}"
        )
    return title, float(gamma)
