"""A training step of the study's network, beside that of others of the same shape.

On PyTorch beside a U-Net in PyTorch alone, on TensorFlow beside MIScnn's own with its
normalisation swapped; on all backends beside the form of ours that is not taken there
(`pipelines.training.unet`). Weights, loss and optimiser are the same; ours is built and
compiled as `dscpp train` does it. On a GPU, where there is one, and then the memory is
measured too. `python -m benchmarks.step`.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

import losses
from benchmarks import timing
from data_io.prepare.miscnn_compat import standard_unet
from pipelines import provenance
from pipelines.training import fit, unet
from pipelines.training.protocol import Protocol

__all__ = [
    "OURS",
    "beside_peers",
    "forget_peak",
    "peak_mb",
    "sides",
]

# At most this of a peer's; and the form that is taken is the faster one.
TARGETS = {"plain PyTorch": 1.05, "MIScnn": 1.05, "our": 1.0}
# Input size and draws.
IMAGES = (((256, 256), 21), ((512, 512), 7))
OURS = "ours"
Step = Callable[[], float]


def sides(
    protocol: Protocol, channels: int, classes: int
) -> dict[str, Callable[[], Step]]:
    """What makes our training step and the peers', from equal weights on one sample.

    Args:
        protocol: of the network; float32, batch 1.
        channels: of the sample.
        classes: of its labels.

    Returns:
        By name, `OURS` first. Each step takes one, waits for the device and gives the
        loss; nothing but the step keeps its network.
    """
    image, label = _sample(protocol.input_shape, channels, classes)
    weights = fit.build(protocol, channels, classes).get_weights()
    given = protocol, weights, image, label
    made: dict[str, Callable[[], Step]] = {OURS: partial(_ours, *given)}
    backend = keras.backend.backend()
    if backend == "torch":
        made["plain PyTorch, same U-Net"] = partial(_plain, *given)
    elif backend == "tensorflow":
        made["MIScnn, same U-Net"] = partial(_miscnn, *given)
    first = not unet.channels_first_is_faster()
    if first and not unet.computes_channels_first():
        return made
    other = unet.UNet(protocol.filters, protocol.depth, channels_first=first)
    name = f"our U-Net, channels-{'first' if first else 'last'}"
    return {**made, name: partial(_network, other, *given)}


def _sample(
    shape: Sequence[int], channels: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    image = random.normal(size=(1, *shape, channels)).astype("float32")
    label = random.integers(0, classes, (1, *shape))
    return image, np.eye(classes, dtype="float32")[label]


def _ours(
    protocol: Protocol,
    weights: list[np.ndarray],
    image: np.ndarray,
    label: np.ndarray,
) -> Step:
    model = fit.build(protocol, image.shape[-1], label.shape[-1])
    model.set_weights(weights)
    fit.compile_model(model, protocol, losses.by_name("DSC++"))
    return _waited(partial(model.train_on_batch, image, label))


def _plain(
    protocol: Protocol,
    weights: list[np.ndarray],
    image: np.ndarray,
    label: np.ndarray,
) -> Step:
    from benchmarks import plain_torch

    network = plain_torch.PlainUNet(
        len(protocol.input_shape),
        image.shape[-1],
        label.shape[-1],
        protocol.filters,
        protocol.depth,
    )
    network.take(weights)
    image, label = (np.ascontiguousarray(np.moveaxis(x, -1, 1)) for x in (image, label))
    return _waited(
        plain_torch.training_step(
            network, image, label, protocol.learning_rate, protocol.momentum
        )
    )


def _miscnn(protocol: Protocol, *given: Any) -> Step:
    def normalization(momentum: float) -> keras.layers.Layer:
        del momentum  # of batch normalisation
        return keras.layers.GroupNormalization(groups=-1, epsilon=1e-3)

    network = standard_unet.Architecture(protocol.filters, protocol.depth)
    with mock.patch.object(standard_unet, "BatchNormalization", normalization):
        return _network(network, protocol, *given)


def _network(
    network: Any,
    protocol: Protocol,
    weights: list[np.ndarray],
    image: np.ndarray,
    label: np.ndarray,
) -> Step:
    create = getattr(network, f"create_model_{len(protocol.input_shape)}D")
    theirs = create(image.shape[1:], n_labels=label.shape[-1])
    theirs.set_weights(weights)
    theirs.compile(
        optimizer=keras.optimizers.SGD(
            protocol.learning_rate,
            momentum=protocol.momentum,
            nesterov=protocol.nesterov,
        ),
        loss=losses.by_name("DSC++"),
        jit_compile=keras.backend.backend() == "jax",  # as ours
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


def beside_peers(
    shape: Sequence[int],
    draws: int,
    channels: int = 3,
    classes: int = 2,
    filters: int = 32,
    depth: int = 4,
) -> list[timing.Row]:
    """Time our training step and the peers' in turn.

    Args:
        shape: input size by axis.
        draws: timed steps of each.
        channels: of the images.
        classes: background included.
        filters: of the network's first level.
        depth: of the network.

    Returns:
        A row a peer; on a GPU others with the peak memory of a step.
    """
    made = sides(
        Protocol(tuple(shape), filters=filters, depth=depth), channels, classes
    )
    found = []
    if provenance.device() != "CPU":
        found.append(("memory of a step", _peaks(made), "MB"))
    steps = {name: make() for name, make in made.items()}
    found.append(("training step", timing.alternate(steps, draws), "ms"))
    return [
        _row(f"{what}, U-Net, {filters} filters", (1, *shape, channels), *each, unit)
        for what, values, unit in reversed(found)
        for each in _pairs(values)
    ]


def _pairs(
    found: dict[str, np.ndarray],
) -> list[tuple[np.ndarray, timing.Series | None]]:
    """Ours with each peer, or alone."""
    peers = [series for series in found.items() if series[0] != OURS]
    if not peers:
        return [(found[OURS], None)]
    return [(found[OURS], series) for series in peers]


def _row(
    what: str,
    shape: Sequence[int],
    ours: np.ndarray,
    peer: timing.Series | None,
    unit: str,
) -> timing.Row:
    versions, target = timing.packages(), None
    if peer and unit == "ms":
        target = next(
            most for name, most in TARGETS.items() if peer[0].startswith(name)
        )
    if peer and peer[0].startswith("MIScnn"):
        versions = (*versions, "miscnn")
    return timing.compare("step", what, shape, ours, peer, versions, target, unit=unit)


def _peaks(made: dict[str, Callable[[], Step]]) -> dict[str, np.ndarray]:
    """The most memory of a step of each, one at a time, with all that it keeps; MB."""
    found = {}
    for name, make in made.items():
        step = make()
        step()
        forget_peak()
        step()
        found[name] = np.array([peak_mb()])
        del step
        gc.collect()
        if keras.backend.backend() == "jax":
            break  # its peak is that of the process
    return found


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
        rows = beside_peers(shape, arguments.draws or draws, channels, classes)
        for row in rows:
            print(timing.describe(row), flush=True)
        timing.write(rows, arguments.output)


if __name__ == "__main__":
    main()
