"""What volumes cost in memory: our way, beside the released notebooks'.

Volumes of KiTS19's sizes are simulated from a seed: the numbers of voxels decide, not
what they show. Every row is a process of its own, so that its peak is its own; one runs
at a time. `make bench-evaluation` writes `evaluation_memory.csv` beside this file; the
notebooks' way takes 8 GB of memory.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import provenance
from pipelines.run import write_csv

OUTPUT = Path(__file__).with_suffix(".csv")
COLUMNS = (
    "what", "shape", "seconds", "peak_mb", "target_mb", "met", "machine", "versions",
)  # fmt: skip
SEED = 0
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
    from data_io import native
    from data_io.datasets import kits19, nifti

    random = np.random.default_rng(SEED)
    place = _place(shape)
    label = _label(shape)
    image = np.empty(shape, np.int16)
    for number, plane in enumerate(label):
        noise = random.normal(scale=20, size=plane.shape)
        image[number] = np.array([-60, 40, 120])[plane] + noise
    case = folder / "data" / CASE
    case.mkdir(parents=True)
    nifti.write_like(case / kits19.LABEL, label, place)
    nifti.write_like(case / kits19.IMAGE, image, place)

    spacing_mm = kits19.RECORD.spacing_mm or SPACING_MM
    grid = native.resampled_shape(shape, SPACING_MM, spacing_mm)
    logits = random.normal(size=(*grid, 3)).astype(np.float32)
    nearest = [
        np.arange(new) * old // new for old, new in zip(shape, grid, strict=True)
    ]
    logits += 4 * np.eye(3, dtype=np.float32)[label[np.ix_(*nearest)]]
    softmax = np.exp(logits)
    softmax /= softmax.sum(axis=-1, keepdims=True)
    (folder / "run" / "probabilities").mkdir(parents=True)
    np.save(folder / "run" / "probabilities" / f"{CASE}.npy", softmax)


def _place(shape: tuple[int, ...]) -> Any:
    """KiTS19's axes: all three run against the scanner's, the last one first."""
    import nibabel

    from data_io.datasets import nifti

    affine = np.zeros((4, 4))
    affine[[0, 1, 2, 3], [2, 1, 0, 3]] = *(-mm for mm in SPACING_MM[::-1]), 1
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    return nifti.Geometry(shape, affine, header)


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


def evaluation(folder: Path) -> None:
    """Measure the case as `dscpp evaluate` does."""
    from data_io.datasets import kits19
    from pipelines import evaluate
    from pipelines import run as runs

    values = {"spacing_mm": kits19.RECORD.spacing_mm}
    run = runs.Run(folder / "run", {"preprocessing": values})
    evaluate.measure(run, kits19, folder / "data", [("test", CASE)])


def notebooks_evaluation(folder: Path) -> None:
    """Measure the case as the released notebooks do: all of it at once.

    The softmax goes through MIScnn's resampling whole, the label map is read as
    float64, and each measure is an expression over whole arrays (protocol: metrics).
    """
    from data_io.datasets import kits19
    from data_io.miscnn_compat import Resampling, Sample

    softmax = np.load(folder / "run" / "probabilities" / f"{CASE}.npy")
    label = _get_fdata(folder / "data" / CASE / kits19.LABEL)
    details = {"original_shape": label.shape}
    sample = Sample(CASE, np.zeros((1, 1, 1, 1)), 1, 3, details)
    step = Resampling(kits19.RECORD.spacing_mm)
    softmax = step.postprocessing(sample, softmax, activation_output=True)
    predicted = np.argmax(softmax, axis=-1)
    for target in (1, 2):
        _notebooks_measures(label, predicted, softmax[..., target], target)


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
    import nibabel

    return np.asarray(nibabel.Nifti1Image.from_filename(path).get_fdata())


def resampling(folder: Path) -> None:
    """Resample the image as this project does."""
    from data_io.datasets import kits19, nifti
    from data_io.resampling import SlabResampling

    _resample(SlabResampling, nifti.read(folder / "data" / CASE / kits19.IMAGE))


def miscnn_resampling(folder: Path) -> None:
    """Resample the image as MIScnn does."""
    from data_io.datasets import kits19
    from data_io.miscnn_compat import Resampling

    _resample(Resampling, _get_fdata(folder / "data" / CASE / kits19.IMAGE))


def _resample(step: Any, volume: np.ndarray) -> None:
    from data_io.datasets import kits19
    from data_io.miscnn_compat import Sample

    details = {"spacing": np.array(SPACING_MM)}
    sample = Sample(CASE, volume[..., np.newaxis], 1, 3, details)
    step(kits19.RECORD.spacing_mm).preprocessing(sample, training=False)


def preparation(folder: Path) -> None:
    """Prepare the case for training: image and label map, clip, z-score, cache."""
    from data_io import cache
    from data_io.datasets import kits19
    from data_io.preprocessing import Settings

    settings = Settings.of(kits19.RECORD, kits19.RECORD.input_shape)
    cache.prepare(kits19, folder / "data", [CASE], settings, folder / "cache")


def forward_pass(folder: Path, preset: str) -> None:
    """Predict one patch with the U-Net of a preset."""
    from data_io.datasets import kits19
    from pipelines.training import fit, protocol

    values = protocol.preset(preset, kits19.RECORD)
    model = fit.build(values, channels=1, classes=3)
    model.predict_on_batch(np.zeros((1, *values.input_shape, 1), np.float32))


def _forward(preset: str) -> tuple[Callable[[Path], None], tuple[int, ...]]:
    from data_io.datasets import kits19
    from pipelines.training import protocol

    shape = protocol.preset(preset, kits19.RECORD).input_shape
    return functools.partial(forward_pass, preset=preset), shape


# What, how, of which size, and what it may take at most (None: nothing promised).
ROWS: dict[str, tuple[Callable[[Path], None], tuple[int, ...], int | None]] = {
    "evaluation": (evaluation, LONG, 2400),
    "evaluation, longest case": (evaluation, LONGEST, 4000),
    "evaluation, notebooks' way": (notebooks_evaluation, LONG, None),
    "input resampling": (resampling, LONG, None),
    "input resampling, MIScnn's": (miscnn_resampling, LONG, None),
    "preparation": (preparation, LONG, None),
    "forward pass of a patch, reduced": (*_forward("reduced"), None),
    "forward pass of a patch, paper": (*_forward("paper"), None),
}


def main() -> None:
    """Measure every row, or, in a process of its own, one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="CSV")
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--simulate", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.simulate:
        simulate(options.folder, tuple(options.simulate))
    elif options.measure:
        print(json.dumps(measure(options.measure, options.folder)))
    else:
        write_csv(options.output, COLUMNS, run_all(options.only))


