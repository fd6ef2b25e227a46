# SPDX-License-Identifier: Apache-2.0
"""The losses' names in plain Python, which a command can have without Keras."""

import difflib

__all__ = ["BEYOND", "FAMILY", "NAMES", "default_gamma", "find", "slug"]

_PLAIN = (
    "DSC",
    "Tversky",
    "Focal Tversky",
    "Combo",
    "Unified Focal",
    "Symmetric Unified Focal",
)
FAMILY = ("CE", "Focal", *(name + plus for name in _PLAIN for plus in ("", "++")))
"""Names as the paper prints them: two cross entropies, six pairs of plain and ++."""

BEYOND = ("Hard L1-ACE", "Soft L1-ACE", "NACL")
"""Losses of others, for comparison: not of the paper, and in none of its tables."""

NAMES = FAMILY + BEYOND
"""All losses."""


def find(name: str) -> str:
    """The name as it is printed, from a name in any case: "dsc++" is "DSC++".

    Raises:
        ValueError: no such loss; the message lists them and names the nearest.
    """
    names = {each.casefold(): each for each in NAMES}
    title = names.get(name.casefold()) if isinstance(name, str) else None
    if title is None:
        names |= {slug(each): each for each in NAMES}
        near = difflib.get_close_matches(str(name).casefold(), names, n=1)
        hint = f". Did you mean {names[near[0]]}?" if near else ""
        raise ValueError(
            f"loss: expected one of {', '.join(NAMES)}, received {name!r}{hint}"
        )
    return title


def slug(title: str) -> str:
    """A name in logs and file names: "DSC++" gives "dscpp"."""
    return title.casefold().replace(" ", "_").replace("+", "p").replace("-", "")


def default_gamma(title: str) -> float | None:
    """Default of the ++ exponent: 2 in a ++ form, 1 in a plain form, else None."""
    if title.endswith("++"):
        return 2.0
    return 1.0 if title in _PLAIN else None
