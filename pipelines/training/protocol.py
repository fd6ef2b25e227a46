"""The study's protocol as data: Table 1, Table 2 and section 2.7 of the paper.

Where paper and released code differ, the value here is the one the published numbers
come from; the comment names the difference. Losses' hyperparameters (Table 2) are in
`losses`, resizing and augmentation in `data_io.prepare.preprocessing`.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from data_io.datasets import is_own
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import schema
from data_io.prepare import patches


@dataclass(frozen=True)
class Protocol:
    """Everything that decides a training, but for loss, seed, split and data.

    Attributes:
        input_shape: network input, voxels per spatial axis (Table 1); of volumes a
            patch.
        filters: feature maps of the first level (the MIScnn standard U-Net).
        depth: number of poolings.
        learning_rate: initial, of SGD (section 2.7).
        momentum: of SGD; not in the paper, 0.9 in the released code.
        nesterov: Nesterov momentum; not in the paper, on in the released code.
        batch_size: images per step (section 2.7).
        epochs: at most so many.
        plateau_factor: the learning rate is multiplied by this on a plateau.
        plateau_patience: epochs without a better validation loss before that.
        plateau_cooldown: epochs to wait after it.
        min_learning_rate: lower bound of the learning rate.
        stopping_patience: epochs without a better validation loss before the end.
        min_delta: a smaller change of the validation loss is none.
        augment: whether training samples are augmented.
        overlap: of neighbouring patches at prediction, voxels by axis; () for images,
            which are predicted whole. So are the next two of volumes alone.
        join: how overlapping predictions are joined: `data_io.prepare.patches.Grid`;
            the default is the released code's.
        fixed_validation: whether the patches of validation are the same each epoch; in
            the released code they are drawn anew, so its validation loss is noisy.
        precision: how the network computes; softmax and loss are float32 in all.
            "tf32": float32 whose products may be rounded to TF32, as NVIDIA's GPUs
            do since Ampere; "mixed_float16" and "mixed_bfloat16": Keras' policies.
        mirror_axes: axes that augmentation may mirror; "all" as in the released code,
            which makes left and right one to the network.
        xla: whether steps are compiled, on PyTorch by torch.compile. "auto": on JAX
            alone, which does not go without.
        initial_weights: SHA-256 of the model file whose weights the training begins
            with; "" for fresh ones (section 2.7).
    """

    input_shape: tuple[int, ...]
    filters: int = 32
    depth: int = 4
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    batch_size: int = 1
    epochs: int = 1000
    plateau_factor: float = 0.1
    plateau_patience: int = 25
    plateau_cooldown: int = 1
    min_learning_rate: float = 1e-4
    stopping_patience: int = 50
    min_delta: float = 1e-7
    augment: bool = True
    overlap: tuple[int, ...] = ()
    join: str = patches.JOINS[0]
    fixed_validation: bool = False
    precision: str = "float32"
    xla: bool | str = "auto"
    mirror_axes: str | tuple[int, ...] = "all"
    initial_weights: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON knows them; for images without those of volumes.

        What could not be chosen in earlier versions is in it only where it is not the
        default: runs of before are the same as those of today.
        """
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        for key, choices in _ADDED.items():
            if values[key] == choices[0]:
                del values[key]
        of_volumes = len(self.input_shape) == 3
        return {k: v for k, v in values.items() if of_volumes or k not in _OF_VOLUMES}


_OF_VOLUMES = ("overlap", "join", "fixed_validation")
_SOME_AXES = [
    list(axes) for n in range(3) for axes in itertools.combinations(range(3), n)
]
# What values can be chosen from, the default first.
_ADDED: dict[str, tuple[Any, ...]] = {
    "precision": ("float32", "tf32", "mixed_float16", "mixed_bfloat16"),
    "xla": ("auto", True, False),
    "mirror_axes": ("all", *_SOME_AXES),
    "initial_weights": ("",),
}
_CHOICES = {"join": patches.JOINS, **_ADDED}


def from_dict(values: Mapping[str, Any]) -> Protocol:
    """The protocol that `Protocol.as_dict` gave.

    Raises:
        TypeError: a value has another name.
    """
    return Protocol(**schema.tuples(values))


_FROM = "initial_weights"  # which `--from RUN` sets
KEYS = tuple(f.name for f in dataclasses.fields(Protocol) if f.name != _FROM)


