"""What volumes cost in time and memory: our way, beside the released notebooks'.

Volumes of KiTS19's sizes are simulated from a seed: their sizes decide, not what they
show. Every draw is a process of its own, so that its peak is its own. One runs
at a time, what has a peer in turn with it. `make bench-evaluation` writes
`evaluation_memory.csv` and rows of `results.csv`; the notebooks' way takes 8 GB of
memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing
from pipelines import provenance
from pipelines.run import write_csv

__all__ = ["measure", "rows", "simulate"]

OUTPUT = Path(__file__).with_suffix(".csv")
COLUMNS = (
    "what", "shape", "n", "seconds", "cpu_seconds", "peak_mb", "target_mb", "met",
    "machine", "versions",
)  # fmt: skip
SEED = 0
DRAWS = 3  # of what has a peer
# Of the notebooks' way.
SECONDS, MEMORY = 1 / 10, 1 / 3
Work = Callable[[], object]
Draws = list[dict[str, float]]
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
    from data_io.datasets.kits19 import kits19
    from data_io.files import nifti
    from data_io.prepare import native

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

    from data_io.files import nifti

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


# Each of these imports what it needs, and gives the work that is to be measured.


def evaluation(folder: Path) -> Work:
    """Measure the case as `dscpp evaluate` does."""
    from data_io.datasets.kits19 import kits19
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
    import data_io.datasets.kits19
    import data_io.prepare.miscnn_compat  # noqa: F401

    return lambda: _notebooks_evaluation(folder)


def _notebooks_evaluation(folder: Path) -> dict[int, dict[str, float]]:
    from data_io.datasets.kits19 import kits19
    from data_io.prepare.miscnn_compat import Resampling, Sample

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


def resampling(folder: Path) -> Work:
    """Resample the image as this project does."""
    from data_io.datasets.kits19 import kits19
    from data_io.files import nifti
    from data_io.prepare.resampling import SlabResampling

    path = folder / "data" / CASE / kits19.IMAGE
    return lambda: _resample(SlabResampling, nifti.read(path))


def miscnn_resampling(folder: Path) -> Work:
    """Resample the image as MIScnn does."""
    from data_io.datasets.kits19 import kits19
    from data_io.prepare.miscnn_compat import Resampling

    path = folder / "data" / CASE / kits19.IMAGE
    return lambda: _resample(Resampling, _get_fdata(path))


def _resample(step: Any, volume: np.ndarray) -> None:
    from data_io.datasets.kits19 import kits19
    from data_io.prepare.miscnn_compat import Sample

    details = {"spacing": np.array(SPACING_MM)}
    sample = Sample(CASE, volume[..., np.newaxis], 1, 3, details)
    step(kits19.RECORD.spacing_mm).preprocessing(sample, training=False)


def preparation(folder: Path) -> Work:
    """Prepare the case for training: image and label map, clip, z-score, cache."""
    from data_io.datasets.kits19 import kits19
    from data_io.prepare import cache
    from data_io.prepare.preprocessing import Settings

    settings = Settings.of(kits19.RECORD, kits19.RECORD.input_shape)
    data, aside = folder / "data", folder / "cache"
    return lambda: cache.prepare(kits19, data, [CASE], settings, aside)


def forward_pass(preset: str) -> Callable[[Path], Work]:
    """Predict one patch with the U-Net of a preset."""

    def prepare(folder: Path) -> Work:
        from data_io.datasets.kits19 import kits19
        from pipelines.training import fit, protocol

        values = protocol.preset(preset, kits19.RECORD)
        model = fit.build(values, channels=1, classes=3)
        patch = np.zeros((1, *values.input_shape, 1), np.float32)
        return lambda: model.predict_on_batch(patch)

    return prepare


@dataclass(frozen=True)
class _What:
    """What is measured.

    Attributes:
        prepare: from a folder that `simulate` filled, the work.
        shape: of the volume, or the patch.
        target_mb: the most memory it may take; None: nothing promised.
        peer: name of another one, to be measured in turn with it.
        targets: the largest ratios to the peer's seconds and memory.
    """

    prepare: Callable[[Path], Work]
    shape: tuple[int, ...]
    target_mb: int | None = None
    peer: str = ""
    targets: tuple[float | None, float | None] = (None, None)


def _patch(preset: str) -> _What:
    from data_io.datasets.kits19 import kits19
    from pipelines.training import protocol

    shape = protocol.preset(preset, kits19.RECORD).input_shape
    return _What(forward_pass(preset), shape)


WHAT = {
    "evaluation": _What(
        evaluation, LONG, 2400, "evaluation, notebooks' way", (SECONDS, MEMORY)
    ),
    "evaluation, longest case": _What(evaluation, LONGEST, 4000),
    "evaluation, notebooks' way": _What(notebooks_evaluation, LONG),
    "input resampling": _What(resampling, LONG, peer="input resampling, MIScnn's"),
    "input resampling, MIScnn's": _What(miscnn_resampling, LONG),
    "preparation": _What(preparation, LONG),
    "forward pass of a patch, reduced": _patch("reduced"),
    "forward pass of a patch, paper": _patch("paper"),
}


def main() -> None:
    """Measure what is asked for, or, in a process of its own, one draw of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="CSV")
    parser.add_argument("--results", type=Path, default=timing.RESULTS, metavar="CSV")
    parser.add_argument("--only", nargs="+", default=list(WHAT), choices=WHAT)
    parser.add_argument("--draws", type=int, default=DRAWS, help="of what has a peer")
    parser.add_argument("--simulate", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=WHAT, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.simulate:
        simulate(options.folder, tuple(options.simulate))
    elif options.measure:
        print(json.dumps(measure(options.measure, options.folder)))
    else:
        found = draw(options.only, options.draws)
        write_csv(options.output, COLUMNS, table(found))
        timing.write(beside_peers(found), options.results)


def measure(what: str, folder: Path) -> dict[str, float]:
    """Do one thing in this process.

    Returns:
        seconds by the clock and of the processor, all threads together, without what
        was imported before; the process's peak memory, MB (1e6 bytes).
    """
    work = WHAT[what].prepare(folder)
    start, busy = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - busy, 2),
        "peak_mb": provenance.peak_memory_mb(),
    }


