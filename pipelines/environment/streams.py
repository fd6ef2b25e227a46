"""Standard output and error, whatever they are connected to."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = {"stdout": "standard output", "stderr": "standard error"}
_NOTHING = Path(os.devnull)


class _Named:
    """A stream whose errors say which stream it is, as those of a file do."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name
        self._failed: OSError | None = None

    def __getattr__(self, key: str) -> Any:
        return getattr(self._stream, key)

    def write(self, text: str) -> Any:
        with self._naming():
            return self._stream.write(text)

    def flush(self) -> None:
        if self._failed:  # which somebody may have kept silent about
            raise self._failed
        with self._naming():
            self._stream.flush()

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename, self._failed = self._name, error
            raise


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Make standard output and error safe to write to.

    An error of one of them is an `OSError` with the stream's name as `filename`. A
    letter that a terminal lacks is shown as its number. A stream that is closed is
    connected to nothing: the next file that is opened would take its number, and get
    what is written to the stream.
    """
    before = {name: getattr(sys, name) for name in _NAMES}
    for number, (name, long) in enumerate(_NAMES.items(), 1):
        stream = before[name] or _nothing(number)
        if isinstance(stream, io.TextIOWrapper):  # else a test's own
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, _Named(stream, long))
    try:
        yield
    finally:
        for name, stream in before.items():
            _drain(getattr(sys, name))
            setattr(sys, name, stream)


def _nothing(number: int) -> io.TextIOWrapper:
    """Return a stream to nowhere; point its file descriptor there too, if unused."""
    try:
        os.fstat(number)
    except OSError:
        with _NOTHING.open("r+b", buffering=0) as nothing:
            os.dup2(nothing.fileno(), number)
    return _NOTHING.open("w", encoding="utf-8")


def _drain(stream: Any) -> None:
    """Drop what a stream refuses: Python would try again at its exit."""
    try:
        stream.flush()
    except OSError:
        with _NOTHING.open("wb") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())


def say(message: str) -> None:
    """Write a command's message to standard error; nowhere, where that is full."""
    with contextlib.suppress(OSError):
        print(f"dscpp: {message}", file=sys.stderr, flush=True)
