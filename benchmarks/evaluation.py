"""What volumes cost in time and memory: our way beside the notebooks' and MIScnn's.

Volumes of KiTS19's sizes are simulated from a seed: their sizes decide, not what they
show. Every draw is a process of its own, so that its peak is its own. One runs at a
time, ours and its peer's in turn. `make bench-evaluation`; the notebooks' way takes
8 GB of memory.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from benchmarks import timing
from data_io.datasets.kits19 import kits19
from data_io.files import nifti
from pipelines import provenance

__all__ = ["COMPARED", "Compared", "beside_peer", "measure", "simulate"]

Work = Callable[[], object]
# KiTS19's first case, and one as long as its longest.
LONG, LONGEST = (611, 512, 512), (1059, 512, 512)
SPACING_MM = (0.5, 0.919921875, 0.919921875)
CASE = "case_00000"


def simulate(folder: Path, shape: tuple[int, ...]) -> None:
    """Write a case in KiTS19's layout, and a run that has predicted it.

    Two ellipsoids with a sphere in each, noise around and in them.

    Args:
        folder: gets `data/<case>/` and `run/probabilities/<case>.npy`.
        shape: of the volume.
    """
    from data_io.prepare import native

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
    place = nifti.Geometry(shape, affine, header)
    case = folder / "data" / CASE
    case.mkdir(parents=True)
    nifti.write_like(case / kits19.LABEL, label, place)
    nifti.write_like(case / kits19.IMAGE, image, place)

    grid = native.resampled_shape(shape, SPACING_MM, kits19.RECORD.spacing_mm or ())
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
    """Two kidneys, each with a tumour; uint8."""
    label = np.zeros(shape, np.uint8)
    z, y, x = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
    for side in (-0.5, 0.5):
        kidney = ((z / 0.5) ** 2 + (y / 0.2) ** 2 + ((x - side) / 0.15) ** 2) < 1
        tumour = ((z / 0.1) ** 2 + (y / 0.1) ** 2 + ((x - side) / 0.1) ** 2) < 1
        label[kidney] = 1
        label[tumour] = 2
    return label


# Each of these imports what it needs beside KiTS19's reading, and gives the work.


def evaluation(folder: Path) -> Work:
    """Measure the case as `dscpp evaluate` does."""
    from pipelines import evaluate
    from pipelines import run as runs

    values = {"spacing_mm": kits19.RECORD.spacing_mm}
    run = runs.Run(folder / "run", {"state": "predicted", "preprocessing": values})
    return lambda: evaluate.measure(run, kits19, folder / "data", [("test", CASE)])


def notebooks_evaluation(folder: Path) -> Work:
    """Measure the case as the released notebooks do: all of it at once.

    The softmax goes through MIScnn's resampling whole, the label map is read as
    float64, and each measure is an expression over whole arrays (protocol: metrics).
    """
    from data_io.prepare.miscnn_compat import Resampling, Sample

    def work() -> dict[int, dict[str, float]]:
        softmax = np.load(folder / "run" / "probabilities" / f"{CASE}.npy")
        label = _get_fdata(folder / "data" / CASE / kits19.LABEL)
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
    truth, guess = label == target, predicted == target
    tp = np.logical_and(truth, guess).sum()
    return {
        "nll": -np.mean(label * np.log(np.clip(p, 1e-7, 1 - 1e-7))),
        "brier": np.mean((label - p) ** 2),
        "dice": 2 * tp / (truth.sum() + guess.sum()),
        "jaccard": tp / np.logical_or(truth, guess).sum(),
        "precision": tp / guess.sum(),
        "recall": tp / truth.sum(),
    }


def _get_fdata(path: Path) -> np.ndarray:
    """As MIScnn's NIfTI interface reads it: float64."""
    return np.asarray(nibabel.Nifti1Image.from_filename(path).get_fdata())


def resampling(folder: Path) -> Work:
    """Resample the image as this project does."""
    from data_io.prepare.resampling import SlabResampling

    return lambda: _resample(SlabResampling, nifti.read, folder)


