"""The state of a training between two epochs, whole, in one file.

Keras' `BackupAndRestore` loses what `ReduceLROnPlateau` and `EarlyStopping` know: they
reset in `on_train_begin`. Here weights, optimiser, best weights, callbacks, history and
clock are one file, written aside and renamed: they belong together at any moment, and a
run that was killed goes on from the end of an epoch and ends as if it had never
stopped. Batches need no random state: their content follows from seed, epoch and index
(`data_io.prepare.batches`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import keras
import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from data_io.errors import InputError
from data_io.files import archives, schema
from pipelines.runs import run as runs

Arrays = dict[str, Any]  # NumPy arrays by name

_DAMAGE = (*archives.DAMAGED, OSError, ValueError, KeyError, TypeError)


@dataclass
class Progress:
    """The progress of a training besides its weights.

    Attributes:
        epoch: epochs finished.
        stopped: whether early stopping has ended it.
        best: lowest validation loss so far, or None.
        seconds: time spent in training so far.
        history: one row an epoch: epoch, loss, val_loss, learning_rate.
        callbacks: the state of each resumable callback, by name.
        best_weights: the network's weights at `best`, in the order of `get_weights`.
        of: what tells the training from others; "" where it is not known.
    """

    epoch: int = 0
    stopped: bool = False
    best: float | None = None
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    best_weights: list[npt.NDArray[Any]] = field(default_factory=list)
    of: str = ""


class _Saved(TypedDict):
    """The part of a `Progress` that is saved as JSON."""

    epoch: int
    stopped: bool
    best: float | None
    seconds: float
    history: list[dict[str, float]]
    callbacks: dict[str, dict[str, Any]]
    of: NotRequired[str]


def snapshot(model: keras.Model, progress: Progress) -> Arrays:
    """Copy weights, optimiser variables and progress, as they are at this moment."""
    arrays = {
        f"{kind}-{index}": keras.ops.convert_to_numpy(variable.value)
        for kind, variables in _variables(model).items()
        for index, variable in enumerate(variables)
    }
    arrays |= {f"best-{i}": array for i, array in enumerate(progress.best_weights)}
    values = {k: v for k, v in vars(progress).items() if k != "best_weights"}
    return {"progress": np.array(json.dumps(values)), **arrays}


def save(path: Path, arrays: Arrays) -> None:
    """Write a snapshot to one file, atomically."""

    def write(aside: Path) -> None:
        # Not compressed: weights hardly shrink, and this runs after many epochs.
        with aside.open("wb") as file:
            np.savez(file, **arrays)

    runs.write_atomically(path, write)


def load(path: Path, model: keras.Model, fingerprint: str = "") -> Progress:
    """Put a saved state into a compiled model.

    Args:
        path: of the state.
        model: compiled.
        fingerprint: of the training; a state that names another one is refused.

    Raises:
        InputError: the file is damaged, of another network or of another training.
    """
    # A second time, an optimiser that scales the loss would add its variables again.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    try:
        with np.load(path, allow_pickle=False) as file:
            text = str(file["progress"])
            progress = Progress(**schema.parse(text, _Saved))
            if progress.of and fingerprint and progress.of != fingerprint:
                raise ValueError("it is of another training")
            if progress.best is not None:
                indices = range(len(model.weights))
                progress.best_weights = [file[f"best-{index}"] for index in indices]
            for kind, variables in _variables(model).items():
                for index, variable in enumerate(variables):
                    variable.assign(_fitting(file, f"{kind}-{index}", variable))
    except _DAMAGE as error:
        raise InputError(
            f"{path}: expected the saved state of this training, found a file that "
            f"does not fit ({error}); delete the run folder to train from the start"
        ) from error
    return progress


def _fitting(file: Any, name: str, variable: keras.Variable) -> npt.NDArray[Any]:
    """Return an array of the file; refuse another shape than its variable's."""
    value: npt.NDArray[Any] = file[name]
    if value.shape != tuple(variable.shape):
        raise ValueError(
            f"{name} has shape {value.shape}, the network's {tuple(variable.shape)}"
        )
    return value


def _variables(model: keras.Model) -> dict[str, Sequence[keras.Variable]]:
    return {"model": model.variables, "optimizer": model.optimizer.variables}
