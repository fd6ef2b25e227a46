"""Where a user's own volumes lie: their voxel sizes and the order of their axes.

Facts are what `OwnImages.look` gives, by case and role; those of images say nothing of
a grid, and of images each function here gives nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.own_images import channels
from data_io.prepare import native_grid
from data_io.verification import volumes

_CANONICAL = (0, 1, 2)
_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
_Facts = Mapping[str, Mapping[str, dict[str, Any]]]


def spacing_mm(facts: _Facts) -> list[float] | None:
    """The median voxel size, by axis; None of images.

    Not rounded: at 0.7 mm a ten thousandth more is a voxel of 512 less.
    """
    sizes = [image["spacing_mm"] for image in _volumes(facts).values()]
    return [float(size) for size in np.median(sizes, axis=0)] if sizes else None


def axes(facts: _Facts) -> tuple[int, ...] | None:
    """The order of axes that most volumes have; None where no header says one."""
    usual = Counter(_known_axes(facts).values()).most_common(1)
    return usual[0][0] if usual else None


def directions(facts: _Facts) -> str | None:
    """Towards what the axes of most volumes run; None where no header says it."""
    codes = [image["directions"] for image in _volumes(facts).values()]
    usual = Counter(code for code in codes if code).most_common(1)
    return usual[0][0] if usual else None


def problems(facts: _Facts, like: Record | None) -> list[list[str]]:
    """What is wrong with volumes, by kind; `like` is of what a network saw, if any."""
    return [_other_grids(facts), _other_axes(facts, like), _thin(facts, like)]


def _other_grids(facts: _Facts) -> list[str]:
    """Files of the right size that lie elsewhere, such as mirrored label maps."""
    return [
        f"case {case}: expected {channels.named(role)} with "
        f"{volumes.elsewhere(file, roles['image'])}"
        for case, roles in facts.items()
        for role, file in roles.items()
        if "image" in roles
        and roles["image"]["shape"] == file["shape"]
        and not volumes.same_place(roles["image"], file)
    ]


def _other_axes(facts: _Facts, like: Record | None) -> list[str]:
    """Volumes whose axes are in another order than the network's, or than most."""
    expected, whose = axes(facts), "most volumes here have them"
    if like and like.axes:
        expected, whose = like.axes, "the network was trained on"
    how = "as_closest_canonical" if expected == _CANONICAL else "as_reoriented"
    return [
        f"case {case}: expected axes in the order {volumes.directions(expected)}, as "
        f"{whose}, found {volumes.directions(order)}. Reorder those of the image and "
        f"of its label map, for instance with nibabel's {how}."
        for case, order in _known_axes(facts).items()
        if expected and order != expected
    ]


def _thin(facts: _Facts, like: Record | None) -> list[str]:
    """Volumes of less than a voxel of the size that all are resampled to."""
    wanted = like.spacing_mm if like else spacing_mm(facts)
    faults = []
    for case, image in _volumes(facts).items():
        try:
            _resampled(image, wanted, f"case {case}")
        except InputError as error:
            faults.append(str(error))
    return faults


def _resampled(
    image: Mapping[str, Any], wanted_mm: Sequence[float] | None, name: str
) -> list[int]:
    """The shape at another voxel size; its own where none is wanted."""
    shape, size_mm = image["shape"], image["spacing_mm"]
    return list(native_grid.resampled_shape(shape, size_mm, wanted_mm or size_mm, name))


def _volumes(facts: _Facts) -> dict[str, dict[str, Any]]:
    """Facts of the images that are volumes, by case."""
    images = {case: roles.get("image", {}) for case, roles in facts.items()}
    return {case: image for case, image in images.items() if "spacing_mm" in image}


def _known_axes(facts: _Facts) -> dict[str, tuple[int, ...]]:
    """The order of axes of each volume whose header says it; oblique: the nearest."""
    orders = {case: _order(image) for case, image in _volumes(facts).items()}
    return {case: tuple(order) for case, order in orders.items() if order}


def _order(image: Mapping[str, Any]) -> Sequence[int] | None:
    axes: Sequence[int] | None = image["axes"]
    nearest = [_AXIS[letter] for letter in image["directions"] or ""]
    return axes or nearest or None


def lines(about: Mapping[str, Any], facts: _Facts, whose: str) -> list[str]:
    """The grid on which a network sees volumes, and whose voxel size it is."""
    images, known = _volumes(facts), about["axes"]
    if not images:
        return []
    shown = [_voxels(about["spacing_mm"], images, whose)]
    shown += [f"  axes     {volumes.directions(known)}"] if known else []
    doubts = [f"  note     {text}" for text in volumes.doubts(images)]
    return shown + _turned(about["directions"], images) + doubts


def _voxels(
    wanted_mm: Sequence[float] | None, images: Mapping[str, Any], whose: str
) -> str:
    """Say to what voxel size volumes are resampled."""
    if not wanted_mm:
        return "  voxels   each volume's own size, as the network was trained"
    others = [
        case
        for case, image in images.items()
        if _resampled(image, wanted_mm, case) != image["shape"]
    ]
    return (
        f"  voxels   {native_grid.by_axis(wanted_mm)} mm, {whose}; {len(others)} of "
        f"{len(images)} volumes are resampled to it"
    )


def _turned(wanted: str | None, images: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Says of how many volumes an axis is turned round, and of how many it can't be."""
    known = {case: image["directions"] for case, image in images.items()}
    if not wanted:
        return [
            "  turned   none: towards what axes run was not noted in training"
        ] * any(known.values())
    turned = [
        case for case, code in known.items() if native_grid.flipped_axes(code, wanted)
    ]
    silent = [case for case, code in known.items() if not code]
    such = f", such as {turned[0]} ({known[turned[0]]})" if turned else ""
    shown = [
        f"  turned   {len(turned)} of {len(images)} volumes are mirrored on reading so "
        f"that all run towards {wanted}{such}"
    ]
    return shown + [
        f"  note     {len(silent)} of {len(images)} headers do not say how their "
        f"volume lies, such as {case}: taken for {wanted}"
        for case in silent[:1]
    ]
