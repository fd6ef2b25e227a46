"""What the log of a run says of how it ended."""

from __future__ import annotations

import textwrap
from pathlib import Path

__all__ = ["indented", "reason", "size", "tail"]

MESSAGE = "dscpp: "  # how the command line begins what it says of an error
TRACEBACK = "Traceback (most recent call last):"
MOST = 20  # lines of a message


def size(log: Path) -> int:
    """Bytes of a log; 0 where there is none."""
    return log.stat().st_size if log.is_file() else 0


def reason(log: Path, start: int = 0) -> str:
    """Why a run ended, from its log.

    Args:
        log: of a run's commands, appended to at each attempt.
        start: bytes of it that were there before this attempt.

    Returns:
        The last message of the command line with all its lines; after a traceback, what
        was raised; else the last line. "" where nothing was written.
    """
    if size(log) <= start:
        return ""
    lines = _lines(log.read_bytes()[start:])
    messages = [n for n, line in enumerate(lines) if line.startswith(MESSAGE)]
    tracebacks = [n for n, line in enumerate(lines) if line == TRACEBACK]
    last = max(messages + tracebacks, default=len(lines) - 1)
    if last in tracebacks:
        # What was raised is not indented, as the lines of the traceback are.
        ends = [n for n in range(last + 1, len(lines)) if not lines[n].startswith(" ")]
        last = min(ends, default=len(lines) - 1)
    return "\n".join(lines[last:][:MOST]) if lines else "it said nothing"


def tail(log: Path, most: int = MOST) -> str:
    """The last lines of a log."""
    return "\n".join(_lines(log.read_bytes())[-most:])


def indented(text: str) -> str:
    """A text as part of a list."""
    return textwrap.indent(text, "  ")


def _lines(content: bytes) -> list[str]:
    """Lines with something in them; of a progress bar, which redraws one, the last."""
    text = content.decode("utf-8", errors="backslashreplace")
    lines = [line.rstrip().split("\r")[-1] for line in text.split("\n")]
    return [line for line in lines if line.strip()]
