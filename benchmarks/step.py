"""A training step of the study's network, beside that of others of the same shape.

On PyTorch beside a U-Net in PyTorch alone, on TensorFlow beside MIScnn's own with its
normalisation swapped; on JAX alone. Weights, loss and optimiser are the same; ours is
built and compiled as `dscpp train` does it. On a GPU, where there is one, and then the
memory is measured too. `python -m benchmarks.step`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

import losses
from benchmarks import timing
from data_io.miscnn_compat import standard_unet
from pipelines import provenance
from pipelines.training import fit
from pipelines.training.protocol import Protocol

__all__ = ["beside_peer", "forget_peak", "pair", "peak_mb"]

TARGET = 1.05
# Input size and draws.
IMAGES = (((256, 256), 21), ((512, 512), 7))
Step = Callable[[], float]


def pair(
    protocol: Protocol, channels: int, classes: int
) -> tuple[Step, tuple[str, Step] | None]:
    """Our training step and the peer's, from equal weights on one sample.

    Args:
        protocol: of the network; float32, batch 1.
        channels: of the sample.
        classes: of its labels.

    Returns:
        Ours, and name and step of the peer, None on JAX. Each call takes a step, waits
        for the device and gives the loss.
    """
    image, label = _sample(protocol.input_shape, channels, classes)
    model = fit.build(protocol, channels, classes)
    fit.compile_model(model, protocol, losses.by_name("DSC++"))
    ours = _waited(partial(model.train_on_batch, image, label))
    backend = keras.backend.backend()
    if backend == "torch":
        return ours, ("plain PyTorch", _plain(model, protocol, image, label))
    if backend == "tensorflow":
        return ours, ("MIScnn", _miscnn(model, protocol, image, label))
    return ours, None


def _sample(
    shape: Sequence[int], channels: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    image = random.normal(size=(1, *shape, channels)).astype("float32")
    label = random.integers(0, classes, (1, *shape))
    return image, np.eye(classes, dtype="float32")[label]


def _plain(
    model: keras.Model, protocol: Protocol, image: np.ndarray, label: np.ndarray
) -> Step:
    from benchmarks import plain_torch

    network = plain_torch.PlainUNet(
        len(protocol.input_shape),
        image.shape[-1],
        label.shape[-1],
        protocol.filters,
        protocol.depth,
    )
    network.take(model.get_weights())
    image, label = (np.ascontiguousarray(np.moveaxis(x, -1, 1)) for x in (image, label))
    return _waited(
        plain_torch.training_step(
            network, image, label, protocol.learning_rate, protocol.momentum
        )
    )


def _miscnn(
    model: keras.Model, protocol: Protocol, image: np.ndarray, label: np.ndarray
) -> Step:
    def normalization(momentum: float) -> keras.layers.Layer:
        del momentum  # of batch normalisation
        return keras.layers.GroupNormalization(groups=-1, epsilon=1e-3)

    network = standard_unet.Architecture(protocol.filters, protocol.depth)
    create = getattr(network, f"create_model_{len(protocol.input_shape)}D")
    with mock.patch.object(standard_unet, "BatchNormalization", normalization):
        theirs = create(image.shape[1:], n_labels=label.shape[-1])
    theirs.set_weights(model.get_weights())
    theirs.compile(
        optimizer=keras.optimizers.SGD(
            protocol.learning_rate,
            momentum=protocol.momentum,
            nesterov=protocol.nesterov,
        ),
        loss=losses.by_name("DSC++"),
        jit_compile=False,  # as ours
    )
    return _waited(partial(theirs.train_on_batch, image, label))


def _waited(step: Callable[[], Any]) -> Step:
    """A step that returns when the device has done all of it, not the loss alone."""
    backend = keras.backend.backend()
    wait: Callable[[], None] = lambda: None  # noqa: E731  JAX gives all at once
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            wait = torch.cuda.synchronize
    elif backend == "tensorflow":
        import tensorflow as tf

        wait = tf.test.experimental.sync_devices

    def waited() -> float:
        loss = float(step())
        wait()
        return loss

    return waited


def beside_peer(
    shape: Sequence[int],
    draws: int,
    channels: int = 3,
    classes: int = 2,
    filters: int = 32,
    depth: int = 4,
) -> list[timing.Row]:
    """Time our training step and the peer's in turn.

    Args:
        shape: input size by axis.
        draws: timed steps of each.
        channels: of the images.
        classes: background included.
        filters: of the network's first level.
        depth: of the network.

    Returns:
        One row; on a GPU another with the peak memory of a step.
    """
    protocol = Protocol(tuple(shape), filters=filters, depth=depth)
    ours, peer = pair(protocol, channels, classes)
    steps: dict[str, Step] = {"ours": ours} | (dict([peer]) if peer else {})
    seconds = timing.alternate(steps, draws)
    rows = [_row("training step", shape, channels, filters, seconds, "ms")]
    if provenance.device() != "CPU":
        peaks = {name: np.array([_peak_mb(step)]) for name, step in steps.items()}
        rows.append(_row("memory of a step", shape, channels, filters, peaks, "MB"))
    return rows


def _row(
    what: str,
    shape: Sequence[int],
    channels: int,
    filters: int,
    found: dict[str, np.ndarray],
    unit: str,
) -> timing.Row:
    peers = [(f"{name}, same U-Net", x) for name, x in found.items() if name != "ours"]
    versions = timing.packages()
    if keras.backend.backend() == "tensorflow":
        versions = (*versions, "miscnn")
    return timing.compare(
        "step",
        f"{what}, U-Net, {filters} filters",
        (1, *shape, channels),
        found["ours"],
        peers[0] if peers else None,
        versions,
        TARGET if peers and unit == "ms" else None,
        unit=unit,
    )


def _peak_mb(step: Step) -> float:
    forget_peak()
    step()
    return peak_mb()


def forget_peak() -> None:
    """Begin anew to look for the most memory of the GPU; JAX can't."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats("GPU:0")


def peak_mb() -> float:
    """The most memory of the GPU since then, with all that lies there, in MB."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    if backend == "tensorflow":
        import tensorflow as tf

        return float(tf.config.experimental.get_memory_info("GPU:0")["peak"]) / 1e6
    import jax

    return float(jax.devices()[0].memory_stats()["peak_bytes_in_use"]) / 1e6


def main() -> None:
    """Measure, print, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shape", type=int, nargs="+", metavar="N", help="such as 80 160 160"
    )
    parser.add_argument("--draws", type=int)
    parser.add_argument("--output", type=Path, default=timing.RESULTS)
    arguments = parser.parse_args()
    sizes = ((tuple(arguments.shape), 7),) if arguments.shape else IMAGES
    for shape, draws in sizes:
        # As KiTS19 has them, and DRIVE.
        channels, classes = (1, 3) if len(shape) == 3 else (3, 2)
        rows = beside_peer(shape, arguments.draws or draws, channels, classes)
        for row in rows:
            print(timing.describe(row), flush=True)
        timing.write(rows, arguments.output)


if __name__ == "__main__":
    main()