# For a machine without a GPU: half the filters, and a smaller input than Table 1's
# where that is larger than 128x128. Sets of many images get few epochs: what counts are
# steps, and those of three losses take an hour or two on two cores.
# Input shape, epochs, patience before a lower learning rate and before the end.
_REDUCED: dict[str, tuple[tuple[int, ...], int, int, int]] = {
    "bus2017": ((128, 128), 60, 8, 16),
    "dsb2018": ((128, 128), 16, 3, 6),
    "isic2018": ((128, 128), 6, 2, 3),
    "cvc-clinicdb": ((144, 192), 16, 3, 6),
    "cvc-clinicdb-sequence": ((144, 192), 16, 3, 6),
    # No volume is smaller than this patch, so none is padded with voxels of no class.
    "hippocampus": ((24, 32, 24), 12, 3, 6),
}


def _paper(record: Record) -> Protocol:
    if record.is_3d:
        return Protocol(
            record.input_shape,
            plateau_patience=5,
            stopping_patience=10,
            overlap=_half(record.input_shape),
        )
    return Protocol(input_shape=record.input_shape)


def _reduced(record: Record) -> Protocol:
    if record.is_3d:
        return _reduced_3d(record)
    # For a machine without a GPU: a quarter of the voxels, half the filters, a tenth
    # of the epochs; patience shrinks less, since 4 validation images are noisy.
    usual = (tuple(min(256, size) for size in record.input_shape), 100, 10, 20)
    shape, epochs, plateau, stopping = _REDUCED.get(record.name, usual)
    return Protocol(
        input_shape=shape,
        filters=16,
        epochs=epochs,
        plateau_patience=plateau,
        stopping_patience=stopping,
    )


def _reduced_3d(record: Record) -> Protocol:
    # An eighth of the voxels, a quarter of the filters, one level less (40 / 2**3 is
    # whole). Fewer cases make an epoch of fewer patches, so patience does not shrink.
    usual = (_half(record.input_shape), 60, 10, 20)
    shape, epochs, plateau, stopping = _REDUCED.get(record.name, usual)
    return Protocol(
        input_shape=shape,
        filters=8,
        depth=3,
        epochs=epochs,
        plateau_patience=plateau,
        stopping_patience=stopping,
        overlap=_half(shape),
    )


def _demo(record: Record) -> Protocol:
    if record.is_3d:
        return dataclasses.replace(_reduced_3d(record), epochs=15)
    # For phantoms: minutes on two cores.
    return Protocol(
        input_shape=record.input_shape,
        filters=8,
        depth=3,
        epochs=25,
        plateau_patience=6,
        stopping_patience=12,
    )


