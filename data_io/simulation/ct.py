"""CT phantoms: Hounsfield-like volumes simulated over label maps of kidneys.

No scanner, no patient: around the labelled kidneys and tumours a body is drawn, with
fat, muscle, spine, vessels, gas and organs whose values come near those of the kidneys;
edges are blurred (partial volume), and noise is added. What is labelled keeps its place
to the voxel. Everything else is made up: it looks like no particular person and says
nothing about patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

GRID_MM = 4.0  # the body is drawn on a grid of this size, then interpolated
AIR, FAT, MUSCLE, BONE, GAS = -1000.0, -100.0, 55.0, 350.0, -750.0
ORGANS = (20.0, 60.0, 105.0, 120.0)  # fluid, bowel, liver, spleen
BODY_MM = (120.0, 165.0)  # half axes, front to back and side to side
MARGIN_MM = 25.0  # of body around what is labelled
LOWEST, HIGHEST = -1024, 3071  # a scanner's range


@dataclass(frozen=True)
class Grid:
    """A coarse grid over a volume: centres of cells and of voxels by axis, in mm."""

    positions: tuple[np.ndarray, ...]
    voxels: tuple[np.ndarray, ...]

    @classmethod
    def over(cls, shape: Sequence[int], spacing_mm: Sequence[float]) -> "Grid":
        """The grid of a volume: cells of `GRID_MM` or a little less."""
        positions, voxels = [], []
        for count, size in zip(shape, spacing_mm, strict=True):
            cells = max(2, int(np.ceil(count * size / GRID_MM)))
            positions.append((np.arange(cells) + 0.5) * count * size / cells)
            voxels.append((np.arange(count) + 0.5) * size)
        return cls(tuple(positions), tuple(voxels))

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(len(axis) for axis in self.positions)

    @property
    def cell_mm(self) -> tuple[float, ...]:
        """Size of a cell along each axis."""
        return tuple(float(axis[1] - axis[0]) for axis in self.positions)

    def mesh(self) -> tuple[np.ndarray, ...]:
        """The cells' centres in mm, one array an axis, ready to be broadcast."""
        return np.ix_(*self.positions)

    def nearest(self, label: np.ndarray) -> np.ndarray:
        """A label map on the grid: that of the voxel nearest to each cell's centre."""
        places = [
            np.clip(np.round(at / axis[0] / 2 - 0.5), 0, len(axis) - 1).astype(int)
            for at, axis in zip(self.positions, self.voxels, strict=True)
        ]
        return label[np.ix_(*places)]

    def plane(self, fields: np.ndarray, index: int) -> np.ndarray:
        """A slice of fields on the grid, (n, *grid.shape), as (n, rows, columns)."""
        places = [
            np.interp(voxels, cells, np.arange(len(cells)))
            for voxels, cells in zip(self.voxels, self.positions, strict=True)
        ]
        places[0] = places[0][[index]]
        for axis, position in enumerate(places, 1):
            fields = between(fields, axis, position)
        return fields[:, 0]


def between(field: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Interpolate linearly at places in cells; a matrix product may round anyhow."""
    first = np.minimum(positions.astype(int), field.shape[axis] - 2)
    share = (positions - first).reshape(
        [-1 if a == axis else 1 for a in range(field.ndim)]
    )
    low = np.take(field, first, axis)
    return low + share * (np.take(field, first + 1, axis) - low)


def simulate(
    label: np.ndarray, spacing_mm: Sequence[float], random: np.random.Generator
) -> np.ndarray:
    """Simulate a CT volume over a label map.

    Kidneys have about 165 HU and tumours 25 to 60 less, with texture; the body around
    them is `body`. Edges of what is labelled are blurred by 0.7 mm within a slice.
    Noise has a standard deviation of 15 to 25 HU.

    Args:
        label: uint8 (slices, rows, columns): 0 background, 1 kidney, 2 tumour; slices
            from head to foot or the other way, rows from front to back.
        spacing_mm: voxel size by axis.
        random: decides all that the label map does not; one that starts the same gives
            the same volume.

    Returns:
        int16 (*shape), Hounsfield units, in [-1024, 3071].
    """
    grid = Grid.over(label.shape, spacing_mm)
    kidney = random.normal(165, 10)
    inside = (kidney, kidney - random.uniform(25, 60))
    coarse = np.stack([body(label, grid, random), 12 * smooth(random, grid, 6)])
    noise = random.uniform(15, 25)
    blur = tuple(0.7 / size for size in spacing_mm[1:])
    volume = np.empty(label.shape, np.int16)
    for index, plane in enumerate(label):
        around, uneven = grid.plane(coarse, index)
        values = embed(plane, around, uneven, inside, blur)
        values += noise * grain(random, plane.shape)
        volume[index] = np.clip(np.round(values), LOWEST, HIGHEST)
    return volume


def embed(
    plane: np.ndarray,
    around: np.ndarray,
    uneven: np.ndarray,
    inside: tuple[float, float],
    blur: tuple[float, ...],
) -> np.ndarray:
    """Put kidney and tumour (`inside`, HU) of a slice into the body around them."""
    values = around
    for number, brightness in enumerate(inside, 1):
        where = plane == number
        if where.any():
            share = gaussian_filter(where.astype(np.float32), blur)
            values = values + share * (brightness + uneven - around)
    return values


def grain(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of standard deviation 1 whose neighbouring pixels are alike, as in CT."""
    noise = gaussian_filter(random.standard_normal(shape, dtype=np.float32), 0.6)
    return noise / noise.std()


def smooth(random: np.random.Generator, grid: Grid, size_mm: float) -> np.ndarray:
    """A random field of mean 0 and standard deviation 1 that is smooth over a size."""
    sigma = [size_mm / cell for cell in grid.cell_mm]
    field = gaussian_filter(random.standard_normal(grid.shape), sigma, mode="nearest")
    return (field - field.mean()) / field.std()


def body(label: np.ndarray, grid: Grid, random: np.random.Generator) -> np.ndarray:
    """Draw a body around labelled kidneys, without them: HU, (*grid.shape).

    From outside: air, skin fat, muscle, then fat with organs, gas, spine and vessels;
    fat of varying thickness around the kidneys, which organs touch here and there.
    """
    coarse = grid.nearest(label) > 0
    depth, centre = depth_in_body(coarse, grid, random)
    values = np.full(grid.shape, FAT)
    organs(values, grid, random)
    loops(values, grid, random)
    distance = distance_transform_edt(~coarse, grid.cell_mm) if coarse.any() else 99.0
    values[distance < 8 + 5 * smooth(random, grid, 15)] = FAT
    midline(values, grid, centre, random)
    values += 8 * smooth(random, grid, 6)
    for limit, tissue in ((0.8, MUSCLE), (0.9, FAT), (1.0, AIR)):
        np.copyto(values, tissue, where=depth > limit)
    return gaussian_filter(values, 0.4)


def depth_in_body(
    coarse: np.ndarray, grid: Grid, random: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float]]:
    """How far out each cell of an elliptic body lies, 0 to 1; its middle in mm."""
    extent = [axis[-1] + axis[0] for axis in grid.positions[1:]]
    middle = [size / 2 + random.normal(0, 4) for size in extent]
    _, rows, columns = grid.mesh()
    half = [size * random.uniform(0.92, 1.08) for size in BODY_MM]
    offsets = ((rows - middle[0]), (columns - middle[1]))
    depth = np.sqrt(sum((d / h) ** 2 for d, h in zip(offsets, half, strict=True)))
    occupied = coarse.any(axis=0, keepdims=True)
    if occupied.any():
        # Muscle begins at 0.8: what is labelled has to end before.
        reach = float(depth[occupied].max()) + MARGIN_MM / min(half)
        depth = depth * min(1.0, 0.8 / reach)
    return depth, (middle[0], middle[1])


