"""Ours against a peer, and the rows that say so: shared by all benchmarks."""

from __future__ import annotations

import csv
import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from pipelines import provenance

__all__ = [
    "RESULTS", "Row", "Series", "alternate", "compare", "describe", "packages", "read",
    "write",
]  # fmt: skip

RESULTS = Path(__file__).with_name("results.csv")
Series = tuple[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One comparison; a line of `results.csv`.

    Attributes:
        part: which benchmark it belongs to, such as "step".
        what: what of ours was measured.
        backend: Keras backend; empty where none is used.
        shape: shape of its input, such as "1x256x256x2".
        unit: of the next columns: "ms", "s", "1/s" or "MB" (1e6 bytes).
        ours, ours_mean: median and mean of the draws.
        peer: what it is compared with; empty where nothing is.
        peer_median, peer_mean: of that.
        ratio: ours over the peer's; ours itself, in `unit`, where there is no peer.
        by: what the ratio is made of, "median" or "mean".
        target: the largest ratio wanted; empty for none.
        met: "yes", "no", or empty without a target.
        n: draws of each, taken in turn.
        spread: interquartile range of the ratio, draw by draw.
        device: what it ran on.
        machine: system, processor architecture, cores, processor.
        versions: of the packages that were measured.
    """

    part: str
    what: str
    backend: str
    shape: str
    unit: str
    ours: str
    ours_mean: str
    peer: str
    peer_median: str
    peer_mean: str
    ratio: str
    by: str
    target: str
    met: str
    n: int
    spread: str
    device: str
    machine: str
    versions: str

    def key(self) -> tuple[str, ...]:
        """What a newer row replaces: the same on another device stands beside it."""
        device = "" if self.device == "CPU" else self.device
        return self.part, device, self.backend, self.peer, self.shape, self.what


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


_FACTORS = {"ms": 1000.0, "s": 1.0, "1/s": 1.0, "MB": 1.0}


def compare(
    part: str,
    what: str,
    shape: Sequence[int],
    ours: np.ndarray,
    peer: Series | None,
    packages: Sequence[str],
    target: float | None = None,
    by: str = "median",
    unit: str = "ms",
    backend: str | None = None,
) -> Row:
    """Make the row of two things measured in turn.

    Args:
        part: see `Row`, as for `what`, `shape`, `target`, `by` and `unit`.
        what: see `part`.
        shape: of the input.
        ours: seconds, or 1/s or MB for that unit, (draws,).
        peer: name and the same, (draws,), of the other; None for nothing.
        packages: installed packages whose versions belong to the row.
        target: see `part`; without a peer in `unit`.
        by: "mean" where the draws are of several kinds, each with a time of its own.
        unit: see `part`.
        backend: "" where none was used; None: that of this process.
    """
    factor = _FACTORS[unit]
    name, theirs = peer or ("", np.full(len(ours), 1 / factor))
    typical = np.mean if by == "mean" else np.median
    ratio = float(typical(ours) / typical(theirs))
    low, high = np.percentile(ours / theirs, [25, 75])
    used = provenance.backend() if backend is None else backend
    versions = (f"{name} {importlib.metadata.version(name)}" for name in packages)
    return Row(
        part=part,
        what=what,
        backend=used,
        shape="x".join(str(side) for side in shape),
        unit=unit,
        ours=f"{np.median(ours) * factor:.4g}",
        ours_mean=f"{np.mean(ours) * factor:.4g}",
        peer=name,
        peer_median=f"{np.median(theirs) * factor:.4g}" if peer else "",
        peer_mean=f"{np.mean(theirs) * factor:.4g}" if peer else "",
        ratio=f"{ratio:.3g}",
        by=by,
        target="" if target is None else f"{target:.3g}",
        met="" if target is None else ("yes" if ratio <= target else "no"),
        n=len(ours),
        spread=f"{high - low:.2g}",
        device=provenance.device() if used else "CPU",
        machine=provenance.machine(),
        versions="; ".join(versions),
    )


def packages() -> tuple[str, ...]:
    """Keras and what it runs on, as they are installed."""
    names = {"tensorflow": ("tensorflow-cpu", "tensorflow")}
    used = provenance.backend()
    installed = {
        str(found.metadata["Name"]).lower().replace("_", "-")
        for found in importlib.metadata.distributions()
    }
    return ("keras", next(n for n in names.get(used, (used,)) if n in installed))


def describe(row: Row) -> str:
    """One line to print."""
    ours, theirs = (
        (row.ours, row.peer_median)
        if row.by == "median"
        else (row.ours_mean, row.peer_mean)
    )
    beside = f" / {theirs} {row.unit} of {row.peer}" if row.peer else ""
    verdict = f", at most {row.target} wanted: {row.met}" if row.target else ""
    return (
        f"{row.part}: {row.what}, {row.backend or 'no backend'}, {row.shape}: "
        f"{ours} {row.unit}{beside} = {row.ratio}{verdict}"
    )


def write(rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Write rows to a CSV file, sorted, in the place of older ones of the same key."""
    kept = {row.key(): row for row in read(path)} if path.exists() else {}
    kept.update({row.key(): row for row in rows})
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [field.name for field in fields(Row)]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(kept[key]) for key in sorted(kept))


def read(path: Path = RESULTS) -> list[Row]:
    """Read the rows that `write` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [Row(**{**row, "n": int(row["n"])}) for row in rows]  # type: ignore[arg-type]
