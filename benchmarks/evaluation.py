"""Measure the cost of evaluating a volume: ours and the released notebooks' way.

Volumes of KiTS19's sizes are simulated from a seed, since only their sizes matter here.
Every draw is a process of its own, to measure its own peak memory. One runs at a time,
ours and the notebooks' in turn. Run `make bench-evaluation`; the notebooks' way takes 8
GB of memory.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from benchmarks import timing
from data_io.datasets.kits19 import kits19
from data_io.files import nifti
from pipelines.environment import provenance

Work = Callable[[], object]
# KiTS19's first case, and one as long as its longest.
LONG, LONGEST = (611, 512, 512), (1059, 512, 512)
SPACING_MM = (0.5, 0.919921875, 0.919921875)
CASE = "case_00000"
# Targets: share of the notebooks' cost at most; memory of the longest case.
TARGETS, MOST_MB = {"time": 1 / 10, "peak memory": 1 / 3}, 4000
PACKAGES = ("numpy", "scipy", "miscnn", "scikit-image")


def simulate(folder: Path, shape: tuple[int, ...]) -> None:
    """Write a case in KiTS19's layout, and a run that has predicted it.

    The case has two ellipsoids with a sphere in each, with noise around and in them.

    Args:
        folder: receives `data/<case>/` and `run/probabilities/<case>.npy`.
        shape: shape of the volume.
    """
    from data_io.prepare import native_grid

    random = np.random.default_rng(0)
    label = _label(shape)
    image = np.empty(shape, np.int16)
    for number, plane in enumerate(label):
        noise = random.normal(scale=20, size=plane.shape)
        image[number] = np.array([-60, 40, 120])[plane] + noise
    # KiTS19's axes: all three run against the scanner's, the last one first.
    affine = np.zeros((4, 4))
    affine[[0, 1, 2, 3], [2, 1, 0, 3]] = *(-mm for mm in SPACING_MM[::-1]), 1
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    geometry = nifti.Geometry(shape, affine, header)
    case = folder / "data" / CASE
    case.mkdir(parents=True)
    nifti.write_like(case / kits19.LABEL, label, geometry)
    nifti.write_like(case / kits19.IMAGE, image, geometry)

    grid = native_grid.resampled_shape(
        shape, SPACING_MM, kits19.RECORD.spacing_mm or ()
    )
    nearest = [
        np.arange(new) * old // new for old, new in zip(shape, grid, strict=True)
    ]
    logits = random.normal(size=(*grid, 3)).astype(np.float32)
    logits += 4 * np.eye(3, dtype=np.float32)[label[np.ix_(*nearest)]]
    softmax = np.exp(logits)
    softmax /= softmax.sum(axis=-1, keepdims=True)
    (folder / "run" / "probabilities").mkdir(parents=True)
    np.save(folder / "run" / "probabilities" / f"{CASE}.npy", softmax)


def _label(shape: tuple[int, ...]) -> np.ndarray:
    """Draw two kidneys, each with a tumour; uint8."""
    label = np.zeros(shape, np.uint8)
    z, y, x = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
    for side in (-0.5, 0.5):
        kidney = ((z / 0.5) ** 2 + (y / 0.2) ** 2 + ((x - side) / 0.15) ** 2) < 1
        tumour = ((z / 0.1) ** 2 + (y / 0.1) ** 2 + ((x - side) / 0.1) ** 2) < 1
        label[kidney] = 1
        label[tumour] = 2
    return label


# Each of these imports what it needs and returns the work.


def evaluation(folder: Path) -> Work:
    """Measure the case as `dscpp evaluate` does."""
    from pipelines.prediction import evaluate
    from pipelines.runs import run as runs

    values = {"spacing_mm": kits19.RECORD.spacing_mm}
    run = runs.Run(folder / "run", {"state": "predicted", "preprocessing": values})
    return lambda: evaluate.measure(run, kits19, folder / "data", [("test", CASE)])


def notebooks_evaluation(folder: Path) -> Work:
    """Measure the case as the released notebooks do: all of it at once.

    The softmax goes through MIScnn's resampling as a whole, the label map is read as
    float64, and each measure is an expression over whole arrays (protocol: metrics).
    """
    from data_io.prepare.miscnn_compat import Resampling, Sample

    def work() -> dict[int, dict[str, float]]:
        softmax = np.load(folder / "run" / "probabilities" / f"{CASE}.npy")
        path = folder / "data" / CASE / kits19.LABEL
        # As MIScnn's NIfTI interface reads it: float64.
        label = np.asarray(nibabel.Nifti1Image.from_filename(path).get_fdata())
        details = {"original_shape": label.shape}
        sample = Sample(CASE, np.zeros((1, 1, 1, 1)), 1, 3, details)
        step = Resampling(kits19.RECORD.spacing_mm)
        softmax = step.postprocessing(sample, softmax, activation_output=True)
        predicted = np.argmax(softmax, axis=-1)
        return {
            target: _notebooks_measures(label, predicted, softmax[..., target], target)
            for target in (1, 2)
        }

    return work


def _notebooks_measures(
    label: np.ndarray, predicted: np.ndarray, p: np.ndarray, target: int
) -> dict[str, float]:
    is_target, is_predicted = label == target, predicted == target
    tp = np.logical_and(is_target, is_predicted).sum()
    return {
        "nll": -np.mean(label * np.log(np.clip(p, 1e-7, 1 - 1e-7))),
        "brier": np.mean((label - p) ** 2),
        "dice": 2 * tp / (is_target.sum() + is_predicted.sum()),
        "jaccard": tp / np.logical_or(is_target, is_predicted).sum(),
        "precision": tp / is_predicted.sum(),
        "recall": tp / is_target.sum(),
    }


def measure(prepare: Callable[[Path], Work], folder: Path) -> dict[str, float]:
    """Run one piece of work in this process.

    Args:
        prepare: returns the work to do.
        folder: the folder that `simulate` filled.

    Returns:
        Seconds of wall time and of processor time, all threads together, without
        imports; the peak memory of the process, MB (1e6 bytes).
    """
    work = prepare(folder)
    start, busy = time.perf_counter(), time.process_time()
    work()
    return {
        "time": round(time.perf_counter() - start, 2),
        "processor time": round(time.process_time() - busy, 2),
        "peak memory": provenance.peak_memory_mb(),
    }


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, and return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def beside_notebooks(draws: int = 3) -> list[timing.Row]:
    """Measure both ways in turn, in processes of their own.

    Args:
        draws: number of draws of each.

    Returns:
        Rows of wall time, of processor time, and of peak memory.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        alone(simulate, folder, LONG)
        works = [evaluation, notebooks_evaluation] * draws
        costs = [alone(measure, work, folder) for work in works]
    ours, theirs = (
        {kind: np.array([draw[kind] for draw in part]) for kind in part[0]}
        for part in (costs[::2], costs[1::2])
    )
    row = partial(
        timing.compare, "evaluation", shape=LONG, packages=PACKAGES, backend=""
    )
    return [
        row(
            f"evaluation: {kind}",
            ours=ours[kind],
            peer=("evaluation, notebooks' way", theirs[kind]),
            target=TARGETS.get(kind),
            unit="MB" if kind == "peak memory" else "s",
        )
        for kind in ours
    ]


def longest_case() -> timing.Row:
    """Measure our peak memory on a case as long as KiTS19's longest."""
    with tempfile.TemporaryDirectory() as temporary:
        alone(simulate, Path(temporary), LONGEST)
        cost = alone(measure, evaluation, Path(temporary))
    return timing.compare(
        "evaluation",
        "evaluation, longest case: peak memory",
        LONGEST,
        np.array([cost["peak memory"]]),
        None,
        PACKAGES,
        MOST_MB,
        unit="MB",
        backend="",
    )


def main() -> None:
    """Measure, print and write the rows to the CSV file."""
    arguments = timing.parser(__doc__).parse_args()
    timing.record(beside_notebooks(), arguments.output)
    timing.record([longest_case()], arguments.output)


if __name__ == "__main__":
    main()
