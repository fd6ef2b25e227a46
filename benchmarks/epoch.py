"""What goes on around the steps of a training: time, memory, and a second start.

A training as `dscpp train` does it, on phantoms of DRIVE's numbers and the input size
asked for. After some epochs the steps of one are taken alone, on a batch that lies
ready, and its samples drawn alone: what an epoch takes beyond its steps is drawing
beside them, waiting for samples, and all that goes on around.
`python -m benchmarks.epoch`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks import timing
from data_io import cache, datasets, splits, verify
from data_io.batches import Batches
from data_io.datasets import phantom
from data_io.preprocessing import Settings
from pipelines import provenance
from pipelines import run as runs
from pipelines.training import fit
from pipelines.training.task import Task

__all__ = ["epochs_beside_steps", "memory_over_epochs", "second_start"]

# DRIVE's split: 16 images to train on, 4 to validate with, 20 to test.
COUNTS = {"training": 16, "validation": 4, "test": 20}
# Targets: over pure steps; seconds; peak memory after the last epoch over an early one.
WAITING, START, GROWTH = 1.05, 1.0, 1.02
EPOCHS = 49  # the first compiles and is not counted
# Epochs between two looks at the steps alone. Training would seem to stand still else:
# its state is written when some seconds have passed.
BLOCK = 4
PRESETS = {"reduced": 256, "paper": 512}


class _Clock(keras.callbacks.Callback):
    """Times blocks of epochs; in between, steps and draws alone."""

    # Of the training, set by who makes it: what it draws from, and an item of it.
    batches: Batches
    item: tuple[Any, Any]

    def __init__(self, counts: dict[str, int], block: int) -> None:
        super().__init__()
        self.counts = counts
        self.block = block
        self.epochs: list[float] = []
        self.steps: list[float] = []
        self.draws: list[float] = []
        self._start = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the time of a block, take its parts alone, and start anew."""
        if epoch % self.block == 0:
            if epoch:
                took = time.perf_counter() - self._start
                self.epochs.append(took / self.block)
                self._steps()  # compiles, or fills caches
                self.steps.append(_seconds(self._steps))
                self.draws.append(_seconds(lambda: self._draws(epoch)))
            self._start = time.perf_counter()

    def _steps(self) -> None:
        for _ in range(self.counts["training"]):
            self.model.train_on_batch(*self.item)
        for _ in range(self.counts["validation"]):
            self.model.test_on_batch(*self.item)

    def _draws(self, epoch: int) -> None:
        for index in range(self.counts["training"]):
            self.batches.draw(epoch, index)


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class _Peaks(keras.callbacks.Callback):
    """Notes the process's peak memory after each epoch, MB."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note it."""
        self.after.append(provenance.peak_memory_mb())


