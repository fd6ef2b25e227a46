"""One training, from raw files to the best checkpoint, resumable at any moment."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy.typing as npt

import losses
from data_io import bars, pool
from data_io.files.schema import digest
from data_io.prepare import batches, cache
from pipelines.environment import backend, provenance, stopping
from pipelines.runs import run as runs
from pipelines.training import callbacks, state, unet
from pipelines.training.protocol import Protocol
from pipelines.training.task import Task

MODEL, STATE = runs.MODEL, runs.STATE
HISTORY = ("epoch", "loss", "val_loss", "learning_rate")


@dataclass(frozen=True)
class TrainingData:
    """The data of a training, checked and preprocessed.

    Attributes:
        cache: the preprocessed cases.
        split: case ids of "training", "validation" and "test".
        classes: number of classes, background included.
        channels: channels of the images.
    """

    cache: cache.Cache
    split: dict[str, tuple[str, ...]]
    classes: int
    channels: int


def build(protocol: Protocol, channels: int, classes: int) -> keras.Model:
    """Build the U-Net for a protocol, with fresh weights (section 2.7: Xavier).

    It has the form that the backend computes faster; see `unet`. From now on the
    backend multiplies as the protocol's precision says.
    """
    backend.set_precision(protocol.precision)
    network = unet.UNet(
        protocol.filters,
        protocol.depth,
        # TF32 is a way to multiply float32, not a type.
        "float32" if protocol.precision == "tf32" else protocol.precision,
        unet.channels_first_is_faster(),
    )
    return _create(network, protocol, channels, classes)


def _create(
    network: unet.UNet, protocol: Protocol, channels: int, classes: int
) -> keras.Model:
    shape = (*protocol.input_shape, channels)
    if len(protocol.input_shape) == 3:
        return network.create_model_3D(shape, classes)
    return network.create_model_2D(shape, classes)


def compile_model(
    model: keras.Model, protocol: Protocol, loss: keras.losses.Loss
) -> None:
    """Compile a network that `build` gave; the loss takes one-hot and softmax."""
    optimizer: Any = keras.optimizers.SGD(
        protocol.learning_rate, momentum=protocol.momentum, nesterov=protocol.nesterov
    )
    if protocol.precision == "mixed_float16":
        # Keras does this by itself only where the policy is the global one.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # Not left to Keras, which compiles on TensorFlow as soon as there is a GPU.
    unasked = protocol.xla == "auto" and keras.backend.backend() != "jax"
    xla = False if unasked else protocol.xla
    model.compile(optimizer=optimizer, loss=loss, jit_compile=xla)
    if keras.backend.backend() == "torch":
        optimizer.build(model.trainable_variables)
        unet.arrange(optimizer.variables)


def train(
    task: Task,
    training_data: TrainingData,
    run: runs.Run,
    weights: list[npt.NDArray[Any]] | None = None,
    watchers: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a run to its end, from the start or from its saved state.

    The same task and data give the same history and weights, to the bit on a CPU,
    however often the process was killed in between, and also where the run was
    finished before with fewer epochs.

    The caller holds the run. `weights` are to begin with, in the order of
    `get_weights`; None for fresh ones. `watchers` are further callbacks, called last.

    Raises:
        callbacks.NotFinite: the loss became NaN or infinite.
        InputError: the saved state does not fit.
    """
    pool.keep_memory()
    keras.utils.set_random_seed(task.seed)
    model = _compiled(task, training_data)
    if weights is not None:
        model.set_weights(weights)
    path = run.path(STATE)
    fingerprint = _fingerprint(run)
    progress = (
        state.load(path, model, fingerprint) if path.exists() else state.Progress()
    )
    progress.of = fingerprint
    ended = progress.stopped or progress.epoch >= task.protocol.epochs
    identity = task.identity()
    for key in ("overrides", "settings"):  # equal but for epochs: 0 stays 0, not 0.0
        same = {name: v for name, v in run.record[key].items() if name != "epochs"}
        run.record[key] = {**identity[key], **same}
    if run.reached("trained") and ended:
        run.update()
        bars.note(
            f"  note     {run.folder} ended by itself after {progress.epoch} epochs: "
            "its validation loss did not fall any more. More epochs change nothing"
        )
        return
    run.update(state="training")
    if not ended:
        _fit(task, training_data, run, model, progress, watchers)
    _finish(task, training_data, run, progress)


