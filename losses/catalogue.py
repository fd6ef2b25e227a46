"""The losses by name: what each is called and which hyperparameters it takes.

Plain Python without Keras, so that a command line and tables can use it at once.

`gamma` always is the exponent of the ++ forms (Eq. 9; 1 in the plain forms, none in
losses without it). The exponent that a loss has of its own is `focal_gamma`.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from . import checks

__all__ = [
    "Entry",
    "canonical",
    "check_gamma",
    "default_gamma",
    "entry",
    "hyperparameters",
    "names",
    "slug",
]


@dataclass(frozen=True)
class Entry:
    """One loss.

    Attributes:
        name: as the paper prints it, such as "DSC++".
        slug: the name in file names, such as "dscpp".
        class_name: the class in `losses`.
        gamma: default of the ++ exponent; 1 in a plain form; None without one.
        plain: whether `gamma` is fixed at 1, because a ++ form exists beside it.
        hyperparameters: the others, with the values of the paper's Table 2.
    """

    name: str
    slug: str
    class_name: str
    gamma: float | None = None
    plain: bool = False
    hyperparameters: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({})
    )


def _pair(name: str, slug: str, class_name: str, **own: float) -> tuple[Entry, Entry]:
    """A loss of overlap in its plain form and in its ++ form."""
    values = MappingProxyType(own)
    return (
        Entry(name, slug, class_name, 1.0, plain=True, hyperparameters=values),
        Entry(
            f"{name}++",
            f"{slug}pp",
            f"{class_name}PlusPlus",
            gamma=2.0,
            hyperparameters=values,
        ),
    )


_UNIFIED = {"lambda_": 0.5, "delta": 0.6, "focal_gamma": 0.5}
_ENTRIES = (
    Entry("CE", "ce", "CrossEntropy"),
    Entry(
        "Focal",
        "focal",
        "Focal",
        hyperparameters=MappingProxyType({"alpha": 0.5, "focal_gamma": 2.0}),
    ),
    *_pair("DSC", "dsc", "Dice"),
    *_pair("Tversky", "tversky", "Tversky", alpha=0.3, beta=0.7),
    *_pair(
        "Focal Tversky",
        "focal_tversky",
        "FocalTversky",
        alpha=0.3,
        beta=0.7,
        focal_gamma=4 / 3,
    ),
    *_pair("Combo", "combo", "Combo", alpha=0.5, beta=0.5),
    *_pair("Unified Focal", "unified_focal", "UnifiedFocal", **_UNIFIED),
    *_pair(
        "Symmetric Unified Focal",
        "symmetric_unified_focal",
        "SymmetricUnifiedFocal",
        **_UNIFIED,
    ),
)
_BY_KEY = {entry.name.casefold(): entry for entry in _ENTRIES}
# Arguments of every class that are no hyperparameters of a loss.
_OPTIONS = (*checks.OPTIONS, "reduction", "dtype", "name")


def names() -> list[str]:
    """Names of the losses, as the paper prints them."""
    return [entry.name for entry in _ENTRIES]


def entry(name: str) -> Entry:
    """Look a loss up, in any case: "dsc++" is DSC++.

    Raises:
        ValueError: no such loss; the message lists them and names the nearest.
    """
    found = _BY_KEY.get(name.casefold()) if isinstance(name, str) else None
    if found is None:
        raise ValueError(
            f"loss: expected one of {', '.join(names())}, received {name!r}"
            f"{_suggestion(str(name))}"
        )
    return found


def canonical(name: str) -> str:
    """The name as the paper prints it, from a name in any case."""
    return entry(name).name


def slug(name: str) -> str:
    """The name in file names: "DSC++" gives "dscpp"."""
    return entry(name).slug


def default_gamma(name: str) -> float | None:
    """Default of the ++ exponent: 2 in a ++ form, 1 in a plain form, else None."""
    return entry(name).gamma


def check_gamma(name: str, gamma: float | None = None) -> float | None:
    """The ++ exponent to use; None where the loss has none.

    Args:
        name: a loss, any case.
        gamma: the exponent asked for, above 0; None for the loss's default.

    Raises:
        ValueError: `gamma` is not above 0, the loss has no such exponent, or it is a
            plain form and `gamma` is not 1.
    """
    found = entry(name)
    if gamma is None:
        return found.gamma
    if found.gamma is None:
        raise ValueError(
            f"gamma: {found.name} has no ++ exponent, received {gamma!r}"
            f"{_own_exponent(found) or '. Leave gamma out'}"
        )
    gamma = checks.positive("gamma", gamma)
    if found.plain and gamma != 1:
        raise ValueError(
            f"gamma: {found.name} is the plain form, expected 1, received {gamma:g}. "
            f"For another exponent take {found.name}++{_own_exponent(found)}"
        )
    return gamma


def hyperparameters(name: str, /, **given: Any) -> dict[str, Any]:
    """Arguments for the class of a loss: the defaults, and over them what is given.

    Args:
        name: a loss, any case.
        **given: `gamma`, the hyperparameters of the loss, `epsilon` of the overlap
            losses, and of every loss `axis`, `ignore_background`, `from_logits`,
            `from_indices`, `reduction`, `dtype`, `name`.

    Raises:
        ValueError: an argument that the loss does not take, or a bad `gamma`. The
            other values are checked by the class.
    """
    found = entry(name)
    gamma = check_gamma(name, given.pop("gamma", None))
    values: dict[str, Any] = dict(found.hyperparameters)
    if gamma is not None:
        values["epsilon"] = 1e-7
        if not found.plain:
            values["gamma"] = gamma
    unknown = [key for key in given if key not in (*values, *_OPTIONS)]
    if unknown:
        raise ValueError(
            f"{found.name}: expected hyperparameters among "
            f"{', '.join((*sorted(values), *_OPTIONS))}, received {', '.join(unknown)}"
        )
    return values | given


def _own_exponent(found: Entry) -> str:
    own = "focal_gamma" in found.hyperparameters
    return ". Its own exponent is focal_gamma" if own else ""


def _suggestion(name: str) -> str:
    keys = {entry.slug: entry.name for entry in _ENTRIES}
    keys |= {entry.name.casefold(): entry.name for entry in _ENTRIES}
    near = difflib.get_close_matches(name.casefold(), keys, n=1)
    return f". Did you mean {keys[near[0]]}?" if near else ""
