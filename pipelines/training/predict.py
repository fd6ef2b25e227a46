"""Probabilities of every validation and test case.

Those of images at native resolution, those of volumes on the network's grid: at native
resolution a volume of 1059 slices has 3.3 GB of them.
"""

import shutil
import time
import zipfile
from pathlib import Path

import keras
import numpy as np

from data_io import bars
from data_io.errors import InputError
from data_io.files.hashing import file_hash
from data_io.prepare import batches, cache, patches
from pipelines.environment import provenance
from pipelines.runs import run as runs
from pipelines.runs import written
from pipelines.runs.predictions import (
    LIST,
    PROBABILITIES,
    SPLITS,
    discard_derived,
    listed,
    require_free,
)
from pipelines.training import fit
from pipelines.training.protocol import Protocol
from pipelines.training.task import Task


def load(path: Path, run: runs.Run, protocol: Protocol) -> keras.Model:
    """Read a run's best checkpoint, in the form that `fit.build` returns.

    Raises:
        InputError: no model, a damaged one, one of another architecture, or one that
            is not the run's own.
    """
    saved = read_model(path)
    if len(saved.inputs) != 1 or len(saved.outputs) != 1:
        raise InputError(
            f"{path}: expected the run's U-Net, with one input and one output, found a "
            f"model with {len(saved.inputs)} and {len(saved.outputs)}; restore the "
            f"run's own {fit.MODEL}, or train again into another --output"
        )
    model = fit.build(protocol, saved.input_shape[-1], saved.output_shape[-1])
    try:
        model.set_weights(saved.get_weights())
    except ValueError as error:  # of other shapes
        raise InputError(
            f"{path}: expected the run's U-Net, {_describe(model)}; found a model of "
            f"another architecture, {_describe(saved)}; restore the run's own "
            f"{fit.MODEL}, or train again into another --output"
        ) from error
    require_own(path, run)
    return model


def read_model(path: Path) -> keras.Model:
    """Read a model file, without its loss and optimiser.

    Raises:
        InputError: no file, or not a whole Keras model.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: expected the run's best checkpoint, found none. Weights are not "
            "kept in git: train again into another --output to have them"
        )
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path}: expected a Keras model, found {path.stat().st_size} bytes that "
            "are no whole archive, cut short or damaged; restore it, or train again "
            "into another --output"
        )
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds for a damaged archive.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: expected a Keras model, found a file that cannot be loaded "
            f"({reason}); restore it, or train again into another --output"
        ) from error


def require_own(path: Path, run: runs.Run) -> None:
    """Refuse weights that are not the run's.

    Raises:
        InputError: the file's hash is not the one in `run.json`.
    """
    if file_hash(path) != run.record.get("files", {}).get(fit.MODEL):
        raise InputError(
            f"{path}: expected the run's own weights, found others than {runs.RECORD} "
            f"has the hash of; restore the run's own {fit.MODEL}, or train again "
            "into another --output"
        )


def _describe(model: keras.Model) -> str:
    return (
        f"input {model.input_shape}, output {model.output_shape}, "
        f"{model.count_params():,} parameters"
    )


def predict(task: Task, training_data: fit.TrainingData, run: runs.Run) -> None:
    """Write `probabilities/<case>.npy` for each validation and test case.

    Each file is float32: of an image (*native shape, classes), softmax values resized
    to native resolution (protocol: order 1); of a volume (*prepared shape, classes), on
    the grid that it was resampled to. Their list is `written.LIST`. A folder half
    written is never left under its name.

    The caller holds the run, in state "trained" or past it.
    """
    require_free(run)
    model = load(run.path(fit.MODEL), run, task.protocol)
    start = time.perf_counter()
    with runs.writing(run.path(PROBABILITIES)):
        _write_probabilities(task, model, training_data, run)
    if file_hash(run.path(LIST)) != listed(run):
        discard_derived(run)
    run.update(
        files=[LIST],
        state="predicted",
        times={"predict_s": round(time.perf_counter() - start, 1)},
        peak_memory_mb=provenance.peak_memory_mb(run.record),
    )


def probabilities(
    model: keras.Model, prepared: cache.Cache, case: str, protocol: Protocol
) -> np.ndarray:
    """Predict a case.

    Args:
        model: a trained network.
        prepared: the cache that holds the case.
        case: its id.
        protocol: of the network; with an overlap, the case is a volume.

    Returns:
        Softmax values, float32: of an image (*native shape, classes), of a volume on
        the grid it was resampled to, in the directions of its file.

    Raises:
        InputError: the network gives values that are no numbers.
    """
    if protocol.overlap:
        values = volume(model, prepared.image(case), protocol)
        values = np.flip(values, prepared.turned(case))
    else:
        image = batches.prediction_input(prepared, case)
        softmax = np.asarray(model.predict_on_batch(image))[0]
        values = batches.to_native(prepared, case, softmax)
    if not np.isfinite(values).all():
        raise InputError(
            f"case {case}: expected probabilities, found NaN or infinite values from "
            "this network; its weights or the case's values are damaged: restore the "
            "run's own, or train again into another --output"
        )
    return np.ascontiguousarray(values, np.float32)


def _write_probabilities(
    task: Task, model: keras.Model, training_data: fit.TrainingData, run: runs.Run
) -> None:
    aside = run.path(f".{PROBABILITIES}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    cases = [case for split in SPLITS for case in training_data.split[split]]
    try:
        for case in bars.bar(cases, f"{run.name} predict", unit="case"):
            values = probabilities(model, training_data.cache, case, task.protocol)
            np.save(aside / f"{case}.npy", values)
        written.seal(aside, [f"{case}.npy" for case in cases])
        shutil.rmtree(run.path(PROBABILITIES), ignore_errors=True)
        aside.rename(run.path(PROBABILITIES))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def volume(model: keras.Model, image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Predict a prepared volume, patch by patch.

    Args:
        model: from patches to probabilities.
        image: (*shape, channels) float32, resampled, clipped and z-scored.
        protocol: patch, overlap and join.

    Returns:
        probabilities, (*shape, classes) float32, on the grid of `image`.
    """
    grid = patches.Grid(
        image.shape[:-1], protocol.input_shape, protocol.overlap, protocol.join
    )
    return patches.predict(
        image, lambda patch: np.asarray(model.predict_on_batch(patch)), grid
    )