def _train(
    preset: str, size: int, overrides: dict[str, Any], watcher: keras.callbacks.Callback
) -> None:
    """Train on phantoms in a folder that is deleted."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        root = phantom.generate(
            phantom.Settings(size=size, **COUNTS), folder / "phantom"
        )
        record, split = phantom.record(root), phantom.split(root)
        task = Task.make(
            "phantom", "DSC++", preset=preset, overrides=overrides, record=record
        )
        cases = [case for part in split.values() for case in part]
        settings = Settings.of(record, task.protocol.input_shape)
        prepared = cache.prepare(
            phantom, root, cases, settings, folder / "cache", False
        )
        material = fit.Material(prepared, split, len(record.classes), record.channels)
        if isinstance(watcher, _Clock):
            watcher.batches = Batches(
                prepared,
                split["training"],
                augment=task.protocol.augment,
                shuffle=True,
            )
            watcher.item = watcher.batches[0]
        run = runs.Run.create(folder / "run", {"times": {}})
        fit.train(task, material, run, [watcher])


def epochs_beside_steps(
    preset: str = "reduced",
    epochs: int = EPOCHS,
    size: int | None = None,
    **overrides: Any,
) -> list[timing.Row]:
    """Train on phantoms, and time epochs in turn with their steps alone.

    Args:
        preset: "reduced" (256x256, 16 filters) or "paper" (512x512, 32 filters).
        epochs: one more than are counted.
        size: of the images; None for the preset's.
        **overrides: of the preset's values.

    Returns:
        Rows of the epoch, and of its samples drawn one after the other.
    """
    size = size or PRESETS[preset]
    clock = _Clock(COUNTS, BLOCK)
    _train(
        preset,
        size,
        {"epochs": epochs, "stopping_patience": epochs, **overrides},
        clock,
    )
    steps = "its steps alone", np.array(clock.steps)
    shape = 1, size, size, phantom.RECORD.channels
    counted = f"{COUNTS['training']} + {COUNTS['validation']} images, {preset}"
    target: float | None = WAITING
    if not overrides.get("augment", True):
        counted, target = f"{counted}, not augmented", None
    return [
        timing.compare(
            "epoch",
            f"{what} {counted}",
            shape,
            np.array(seconds),
            steps,
            timing.packages(),
            target,
            unit="s",
        )
        for what, seconds, target in (
            ("epoch of", clock.epochs, target),
            ("drawing, one thread, of", clock.draws, None),
        )
    ]


def memory_over_epochs(
    epochs: int = 200, early: int = 20, **overrides: Any
) -> timing.Row:
    """Train a small network for long, and look at the memory.

    Args:
        epochs: how long.
        early: the epoch after which nothing should be added.
        **overrides: of the preset's values.
    """
    peaks = _Peaks()
    small = {"epochs": epochs, "stopping_patience": epochs, "filters": 4}
    _train("reduced", 64, {**small, **overrides}, peaks)
    return timing.compare(
        "epoch",
        f"peak memory after {epochs} epochs",
        (1, 64, 64, phantom.RECORD.channels),
        np.array(peaks.after[-1:]),
        (f"after {early}", np.array(peaks.after[early - 1 : early])),
        timing.packages(),
        GROWTH,
        unit="MB",
    )


def second_start(data: Path | None, draws: int = 11, size: int = 576) -> timing.Row:
    """Time what a start does with data that an earlier one has verified and prepared.

    Args:
        data: DRIVE's folder; None for phantoms of its numbers and size.
        draws: starts that are timed.
        size: of the phantoms; DRIVE's images have 584 x 565 pixels.
    """
    module = datasets.by_name("drive" if data else "phantom")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if data:
            root = module.locate(data)
        else:
            root = phantom.generate(
                phantom.Settings(size=size, **COUNTS), folder / "phantom"
            )

        def start() -> None:
            verify.verify(module, root, folder / "verified.json", False)
            split = splits.of(module, root, 0, (), folder / "cache")
            cases = [case for part in split.values() for case in part]
            settings = Settings.of(module.record(root), (512, 512))
            cache.prepare(module, root, cases, settings, folder / "cache", False)

        seconds = timing.alternate({"start": start}, draws, warm_up=1)["start"]
    return timing.compare(
        "start",
        f"a second start's look at {sum(COUNTS.values())} images of "
        + module.RECORD.title,
        (512, 512),
        seconds,
        None,
        ("numpy",),
        START,
        unit="s",
        backend="",
    )


def main() -> None:
    """Measure, print it and write it to the CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="reduced")
    parser.add_argument("--data", type=Path, help="DRIVE's folder, for a second start")
    parser.add_argument("--output", type=Path, default=timing.RESULTS)
    arguments = parser.parse_args()
    rows = [
        memory_over_epochs(),
        *epochs_beside_steps(arguments.preset),
        # Hardly a draw: what is left of an epoch beside its steps and its draws.
        *epochs_beside_steps(arguments.preset, augment=False),
        second_start(arguments.data),
    ]
    for row in rows:
        print(timing.describe(row))
    timing.write(rows, arguments.output)


if __name__ == "__main__":
    main()
