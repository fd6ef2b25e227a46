"""Preprocessing and augmentation of section 2.7, as MIScnn carries them out.

The order is MIScnn's: resize, z-score, one-hot label, augmentation; for volumes
resample, clip, z-score over the whole volume, one-hot label, patch, augmentation. The
differences between the paper's words and the released code are decided for the code,
since the published numbers come from it: the image is resized with cubic and the mask
with linear interpolation (the paper says bilinear), and mirroring has a probability of
0.5 per axis (the paper says 0.15). Mirroring makes left and right indistinguishable to
the network; `mirror_axes` switches it off by axis.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_io.datasets.record import Record
from data_io.files import schema
from data_io.prepare.miscnn_compat import (
    Clipping,
    Data_Augmentation,
    Normalization,
    Resize,
)
from data_io.prepare.resampling import SlabResampling

_OF_RECORD = ("spacing_mm", "clip", "axes", "directions", "modalities")

EVERY_AXIS = "all"
_PREPARED = ("input_shape", "order_image", "order_label")
_PREPARED_3D = ("spacing_mm", "directions", "clip", "order_image", "order_label")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What happens between a raw image and a batch; the defaults are the paper's.

    Attributes:
        input_shape: spatial shape of the network's input, in pixels. For volumes
            (three axes) that of a patch; what is prepared is the whole volume.
        order_image: spline order of the image's resize, 0-5. An 8-bit image stays
            8-bit through it (batchgenerators 0.21 truncated, 0.25 rounds).
        order_label: order of the label's resize, each class on its own, and of the
            softmax values on their way back to the native size.
        probability: of brightness, elastic deformation, rotation and scaling, each.
        brightness: range of the factor on the z-scored values, drawn per channel.
        elastic_alpha, elastic_sigma: strength and smoothness of the elastic field in
            pixels of the input. They do not shrink with `input_shape`, so the field
            is relatively stronger at smaller inputs; set them to change that.
        rotation_degrees: rotation is drawn from plus or minus this.
        scaling: range of the zoom; half of the draws are below 1 and half above;
            above 1 shrinks the picture.
        spacing_mm, clip, axes, directions: of volumes, see `Record`. Values are clipped
            before the z-score. `axes` changes nothing here. What runs against
            `directions` is turned before all else, and its probabilities back.
        modalities: see `Record`; several have a z-score each.
    """

    input_shape: tuple[int, ...]
    order_image: int = 3
    order_label: int = 1
    probability: float = 0.15
    brightness: tuple[float, float] = (0.5, 2.0)
    elastic_alpha: tuple[float, float] = (0.0, 900.0)
    elastic_sigma: tuple[float, float] = (9.0, 13.0)
    rotation_degrees: float = 15.0
    scaling: tuple[float, float] = (0.85, 1.25)
    spacing_mm: tuple[float, float, float] | None = None
    clip: tuple[float, float] | None = None
    axes: tuple[int, int, int] | None = None
    directions: str | None = None
    modalities: tuple[str, ...] | None = None

    @classmethod
    def of(cls, record: Record, input_shape: tuple[int, ...]) -> "Settings":
        """The settings of a data set for a network's input shape."""
        return cls(input_shape, **{name: getattr(record, name) for name in _OF_RECORD})

    def shared(self) -> dict[str, Any]:
        """The values that a data set's record has too."""
        return {name: getattr(self, name) for name in _OF_RECORD}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """The settings that `as_dict` gave, as JSON keeps them."""
        return cls(**schema.tuples(values))

    @property
    def is_3d(self) -> bool:
        """True for volumes, which are prepared whole and cut into patches later."""
        return len(self.input_shape) == 3

    def as_dict(self) -> dict[str, Any]:
        """All values; those of steps that are not taken are left out."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None}

    def prepared(self) -> dict[str, Any]:
        """The values that decide what the cache holds; augmentation comes after it."""
        names = _PREPARED_3D if self.is_3d else _PREPARED
        values = self.as_dict()
        return {name: values[name] for name in names if name in values}


class _EachChannel(Normalization):
    """MIScnn's normalisation of each channel by itself: modalities differ in scale."""

    def preprocessing(self, sample: Any, training: bool = True) -> None:
        """Normalise an image, (*spatial, channels)."""
        channels = []
        for channel in np.moveaxis(sample.img_data, -1, 0):
            sample.img_data = channel
            super().preprocessing(sample, training)
            channels.append(sample.img_data)
        sample.img_data = np.stack(channels, axis=-1)


def subfunctions(settings: Settings) -> list[Any]:
    """MIScnn's steps from the raw to the prepared sample, in order.

    The z-score is (x - mean + 1e-6) / (std + 1e-6), mean and standard deviation taken
    over the whole image or volume and all its channels; where channels are files of
    their own, over each of them.

    Returns:
        fresh instances: [Resize, Normalization] for images, [SlabResampling, Clipping,
        Normalization] for volumes, less the first two where `settings` has no such
        value.
    """
    steps: list[Any] = []
    orders = {"order_img": settings.order_image, "order_seg": settings.order_label}
    if not settings.is_3d:
        steps.append(Resize(tuple(settings.input_shape), **orders))
    elif settings.spacing_mm is not None:
        steps.append(SlabResampling(settings.spacing_mm, **orders))
    if settings.clip is not None:
        steps.append(Clipping(*settings.clip))
    several = len(settings.modalities or ()) > 1
    normalise = _EachChannel if several else Normalization
    return [*steps, normalise(mode="z-score", smooth=1e-6)]


def augmentation(
    settings: Settings, mirror_axes: str | Sequence[int] = EVERY_AXIS
) -> Any:
    """MIScnn's augmentation with the released settings, in its fixed order.

    Mirror (each axis, 0.5), brightness, then one warp of elastic deformation, rotation
    and scaling; image cubic, mask nearest, 0 outside. The mask is one-hot by then, so
    what comes from outside the image has no class at all, not even background, as in
    the released code: such pixels' targets sum to 0.

    Args:
        settings: ranges and the probability; see `Settings`.
        mirror_axes: the axes that may be mirrored; "all" as in the released code.
    """
    augment = Data_Augmentation(
        cycles=1,
        mirror=True,
        brightness=True,
        elastic_deform=True,
        rotations=True,
        scaling=True,
        contrast=False,
        gamma=False,
        gaussian_noise=False,
    )
    if mirror_axes != EVERY_AXIS:
        augment.mirror = bool(mirror_axes)
        augment.config_mirror_axes = tuple(map(int, mirror_axes))
    augment.config_p_per_sample = settings.probability
    augment.config_brightness_range = settings.brightness
    augment.config_elastic_deform_alpha = settings.elastic_alpha
    augment.config_elastic_deform_sigma = settings.elastic_sigma
    angle = settings.rotation_degrees / 360.0 * 2.0 * math.pi  # MIScnn's, to the bit
    for axis in ("X", "Y", "Z"):
        setattr(augment, f"config_rotations_angle{axis}", (-angle, angle))
    augment.config_scaling_range = settings.scaling
    return augment
