"""Entries that need a training of some minutes, on phantoms or on DRIVE."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_io.datasets.dataset import Dataset
from errata.registry import Row, measured
from pipelines.measure import histograms, metrics
from pipelines.posthoc import scaling


@measured("momentum", "constructed", "a constant slope, learning rate 0.1")
def effective_step() -> Iterator[Row]:
    """Measure how far SGD moves on a constant slope, with and without momentum."""
    for steps in (10, 100):
        ways = (_distance(steps, momentum) / (0.1 * steps) for momentum in (0.9, 0.0))
        what = f"way after {steps} steps / {steps} steps of 0.1: momentum 0.9, none"
        yield Row(what, *ways)


def _distance(steps: int, momentum: float) -> float:
    """Apply Keras' SGD with Nesterov momentum: v = m v + lr g, w = w - m v - lr g."""
    velocity = weight = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 0.1
        weight += momentum * velocity + 0.1
    return weight


DEMO = "phantom, preset demo, DSC++, seed 0, 25 epochs"


@measured("momentum", "training", DEMO, slow=True)
def momentum() -> Iterator[Row]:
    """Compare plain SGD (the paper's text) with Nesterov momentum 0.9 (the code)."""
    plain = ["--set", "momentum=0.0", "--set", "nesterov=false"]
    forms = [_history(extra) for extra in ([], plain)]
    for name in forms[0]:
        what = f"{name}: momentum 0.9 (code), none (paper)"
        yield Row(what, *(values[name] for values in forms))


def _history(extra: list[str]) -> dict[str, float]:
    """Train in a temporary folder, and return numbers from its `history.csv`."""
    command = ["--dataset", "phantom", "--preset", "demo", "--loss", "DSC++", *extra]
    with _trained(command) as run:
        history = pd.read_csv(run / "history.csv")
    return {
        "training loss of epoch 5": history["loss"].iloc[4],
        "training loss of the last epoch": history["loss"].iloc[-1],
        "lowest validation loss": history["val_loss"].min(),
    }


@contextlib.contextmanager
def _trained(command: list[str]) -> Iterator[Path]:
    """Train by `dscpp train`, and yield the run's folder; it is deleted afterwards."""
    from pipelines import cli

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        with contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(["train", *command, "--output", str(run)])
        if code:
            raise RuntimeError(f"dscpp train {command}: expected 0, found {code}")
        yield run


ON_DRIVE = "DRIVE, test, preset reduced, seed 0, trained anew"


@measured("native-size", "training", ON_DRIVE, needs="drive")
def at_both_sizes(root: Path) -> Iterator[Row]:
    """Compare predictions at native size (published) and network size (corrected)."""
    from data_io.datasets.drive import drive

    for loss in ("DSC", "DSC++"):
        command = ["--dataset", "drive", "--data", str(root), "--preset", "reduced"]
        with _trained([*command, "--loss", loss]) as run:
            sizes = _sizes(run, drive, root)
        for name in sizes[0]:
            yield Row(f"{loss}: {name}", *(values[name] for values in sizes))


def _sizes(run: Path, dataset: Dataset, root: Path) -> list[dict[str, float]]:
    """Return measures of a run's test cases at native size and at the network's."""
    import keras

    from data_io.prepare import batches, cache
    from data_io.prepare.interface import RawInterface
    from data_io.prepare.preprocessing import Settings

    model = keras.models.load_model(run / "model.keras", compile=False)
    split = json.loads((run / "run.json").read_text("utf-8"))["split"]
    validation, test = split["validation"], split["test"]
    raw = RawInterface(dataset, root)
    measures: list[list[dict[str, float]]] = [[], []]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.of(dataset.RECORD, model.input_shape[1:-1])
        prepared = cache.prepare(
            dataset, root, [*validation, *test], settings, Path(folder)
        )
        outputs = {case: (prepared.label(case), _softmax(model, prepared, case))
                 for case in [*validation, *test]}  # fmt: skip
        held_out = [outputs[case] for case in validation]
        fitted = scaling.best(
            lambda t: float(
                np.mean([_nll(y, scaling.scale(p, t)) for y, p in held_out])
            )
        )
        for case in test:
            label, softmax = outputs[case]
            restored = batches.to_native(prepared, case, softmax)
            full_label = np.asarray(raw.load_segmentation(case)).reshape(
                restored.shape[:-1]
            )
            scaled = scaling.scale(softmax, fitted)
            back = batches.to_native(prepared, case, scaled)
            measures[0].append(_measured(full_label, restored, back))
            measures[1].append(_measured(label, softmax, scaled))
    means = [pd.DataFrame(part).mean(skipna=False).to_dict() for part in measures]
    return [{"temperature, fitted at the network's size": fitted} | m for m in means]


def _softmax(model: Any, prepared: Any, case: str) -> np.ndarray:
    import keras

    from data_io.prepare import batches

    image = batches.prediction_input(prepared, case)
    softmax: np.ndarray = keras.ops.convert_to_numpy(model(image, training=False))[0]
    return softmax


def _nll(label: np.ndarray, softmax: np.ndarray) -> float:
    return float(metrics.case_metrics(label, softmax, target=1)["nll"])


def _measured(
    label: np.ndarray, softmax: np.ndarray, scaled: np.ndarray
) -> dict[str, float]:
    """Return measures of a case, and how much they change with the threshold."""
    measures = {"NLL": _nll(label, softmax), "NLL, scaled": _nll(label, scaled)}
    counts = histograms.count(softmax[..., 1], label == 1)
    thresholds = (0.5, 0.2, 0.3, 0.7, 0.8)
    for name, values in histograms.threshold_metrics(counts, thresholds).items():
        if name == "dice":
            measures["Dice at T = 0.5"] = values[0]
            for t, value in zip(thresholds[1:], values[1:], strict=True):
                measures[f"Dice at T = 0.5 less that at {t}"] = values[0] - value
        elif name != "jaccard":
            what = f"{name.capitalize()} at T = 0.2 less that at 0.8"
            measures[what] = values[1] - values[4]
    return measures
