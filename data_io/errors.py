"""Exceptions for errors that the user can fix."""

import sys
import unicodedata
from collections.abc import Sequence


class InputError(ValueError):
    """Bad input: a file, a folder, an argument, a run.

    The message says which, what was expected, what was found and what to do. The
    command line prints it without a traceback and ends with exit code 2.
    """


class Problems(InputError):
    """Several problems in one message: a title, then a line for each.

    Args:
        title: what was checked.
        problems: one line each.
    """

    def __init__(self, title: str, problems: Sequence[str]) -> None:
        self.title = title
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + "s" * (len(self.problems) > 1)
        lines = [f"  {number}. {text}" for number, text in enumerate(problems, 1)]
        super().__init__("\n".join([f"{title}: {count}.", *lines]))

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        """Make the exception picklable, to pass it from another process."""
        return type(self), (self.title, self.problems)


class NotFinite(RuntimeError):
    """The loss of a training became NaN or infinite; the message names the case."""


def is_text(name: str) -> bool:
    """Return whether a name is valid text; a file's name may be any bytes."""
    return not any(unicodedata.category(letter) == "Cs" for letter in name)


def not_text(name: str) -> str:
    """Return the message for a name that `is_text` refuses."""
    encoding = sys.getfilesystemencoding()
    remedy = "Rename it"
    if encoding != "utf-8":
        remedy = f"This terminal's settings take names for {encoding}: set PYTHONUTF8=1"
    return f"{escaped(name)}: expected a name in UTF-8, found other bytes. {remedy}."


def escaped(text: str) -> str:
    """Escape a text so that names in it cannot control a terminal.

    Args:
        text: may have control characters, such as those that move the cursor or change
            colours, and bytes that are no UTF-8, as Python has them in names of files.

    Returns:
        The text, with a backslash and a number for each of these. Newlines and tabs
        stay.
    """
    return "".join(_escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs"):
        return letter
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # a byte, as `os.fsdecode` hides it
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
