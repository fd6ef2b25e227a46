"""Where a user's own volumes lie: their voxel sizes and the order of their axes.

Facts are what `OwnImages.look` gives, by case and role. Images have no grid: for them
`usual` gives None for each attribute, and `lines` gives no line.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_io.prepare import native_grid
from data_io.verification import volumes

_Facts = Mapping[str, Mapping[str, dict[str, Any]]]


def usual(facts: _Facts) -> dict[str, Any]:
    """The grid that most volumes have, by attribute of `Record`; of images None.

    That is the median voxel size, the order of axes of most, and towards what the axes
    of most run; None also for what no volume says.
    """
    images = _volumes(facts).values()
    sizes = [image["spacing_mm"] for image in images]
    sizes = [size for size in sizes if all(0 < mm < np.inf for mm in size)]
    # Not rounded: at 0.7 mm a ten thousandth more is a voxel of 512 less.
    median = [float(size) for size in np.median(sizes, axis=0)] if sizes else None
    return {
        "spacing_mm": median,
        "axes": _usual(volumes.order(image) for image in images),
        "directions": _usual(image["directions"] for image in images),
    }


def _usual(values: Iterable[Any]) -> Any:
    """The most frequent value that is known; None where none is."""
    usual = Counter(value for value in values if value).most_common(1)
    return usual[0][0] if usual else None


def _volumes(facts: _Facts) -> dict[str, dict[str, Any]]:
    """Facts of the images that are volumes, by case."""
    images = {case: roles.get("image", {}) for case, roles in facts.items()}
    return {case: image for case, image in images.items() if "spacing_mm" in image}


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
        image
        for image in images.values()
        if native_grid.resampled_shape(image["shape"], image["spacing_mm"], wanted_mm)
        != tuple(image["shape"])
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
