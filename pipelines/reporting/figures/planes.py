"""Which plane of a volume a picture shows, and how it lies on the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_io.files import nifti

_EQUAL = 0.999  # of the largest voxel size: what counts as large, see `Plane.of`
_ALONG = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
_ON_THE_PAGE = "LPI"  # towards what columns and rows run

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Plane:
    """A plane of a volume, as readers of such images look at it.

    The head is at the top, or else the front; the patient's right is on the left, or
    else the front. Where the header does not say how the volume lies, rows and columns
    are those of the array.

    Attributes:
        axis: of the array, across which the plane is cut.
        index: of the plane along it.
        aspect: height over width of a pixel, from the voxel size in mm.
        turned: whether rows and columns of the array are exchanged.
        flipped: axes on the page, 0 rows and 1 columns, that run against the array's.
    """

    axis: int
    index: int
    aspect: float
    turned: bool = False
    flipped: tuple[int, ...] = ()

    @classmethod
    def of(cls, place: nifti.Geometry, target: npt.ArrayLike) -> Plane:
        """Choose the plane of highest resolution that has most of a target.

        It is cut across the axis with the largest voxels, the first of equal ones.

        Args:
            place: of the volume.
            target: (*shape); not 0 where the target is. Where it is nowhere, the plane
                in the middle is taken; of several equal ones the first.
        """
        sizes = np.array(place.spacing_mm)
        axis = int(np.argmax(sizes >= _EQUAL * sizes.max()))
        rest = [other for other in range(3) if other != axis]
        number = np.count_nonzero(target, axis=tuple(rest))
        index = int(number.argmax()) if number.any() else len(number) // 2
        code = place.directions or "IPL"
        along = [_ALONG[code[other]] for other in rest]
        turned = bool(place.directions) and along[0] < along[1]
        rows, columns = rest[::-1] if turned else rest
        flipped = [
            page
            for page, other in enumerate((rows, columns))
            if place.directions and code[other] not in _ON_THE_PAGE
        ]
        aspect = float(sizes[rows] / sizes[columns])
        return cls(axis, index, aspect, turned, tuple(flipped))

    def shown(self, array: _Array) -> _Array:
        """A plane of the array, (two of its axes[, channels]), as it is on the page."""
        turned = np.swapaxes(array, 0, 1) if self.turned else array
        return np.flip(turned, self.flipped)

    def cut(self, volume: _Array) -> _Array:
        """The plane of a volume, (*shape[, channels]), as it is on the page."""
        return self.shown(np.take(volume, self.index, self.axis))

    def __str__(self) -> str:
        return f"Slice {self.index} of axis {self.axis}"
