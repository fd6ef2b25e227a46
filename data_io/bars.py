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

__all__ = ["Lines", "bar", "duration", "note", "quiet", "quiet_if"]

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

    Args:
        items: to go through; None where `update` is called.
        desc: what is done.
        **options: as tqdm takes them.
    """
    options = {"unit": "step", "dynamic_ncols": True, **options}
    options["disable"] = quiet() or options.get("disable", False)
    kind = tqdm if sys.stderr.isatty() else Lines
    return kind(items, desc, **options)


class Lines:
    """What tqdm is to a terminal, for a file: nothing at all within the first minute.

    Args:
        items: to go through; None where `update` is called.
        desc: begins each line.
        total: of steps; None for the number of items.
        unit: of a step.
        unit_scale: whether numbers are shown with k, M and G.
        initial: steps that were done before.
        disable: whether nothing is written.
        **_: what else tqdm takes.
    """

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        desc: str = "",
        total: float | None = None,
        unit: str = "step",
        unit_scale: bool = False,
        initial: float = 0,
        disable: bool | None = False,
        **_: Any,
    ) -> None:
        self._items: Any = () if items is None else items
        self._desc = desc
        known = getattr(items, "__len__", None)
        self._total = known() if known else total
        self._unit = unit
        self._scaled = unit_scale
        self._disabled = bool(disable)
        self._initial = self.n = initial
        self._start = self._said = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            yield item
            self.update()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        if not self._disabled:
            print(f"{self._desc}: {text}", file=sys.stderr, flush=True)
        self._said = time.monotonic()

    def close(self) -> None:
        """Nothing is left to be written."""

    def _progress(self) -> str:
        if not self._total:
            return f"{self._shown(self.n)} so far"
        pace = (time.monotonic() - self._start) / max(self.n - self._initial, 1)
        left = duration(pace * max(self._total - self.n, 0) / 3600)
        done = self._shown(self.n) if self._scaled else f"{self.n:g}"
        return f"{done} of {self._shown(self._total)}, about {left} left"

    def _shown(self, number: float) -> str:
        if self._scaled:
            return tqdm.format_sizeof(number, self._unit)
        return f"{number:g} {self._unit}" + "s" * (number != 1)


def duration(hours: float) -> str:
    """Hours in words, such as "2.5 h", "45 min" or "9.0 s"."""
    if hours >= 1:
        return f"{hours:.1f} h" if hours < 100 else f"{hours:.0f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 30 else f"{hours * 3600:.1f} s"