def _half(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size // 2 for size in shape)


PRESETS: dict[str, Callable[[Record], Protocol]] = {
    "paper": _paper,
    "reduced": _reduced,
    "demo": _demo,
}


def preset(name: str, record: Record) -> Protocol:
    """The protocol of a preset for a data set.

    Patches of own volumes are joined by Gaussian weights: there is no released code to
    reproduce, whose join leaves seams.

    Raises:
        InputError: no such preset.
    """
    values = PRESETS[known_preset(name)](record)
    if record.is_3d and is_own(record.name):
        return dataclasses.replace(values, join="gaussian")
    return values


def known_preset(name: str) -> str:
    """The name of a preset, checked.

    Raises:
        InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(
            f"preset: expected one of {', '.join(PRESETS)}, received {name!r}"
        )
    return name


def parse_overrides(texts: list[str]) -> dict[str, Any]:
    """Read `key=value` texts; values are JSON, such as `filters=16`, or a bare word.

    Raises:
        InputError: not of that form, or no such key.
    """
    return dict(_parse(text) for text in texts)


def _parse(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    _check_key(key if equals else "", text)
    try:
        return key, json.loads(value)
    except ValueError as error:
        if key in _CHOICES:
            return key, value
        raise InputError(
            f"--set {key}: expected a value in JSON, such as 16, 0.1, true or "
            f"[256, 256], received {value!r}"
        ) from error


def _check_key(key: str, received: str) -> None:
    if key in KEYS:
        return
    close = difflib.get_close_matches(str(key), KEYS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InputError(
        f"--set: expected key=value with a key of {', '.join(KEYS)}; "
        f"received {received!r}{hint}"
    )


def override(
    protocol: Protocol, values: Mapping[str, Any]
) -> tuple[Protocol, dict[str, Any]]:
    """Change values of a protocol.

    Args:
        protocol: the preset's.
        values: new values by name; one equal to the preset's is no override. Another
            patch has its own overlap, half of it, unless that is given too.

    Returns:
        The changed protocol and the overrides that really are.

    Raises:
        InputError: a value of another type, or out of range.
    """
    default = {key: choices[0] for key, choices in _ADDED.items()}
    current = default | protocol.as_dict()
    if values.get("mirror_axes") == list(range(len(protocol.input_shape))):
        values = {**values, "mirror_axes": "all"}
    for key, value in values.items():
        if key == _FROM:
            continue
        _check_key(key, key)
        if key not in current:
            raise InputError(f"--set {key}: for volumes alone, received for images")
        _check(key, value, current[key])
    changed = {key: value for key, value in values.items() if value != current[key]}
    fields = schema.tuples(changed)
    if protocol.overlap and "input_shape" in fields:
        fields.setdefault("overlap", _half(fields["input_shape"]))
    result = dataclasses.replace(protocol, **fields)
    _check_shape(result)
    return result, changed


# What values may be, both ends included. What is absurd fails here, and not for lack of
# memory or time once the training has begun. Keras refuses a factor of 1.
_MANY = 10**6
_RANGES: dict[str, tuple[float, float]] = {
    "input_shape": (1, 2**24),
    "filters": (1, 4096),
    "depth": (1, 10),
    "learning_rate": (1e-12, 1e38),  # as float32 knows them
    "momentum": (0, 0.999999),
    "plateau_factor": (0, 0.999999),
    "plateau_cooldown": (0, _MANY),
    "min_learning_rate": (0, 1e38),
    "min_delta": (0, _MANY),
    "overlap": (0, 2**24),
}
_LARGEST = {"voxels": 2**24, "filters": 4096}  # of the input; of the deepest level


def _check(key: str, value: Any, like: Any) -> None:
    if key in _CHOICES:
        _check_choice(key, value)
        return
    low, high = _RANGES.get(key, (1, _MANY))
    if isinstance(like, list):
        good = isinstance(value, list) and len(value) == len(like)
        good = good and all(type(size) is int and low <= size <= high for size in value)
    elif isinstance(like, bool):
        good = isinstance(value, bool)
    else:
        kinds = (int,) if isinstance(like, int) else (int, float)
        good = type(value) in kinds and low <= value <= high
    if not good:
        ends = "" if isinstance(like, bool) else f" and from {low:g} to {high:g}"
        raise InputError(
            f"--set {key}: expected a value like {json.dumps(like)}{ends}, "
            f"received {json.dumps(value)}"
        )
    if key == "batch_size" and value != 1:
        raise InputError(
            f"--set batch_size: expected 1 (the study's), received {value}; losses "
            "are per image, larger batches are not supported yet"
        )


def _check_choice(key: str, value: Any) -> None:
    # As JSON: 1 is no true, it would be another run's name.
    choices = [json.dumps(choice) for choice in _CHOICES[key]]
    if json.dumps(value) in choices:
        return
    raise InputError(
        f"--set {key}: expected one of {', '.join(choices)}, received "
        f"{json.dumps(value)}"
    )


def _check_shape(protocol: Protocol) -> None:
    multiple = 2**protocol.depth
    if any(size % multiple for size in protocol.input_shape):
        raise InputError(
            f"input_shape: expected multiples of {multiple} (depth {protocol.depth}), "
            f"received {list(protocol.input_shape)}"
        )
    sizes = {
        "voxels": (math.prod(protocol.input_shape), "input_shape"),
        "filters": (protocol.filters * multiple, f"filters x {multiple} (depth)"),
    }
    for kind, (size, what) in sizes.items():
        if size > _LARGEST[kind]:
            raise InputError(
                f"{what}: expected {_LARGEST[kind]} {kind} at most, received {size}"
            )
    number = len(protocol.input_shape)
    axes = () if protocol.mirror_axes == "all" else protocol.mirror_axes
    if any(axis not in range(number) for axis in axes):
        raise InputError(
            f"mirror_axes: expected axes from 0 to {number - 1}, received "
            f"{list(protocol.mirror_axes)}"
        )
    pairs = zip(protocol.overlap, protocol.input_shape, strict=False)
    if any(overlap >= size for overlap, size in pairs):
        raise InputError(
            f"overlap: expected less than the patch, {list(protocol.input_shape)}, on "
            f"each axis, received {list(protocol.overlap)}"
        )
