"""Callbacks of the fit loop beside those of Keras, which `StateWriter` resumes."""

import math
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data_io import bars
from data_io.errors import NotFinite
from pipelines.runs import run as runs
from pipelines.training import state

_Logs = dict[str, Any] | None
_SHARE = 0.01  # of a training's time that writing its state may take
# What Keras' callbacks forget in `on_train_begin`, in the middle of their patience.
_KEPT = {
    "ReduceLROnPlateau": ("best", "wait", "cooldown_counter"),
    "EarlyStopping": ("best", "wait", "best_epoch", "stopped_epoch"),
}
# Seconds between two looks at the loss: each waits until the device is done.
_LOOK = 1.0


class NotFiniteStop(keras.callbacks.Callback):
    """Stop where a loss is not finite, and keep the batch of the first such step.

    Validation counts too: the last step of an epoch may spoil the weights without a
    training loss that shows it, and neither they nor such a validation loss may get
    into the saved state or the best model.

    Losses are looked at once a second and at the end of each epoch, before anything is
    saved. A look waits for the device, which at each step would be left idle by it.

    Args:
        training: the training batches, for the case's name and content.
        validation: the validation batches.
        path: where to keep the batch, an `.npz` with `image`, `label` and `case`.
    """

    def __init__(self, training: Any, validation: Any, path: Path) -> None:
        super().__init__()
        self.training = training
        self.validation = validation
        self.path = path
        self._unseen: list[tuple[str, Any, int, Any]] = []
        self._looked = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
        """Note the training loss, which may raise NotFinite; see the class."""
        self._note("loss", self.training, batch, logs)

    def on_test_batch_end(self, batch: int, logs: _Logs = None) -> None:
        """Note the validation loss, which may raise NotFinite; see the class."""
        self._note("validation loss", self.validation, batch, logs)

    def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
        """Look at what is left of the epoch, which may raise NotFinite."""
        self._look()

    def _note(self, name: str, batches: Any, index: int, logs: _Logs) -> None:
        self._unseen.append((name, batches, index, (logs or {})["loss"]))
        if time.monotonic() - self._looked >= _LOOK:
            self._look()

    def _look(self) -> None:
        for step in self._unseen:
            self._check(*step)
        self._unseen.clear()
        self._looked = time.monotonic()

    def _check(self, name: str, batches: Any, index: int, loss: Any) -> None:
        # Keras reports the running mean over the epoch: it is finite until the first
        # step that is not.
        value = float(loss)
        if math.isfinite(value):
            return
        image, label = batches[index]
        case = batches.case(index)
        runs.write_atomically(
            self.path,
            lambda aside: np.savez(aside, image=image, label=label, case=case),
        )
        raise NotFinite(
            f"the {name} became {value} in epoch {self.training.epoch + 1} at case "
            f"{case}; its batch is kept in {self.path}. The last good state is kept "
            "too; a lower learning rate (--set learning_rate=0.01) may help."
        )


