"""Time ours against a peer, and write the rows: shared by all benchmarks."""

import argparse
import csv
import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from pipelines.environment import provenance
from pipelines.runs.run import write_csv

RESULTS = Path(__file__).with_name("results.csv")
Series = tuple[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One comparison: a line of `results.csv`, whose columns README.md explains."""

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

    @property
    def key(self) -> tuple[str, ...]:
        """Return what identifies a row that a newer one replaces, device included."""
        device = "" if self.device == "CPU" else self.device
        return self.part, device, self.backend, self.peer, self.shape, self.what

    @property
    def values(self) -> tuple[str, str]:
        """Return our value and the peer's, from which the ratio is computed."""
        if self.by == "mean":
            return self.ours_mean, self.peer_mean
        return self.ours, self.peer_median


def alternate(
    functions: Mapping[str, Callable[[], object]],
    draws: int,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Call all functions in turn, so that a busy moment affects each of them.

    Args:
        functions: what to time; each returns when its work is done.
        draws: number of timed calls of each.
        warm_up: number of calls before, which compile and fill caches.
        clock: returns the time in seconds; `time.process_time` leaves out other
            processes, and adds up the threads.

    Returns:
        Seconds of each call, (draws,), by name.
    """
    seconds = {name: np.zeros(draws) for name in functions}
    for draw in range(-warm_up, draws):
        for name, function in functions.items():
            start = clock()
            function()
            if draw >= 0:
                seconds[name][draw] = clock() - start
    return seconds


def compare(
    part: str,
    what: str,
    shape: Sequence[int],
    ours: np.ndarray,
    peer: Series | None,
    packages: Sequence[str] | None = None,
    target: float | None = None,
    by: str = "median",
    unit: str = "ms",
    backend: str | None = None,
) -> Row:
    """Make the row of two things measured in turn.

    Args:
        part: see README.md, as for `what`, `shape`, `target`, `by` and `unit`.
        what: see `part`.
        shape: of the input.
        ours: seconds, or MB for that unit, (draws,).
        peer: name and the same, (draws,), of the other; None for nothing.
        packages: installed packages whose versions belong to the row; None: Keras and
            what it runs on.
        target: see `part`; without a peer in `unit`.
        by: "mean" where the draws are of several kinds, each with a time of its own.
        unit: see `part`.
        backend: "" where none was used; None: that of this process.
    """
    factor = 1000.0 if unit == "ms" else 1.0
    name, theirs = peer or ("", np.full(len(ours), 1 / factor))
    typical = np.mean if by == "mean" else np.median
    ratio = float(typical(ours) / typical(theirs))
    spread = np.subtract(*np.percentile(ours / theirs, [75, 25]))
    return Row(
        part=part,
        what=what,
        shape="x".join(map(str, shape)),
        unit=unit,
        ours=f"{np.median(ours) * factor:.4g}",
        ours_mean=f"{np.mean(ours) * factor:.4g}",
        peer=name,
        peer_median=f"{np.median(theirs) * factor:.4g}" if peer else "",
        peer_mean=f"{np.mean(theirs) * factor:.4g}" if peer else "",
        ratio=f"{ratio:.3g}",
        by=by,
        target="" if target is None else f"{target:.4g}",
        met="" if target is None else ("yes" if ratio <= target else "no"),
        n=len(ours),
        spread=f"{spread:.2g}",
        **_where(backend, packages),
    )


def _where(backend: str | None, names: Sequence[str] | None) -> dict[str, str]:
    """Return the machine and the versions that a row was measured on."""
    used = provenance.backend() if backend is None else backend
    names = packages() if names is None else names
    versions = (f"{name} {importlib.metadata.version(name)}" for name in names)
    return {
        "backend": used,
        "device": provenance.device() if used else "CPU",
        "machine": provenance.machine(),
        "versions": "; ".join(versions),
    }


def packages() -> tuple[str, ...]:
    """Return Keras and the packages of its backend, as installed."""
    backends = [name for name in provenance.versions() if name.startswith("tensorflow")]
    used = provenance.backend()
    return ("keras", backends[0] if used == "tensorflow" else used)


def describe(row: Row) -> str:
    """Return a row as one line to print."""
    ours, theirs = row.values
    beside = f" / {theirs} {row.unit} of {row.peer}" if row.peer else ""
    verdict = f", at most {row.target} wanted: {row.met}" if row.target else ""
    return (
        f"{row.part}: {row.what}, {row.backend or 'no backend'}, {row.shape}: "
        f"{ours} {row.unit}{beside} = {row.ratio}{verdict}"
    )


def parser(text: str | None, output: Path = RESULTS) -> argparse.ArgumentParser:
    """Return the arguments of every benchmark, with the first line of its docstring."""
    result = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    result.add_argument("--output", type=Path, default=output, metavar="CSV")
    return result


def record(rows: Sequence[Row], path: Path) -> None:
    """Print rows and write them."""
    for row in rows:
        print(describe(row), flush=True)
    write(rows, path)


def write(rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Write rows to a CSV file, sorted; they replace older rows of the same key."""
    by_key = {row.key: row for row in (*(read(path) if path.exists() else ()), *rows)}
    columns = [field.name for field in fields(Row)]
    write_csv(path, columns, (asdict(by_key[key]) for key in sorted(by_key)))


def read(path: Path = RESULTS) -> list[Row]:
    """Read the rows that `write` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [Row(**{**row, "n": int(row["n"])}) for row in rows]  # type: ignore[arg-type]
