"""What `data_io.verify` asks of volumes: facts of a NIfTI file, and what is wrong."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets import nifti
from data_io.datasets.record import Record

__all__ = ["facts", "judge", "same_place"]

AGAIN = "Copy it again from the original download."
SIZES_MM = (0.01, 50.0)  # of voxels; beyond, a header has lost its unit or its mind
SAME_MM = 1e-3
_MOST = 9  # values kept: more are no label map
_SLAB = 16
Facts = dict[str, Any]


def facts(path: Path) -> Facts:
    """What a volume holds, as JSON can keep it.

    Returns:
        `mode`, `shape` (slices, rows, columns), `affine`, `unit` of length, `missing`
        (voxels that are NaN or infinite) and `values`, pairs of a value and its number
        of voxels (at most 9; where there are more, the numbers are not of all voxels).

    Raises:
        InputError: it can't be decoded to its end.
    """
    nifti.check_whole(path)
    where, voxels = nifti.geometry(path), nifti.read(path)
    return {
        "mode": "volume",
        "shape": list(where.shape),
        "affine": np.round(where.affine, 6).tolist(),
        "unit": where.header.get_xyzt_units()[0],
        "missing": _missing(voxels),
        "values": _values(voxels),
    }


def _missing(voxels: np.ndarray) -> int:
    """Voxels that are no number."""
    if voxels.dtype.kind != "f":
        return 0
    return sum(int((~np.isfinite(part)).sum()) for part in _slabs(voxels))


def _values(voxels: np.ndarray) -> list[list[float]]:
    """Values and their numbers, lowest first; given up once there are too many."""
    counted: Counter[float] = Counter()
    for part in _slabs(voxels):
        values, numbers = np.unique(part, return_counts=True, equal_nan=True)
        counted.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        if len(counted) > _MOST:
            break
    pairs = sorted((v, n) for v, n in counted.items() if np.isfinite(v))[:_MOST]
    return [[int(v) if v == int(v) else v, n] for v, n in pairs]


def _slabs(voxels: np.ndarray) -> list[np.ndarray]:
    columns = range(0, voxels.shape[2], _SLAB)
    return [voxels[:, :, start : start + _SLAB] for start in columns]


def judge(
    record: Record, role: str, name: str, known: Facts, others: Mapping[str, Facts]
) -> list[str]:
    """Returns the problems of one volume.

    Args:
        record: of the data set.
        role: `image`, or else a label map.
        name: the file, as the message names it.
        known: its facts.
        others: facts of all files of the case, by role.
    """
    if role == "image":
        return _judge_image(record, name, known)
    problems = _judge_label(record, name, known)
    return problems + _judge_grid(name, known, others.get("image", known))


def _judge_image(record: Record, name: str, known: Facts) -> list[str]:
    problems = []
    if known["missing"]:
        problems.append(
            f"{name}: expected numbers, found {known['missing']} voxels that are NaN "
            f"or infinite. {AGAIN}"
        )
    if known["unit"] not in ("mm", "unknown"):
        problems.append(
            f"{name}: expected voxel sizes in mm, found them in {known['unit']}. "
            "Correct the header."
        )
    return problems + _judge_spacing(record, name, known)


def _judge_spacing(record: Record, name: str, known: Facts) -> list[str]:
    """A voxel size of 0 or beyond reason, or a volume thinner than a new voxel."""
    sizes = np.sqrt((np.array(known["affine"])[:3, :3] ** 2).sum(axis=0))
    shown = " x ".join(f"{size:g}" for size in sizes)
    low, high = SIZES_MM
    if not ((sizes >= low) & (sizes <= high)).all():
        return [
            f"{name}: expected voxels of {low:g} to {high:g} mm, found {shown}. "
            "Correct the affine in its header."
        ]
    wanted = record.spacing_mm
    if wanted and (sizes * known["shape"] < np.array(wanted)).any():
        return [
            f"{name}: expected a volume of one voxel of "
            f"{' x '.join(f'{size:g}' for size in wanted)} mm at least, found "
            f"{_shape(known)} voxels of {shown} mm. Take it out."
        ]
    return []


def _judge_label(record: Record, name: str, known: Facts) -> list[str]:
    """Values that are no class."""
    classes = range(len(record.classes))
    if not known["missing"] and all(value in classes for value, _ in known["values"]):
        return []
    found = [f"{value:g}" for value, _ in known["values"]]
    found += ["NaN"] if known["missing"] else []
    more = ", ..." if len(known["values"]) == _MOST else ""
    return [
        f"{name}: expected the values {', '.join(str(value) for value in classes)} "
        f"({', '.join(record.classes)}), found {', '.join(found)}{more}. {AGAIN}"
    ]


def _judge_grid(name: str, known: Facts, image: Facts) -> list[str]:
    """A label map that does not lie on the voxels of its image."""
    if known["shape"] != image["shape"]:
        return [
            f"{name}: expected {_shape(image)} voxels, as its image, found "
            f"{_shape(known)}. {AGAIN}"
        ]
    if not same_place(known, image):
        return [
            f"{name}: expected the affine of its image, found another one: rows "
            f"{known['affine'][:3]}, of the image {image['affine'][:3]}. {AGAIN}"
        ]
    return []


def same_place(one: Facts, other: Facts) -> bool:
    """Whether two files have the same affine, or none as images have."""
    first, second = (facts.get("affine", np.nan) for facts in (one, other))
    return np.allclose(first, second, rtol=0, atol=SAME_MM, equal_nan=True)


def _shape(known: Facts) -> str:
    return "x".join(str(size) for size in known["shape"])
