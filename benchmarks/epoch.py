"""What goes on around the steps of a training: time, memory, and a second start.

A training as `dscpp train` does it, on as many phantoms as DRIVE has images, or as many
simulated volumes, and the input size asked for. After some epochs the steps of one are
taken alone, on a batch that lies ready on the device, and its samples drawn alone: what
an epoch takes beyond its steps is drawing beside them, waiting for samples, and all
that goes on around. `python -m benchmarks.epoch`; with `--shape 80 160 160` of epochs
alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

from benchmarks import samples, step, timing
from data_io import datasets, splits
from data_io.datasets import phantom
from data_io.datasets.phantom import vessels
from data_io.prepare import cache
from data_io.prepare.batches import Batches
from data_io.prepare.preprocessing import Settings
from data_io.verification import verify
from pipelines import provenance
from pipelines import run as runs
from pipelines.training import fit
from pipelines.training.task import Task

__all__ = ["epochs_beside_steps", "memory_over_epochs", "second_start"]

# DRIVE's split: 16 images to train on, 4 to validate with, 20 to test.
COUNTS = {"training": 16, "validation": 4, "test": 20}
# Targets: over pure steps; seconds; peak memory after the last epoch over an early one,
# of some 900 MB: one sample of 128x128 left behind an epoch adds 3 to 4 %, as tried.
WAITING, START, GROWTH = 1.05, 1.0, 1.02
# Of the images. The larger comes last, since the peak is that of the process.
SIZES = 64, 128
# The first compiles and is not counted. JAX takes three times as long on a CPU.
EPOCHS = 13 if keras.backend.backend() == "jax" else 49
# Epochs between two looks at the steps alone. Training would seem to stand still else:
# its state is written when some seconds have passed.
BLOCK = 4
PRESETS = {"reduced": (256, 256), "paper": (512, 512)}
_Take = Callable[[Batches, int], Any]


class _Clock(keras.callbacks.Callback):
    """Times blocks of epochs; in between, steps and draws alone."""

    # Of the training, set by who makes it: what it draws from.
    batches: Batches

    def __init__(self, counts: dict[str, int], block: int) -> None:
        super().__init__()
        self.counts = counts
        self.block = block
        self.epochs: list[float] = []
        self.waits: list[float] = []
        self.steps: list[float] = []
        self.draws: list[float] = []
        self.inside: list[float] = []  # of the epoch's own steps
        self.peaks: list[float] = []  # of a GPU, MB
        self._start = self._waited = self._inside = self._began = 0.0
        self._gpu = provenance.device() != "CPU"
        # Else a step may go on after its call.
        self._calls = not self._gpu and keras.backend.backend() != "jax"

    def watched(self, take: _Take) -> _Take:
        """A way to take samples of which it is known how long it waits."""

        def taken(batches: Batches, index: int) -> Any:
            start = time.perf_counter()
            item = take(batches, index)
            self._waited += time.perf_counter() - start
            return item

        return taken

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Start the clock of a step."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Stop it."""
        self._inside += time.perf_counter() - self._began

    on_test_batch_begin = on_train_batch_begin
    on_test_batch_end = on_train_batch_end

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the time of a block, take its parts alone, and start anew."""
        if epoch % self.block == 0:
            if epoch:
                self._note()
                self._parts(epoch)
            if self._gpu:
                step.forget_peak()
            self._start, self._waited = time.perf_counter(), 0.0
            self._inside = 0.0

    def _note(self) -> None:
        took = time.perf_counter() - self._start
        self.epochs.append(took / self.block)
        self.waits.append(self._waited / self.block)
        if self._calls:
            self.inside.append(self._inside / self.block)
        if self._gpu:
            self.peaks.append(step.peak_mb())

    def _parts(self, epoch: int) -> None:
        # On the device already: bringing it there is the epoch's.
        item = [keras.ops.convert_to_tensor(x) for x in self.batches.draw(epoch, 0)]
        self._steps(item)  # compiles, or fills caches
        self.steps.append(_seconds(lambda: self._steps(item)))
        self.draws.append(_seconds(lambda: self._draws(epoch)))

    def _steps(self, item: Sequence[Any]) -> None:
        for _ in range(self.counts["training"]):
            self.model.train_on_batch(*item)
        for _ in range(self.counts["validation"]):
            self.model.test_on_batch(*item)

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


def _images(
    folder: Path, preset: str, shape: Sequence[int], overrides: dict[str, Any]
) -> tuple[Task, fit.Material]:
    """A training on phantoms."""
    drawn = phantom.Settings(size=max(shape), **COUNTS)
    root = phantom.generate(drawn, folder / "phantom")
    record, split = vessels.record(root), vessels.split(root)
    task = Task.make(
        "phantom",
        "DSC++",
        preset=preset,
        overrides={"input_shape": list(shape), **overrides},
        record=record,
    )
    cases = [case for part in split.values() for case in part]
    settings = Settings.of(record, task.protocol.input_shape)
    prepared = cache.prepare(vessels, root, cases, settings, folder / "cache", False)
    return task, fit.Material(prepared, split, len(record.classes), record.channels)


def _volumes(
    folder: Path, preset: str, shape: Sequence[int], overrides: dict[str, Any]
) -> tuple[Task, fit.Material]:
    """A training on noise in volumes, as much larger than a patch as `samples` has."""
    volume, patch, channels, classes = samples.VOLUMES
    sides = zip(shape, volume, patch, strict=True)
    sizes = tuple(size * of // part for size, of, part in sides)
    training, validation = COUNTS["training"], COUNTS["validation"]
    prepared, _ = samples.simulated(
        folder, sizes, tuple(shape), channels, classes, training + validation
    )
    names = tuple(prepared.cases)
    split = {"training": names[:training], "validation": names[training:], "test": ()}
    task = Task.make(
        "kits19",
        "DSC++",
        preset=preset,
        overrides={"input_shape": list(shape), **overrides},
    )
    return task, fit.Material(prepared, split, classes, channels)


def _train(
    preset: str,
    shape: Sequence[int],
    overrides: dict[str, Any],
    watcher: keras.callbacks.Callback,
) -> fit.Material:
    """Train on simulated data in a folder that is deleted; gives what it was."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make = _volumes if len(shape) == 3 else _images
        task, material = make(folder, preset, shape, overrides)
        if isinstance(watcher, _Clock):
            watcher.batches = Batches(
                material.cache,
                material.split["training"],
                classes=material.classes,
                augment=task.protocol.augment,
                shuffle=True,
            )
        run = runs.Run.create(folder / "run", {"times": {}})
        fit.train(task, material, run, [watcher])
    return material


