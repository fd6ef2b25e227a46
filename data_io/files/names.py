"""Names that become file names, checked where they are read."""

import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

from data_io.errors import InputError

LONGEST = 200
"""Bytes of a name in UTF-8: with what is put around it, it fits in a file's 255."""

LIST = "dscpp.sha256"
"""What a command writes beside its files: SHA-256, see `pipelines.runs.written`."""


def plain(name: object, where: object, what: str = "name") -> str:
    """Refuse a name that is not a plain file name.

    Names in run folders, splits and descriptions are joined to a folder. They must not
    lead out of it, on any system.

    Args:
        name: the name, which is returned.
        where: the file or option that it was read from.
        what: what it names, such as "case".

    Raises:
        InputError: no text; empty; a separator of either kind, a drive, a leading dot,
            a control character; or longer than `LONGEST`.
    """
    fault = unfit(name)
    if fault or not isinstance(name, str):
        shown = ascii(name) if len(ascii(name)) <= 80 else f"{ascii(name)[:77]}..."
        raise InputError(
            f"{where}: expected a {what} that can be the name of a file, found {shown}:"
            f" {fault}. Correct it, or take this file from its author anew."
        )
    return name


def unfit(name: object) -> str:
    """Return why a name is not a plain file name; "" where it is one."""
    if not isinstance(name, str):
        return "it is no text"
    if not name:
        return "it is empty"
    if name != PurePosixPath(name).name or name != PureWindowsPath(name).name:
        return "it leads to another folder"
    if name.startswith("."):
        return "it begins with a dot"
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        return "it has a control character"
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        return f"it has more than {LONGEST} bytes"
    return ""


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet would treat a text as a formula (not a number)."""
    number = re.fullmatch(r"[+-]?[0-9]+\.?[0-9]*(e[+-]?[0-9]+)?", text)
    return text.startswith(("=", "+", "-", "@")) and number is None


def to_cell(text: str) -> str:
    """Return a text for a CSV file, with ' in front where it would be a formula.

    `from_cell` returns the original text, also one that had such a sign itself.
    """
    return f"'{text}" if is_formula(text.lstrip("'")) else text


def from_cell(text: str) -> str:
    """Return the text from which `to_cell` made a cell; leave others unchanged."""
    return text[1:] if text.startswith("'") and is_formula(text.lstrip("'")) else text
