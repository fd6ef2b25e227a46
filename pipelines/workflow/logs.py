"""What the log of a run says of how it ended."""

import re
import shutil
from pathlib import Path

from data_io.errors import escaped

MESSAGE = "dscpp: "  # how the command line begins what it says of an error
TRACEBACK = "Traceback (most recent call last):"
# Of a training "dsc-s0: epoch 3 of at most 20, ..., at most about 9 min left"; else, as
# tqdm writes them, "dsc-s0:  25%|##5   | 5/20 [00:01<00:03, 4.1step/s]" and without a
# total "scale: 3case [1:01:40, 2.05case/s]". In older logs some end in "so far".
BAR = re.compile(r" about [\d.]+ \w+ left$|\w so far$|\d%\||\d\w* \[\d+:\d\d")
MOST = 40  # lines of a message
LITTLE = 2**20  # bytes free, of a disk on which a log may have lost its end


def size(log: Path) -> int:
    """Return the bytes of a log; 0 if there is none."""
    return log.stat().st_size if log.is_file() else 0


def reason(log: Path, start: int = 0) -> str:
    """Return why a run ended, from its log.

    `start` is how many bytes of the log were there before this attempt.

    Returns:
        The last message of the command line with all its lines; after a traceback, what
        was raised; else the last line that is no progress bar. "" where nothing was
        written.
    """
    if size(log) <= start:
        return ""
    lines = [line for line in _lines(log, start) if not BAR.search(line)]
    begins = [n for n, line in enumerate(lines) if line.startswith(MESSAGE)]
    begins += [n for n, line in enumerate(lines) if line.startswith(TRACEBACK)]
    last = max(begins, default=len(lines) - 1)
    raised = [n for n in range(last + 1, len(lines)) if not lines[n].startswith(" ")]
    if begins and raised and lines[last].startswith(TRACEBACK):
        last = raised[0]
    if begins:
        return "\n".join(lines[last:][:MOST])
    full = shutil.disk_usage(log.parent).free < LITTLE
    silent = "it ended without a message" + ", and this disk is full" * full
    return lines[-1] if lines and not full else silent


def _lines(log: Path, start: int = 0) -> list[str]:
    """Return the lines that are not blank; of a redrawn one, its last content."""
    text = log.read_bytes()[start:].decode("utf-8", errors="backslashreplace")
    lines = [line.rstrip().split("\r")[-1] for line in text.split("\n")]
    return [escaped(line) for line in lines if line.strip()]