def epochs_beside_steps(
    preset: str = "reduced",
    epochs: int = EPOCHS,
    shape: Sequence[int] = (),
    **overrides: Any,
) -> list[timing.Row]:
    """Train on simulated data, and time epochs in turn with their steps alone.

    Args:
        preset: "reduced" (256x256, 16 filters) or "paper" (512x512, 32 filters).
        epochs: one more than are counted.
        shape: of the network's input, voxels by axis; () for the preset's of images.
            Three axes: patches of volumes, in KiTS19's protocol.
        **overrides: of the preset's values.

    Returns:
        Rows of the epoch, of its steps a second, of its waiting for samples, of those
        drawn one after the other, and of the time inside its steps where a step ends
        with its call (a CPU, but not JAX); on a GPU another of its memory.
    """
    shape = tuple(shape) or PRESETS[preset]
    clock = _Clock(COUNTS, BLOCK)
    long = {"epochs": epochs, "stopping_patience": epochs, **overrides}
    with mock.patch.object(Batches, "__getitem__", clock.watched(Batches.__getitem__)):
        material = _train(preset, shape, long, clock)
    kind = "patches" if len(shape) == 3 else "images"
    counted = f"{COUNTS['training']} + {COUNTS['validation']} {kind}, {preset}"
    target: float | None = WAITING
    if not overrides.get("augment", True):
        counted, target = f"{counted}, not augmented", None
    return _rows(clock, counted, (1, *shape, material.channels), target)


def _rows(
    clock: _Clock, counted: str, shape: Sequence[int], target: float | None
) -> list[timing.Row]:
    number = COUNTS["training"] + COUNTS["validation"]
    epochs, steps = np.array(clock.epochs), np.array(clock.steps)
    waits, draws = np.array(clock.waits), np.array(clock.draws)
    alone, rate = ("its steps alone", steps), ("its steps alone", number / steps)
    whole = "the epoch", epochs
    found: list[tuple[str, np.ndarray, timing.Series | None, float | None, str]] = [
        ("epoch of", epochs, alone, target, "s"),
        ("steps a second, epoch of", number / epochs, rate, None, "1/s"),
        ("waiting for samples, epoch of", waits, whole, None, "s"),
        ("drawing, one thread, of", draws, alone, None, "s"),
    ]
    if clock.inside:
        found.append(
            ("in its steps, epoch of", np.array(clock.inside), alone, None, "s")
        )
    if clock.peaks:
        peaks = np.array(clock.peaks)
        found.append(("GPU memory, epoch of", peaks, None, None, "MB"))
    return [
        timing.compare(
            "epoch",
            f"{what} {counted}",
            shape,
            ours,
            peer,
            timing.packages(),
            wanted,
            unit=unit,
        )
        for what, ours, peer, wanted, unit in found
    ]


def memory_over_epochs(
    size: int, epochs: int = 200, early: int = 100, **overrides: Any
) -> timing.Row:
    """Train a small network for long, and look at the memory.

    Args:
        size: of the images, pixels by side.
        epochs: how long.
        early: the epoch after which nothing should be added: what is asked for once,
            such as by threads of the backend, has been by then.
        **overrides: of the preset's values.
    """
    peaks = _Peaks()
    small = {"epochs": epochs, "stopping_patience": epochs, "filters": 4}
    _train("reduced", (size, size), {**small, **overrides}, peaks)
    return timing.compare(
        "epoch",
        f"peak memory after {epochs} epochs",
        (1, size, size, vessels.RECORD.channels),
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
    parser.add_argument(
        "--shape", type=int, nargs="+", default=(), metavar="N", help="as 80 160 160"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=EPOCHS,
        help=f"one more than a multiple of {BLOCK}",
    )
    parser.add_argument("--data", type=Path, help="DRIVE's folder, for a second start")
    parser.add_argument("--output", type=Path, default=timing.RESULTS)
    arguments = parser.parse_args()
    rows = [] if arguments.shape else [memory_over_epochs(size) for size in SIZES]
    asked = arguments.preset, arguments.epochs, arguments.shape
    rows += epochs_beside_steps(*asked)
    # Hardly a draw: what is left of an epoch beside its steps and its draws.
    rows += epochs_beside_steps(*asked, augment=False)
    if not arguments.shape:
        rows.append(second_start(arguments.data))
    for row in rows:
        print(timing.describe(row))
    timing.write(rows, arguments.output)


if __name__ == "__main__":
    main()
