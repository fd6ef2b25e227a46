"""How far long work has come: a bar on a terminal, elsewhere a plain line a minute.

Also notes, which `dscpp --quiet` leaves out together with the bars.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
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
    """What tqdm is to a terminal, for a file: nothing at all within the first minute.

    It takes what tqdm takes, and counts in its place.
    """

    def __init__(
        self,
        items: Iterable[Any] | None,
        desc: str,
        *,
        unit: str,
        disable: bool,
        unit_scale: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(items, desc, disable=True, **options)
        self._desc, self._unit, self._scaled = desc, unit, unit_scale
        self._silent, self._initial = disable, self.n
        self._start = self._said = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        for item in self.iterable:
            yield item
            self.update()

    def update(self, n: float = 1) -> None:
        """Count steps, and say so once a minute."""
        self.n += n
        if self.due:
            self.say(self._progress())

    @property
    def due(self) -> bool:
        """Whether the last line is a minute old."""
        return time.monotonic() - self._said >= _PAUSE

    def say(self, text: str) -> None:
        """Write a line."""
        if not self._silent:
            print(f"{self._desc}: {text}", file=sys.stderr, flush=True)
        self._said = time.monotonic()

    def _progress(self) -> str:
        if not self.total:
            return f"{self._shown(self.n)} so far"
        pace = (time.monotonic() - self._start) / max(self.n - self._initial, 1)
        left = duration(pace * max(self.total - self.n, 0) / 3600)
        done = self._shown(self.n) if self._scaled else f"{self.n:g}"
        return f"{done} of {self._shown(self.total)}, about {left} left"

    def _shown(self, number: float) -> str:
        if self._scaled:
            return tqdm.format_sizeof(number, self._unit)
        return f"{number:g} {self._unit}" + "s" * (number != 1)


def duration(hours: float) -> str:
    """Hours in words, such as "2.5 h", "45 min" or "9.0 s"."""
    if hours >= 1:
        return f"{hours:.1f} h" if hours < 100 else f"{hours:.0f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 30 else f"{hours * 3600:.1f} s"
