"""Time a training step of the study's network beside equal networks of others.

On PyTorch a U-Net in plain PyTorch, on TensorFlow MIScnn's own with its normalisation
replaced; on all backends the form of ours that is not used there
(`pipelines.training.unet`). Weights, loss and optimiser are the same; ours is built and
compiled as `dscpp train` does it. Uses a GPU where there is one. Run `python -m
benchmarks.step`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import keras
import numpy as np

import losses
from benchmarks import timing
from data_io.prepare.miscnn_compat import standard_unet
from pipelines.training import fit, unet
from pipelines.training.protocol import Protocol

# Targets: largest ratio to a peer's step, and to our other form's.
OTHERS, OTHER_FORM = 1.05, 1.0
# Input size and draws.
IMAGES = (((256, 256), 21), ((512, 512), 7))
OURS = "ours"
Step = Callable[[], float]
_Sample = tuple[np.ndarray, np.ndarray]


def sides(protocol: Protocol, channels: int, classes: int) -> dict[str, Step]:
    """Return our training step and the peers', from equal weights on one sample.

    Args:
        protocol: protocol of the network; float32, batch 1.
        channels: channels of the sample.
        classes: classes of its labels.

    Returns:
        Steps by name, `OURS` first. Each takes a step, waits for the device and returns
        the loss.
    """
    random = np.random.default_rng(0)
    image = random.normal(size=(1, *protocol.input_shape, channels)).astype("float32")
    indices = random.integers(0, classes, (1, *protocol.input_shape))
    label = np.eye(classes, dtype="float32")[indices]
    model = fit.build(protocol, channels, classes)
    weights = model.get_weights()
    fit.compile_model(model, protocol, losses.by_name("DSC++"))
    steps = {OURS: _waited(partial(model.train_on_batch, image, label))}
    arguments = protocol, weights, (image, label)
    backend = keras.backend.backend()
    if backend == "torch":
        steps["plain PyTorch, same U-Net"] = _plain(*arguments)
    elif backend == "tensorflow":
        steps["MIScnn, same U-Net"] = _miscnn(*arguments)
    first = not unet.channels_first_is_faster()
    if unet.computes_channels_first() or not first:
        other = unet.UNet(protocol.filters, protocol.depth, channels_first=first)
        name = f"our U-Net, channels-{'first' if first else 'last'}"
        steps[name] = _network(other, *arguments)
    return steps


def _plain(protocol: Protocol, weights: list[np.ndarray], sample: _Sample) -> Step:
    from benchmarks import plain_torch

    image, label = (np.ascontiguousarray(np.moveaxis(x, -1, 1)) for x in sample)
    axes, sizes = len(protocol.input_shape), (protocol.filters, protocol.depth)
    network = plain_torch.PlainUNet(axes, image.shape[1], label.shape[1], *sizes)
    network.take(weights)
    rates = protocol.learning_rate, protocol.momentum
    return _waited(plain_torch.training_step(network, image, label, *rates))


def _miscnn(protocol: Protocol, *arguments: Any) -> Step:
    def normalization(momentum: float) -> keras.layers.Layer:
        del momentum  # of batch normalisation
        return keras.layers.GroupNormalization(groups=-1, epsilon=1e-3)

    network = standard_unet.Architecture(protocol.filters, protocol.depth)
    with mock.patch.object(standard_unet, "BatchNormalization", normalization):
        return _network(network, protocol, *arguments)


def _network(
    network: Any, protocol: Protocol, weights: list[np.ndarray], sample: _Sample
) -> Step:
    image, label = sample
    create = getattr(network, f"create_model_{len(protocol.input_shape)}D")
    model = create(image.shape[1:], n_labels=label.shape[-1])
    model.set_weights(weights)
    model.compile(
        optimizer=keras.optimizers.SGD(
            protocol.learning_rate,
            momentum=protocol.momentum,
            nesterov=protocol.nesterov,
        ),
        loss=losses.by_name("DSC++"),
        jit_compile=keras.backend.backend() == "jax",  # as ours
    )
    return _waited(partial(model.train_on_batch, image, label))


def _waited(step: Callable[[], Any]) -> Step:
    """Return a step that waits until the device has finished all work."""
    backend = keras.backend.backend()
    wait: Callable[[], None] = lambda: None  # noqa: E731  JAX returns all at once
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
    shape: Sequence[int], draws: int, filters: int = 32, depth: int = 4
) -> list[timing.Row]:
    """Time our training step and the peers' in turn.

    Args:
        shape: input size by axis, of images like DRIVE's or volumes like KiTS19's.
        draws: number of timed steps of each.
        filters: filters of the network's first level.
        depth: depth of the network.

    Returns:
        A row for each peer.
    """
    channels, classes = (1, 3) if len(shape) == 3 else (3, 2)
    protocol = Protocol(tuple(shape), filters=filters, depth=depth)
    seconds = timing.alternate(sides(protocol, channels, classes), draws)
    ours = seconds.pop(OURS)
    return [
        timing.compare(
            "step",
            f"training step, U-Net, {filters} filters",
            (1, *shape, channels),
            ours,
            (peer, theirs),
            (*timing.packages(), *(["miscnn"] if peer.startswith("MIScnn") else [])),
            OTHER_FORM if peer.startswith("our") else OTHERS,
        )
        for peer, theirs in seconds.items()
    ]


def main() -> None:
    """Measure, print and write the rows."""
    parser = timing.parser(__doc__)
    parser.add_argument(
        "--shape", type=int, nargs="+", metavar="N", help="such as 80 160 160"
    )
    arguments = parser.parse_args()
    sizes = ((tuple(arguments.shape), 7),) if arguments.shape else IMAGES
    for shape, draws in sizes:
        timing.record(beside_peers(shape, draws), arguments.output)


if __name__ == "__main__":
    main()
