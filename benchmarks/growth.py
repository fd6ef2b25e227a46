"""Measure how cost grows with cases and with runs: processor time, peak memory.

Phantoms of 32 x 32 are drawn: 200, 2,000 and 20,000. Committed runs are copied to other
seeds: 10, 100 and 1,000. Each part runs once in a process of its own. Processor time
includes child processes and imports. Each row is written as soon as it is measured.
`python -m benchmarks.growth` writes `growth.csv` and `growth.png`; `--most 2000` leaves
the largest number out.
"""

import contextlib
import io
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import timing
from benchmarks.evaluation import alone
from data_io.datasets import phantom
from data_io.files import hashing
from pipelines import cli, stages
from pipelines.environment import provenance
from pipelines.reporting.figures import style
from pipelines.runs import predictions, written
from pipelines.runs import run as runs
from pipelines.runs.run import write_csv
from pipelines.training.task import Task

OUTPUT = Path(__file__).with_suffix(".csv")
COLUMNS = ("part", "of", "number", "seconds", "peak_mb", "machine")
CASES, RUNS = (200, 2_000, 20_000), (10, 100, 1_000)
SOURCE = Path(__file__).parents[1] / "results" / "drive" / "reduced" / "runs"


def simulate(folder: Path, number: int) -> None:
    """Draw phantoms, and a run that predicted their true probabilities.

    Args:
        folder: receives `data` and `run`.
        number: number of cases, a tenth of them for validation and four tenths for the
            test.
    """
    validation, test = number // 10, 4 * number // 10
    counts = phantom.Settings(number - validation - test, validation, test, size=32)
    data = phantom.generate(counts, folder / "data")
    split = {part: list(cases) for part, cases in phantom.vessels.split(data).items()}
    task, cases = _task(), [case for ids in split.values() for case in ids]
    hashes = hashing.case_hashes(
        phantom.vessels, data, cases, folder / "work" / "cache"
    )
    record = {"title": "phantom", "simulated": True, **task.identity(), "split": split}
    record |= {"classes": ["background", "vessel"], "preprocessing": {}, "files": {}}
    record |= {"data_hash": hashing.data_hash(hashes)}
    run = runs.Run.create(folder / "run", record)
    run.path(predictions.PROBABILITIES).mkdir()
    for _, case in predictions.cases(run):
        p = phantom.vessels.posterior(data, case)
        np.save(predictions.path(run, case), np.stack([1 - p, p], axis=-1))
    names = [f"{case}.npy" for _, case in predictions.cases(run)]
    written.seal(run.path(predictions.PROBABILITIES), names)
    run.update(files=[predictions.LIST], state="predicted")


def copies(folder: Path, number: int) -> None:
    """Copy committed runs on DRIVE to other seeds, into `folder`."""
    sources = [
        SOURCE / f"{loss}-s{seed}" for loss in ("dsc", "dscpp") for seed in (0, 1)
    ]
    shutil.copytree(SOURCE.parents[2] / "paper", folder / "paper")
    for index in range(number):
        source, seed = sources[index % len(sources)], index // len(sources)
        record = runs.Run.open(source).record | {"seed": 2 * seed + index % 2}
        target = folder / SOURCE.relative_to(SOURCE.parents[2])
        target /= f"{source.name.partition('-')[0]}-s{record['seed']}"
        shutil.copytree(source, target)
        runs.Run(target, record).update()


def _task() -> Task:
    return Task.make("phantom", "DSC", preset="demo")


# The words of `dscpp` in a folder that `simulate` or `copies` filled; "" is what a
# training does until its first epoch: verify, prepare all samples.
OF_CASES = {
    "verify": "verify --dataset phantom --data {0}/data --work {0}/fresh",
    "preparation": "",
    "start of a training": "",  # all of it is remembered, as after the first training
    "evaluation": "evaluate --run {0}/run --data {0}/data --work {0}/work",
    "tables": "tables {0}/run --output {0}/tables",
}
OF_RUNS = {"tables": "tables --results {0}"}


def measure(words: str, folder: Path) -> tuple[float, float]:
    """Run one part in this process; `words` as in `OF_CASES`.

    Returns:
        Processor seconds, children included; peak memory in MB, of this process or of
        the largest child.
    """
    task, begin = _task(), sum(os.times()[:4])
    with contextlib.redirect_stdout(io.StringIO()):
        if not words:
            stages._prepare(task, folder / "data", folder / "work")
        elif code := cli.main([word.format(folder) for word in words.split()]):
            raise SystemExit(code)
    peaks = [
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return round(sum(os.times()[:4]) - begin, 1), round(max(peaks) * 1024 / 1e6)


def grow(
    make: Callable[[Path, int], None],
    number: int,
    parts: Mapping[str, str],
    kind: str,
) -> Iterator[dict[str, Any]]:
    """Yield rows of all parts for one number of cases or runs, a process for each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        alone(make, folder, number)
        for part, words in parts.items():
            seconds, peak = alone(measure, words, folder)
            row = {"part": part, "of": kind, "number": number, "seconds": seconds}
            print(row, peak, "MB", flush=True)
            yield row | {"peak_mb": peak, "machine": provenance.machine()}


def draw(rows: pd.DataFrame, stem: Path) -> None:
    """Draw seconds and MB over numbers, with a line for each part."""
    title = "Processor time and peak memory, imports included"
    with style.drawing():
        figure = style.sheet((style.width(), 3.0), title, legend=True)
        axes = figure.subplots(1, 2)
        names = {"seconds": "processor time (s)", "peak_mb": "peak memory (MB)"}
        for axis, (value, name) in zip(axes, names.items(), strict=True):
            for (part, kind), points in rows.groupby(["part", "of"], sort=False):
                label = part if kind == "cases" else f"{part} of {kind}"
                axis.plot(points["number"], points[value], marker="o", label=label)
            axis.set(xscale="log", xlabel="cases; runs", ylabel=name)
            axis.xaxis.set_major_formatter("{x:,.0f}")
        axes[0].set(yscale="log")
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter("")
        axes[1].set(ylim=(0, None))
        style.legend(figure)
        style.save(figure, stem, ["png"])


def main() -> None:
    """Measure all parts, write the rows and draw them."""
    parser = timing.parser(__doc__, OUTPUT)
    parser.add_argument("--most", type=int, default=CASES[-1], metavar="N")
    options = parser.parse_args()
    rows = list[dict[str, Any]]()
    for make, numbers, parts, kind in (
        (simulate, CASES, OF_CASES, "cases"),
        (copies, RUNS, OF_RUNS, "runs"),
    ):
        for number in (number for number in numbers if number <= options.most):
            for row in grow(make, number, parts, kind):
                rows.append(row)
                write_csv(options.output, COLUMNS, rows)
    draw(pd.read_csv(options.output), options.output.with_suffix(""))


if __name__ == "__main__":
    main()
