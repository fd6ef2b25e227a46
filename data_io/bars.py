"""How far long work has come: a bar on a terminal, elsewhere a plain line a minute.

Also notes, which `dscpp --quiet` leaves out together with the bars.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

_PAUSE = 60.0  # seconds between two lines
_QUIET = "DSCPP_QUIET"  # in the environment, so that it holds for child processes too


def quiet() -> bool:
    """Whether errors and results alone are wanted."""
    return bool(os.environ.get(_QUIET))


@contextlib.contextmanager
def quiet_if(wanted: bool) -> Iterator[None]:
    """Leave out bars and notes, where that is wanted, also those of child processes."""
    if quiet() or not wanted:
        yield
        return
    os.environ[_QUIET] = "1"
    try:
        yield
    finally:
        del os.environ[_QUIET]


def note(text: str, stream: Any = None, end: str = "\n") -> None:
    """Print what is neither an error nor a result; nothing where that is not wanted."""
    if not quiet():
        print(text, file=stream or sys.stdout, end=end, flush=True)


def bar(items: Iterable[Any] | None = None, desc: str = "", **options: Any) -> Any:
    """A bar as tqdm has it where standard error is a terminal, else `Lines`.

    `options` are as tqdm takes them; without `items`, `update` is called.
    """
    options = {"unit": "step", "dynamic_ncols": True, **options}
    options["disable"] = quiet() or options.get("disable", False)
    kind = tqdm if sys.stderr.isatty() else Lines
    return kind(items, desc, **options)


class Lines(tqdm):
    """What tqdm is to a terminal, for a file: its text as a line, once a minute.

    It takes what tqdm takes. Nothing at all is written within the first minute.
    """

    disable: bool

    def __init__(self, items: Iterable[Any] | None, desc: str, **options: Any) -> None:
        once = {"mininterval": _PAUSE, "miniters": 1, "delay": _PAUSE, "ascii": True}
        super().__init__(items, desc, **{**options, **once})
        self.sp = None  # with nothing to clear, closing writes nothing

    @property
    def due(self) -> bool:
        """Whether the last line is a minute old."""
        return not self.disable and self._time() - self.last_print_t >= _PAUSE

    def say(self, text: str) -> None:
        """Write a line of one's own."""
        if not self.disable:
            print(f"{self.desc}: {text}", file=sys.stderr, flush=True)
            self.last_print_t = self._time()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write what tqdm would show."""
        print(str(self), file=sys.stderr, flush=True)


def duration(hours: float) -> str:
    """Hours in words, such as "2.5 h", "45 min" or "9.0 s"."""
    if hours >= 1:
        return f"{hours:.1f} h" if hours < 100 else f"{hours:.0f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 30 else f"{hours * 3600:.1f} s"
