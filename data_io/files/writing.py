"""Files written whole or not at all: beside their place, then renamed onto it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from data_io.errors import InputError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_ASIDE = ".dscpp-"  # begins the name of what is being written
MAKING = ".making-"
"""Begins the name of a folder that is being filled."""


def write_atomically(path: Path, writer: Callable[[Path], object]) -> Path:
    """Let `writer` write a file beside `path`, then rename it onto `path`.

    A process killed at any moment leaves the old file or the new one, never half.

    Args:
        path: the file to make or replace; its folder is made.
        writer: called with the path to write; it ends as `path` does.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_stream(path):
            with tempfile.TemporaryDirectory() as folder:
                aside = Path(folder, path.name)
                writer(aside)
                _send(aside.read_bytes(), path)
        else:
            target = Path(os.path.realpath(path))  # a link stays one
            with _aside(target) as aside:
                writer(aside)
                with aside.open("rb") as file:
                    os.fsync(file.fileno())
                aside.replace(target)
    return path


def is_stream(path: Path) -> bool:
    """Whether a path is what this process writes to, or another thing that is no file.

    Such as /dev/stdout, /dev/null or a named pipe: it is written to, not replaced.
    """
    if not path.exists() or path.is_dir():
        return False
    return not path.is_file() or _number_of(path) is not None


def _number_of(path: Path) -> int | None:
    """The descriptor of standard output or error, where the path is one of them."""
    state = path.stat()
    for number in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(state, os.fstat(number)):
                return number
    return None


def _send(content: bytes, path: Path) -> None:
    number = _number_of(path)
    sys.stdout.flush()  # what was said before comes first
    with path.open("wb") if number is None else open(number, "wb", closefd=False) as to:
        to.write(content)


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A new file beside `path`, with the rights of any new file, deleted at the end.

    It is locked for as long: `sweep` knows by that what a killed process left.
    """
    sweep(path.parent)
    aside = path.with_name(f"{_ASIDE}{uuid.uuid4().hex[:8]}-{path.name}")
    handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    if not _locked(handle):  # nobody can know; and Windows renames no open file
        os.close(handle)
        handle = -1
    try:
        yield aside
    finally:
        if handle >= 0:
            os.close(handle)
        aside.unlink(missing_ok=True)


def _locked(handle: int) -> bool:
    """Lock an open file where nobody else has; False too where locks do not exist."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """A folder to fill, which then becomes `target`: nobody ever sees half of it.

    Where another process put it there first, theirs is kept.
    """
    folder = target.with_name(f"{MAKING}{uuid.uuid4().hex}")
    folder.mkdir(parents=True)
    try:
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def sweep(folder: Path) -> None:
    """Delete what killed processes left half written; once in a process."""
    for left in folder.glob(f"{_ASIDE}????????-*"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            if _locked(file.fileno()):
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what the system has against writing `path` as something a user can mend.

    Raises:
        InputError: in place of an `OSError`: no right, no space, no such device.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: expected a place that can be written, found "
            f"{error.strerror or error}; free space, fix its permissions or choose "
            "another folder"
        ) from error


def write_json(
    path: Path, value: object, indent: int | None = 1, allow_nan: bool = False
) -> Path:
    """Write `value` as JSON, atomically; see `write_atomically`.

    Raises:
        ValueError: a number that is not finite, unless `allow_nan`.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=allow_nan)
    text += "\n"
    # What is no UTF-8 in the name of a file becomes JSON's own escape.
    as_utf8 = ("utf-8", "backslashreplace")
    return write_atomically(path, lambda aside: aside.write_text(text, *as_utf8))
