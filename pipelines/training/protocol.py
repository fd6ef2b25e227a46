"""The study's protocol as data: Table 1, Table 2 and section 2.7 of the paper.

Where paper and released code differ, the value here is the one the published numbers
come from; the comment names the difference. Losses' hyperparameters (Table 2) are in
`losses`, resizing and augmentation in `data_io.prepare.preprocessing`.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from data_io.datasets import is_own
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import schema
from data_io.prepare import patches

_Epochs = Annotated[int, Ge(1), Le(10**6)]


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

    __pydantic_config__: ClassVar = {"strict": True, "allow_inf_nan": False}

    # What is absurd is refused here, and not for lack of memory or time once the
    # training has begun. Keras refuses a factor of 1.
    input_shape: tuple[Annotated[int, Ge(1), Le(2**24)], ...]
    filters: Annotated[int, Ge(1), Le(4096)] = 32
    depth: Annotated[int, Ge(1), Le(10)] = 4
    learning_rate: Annotated[float, Ge(1e-12), Le(1e38)] = 0.1  # as float32 knows them
    momentum: Annotated[float, Ge(0), Le(0.999999)] = 0.9
    nesterov: bool = True
    batch_size: Annotated[int, Ge(1), Le(1)] = 1  # losses are per image
    epochs: _Epochs = 1000
    plateau_factor: Annotated[float, Ge(0), Le(0.999999)] = 0.1
    plateau_patience: _Epochs = 25
    plateau_cooldown: Annotated[int, Ge(0), Le(10**6)] = 1
    min_learning_rate: Annotated[float, Ge(0), Le(1e38)] = 1e-4
    stopping_patience: _Epochs = 50
    min_delta: Annotated[float, Ge(0), Le(10**6)] = 1e-7
    augment: bool = True
    overlap: tuple[Annotated[int, Ge(0), Le(2**24)], ...] = ()
    join: patches.Join = "miscnn"
    fixed_validation: bool = False
    precision: Literal["float32", "tf32", "mixed_float16", "mixed_bfloat16"] = "float32"
    xla: bool | Literal["auto"] = "auto"
    mirror_axes: Literal["all"] | tuple[int, ...] = "all"
    initial_weights: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON knows them; for images without those of volumes.

        What could not be chosen in earlier versions is in it only where it is not the
        default: runs of before are the same as those of today.
        """
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        for key, default in _ADDED.items():
            if values[key] == default:
                del values[key]
        of_volumes = len(self.input_shape) == 3
        return {k: v for k, v in values.items() if of_volumes or k not in _OF_VOLUMES}


_OF_VOLUMES = ("overlap", "join", "fixed_validation")
_ADDED = {"precision": "float32", "xla": "auto", "mirror_axes": "all"}
_FROM = "initial_weights"  # which `--from RUN` sets
_ADDED[_FROM] = ""
KEYS = tuple(f.name for f in dataclasses.fields(Protocol) if f.name != _FROM)


def from_dict(values: Mapping[str, Any]) -> Protocol:
    """Make the protocol that `Protocol.as_dict` wrote.

    Raises:
        TypeError: a value has another name.
    """
    return Protocol(**schema.tuples(values))


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
    # For a machine without a GPU: a quarter of the voxels, half the filters, a tenth
    # of the epochs; patience shrinks less, since 4 validation images are noisy.
    usual = (tuple(min(256, size) for size in record.input_shape), 100, 10, 20)
    network: dict[str, Any] = {"filters": 16}
    if record.is_3d:
        # An eighth of the voxels, a quarter of the filters, one level less (40 / 2**3
        # is whole). Fewer cases make an epoch of fewer patches: patience stays.
        usual = (_half(record.input_shape), 60, 10, 20)
        network = {"filters": 8, "depth": 3}
    shape, epochs, plateau, stopping = _REDUCED.get(record.name, usual)
    return Protocol(
        input_shape=shape,
        epochs=epochs,
        plateau_patience=plateau,
        stopping_patience=stopping,
        overlap=_half(shape) if record.is_3d else (),
        **network,
    )


def _demo(record: Record) -> Protocol:
    if record.is_3d:
        return dataclasses.replace(_reduced(record), epochs=15)
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
    """Return the protocol of a preset for a data set.

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
    """Return the name of a preset; refuse an unknown one.

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
    except ValueError:
        return key, value


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

    Return also the values that differ from the preset's.

    Args:
        protocol: the preset's.
        values: new values by name; one equal to the preset's is no override. Another
            patch has its own overlap, half of it, unless that is given too.

    Raises:
        InputError: a value of another type, or out of range.
    """
    current = _ADDED | protocol.as_dict()
    if values.get("mirror_axes") == list(range(len(protocol.input_shape))):
        values = {**values, "mirror_axes": "all"}
    for key in (key for key in values if key != _FROM):
        _check_key(key, key)
        if key not in current:
            raise InputError(f"--set {key}: for volumes alone, received for images")
    changed = {k: v for k, v in values.items() if not _same(v, current[k])}
    try:
        result: Protocol = schema.typed(vars(protocol) | changed, Protocol)
    except ValueError as error:
        raise InputError(f"--set {error}") from error
    if protocol.overlap and "input_shape" in changed and "overlap" not in changed:
        result = dataclasses.replace(result, overlap=_half(result.input_shape))
    _check_shape(result, protocol)
    return result, changed


def _same(value: Any, other: Any) -> bool:
    """Return whether two values are the same in JSON, where 1 is not true."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


_LARGEST = {"voxels": 2**24, "filters": 4096}  # of the input; of the deepest level


def _check_shape(protocol: Protocol, before: Protocol) -> None:
    """Refuse values that contradict each other, or with another number of axes."""
    number = len(before.input_shape)
    for key in ("input_shape", "overlap"):
        sizes, wanted = getattr(protocol, key), len(getattr(before, key))
        if len(sizes) != wanted:
            raise InputError(
                f"--set {key}: expected {wanted} whole numbers, received {list(sizes)}"
            )
    multiple = 2**protocol.depth
    if any(size % multiple for size in protocol.input_shape):
        raise InputError(
            f"input_shape: expected multiples of {multiple} (depth {protocol.depth}), "
            f"received {list(protocol.input_shape)}"
        )
    products = {
        "voxels": (math.prod(protocol.input_shape), "input_shape"),
        "filters": (protocol.filters * multiple, f"filters x {multiple} (depth)"),
    }
    for kind, (size, what) in products.items():
        if size > _LARGEST[kind]:
            raise InputError(
                f"{what}: expected {_LARGEST[kind]} {kind} at most, received {size}"
            )
    axes = () if protocol.mirror_axes == "all" else protocol.mirror_axes
    if list(axes) != sorted(set(axes) & set(range(number))):
        raise InputError(
            f"mirror_axes: expected axes from 0 to {number - 1} in order, received "
            f"{list(axes)}"
        )
    pairs = zip(protocol.overlap, protocol.input_shape, strict=False)
    if any(overlap >= size for overlap, size in pairs):
        raise InputError(
            f"overlap: expected less than the patch, {list(protocol.input_shape)}, on "
            f"each axis, received {list(protocol.overlap)}"
        )