def _fingerprint(run: runs.Run) -> str:
    """Return the hash of a run's identity without its number of epochs."""
    known = {key: run.record.get(key) for key in runs.IDENTITY}
    identity = {key: value for key, value in known.items() if value is not None}
    for key in ("overrides", "settings"):
        identity[key] = {
            k: v for k, v in identity.get(key, {}).items() if k != "epochs"
        }
    return digest(identity)


def _compiled(task: Task, training_data: TrainingData) -> keras.Model:
    values = task.protocol
    model = build(values, training_data.channels, training_data.classes)
    gamma = {} if task.gamma is None else {"gamma": task.gamma}
    compile_model(model, values, losses.by_name(task.loss, **gamma))
    return model


def _batches(task: Task, training_data: TrainingData, split: str) -> batches.Batches:
    training = split == "training"
    return batches.Batches(
        training_data.cache,
        training_data.split[split],
        classes=training_data.classes,
        seed=task.seed,
        augment=training and task.protocol.augment,
        shuffle=training,
        # Patches of validation are drawn anew each epoch too, as in the released code.
        redraw=training or not task.protocol.fixed_validation,
        mirror_axes=task.protocol.mirror_axes,
    )


def _fit(
    task: Task,
    training_data: TrainingData,
    run: runs.Run,
    model: keras.Model,
    progress: state.Progress,
    watchers: Sequence[keras.callbacks.Callback],
) -> None:
    training = _batches(task, training_data, "training")
    validation = _batches(task, training_data, "validation")
    resumable = _resumable(task.protocol)

    def begin(epoch: int, logs: Any) -> None:
        training.epoch = validation.epoch = epoch

    writer = callbacks.StateWriter(run.path(STATE), progress, resumable)
    with stopping.saving(writer.flush):
        model.fit(
            batches.feed(training),
            validation_data=batches.feed(validation),
            epochs=task.protocol.epochs,
            initial_epoch=progress.epoch,
            shuffle=False,  # Batches shuffles by seed and epoch.
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(on_epoch_begin=begin),
                callbacks.NotFiniteStop(
                    training, validation, run.path("not-finite.npz")
                ),
                *resumable,
                writer,
                callbacks.ProgressBar(
                    task.protocol.epochs, len(training), progress.epoch, run.name
                ),
                *watchers,
            ],
        )


def _resumable(values: Protocol) -> list[Any]:
    return [
        keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss",
            factor=values.plateau_factor,
            patience=values.plateau_patience,
            min_delta=values.min_delta,
            cooldown=values.plateau_cooldown,
            min_lr=values.min_learning_rate,
            mode="min",
        ),
        keras.callbacks.EarlyStopping(
            monitor="val_loss",
            patience=values.stopping_patience,
            min_delta=values.min_delta,
            mode="min",
        ),
    ]


def _finish(
    task: Task, training_data: TrainingData, run: runs.Run, progress: state.Progress
) -> None:
    # The plain form, which any Keras loads on any backend.
    network = unet.UNet(task.protocol.filters, task.protocol.depth)
    model = _create(
        network, task.protocol, training_data.channels, training_data.classes
    )
    model.set_weights(progress.best_weights)
    # Without the optimiser, which would triple the file and serves no prediction.
    runs.write_atomically(
        run.path(MODEL), lambda aside: model.save(aside, include_optimizer=False)
    )
    runs.write_csv(run.path("history.csv"), HISTORY, progress.history)
    epochs = len(progress.history)
    run.update(
        files=["history.csv", MODEL],
        state="trained",
        best_val_loss=progress.best,
        device=provenance.device(),
        peak_memory_mb=provenance.peak_memory_mb(),
        times={
            "train_s": round(progress.seconds, 1),
            "epochs": epochs,
            "seconds_per_epoch": round(progress.seconds / epochs, 3),
        },
    )


def estimate(task: Task, training_data: TrainingData, steps: int = 4) -> dict[str, Any]:
    """Time a few real training steps.

    The first step, which compiles, is not timed.

    Returns:
        `seconds_per_epoch`, `epochs` (the most there may be) and `device`.
    """
    model = _compiled(task, training_data)
    training = _batches(task, training_data, "training")
    model.train_on_batch(*training[0])
    start = time.perf_counter()
    for index in range(steps):
        model.train_on_batch(*training[index % len(training)])
    step = (time.perf_counter() - start) / steps
    # A validation step has no backward pass: about a third of a training step.
    seconds = step * (len(training) + len(training_data.split["validation"]) / 3)
    return {
        "seconds_per_epoch": seconds,
        "epochs": task.protocol.epochs,
        "device": provenance.device(),
    }