def miscnn_resampling(folder: Path) -> Work:
    """Resample the image as MIScnn does."""
    from data_io.prepare.miscnn_compat import Resampling

    return lambda: _resample(Resampling, _get_fdata, folder)


def _resample(step: Any, read: Callable[[Path], np.ndarray], folder: Path) -> None:
    from data_io.prepare.miscnn_compat import Sample

    volume = read(folder / "data" / CASE / kits19.IMAGE)
    details = {"spacing": np.array(SPACING_MM)}
    sample = Sample(CASE, volume[..., np.newaxis], 1, 3, details)
    step(kits19.RECORD.spacing_mm).preprocessing(sample, training=False)


@dataclass(frozen=True)
class Compared:
    """What is measured, and what is measured in turn with it.

    Attributes:
        what: how the rows name it.
        shape: of the volume.
        work: ours.
        peer: the other's name and work; None: ours once, its memory alone.
        time: the largest ratio to the peer's time that is wanted; None for any.
        memory: likewise of memory; without a peer MB.
    """

    what: str
    shape: tuple[int, ...]
    work: Callable[[Path], Work]
    peer: tuple[str, Callable[[Path], Work]] | None = None
    time: float | None = None
    memory: float | None = None


NOTEBOOKS = "evaluation, notebooks' way", notebooks_evaluation
MISCNN = "input resampling, MIScnn's", miscnn_resampling
COMPARED = (
    Compared("evaluation", LONG, evaluation, NOTEBOOKS, time=1 / 10, memory=1 / 3),
    Compared("evaluation, longest case", LONGEST, evaluation, memory=4000),
    Compared("input resampling", LONG, resampling, MISCNN),
)


def measure(prepare: Callable[[Path], Work], folder: Path) -> dict[str, float]:
    """Do one thing in this process.

    Args:
        prepare: gives the work to do.
        folder: that `simulate` filled.

    Returns:
        Seconds by the clock and of the processor, all threads together, without what
        was imported before; the process's peak memory, MB (1e6 bytes).
    """
    work = prepare(folder)
    start, busy = time.perf_counter(), time.process_time()
    work()
    return {
        "time": round(time.perf_counter() - start, 2),
        "processor time": round(time.process_time() - busy, 2),
        "peak memory": provenance.peak_memory_mb(),
    }


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, called in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def beside_peer(compared: Compared, draws: int = 3) -> list[timing.Row]:
    """Measure something and its peer in turn, in processes of their own.

    Args:
        compared: one of `COMPARED`.
        draws: of each; one where there is no peer.

    Returns:
        By the clock; of the processor; peak memory. Without a peer the last alone.
    """
    works = [compared.work, *([compared.peer[1]] if compared.peer else [])]
    with tempfile.TemporaryDirectory() as place:
        _alone(simulate, Path(place), compared.shape)
        found = [
            [_alone(measure, work, Path(place)) for work in works]
            for _ in range(draws if compared.peer else 1)
        ]
    kinds = (("time", "s", compared.time), ("processor time", "s", None))
    return [
        _row(compared, found, *kind)
        for kind in (
            *(kinds if compared.peer else ()),
            ("peak memory", "MB", compared.memory),
        )
    ]


def _row(
    compared: Compared,
    found: Sequence[Sequence[dict[str, float]]],
    kind: str,
    unit: str,
    target: float | None,
) -> timing.Row:
    ours, *theirs = np.array([[draw[kind] for draw in pair] for pair in found]).T
    return timing.compare(
        "evaluation",
        f"{compared.what}: {kind}",
        compared.shape,
        ours,
        (compared.peer[0], *theirs) if compared.peer else None,
        ("numpy", "scipy", "miscnn", "scikit-image"),
        target,
        unit=unit,
        backend="",
    )


def main() -> None:
    """Measure all, print it and write it to the CSV file."""
    arguments = timing.parser(__doc__).parse_args()
    for compared in COMPARED:
        timing.record(beside_peer(compared), arguments.output)


if __name__ == "__main__":
    main()
