"""The list of what was written into a folder, by which it is known again.

`dscpp.sha256` has the lines of `sha256sum`: `sha256sum --check dscpp.sha256` reads it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_io.content import file_hash
from data_io.errors import InputError
from pipelines import run as runs

__all__ = ["LIST", "known", "seal"]

LIST = "dscpp.sha256"


def known(folder: Path) -> dict[str, list[str]]:
    """SHA-256 of the files that were written into a folder, by their names.

    A name has several, oldest first, where a command was stopped: its file is one of
    them.

    Returns:
        {} where there is no list.

    Raises:
        InputError: the list cannot be read.
    """
    path = Path(folder) / LIST
    found = defaultdict(list)
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(
            f"{path}: expected a list of SHA-256, found a file that cannot be read "
            f"({error.strerror}); mend its rights or delete it"
        ) from error
    for line in text.split("\n"):
        sha256, _, name = line.partition("  ")
        if len(sha256) == 64 and name:
            found[name].append(sha256)
    return dict(found)


def seal(folder: Path, names: Iterable[str]) -> Path:
    """Write the list of files of a folder, and of no others.

    Args:
        folder: that holds them.
        names: of the files, all of which are there.

    Returns:
        The list.
    """
    return _write(folder, {name: [file_hash(folder / name)] for name in names})


def _write(folder: Path, hashes: Mapping[str, Iterable[str]]) -> Path:
    lines = [f"{sha256}  {name}\n" for name, all_ in hashes.items() for sha256 in all_]
    content = "".join(lines).encode("utf-8", "surrogateescape")
    return runs.write_atomically(folder / LIST, lambda path: path.write_bytes(content))
