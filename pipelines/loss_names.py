"""The study's losses by name, for the command line, run folders and tables.

Plain Python: importing `losses` imports Keras, which takes seconds. Hyperparameters are
not here; they are defaults of the functions in `losses`.
"""

import difflib
import math
from typing import Any

from data_io.errors import InputError

__all__ = ["NAMES", "canonical", "check_gamma", "default_gamma", "slug"]

_PAIRS = (
    "DSC",
    "Tversky",
    "Focal Tversky",
    "Combo",
    "Unified Focal",
    "Symmetric Unified Focal",
)
NAMES = ("CE", "Focal", *(f"{name}{plus}" for name in _PAIRS for plus in ("", "++")))
"""Names as the paper prints them: two cross entropies, six pairs of plain and ++."""


def canonical(name: str) -> str:
    """The name as the paper prints it, from a name in any case: "dsc++" is "DSC++".

    Raises:
        InputError: no such loss; the message lists them and names the nearest.
    """
    names = {each.casefold(): each for each in NAMES}
    found = names.get(name.casefold()) if isinstance(name, str) else None
    if found is None:
        names |= {slug(each): each for each in NAMES}
        near = difflib.get_close_matches(str(name).casefold(), names, n=1)
        hint = f". Did you mean {names[near[0]]}?" if near else ""
        raise InputError(
            f"loss: expected one of {', '.join(NAMES)}, received {name!r}{hint}"
        )
    return found


def slug(name: str) -> str:
    """The name in file names: "DSC++" gives "dscpp"."""
    return canonical(name).casefold().replace(" ", "_").replace("+", "p")


def default_gamma(name: str) -> float | None:
    """Default of the ++ exponent: 2 in a ++ form, 1 in a plain form, else None."""
    found = canonical(name)
    if found.endswith("++"):
        return 2.0
    return 1.0 if found in _PAIRS else None


def check_gamma(name: str, gamma: float | None = None) -> float | None:
    """The ++ exponent to use; None where the loss has none.

    Args:
        name: a loss, any case.
        gamma: the exponent asked for, above 0; None for the loss's default.

    Raises:
        InputError: `gamma` is not above 0, the loss has no such exponent, or it is a
            plain form and `gamma` is not 1.
    """
    found, default = canonical(name), default_gamma(name)
    if gamma is None:
        return default
    own = ". Its own exponent is focal_gamma" if "Focal" in found else ""
    if default is None:
        raise InputError(
            f"gamma: {found} has no ++ exponent, received {gamma!r}"
            f"{own or '. Leave gamma out'}"
        )
    if not _is_positive(gamma):
        raise InputError(f"gamma: expected a number above 0, received {gamma!r}")
    if default == 1 and gamma != 1:
        raise InputError(
            f"gamma: {found} is the plain form, expected 1, received {gamma:g}. "
            f"For another exponent take {found}++{own}"
        )
    return float(gamma)


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0