def measure(what: str, folder: Path) -> dict[str, float]:
    """Run one row in this process.

    Returns:
        seconds, imports included, and the process's peak memory, MB (1e6 bytes).
    """
    start = time.perf_counter()
    ROWS[what][0](folder)
    seconds = round(time.perf_counter() - start, 1)
    return {"seconds": seconds, "peak_mb": provenance.peak_memory_mb()}


def run_all(names: list[str]) -> list[dict[str, Any]]:
    """Run rows, each in a process of its own, on volumes simulated for them."""
    about = {
        "machine": provenance.machine(),
        "versions": "; ".join(f"{n} {v}" for n, v in provenance.versions().items()),
    }
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for what in names:
            _, shape, target_mb = ROWS[what]
            folder = Path(place) / "x".join(map(str, shape))
            if shape in (LONG, LONGEST) and not folder.exists():
                _call("--simulate", json.dumps(shape), "--folder", str(folder))
            found = json.loads(_call("--measure", what, "--folder", str(folder)))
            row = {"what": what, "shape": folder.name, **found}
            if target_mb is not None:
                met = found["peak_mb"] <= target_mb
                row |= {"target_mb": target_mb, "met": "yes" if met else "no"}
            rows.append({**row, **about})
            print(f"{what}, {folder.name}: {found}", flush=True)
    return rows


def _call(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.evaluation_memory", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


if __name__ == "__main__":
    main()