class StateWriter(keras.callbacks.Callback):
    """Keep the best weights and, after each epoch, the state to resume from.

    The state is copied after each epoch and written every so often, and by `flush` at
    the end: what is written is always the state of a finished epoch.

    Args:
        path: the state file.
        progress: filled as training goes on.
        resumable: callbacks of Keras whose state belongs to it, called before this one:
            after their reset they are given the state that `progress` begins with.
        interval: seconds between two writes of the state, the first after the first
            epoch; what came after the last one before a SIGKILL is simply trained
            again, to the same result. More where a write takes long: `_SHARE` of the
            time at most.
    """

    def __init__(
        self,
        path: Path,
        progress: state.Progress,
        resumable: list[Any],
        interval: float = 5.0,
    ) -> None:
        super().__init__()
        self.path = path
        self.progress = progress
        self.resumable = resumable
        self.interval = interval
        self._clock = time.monotonic()
        self._written = -math.inf
        self._pause = interval
        self._unwritten: state.Arrays | None = None
        self._lock = threading.Lock()

    def on_train_begin(self, logs: _Logs = None) -> None:
        """Put back the state of the callbacks, and start the clock."""
        for callback in self.resumable:
            kind = type(callback).__name__
            values = self.progress.callbacks.get(kind, {})
            for name in values.keys() & _KEPT[kind]:
                setattr(callback, name, values[name])
        self._clock = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
        """Keep the best weights and the state."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        progress = self.progress
        progress.epoch = epoch + 1
        progress.history.append({"epoch": epoch + 1, **values})
        progress.stopped = bool(self.model.stop_training)
        progress.callbacks = {
            kind: {name: _plain(getattr(callback, name)) for name in _KEPT[kind]}
            for callback in self.resumable
            for kind in [type(callback).__name__]
        }
        if progress.best is None or values["val_loss"] < progress.best:
            progress.best = values["val_loss"]
            progress.best_weights = self.model.get_weights()
        clock = time.monotonic()
        progress.seconds += clock - self._clock
        self._clock = clock
        self._unwritten = state.snapshot(self.model, progress)
        if progress.stopped or clock - self._written >= self._pause:
            self.flush()

    def on_train_end(self, logs: _Logs = None) -> None:
        """Write the last state."""
        self.flush()

    def flush(self) -> None:
        """Write the state of the last finished epoch, unless it is written.

        From any thread, at any moment.
        """
        with self._lock:
            if self._unwritten is None:
                return
            start = time.monotonic()
            state.save(self.path, self._unwritten)
            self._unwritten = None
            self._written = time.monotonic()
            self._pause = max(self.interval, (self._written - start) / _SHARE)


def _plain(value: Any) -> Any:
    """Return Keras' value as a number that JSON knows."""
    return value if value is None or isinstance(value, int) else float(value)


class ProgressBar(keras.callbacks.Callback):
    """One bar over all steps: epoch, losses, and the most time left.

    The loss is shown anew once a second: a look at it waits for the device. Where
    there is no terminal, a line an epoch, at most one a minute.

    Args:
        epochs: the most epochs there may be (early stopping may end sooner).
        steps: steps an epoch.
        initial_epoch: epochs done before.
        title: shown in front.
    """

    def __init__(self, epochs: int, steps: int, initial_epoch: int, title: str) -> None:
        super().__init__()
        self.epochs = epochs
        self.initial_epoch = initial_epoch
        self.validation = ""
        self._looked = -math.inf
        self._begun = time.monotonic()
        self.bar = bars.bar(
            desc=title,
            total=epochs * steps,
            initial=initial_epoch * steps,
            mininterval=_LOOK,
        )

    def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
        """Move the bar by a step."""
        if isinstance(self.bar, bars.Lines):
            return
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self.bar.set_postfix_str(
                f"loss {float((logs or {})['loss']):.4f}{self.validation}",
                refresh=False,
            )
            self._looked = now
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
        """Show the epoch and its losses."""
        self.validation = f", val_loss {float((logs or {})['val_loss']):.4f}"
        text = (
            f"epoch {epoch + 1} of at most {self.epochs}, "
            f"loss {float((logs or {})['loss']):.4f}{self.validation}"
        )
        if not isinstance(self.bar, bars.Lines):
            self.bar.set_postfix_str(text, refresh=False)
        elif epoch == self.initial_epoch or self.bar.due:
            self.bar.say(f"{text}, {self._pace(epoch + 1)}")
        if epoch == self.initial_epoch:
            self._begun = time.monotonic()

    def _pace(self, done: int) -> str:
        """Return seconds an epoch and the time left; skip the first, which compiles."""
        since = time.monotonic() - self._begun
        seconds = since / max(1, done - self.initial_epoch - 1)
        left = bars.duration(seconds * (self.epochs - done) / 3600)
        slow = " with compiling" if done == self.initial_epoch + 1 else ""
        return f"{seconds:.3g} s an epoch{slow}, at most about {left} left"

    def on_train_end(self, logs: _Logs = None) -> None:
        """Leave the bar as it is."""
        self.bar.close()
