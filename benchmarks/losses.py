"""Measure the cost of the losses: within a training step, and beside MONAI's.

`make bench-losses` runs all parts, each in the environment that it needs: `python -m
benchmarks.losses step`, `peers` (Keras' losses) and `port` (PyTorch's).
"""

import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

import losses
from benchmarks import timing
from pipelines.training import fit
from pipelines.training.protocol import Protocol

# Target: largest share of a training step; number of draws.
SHARE, DRAWS = 0.05, 21
IMAGE, CLASSES, FILTERS = (1, 256, 256), 2, 32
# (N, C, *spatial): an image of DRIVE and a patch of KiTS19.
SHAPES = ((1, 2, 512, 512), (1, 3, 80, 160, 160))
DICE, TVERSKY = ("DSC", "DSC++"), ("Tversky", "Tversky++")
# For the port: two volumes and two images; target of DSC++ over DiceLoss.
PORT_SHAPES = ((2, 3, 96, 96, 96), (2, 2, 512, 512))
PORT_TARGET = 1.2
# Losses that are also compiled, and the longest time for that in seconds.
COMPILED, COMPILE_LIMIT = DICE, 180
EAGER = ("eager", "eager, one-hot", "eager, regions")


def labels_and_logits(
    shape: tuple[int, ...], axis: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """Draw class indices, without a class axis, and logits of the shape given."""
    random = np.random.default_rng(0)
    logits = random.normal(size=shape, scale=3).astype("float32")
    spatial = np.delete(shape, axis)
    return random.integers(0, shape[axis], spatial, dtype="int32"), logits


def value_and_gradient(
    loss: Callable[[Any, Any], Any], y_true: np.ndarray, y_pred: np.ndarray
) -> Callable[[], object]:
    """Return a function that computes a loss and its gradient for `y_pred`.

    It is compiled as Keras compiles a training step: a graph on TensorFlow, XLA on JAX,
    nothing on PyTorch.

    Args:
        loss: takes labels and predictions, returns one number.
        y_true: labels.
        y_pred: predictions.

    Returns:
        A function without arguments that computes and returns both at each call.
    """
    y_true, y_pred = map(keras.ops.convert_to_tensor, (y_true, y_pred))
    step = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return step[keras.backend.backend()](loss, y_true, y_pred)


def _tensorflow(
    loss: Callable[..., Any], y_true: Any, y_pred: Any
) -> Callable[[], Any]:
    import tensorflow as tf

    @tf.function
    def step(y_true: Any, y_pred: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred)
        return value, tape.gradient(value, y_pred)

    return partial(step, y_true, y_pred)


def _jax(loss: Callable[..., Any], y_true: Any, y_pred: Any) -> Callable[[], Any]:
    import jax

    step = jax.jit(jax.value_and_grad(loss, argnums=1))
    return lambda: jax.block_until_ready(step(y_true, y_pred))


def _torch(loss: Callable[..., Any], y_true: Any, y_pred: Any) -> Callable[[], Any]:
    import torch

    def step() -> Any:
        leaf = y_pred.detach().requires_grad_()
        value = loss(y_true, leaf)
        value.backward()
        if leaf.is_cuda:
            torch.cuda.synchronize()
        return value.detach(), leaf.grad

    return step


def in_a_step(
    draws: int = DRAWS,
    image: tuple[int, ...] = IMAGE,
    filters: int = FILTERS,
    **overrides: Any,
) -> list[timing.Row]:
    """Time every loss alone, beside a whole training step of the U-Net.

    The step is that of the study's network with DSC++: float32, batch 1, SGD.

    Args:
        draws: number of timed calls of each.
        image: shape of the images, (N, rows, columns).
        filters: filters of the network's first level.
        **overrides: overrides of the protocol's values.
    """
    values = Protocol(image[1:], filters, **overrides)
    model = fit.build(values, 3, CLASSES)
    fit.compile_model(model, values, losses.by_name("DSC++"))
    indices, logits = labels_and_logits((*image, CLASSES))
    y_true = np.eye(CLASSES, dtype="float32")[indices]
    y_pred = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    images = np.random.default_rng(1).normal(size=(*image, 3)).astype("float32")
    functions: dict[str, Callable[[], object]] = {
        "step": partial(model.train_on_batch, images, y_true),
        # The first loss after the step has cold caches: it is called, not counted.
        "first": value_and_gradient(losses.by_name("DSC++"), y_true, y_pred),
    }
    for name in losses.titles.FAMILY:  # L1-ACE is not held to the limit
        functions[name] = value_and_gradient(losses.by_name(name), y_true, y_pred)
    seconds = timing.alternate(functions, draws)
    del seconds["first"]
    step = f"training step, U-Net, {filters} filters", seconds.pop("step")
    return [
        timing.compare("losses", name, y_pred.shape, ours, step, target=SHARE)
        for name, ours in seconds.items()
    ]


def against_monai(draws: int = DRAWS) -> list[timing.Row]:
    """Time DSC, DSC++, Tversky and Tversky++ beside MONAI's counterparts.

    Classes are on axis 1. First both get probabilities and one-hot labels: the losses
    alone. Then both get logits and class indices: the whole work of a training.
    """
    return [
        row
        for shape in SHAPES
        for names, peer in ((DICE, "DiceLoss"), (TVERSKY, "TverskyLoss"))
        for raw in (False, True)
        for row in _beside(peer, names, shape, raw, draws)
    ]


def _beside(
    peer: str, names: tuple[str, ...], shape: tuple[int, ...], raw: bool, draws: int
) -> list[timing.Row]:
    """Time our losses of these names beside MONAI's of that name.

    `raw`: from logits and class indices, else from probabilities and one-hot labels.
    """
    import monai

    y_true, y_pred = labels_and_logits(shape, axis=1)
    y_true = y_true[:, None]
    if not raw:
        y_true = keras.ops.one_hot(y_true[:, 0], shape[1], axis=1)
        y_pred = keras.ops.convert_to_numpy(keras.ops.softmax(y_pred, axis=1))
    theirs = getattr(monai.losses, peer)(softmax=raw, to_onehot_y=raw)
    functions: dict[str, Callable[[Any, Any], Any]] = {
        name: losses.by_name(name, axis=1, from_logits=raw, from_indices=raw)
        for name in names
    }
    functions[peer] = lambda y_true, y_pred: theirs(y_pred, y_true)
    seconds = timing.alternate(
        {n: value_and_gradient(f, y_true, y_pred) for n, f in functions.items()}, draws
    )
    other = f"MONAI {peer}", seconds.pop(peer)
    inputs = "logits, indices" if raw else "probabilities, one-hot"
    packages = ("keras", "torch", "monai")
    return [
        timing.compare("losses", f"{name} ({inputs})", shape, ours, other, packages)
        for name, ours in seconds.items()
    ]


def port_against_monai(
    draws: int = DRAWS,
    names: Sequence[str] | None = None,
    compiled: Sequence[str] = COMPILED,
) -> list[timing.Row]:
    """Measure time and memory of the port's losses beside those of MONAI.

    From logits and class indices; DSC and DSC++ also from one-hot labels and from
    overlapping regions (one sigmoid each). Value and gradient; on the CPU in processor
    time, and on the GPU where there is one. A loss with cross entropy is compared with
    DiceCELoss, Tversky with TverskyLoss, DSC with DiceLoss.

    Args:
        draws: number of timed calls of each.
        names: losses to time; None for all fourteen.
        compiled: losses to time compiled as well. One that takes more than
            `COMPILE_LIMIT` seconds to compile is reported, and has no row.
    """
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [
        row
        for device in devices
        for shape in PORT_SHAPES
        for mode, selected in (
            *((mode, names) for mode in EAGER),
            ("compiled", compiled),
        )
        for row in _port_beside(device, shape, mode, draws, selected)
    ]


def _port_beside(
    device: str, shape: tuple[int, ...], mode: str, draws: int, names: Any
) -> list[timing.Row]:
    """Return rows of time and of peak memory for one device, shape and mode."""
    import dscpp_torch
    import monai
    import torch

    y_true, y_pred, raw = _port_inputs(device, shape, mode)
    selected = list(dscpp_torch.NAMES if names is None else names)
    if mode in EAGER[1:]:
        selected = [name for name in selected if name in DICE]
    peers = {_nearest(name) for name in selected}
    modules = {name: getattr(monai.losses, name)(**raw) for name in sorted(peers)}
    modules |= {name: dscpp_torch.by_name(name, **raw) for name in selected}
    if mode == "compiled":
        # The compiler sees one function, and gives up after eight forms of it.
        torch._dynamo.config.recompile_limit = max(8, 2 * len(modules))
        modules = {name: torch.compile(module) for name, module in modules.items()}
    steps = {
        name: _torch(
            lambda y_true, y_pred, of=module: of(y_pred, y_true), y_true, y_pred
        )
        for name, module in modules.items()
    }
    if mode == "compiled":
        steps = {name: step for name, step in steps.items() if _compiles(name, step)}
        selected = [name for name in selected if {name, _nearest(name)} <= steps.keys()]
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds = timing.alternate(steps, draws, clock=clock)
    megabytes = {name: _peak_megabytes(step, device) for name, step in steps.items()}
    return [
        timing.compare(
            "port",
            f"{name} ({mode}, {device}), {what}",
            shape,
            values[name],
            (f"MONAI {_nearest(name)}", values[_nearest(name)]),
            ("torch", "monai"),
            PORT_TARGET if name == "DSC++" and mode != "compiled" else None,
            unit=unit,
            backend="torch",
        )
        for name in selected
        for what, unit, values in (("time", "ms", seconds), ("memory", "MB", megabytes))
    ]


def _port_inputs(
    device: str, shape: tuple[int, ...], mode: str
) -> tuple[Any, Any, dict[str, bool]]:
    """Return labels and logits on a device, and what each loss is told of them."""
    import torch
    from torch.nn import functional

    indices, logits = labels_and_logits(shape, axis=1)
    y_true = torch.from_numpy(indices[:, None]).long().to(device)
    y_pred = torch.from_numpy(logits).to(device)
    if mode not in EAGER[1:]:
        return y_true, y_pred, {"softmax": True, "to_onehot_y": True}
    y_true, raw = functional.one_hot(y_true[:, 0], shape[1]).movedim(-1, 1), "softmax"
    if mode.endswith("regions"):  # each contains the one before it
        y_true, raw = y_true.cumsum(1), "sigmoid"
    return y_true.float().contiguous(), y_pred, {raw: True}


def _nearest(name: str) -> str:
    """Return the most similar loss of MONAI, of the three that are timed."""
    if "Tversky" in name:
        return "TverskyLoss"
    return "DiceLoss" if name in DICE else "DiceCELoss"


class _TooSlow(BaseException):
    """Ends a compilation; not an Exception, which the compiler would catch."""


def _compiles(name: str, step: Callable[[], object]) -> bool:
    """Return whether the first call of a step ends within `COMPILE_LIMIT` seconds."""

    def stop(*_: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, COMPILE_LIMIT)
    try:
        step()
    except _TooSlow:
        print(f"port: {name} was not compiled within {COMPILE_LIMIT} s", flush=True)
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def _peak_megabytes(step: Callable[[], object], device: str) -> np.ndarray:
    """Return the peak of memory that a step allocates, in 1e6 bytes, (1,)."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return np.array([(torch.cuda.max_memory_allocated() - before) / 1e6])
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    memory = [event for event in events if event.name() == "[memory]"]
    memory.sort(key=lambda event: event.start_ns())
    held = np.cumsum([event.nbytes() for event in memory])
    return np.array([held.max() / 1e6])


def main() -> None:
    """Measure one part, print it and write it to the CSV file."""
    parser = timing.parser(__doc__)
    parser.add_argument("part", choices=("step", "peers", "port"))
    parser.add_argument("--draws", type=int, default=DRAWS)
    help_text = "of the port, comma-separated; else all"
    parser.add_argument("--losses", metavar="NAMES", help=help_text)
    arguments = parser.parse_args()
    names = arguments.losses.split(",") if arguments.losses else None
    parts: dict[str, Callable[[int], list[timing.Row]]] = {
        "step": in_a_step,
        "peers": against_monai,
        "port": partial(port_against_monai, names=names),
    }
    timing.record(parts[arguments.part](arguments.draws), arguments.output)


if __name__ == "__main__":
    main()