def organs(values: np.ndarray, grid: Grid, random: np.random.Generator) -> None:
    """Fill about half of the inside with soft organs of several kinds, and gas."""
    where, kind = smooth(random, grid, 25), smooth(random, grid, 30)
    levels = np.array(ORGANS) + random.normal(0, 5, len(ORGANS))
    soft = levels[np.digitize(kind, (-0.8, 0, 0.8))]
    np.copyto(values, soft, where=where > 0)
    values[smooth(random, grid, 10) > 2.3] = GAS


def loops(values: np.ndarray, grid: Grid, random: np.random.Generator) -> None:
    """Add ellipsoids as bright as kidneys, which only shape and place tell apart."""
    for _ in range(random.integers(4, 8)):
        centre = [random.uniform(axis[0], axis[-1]) for axis in grid.positions]
        half = random.uniform(10, 35, 3)
        where = ellipsoid(grid.positions, centre, half)
        values[where] = random.uniform(110, 175)


def midline(
    values: np.ndarray,
    grid: Grid,
    centre: tuple[float, float],
    random: np.random.Generator,
) -> None:
    """Draw spine, aorta and vena cava along the slices, behind the body's middle."""
    _, rows, columns = grid.mesh()
    parts = (
        (55, 0, 19, BONE + 80 * smooth(random, grid, 5)),
        (30, 10, 11, np.full(grid.shape, random.uniform(150, 220))),
        (30, -14, 12, np.full(grid.shape, random.uniform(110, 170))),
    )
    for back, side, radius, hounsfield in parts:
        square = (rows - centre[0] - back) ** 2 + (columns - centre[1] - side) ** 2
        where = np.broadcast_to(square < radius**2, values.shape)
        np.copyto(values, hounsfield, where=where)


def draw_label(
    shape: Sequence[int], spacing_mm: Sequence[float], random: np.random.Generator
) -> np.ndarray:
    """Draw a label map of two kidneys, one of them with a tumour at its edge.

    Returns:
        uint8 (slices, rows, columns): 0 background, 1 kidney, 2 tumour.
    """
    extent = np.array(shape) * spacing_mm
    axes = Grid.over(shape, spacing_mm).voxels
    drawn = np.zeros(tuple(shape), np.uint8)
    for side in (-1, 1):
        offset = np.array([random.uniform(-15, 15), 35, side * random.uniform(60, 75)])
        half = random.uniform((40, 22, 24), (55, 30, 32))
        drawn[ellipsoid(axes, extent / 2 + offset, half)] = 1
        if side == 1:
            towards = random.standard_normal(3)
            edge = offset + half * towards / np.linalg.norm(towards)
            size = random.uniform(8, 28)
            drawn[ellipsoid(axes, extent / 2 + edge, np.full(3, size))] = 2
    return drawn


def ellipsoid(
    axes: Sequence[np.ndarray], centre: Sequence[float] | np.ndarray, half: np.ndarray
) -> np.ndarray:
    """True inside an ellipsoid; centre and half axes in mm."""
    parts = zip(np.ix_(*axes), centre, half, strict=True)
    return np.asarray(sum(((at - c) / h) ** 2 for at, c, h in parts) < 1)
