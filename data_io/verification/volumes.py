"""What verification asks of volumes: facts of a NIfTI file, and what is wrong."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets import is_own
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import affines, nifti
from data_io.prepare.native_grid import by_axis, resampled_shape
from data_io.verification.report import AGAIN, KEPT_VALUES, Finding, Say, counted

_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
_DIRECTIONS = ("left-right", "back-front", "foot-head")
SIZES_MM = (0.01, 50.0)  # of voxels; beyond, the voxel size is implausible
_SHOWN = 9  # values
Facts = dict[str, Any]


def facts(path: Path, role: str) -> Facts:
    """What a volume holds, as JSON can keep it.

    Args:
        path: a NIfTI file.
        role: `image`, or another.

    Returns:
        `mode`, `shape` (slices, rows, columns), `affine`, `spacing_mm`, `directions`,
        `other` and `unit` (see `nifti.Geometry`), `missing` (voxels that
        are NaN or infinite), `range`; of an image `pixels`, a hash of shape and voxels,
        and `constant`, where all voxels are the same; of a label map `values`, pairs of
        a value and its number of voxels (the lowest `KEPT_VALUES`; where there are
        more, the numbers are not of all voxels).

    Raises:
        InputError: it can't be decoded to its end.
    """
    nifti.check_whole(path)
    where = nifti.geometry(path)
    kept: Facts = {
        "mode": "volume",
        "shape": list(where.shape),
        "affine": where.affine.tolist(),
        "spacing_mm": list(where.spacing_mm),
        "directions": where.directions,
        "other": where.other.tolist() if where.other is not None else None,
        "unit": where.unit,
    }
    return kept | _voxels(path, role, where.shape)


def _voxels(path: Path, role: str, shape: tuple[int, ...]) -> Facts:
    """What follows from the voxels, in one pass that holds a slab at a time."""
    missing, ends, counts = 0, set(), Counter[float]()
    whole = hashlib.sha256(str(shape).encode())
    for slab in nifti.slabs(path):
        ends |= {slab.min().item(), slab.max().item()}
        if slab.dtype.kind == "f":
            missing += int((~np.isfinite(slab)).sum())
        if role == "image":
            whole.update(np.ascontiguousarray(slab.T, np.float32).data)
        elif len(counts) <= KEPT_VALUES:
            values, numbers = np.unique(nifti.rounded(slab), return_counts=True)
            counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    kept: Facts = {"missing": missing, "range": [min(ends), max(ends)]}
    if role == "image":
        constant = len(ends) == 1 and not missing
        return {**kept, "pixels": whole.hexdigest(), "constant": constant}
    pairs = sorted((v, n) for v, n in counts.items() if np.isfinite(v))[:KEPT_VALUES]
    return {**kept, "values": [[int(v) if v == int(v) else v, n] for v, n in pairs]}


def judge(
    record: Record, role: str, say: Say, known: Facts, others: Mapping[str, Facts]
) -> list[Finding]:
    """Return the problems of a volume, of an image or else a label map.

    `known` are its facts, `others` those of all files of the case, by role.
    """
    is_image = role.startswith("image")
    problems = (
        _judge_image(say, known) if is_image else _judge_label(record, say, known)
    )
    if known["unit"] not in ("mm", "unknown"):
        text = f"expected voxel sizes in mm, found them in {known['unit']}."
        problems.append(say("unit", f"{text} Correct the header."))
    if role == "image":
        limits = (0.0, np.inf) if is_own(record.name) else SIZES_MM
        sizes = _judge_spacing(say, known, *limits) or _judge_extent(record, say, known)
        return problems + _judge_axes(record, say, known) + sizes
    return problems + _judge_grid(say, known, others.get("image", known))


def _judge_image(say: Say, known: Facts) -> list[Finding]:
    problems = []
    if known["missing"]:
        text = (
            f"expected numbers, found {known['missing']} voxels that are NaN or "
            f"infinite. {AGAIN}"
        )
        problems.append(say("not finite", text))
    if known["constant"]:
        text = "expected an image of something, found the same value in all its voxels."
        problems.append(say("constant", f"{text} {AGAIN}"))
    return problems


def _judge_axes(record: Record, say: Say, known: Facts) -> list[Finding]:
    """Axes in another order."""
    axes = order(known)
    if not (record.axes and axes) or tuple(record.axes) == axes:
        return []
    text = (
        f"expected axes in the order {directions(record.axes)}, found "
        f"{directions(axes)}. {AGAIN} Or reorder the axes of image and "
        "label map, for instance with nibabel's as_reoriented."
    )
    return [say("axes", text)]


def _judge_extent(record: Record, say: Say, known: Facts) -> list[Finding]:
    """A volume thinner than one voxel of the size that it is resampled to."""
    sizes = known["spacing_mm"]
    wanted = record.spacing_mm or sizes
    try:
        resampled_shape(known["shape"], sizes, wanted)
    except InputError:
        text = (
            f"expected a volume of one voxel of {by_axis(wanted)} mm at least, found "
            f"{by_axis(known['shape'])} voxels of {by_axis(sizes)} mm. Take it out."
        )
        return [say("thin", text)]
    return []


def order(known: Facts) -> tuple[int, ...] | None:
    """The axis of the body along which each axis of a volume runs, see `Record.axes`.

    That of an oblique axis is the nearest; None where its header does not say them.
    """
    return tuple(_AXIS[letter] for letter in known["directions"] or "") or None


def doubts(images: Mapping[str, Facts]) -> dict[str, list[str]]:
    """A warning about volumes whose qform lies elsewhere than the sform, and which."""
    what = "volumes have a qform that differs from the sform in place or by a few"
    others = [case for case, image in images.items() if image.get("other")]
    return counted(others, images, f"{what} degrees", ": the sform is taken")


def directions(order: Sequence[int]) -> str:
    """An order of axes in words, see `Record.axes`."""
    return ", ".join(_DIRECTIONS[axis] for axis in order)


def _judge_spacing(
    say: Say, known: Facts, low: float = 0.0, high: float = np.inf
) -> list[Finding]:
    """An affine that is not finite, or a voxel size of 0 or beyond reason, in mm."""
    sizes = _sizes(known)
    if _is_sound(known) and ((sizes >= low) & (sizes <= high)).all():
        return []
    expected = f"voxels {f'of {low:g} to {high:g}' if low else 'above 0'} mm"
    found = by_axis(sizes)
    if np.isfinite(sizes).all() and not np.isfinite(known["affine"]).all():
        expected, found = "a finite affine", affines.shown(np.array(known["affine"]))
    text = f"expected {expected}, found {found}. Correct the affine in its header."
    return [say("spacing", text)]


def _is_sound(known: Facts) -> bool:
    """Whether an affine is finite and its voxels have a size."""
    return bool(np.isfinite(known["affine"]).all() and (_sizes(known) > 0).all())


def _judge_label(record: Record, say: Say, known: Facts) -> list[Finding]:
    """Values that are no class; of own label maps, that are no class numbers."""
    own = is_own(record.name)
    classes = range(256 if own else len(record.classes))
    if not known["missing"] and all(value in classes for value, _ in known["values"]):
        return []
    values = [f"{value:g}" for value, _ in known["values"][:_SHOWN]]
    values += ["NaN"] if known["missing"] else []
    more = ", ..." if len(known["values"]) >= _SHOWN else ""
    named = f"{', '.join(map(str, classes))} ({', '.join(record.classes)})"
    text = (
        f"expected the values {'0 to 255' if own else named}, found "
        f"{', '.join(values)}{more}. {AGAIN}"
    )
    return [say("values", text)]


def _judge_grid(say: Say, known: Facts, image: Facts) -> list[Finding]:
    """A file that does not lie on the voxels of its image."""
    if known["shape"] != image["shape"]:
        found = by_axis(known["shape"])
        text = f"expected {by_axis(image['shape'])} voxels, as its image, found {found}"
        return [say("shape", f"{text}. {AGAIN}")]
    if same_place(known, image):
        return []
    # Where one of the two has no voxel size, that is said and nothing is compared.
    if not (_is_sound(image) and _is_sound(known)):
        return _judge_spacing(say, known)
    grids = [affines.shown(np.array(facts["affine"])) for facts in (known, image)]
    text = (
        f"expected the affine of its image, {grids[1]}, found {grids[0]}. Where it was "
        "drawn on the image's voxels, copy the image's header: to resample it would "
        "move it. Where it was drawn on its own grid, resample it to the image's, by "
        "nearest neighbour."
    )
    return [say("affine", f"{text} {AGAIN}")]


def same_place(one: Facts, other: Facts) -> bool:
    """Whether two files of a size have the same affine.

    Programs that write label maps take the sform or the qform: either will do.
    """
    sizes = _sizes(one)
    first, second = (
        [np.array(a) for a in (facts["affine"], facts.get("other")) if a is not None]
        for facts in (one, other)
    )
    return any(affines.same(a, b, sizes) for a in first for b in second)


def _sizes(known: Facts) -> np.ndarray:
    """Voxel sizes by axis, mm."""
    return np.array(known["spacing_mm"])
