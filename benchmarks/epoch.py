"""Measure time and memory of a training beyond its steps.

A training as `dscpp train` does it, on as many phantoms as DRIVE has images. After some
epochs the steps of one epoch are run alone, on a batch that is already on the device.
An epoch takes longer than these steps because it draws samples, waits for samples and
does other work around the steps. Run `python -m benchmarks.epoch`.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

from benchmarks import timing
from data_io.datasets import phantom
from data_io.datasets.phantom import vessels
from data_io.prepare import cache
from data_io.prepare.batches import Batches
from data_io.prepare.preprocessing import Settings
from pipelines.environment import provenance
from pipelines.runs import run as runs
from pipelines.training import fit
from pipelines.training.task import Task

# DRIVE's split: 16 images to train on, 4 to validate with, 20 to test.
COUNTS = {"training": 16, "validation": 4, "test": 20}
# Targets: time of an epoch over its steps; peak memory after the last epoch over that
# after an early one (some 900 MB; leaking one 128x128 sample an epoch adds 3 to 4 %).
OVER_STEPS, GROWTH = 1.05, 1.02
# The first compiles and is not counted. JAX is three times slower on a CPU.
EPOCHS = 13 if keras.backend.backend() == "jax" else 49
# Epochs between two timings of the steps alone. Several, since the training state is
# written only every few seconds.
BLOCK = 4
PRESETS = {"reduced": (256, 256), "paper": (512, 512)}
_Take = Callable[[Batches, int], Any]


class _Clock(keras.callbacks.Callback):
    """Times blocks of epochs and the wait for their samples; in between, steps alone.

    Attributes:
        epochs: seconds per epoch, one value for each block.
        waits: seconds per epoch spent waiting for samples.
        steps: seconds per epoch of the steps alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []
        self.waits: list[float] = []
        self.steps: list[float] = []
        self._start = self._waited = 0.0
        self._item: Any = None

    def watched(self, take: _Take) -> _Take:
        """Wrap a function that takes samples, and record how long it waits."""

        def taken(batches: Batches, index: int) -> Any:
            start = time.perf_counter()
            item = take(batches, index)
            self._waited += time.perf_counter() - start
            self._item = item
            return item

        return taken

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the time of a block, time its steps alone, and start again."""
        if epoch % BLOCK:
            return
        if epoch:
            self.epochs.append((time.perf_counter() - self._start) / BLOCK)
            self.waits.append(self._waited / BLOCK)
            self.steps.append(self._steps_alone())
        self._start, self._waited = time.perf_counter(), 0.0

    def _steps_alone(self) -> float:
        # Already on the device: the transfer counts for the epoch.
        item = [keras.ops.convert_to_tensor(x) for x in self._item]
        for _ in range(2):  # the first time compiles, or fills caches
            start = time.perf_counter()
            for _ in range(COUNTS["training"]):
                self.model.train_on_batch(*item)
            for _ in range(COUNTS["validation"]):
                self.model.test_on_batch(*item)
        return time.perf_counter() - start


def _train(
    preset: str,
    size: tuple[int, ...],
    epochs: int,
    overrides: dict[str, Any],
    watcher: keras.callbacks.Callback,
) -> None:
    """Train on phantoms in a folder that is deleted."""
    long = {"epochs": epochs, "stopping_patience": epochs, "input_shape": list(size)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        drawn = phantom.Settings(size=max(size), **COUNTS)
        root = phantom.generate(drawn, folder / "phantom")
        record, split = vessels.record(root), vessels.split(root)
        task = Task.make(
            "phantom", "DSC++", preset=preset, overrides=long | overrides, record=record
        )
        cases = [case for part in split.values() for case in part]
        settings = Settings.of(record, size)
        prepared = cache.prepare(
            vessels, root, cases, settings, folder / "cache", False
        )
        training_data = fit.TrainingData(
            prepared, split, len(record.classes), record.channels
        )
        run = runs.Run.create(folder / "run", {"times": {}} | task.identity())
        fit.train(task, training_data, run, watchers=[watcher])


def epochs_beside_steps(
    preset: str = "reduced",
    epochs: int = EPOCHS,
    size: tuple[int, ...] = (),
    **overrides: Any,
) -> list[timing.Row]:
    """Train on phantoms, and time epochs in turn with their steps alone.

    Args:
        preset: "reduced" (256x256, 16 filters) or "paper" (512x512, 32 filters).
        epochs: one more than are counted.
        size: input size of the network, pixels by axis; () for the preset's.
        **overrides: overrides of the preset's values.

    Returns:
        Rows of an epoch compared with its steps, and of its wait for samples.
    """
    size = size or PRESETS[preset]
    clock = _Clock()
    with mock.patch.object(Batches, "__getitem__", clock.watched(Batches.__getitem__)):
        _train(preset, size, epochs, overrides, clock)
    what = f"epoch of {COUNTS['training']} + {COUNTS['validation']} images, {preset}"
    epoch, alone = np.array(clock.epochs), np.array(clock.steps)
    row = partial(
        timing.compare,
        "epoch",
        shape=(1, *size, vessels.RECORD.channels),
        unit="s",
    )
    waits = np.array(clock.waits)
    return [
        row(what, ours=epoch, peer=("its steps alone", alone), target=OVER_STEPS),
        row(f"waiting for samples, {what}", ours=waits, peer=("the epoch", epoch)),
    ]


def memory_over_epochs(
    size: int = 128, epochs: int = 200, early: int = 100, **overrides: Any
) -> timing.Row:
    """Train a small network for many epochs, and record the memory.

    Args:
        size: size of the images, pixels by side.
        epochs: number of epochs.
        early: the epoch after which memory should not grow; allocations that happen
            once, such as by threads of the backend, are done by then.
        **overrides: overrides of the preset's values.
    """
    after: list[float] = []  # each epoch, MB
    watcher = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: after.append(provenance.peak_memory_mb())
    )
    _train("reduced", (size, size), epochs, {"filters": 4, **overrides}, watcher)
    return timing.compare(
        "epoch",
        f"peak memory after {epochs} epochs",
        (1, size, size, vessels.RECORD.channels),
        np.array(after[-1:]),
        (f"after {early}", np.array(after[early - 1 : early])),
        target=GROWTH,
        unit="MB",
    )


def main() -> None:
    """Measure, print and write the rows to the CSV file."""
    parser = timing.parser(__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="reduced")
    arguments = parser.parse_args()
    # First, since the peak is that of the whole process.
    rows = [memory_over_epochs(), *epochs_beside_steps(arguments.preset)]
    timing.record(rows, arguments.output)


if __name__ == "__main__":
    main()
