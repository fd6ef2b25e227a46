"""Time one thing against another, and keep the rows: shared by all benchmarks."""

from __future__ import annotations

import csv
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import provenance

__all__ = ["Row", "alternate", "compare", "describe", "write"]


@dataclass(frozen=True)
class Row:
    """One comparison; a line of a benchmark's CSV file.

    Attributes:
        what: what of ours was timed.
        backend: Keras backend.
        shape: shape of its input, such as "1x256x256x2".
        ours_ms: median time, in milliseconds.
        peer: what it is compared with.
        peer_ms: median time of that, in milliseconds.
        ratio: `ours_ms` over `peer_ms`.
        target: the largest ratio wanted; empty for none.
        met: "yes", "no", or empty without a target.
        n: draws of each, taken in turn.
        spread: interquartile range of the ratio, draw by draw.
        machine: system, processor architecture, cores.
        versions: of what was timed.
    """

    what: str
    backend: str
    shape: str
    ours_ms: str
    peer: str
    peer_ms: str
    ratio: str
    target: str
    met: str
    n: int
    spread: str
    machine: str
    versions: str

    def key(self) -> tuple[str, ...]:
        """What a newer row replaces."""
        return self.backend, self.peer, self.shape, self.what


def alternate(
    functions: Mapping[str, Callable[[], object]], draws: int, warm_up: int = 2
) -> dict[str, np.ndarray]:
    """Call all functions in turn, so that a busy moment hits each of them.

    Args:
        functions: what to time; each returns when its work is done.
        draws: timed calls of each.
        warm_up: calls before, which compile and fill caches.

    Returns:
        Seconds of each call, (draws,), by name.
    """
    seconds = {name: np.zeros(draws) for name in functions}
    for draw in range(-warm_up, draws):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if draw >= 0:
                seconds[name][draw] = time.perf_counter() - start
    return seconds


def compare(
    what: str,
    shape: Sequence[int],
    ours: np.ndarray,
    peer: tuple[str, np.ndarray],
    packages: Sequence[str],
    target: float | None = None,
) -> Row:
    """Make the row of two things timed in turn.

    Args:
        what: see `Row`, as for `shape` and `target`.
        shape: of the input.
        ours: seconds, (draws,).
        peer: name and seconds, (draws,), of the other.
        packages: modules whose versions belong to the row.
        target: the largest ratio wanted.
    """
    name, theirs = peer
    ratio = np.median(ours) / np.median(theirs)
    low, high = np.percentile(ours / theirs, [25, 75])
    modules = {name: importlib.import_module(name) for name in packages}
    versions = (f"{name} {module.__version__}" for name, module in modules.items())
    return Row(
        what=what,
        backend=provenance.backend(),
        shape="x".join(str(side) for side in shape),
        ours_ms=f"{np.median(ours) * 1000:.4g}",
        peer=name,
        peer_ms=f"{np.median(theirs) * 1000:.4g}",
        ratio=f"{ratio:.3g}",
        target="" if target is None else str(target),
        met="" if target is None else ("yes" if ratio <= target else "no"),
        n=len(ours),
        spread=f"{high - low:.2g}",
        machine=provenance.machine(),
        versions="; ".join(versions),
    )


def describe(row: Row) -> str:
    """One line to print."""
    return (
        f"{row.what:40} {row.backend:10} {row.shape:15} {row.ours_ms:>7} ms / "
        f"{row.peer_ms:>6} ms = {row.ratio} {row.met and f'(target met: {row.met})'}"
    )


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a CSV file, sorted, in the place of older ones of the same key."""
    kept = {row.key(): row for row in _read(path)} if path.exists() else {}
    kept.update({row.key(): row for row in rows})
    with path.open("w", newline="") as file:
        names = [field.name for field in fields(Row)]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(kept[key]) for key in sorted(kept))


def _read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return [Row(**{**row, "n": int(row["n"])}) for row in rows]