def rows(draws: int = DRAWS) -> list[timing.Row]:
    """Measure the evaluation beside the notebooks' way, for `results.csv`.

    Args:
        draws: of each, in turn.

    Returns:
        By the clock; of the processor; peak memory.
    """
    return beside_peers(draw(["evaluation", WHAT["evaluation"].peer], draws))


def draw(names: Sequence[str], draws: int) -> dict[str, Draws]:
    """Measure, in processes of their own, on volumes simulated for them.

    Args:
        names: keys of `WHAT`.
        draws: how often, in turn, those of which the peer is there too; others once.
    """
    peers = {WHAT[name].peer: name for name in names}
    paired = {n for n in names if WHAT[n].peer in names or n in peers}
    found: dict[str, Draws] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as place:
        for number in range(draws):
            for name in names:
                if number and name not in paired:
                    continue
                folder = _simulated(Path(place), WHAT[name].shape)
                said = _call("--measure", name, "--folder", str(folder))
                found[name].append(json.loads(said))
                print(f"{name}, {folder.name}: {found[name][-1]}", flush=True)
    return found


def _simulated(place: Path, shape: tuple[int, ...]) -> Path:
    folder = place / _text(shape)
    if shape in (LONG, LONGEST) and not folder.exists():
        _call("--simulate", json.dumps(shape), "--folder", str(folder))
    return folder


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _call(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.evaluation_memory", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


def table(found: Mapping[str, Draws]) -> list[dict[str, Any]]:
    """Rows of `evaluation_memory.csv`: median times, highest peak of the draws."""
    versions = provenance.versions().items()
    about = {
        "machine": provenance.machine(),
        "versions": "; ".join(f"{name} {version}" for name, version in versions),
    }
    lines: list[dict[str, Any]] = []
    for name, draws in found.items():
        peak_mb, target_mb = max(d["peak_mb"] for d in draws), WHAT[name].target_mb
        line = {
            "what": name,
            "shape": _text(WHAT[name].shape),
            "n": len(draws),
            "seconds": statistics.median(d["seconds"] for d in draws),
            "cpu_seconds": statistics.median(d["cpu_seconds"] for d in draws),
            "peak_mb": peak_mb,
        }
        if target_mb is not None:
            met = "yes" if peak_mb <= target_mb else "no"
            line |= {"target_mb": target_mb, "met": met}
        lines.append(line | about)
    return lines


def beside_peers(found: Mapping[str, Draws]) -> list[timing.Row]:
    """Times and peak memory of all that was measured in turn with a peer."""
    return [
        timing.compare(
            "evaluation",
            f"{name}: {kind}",
            what.shape,
            np.array([draw[key] for draw in found[name]]),
            (what.peer, np.array([draw[key] for draw in found[what.peer]])),
            ("numpy", "scipy", "miscnn", "scikit-image"),
            target,
            unit=unit,
            backend="",
        )
        for name, what in WHAT.items()
        if name in found and what.peer in found
        for kind, key, unit, target in (
            ("time", "seconds", "s", what.targets[0]),
            ("processor time", "cpu_seconds", "s", None),
            ("peak memory", "peak_mb", "MB", what.targets[1]),
        )
    ]


if __name__ == "__main__":
    main()
