"""Measure seams between patches: jumps of probability, by way to join.

A run of volumes predicts its validation and test cases once for each way to join. A
jump is the difference of the foreground's probability between two neighbouring voxels.
Jumps across a patch border are compared with those between the next voxels on both
sides, in the same part of the volume. A ratio of 1 means no seam. Run `python -m
benchmarks.seams RUN`.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_io import datasets
from data_io.errors import InputError
from data_io.prepare import cache, patches
from pipelines import stages
from pipelines.prediction import new_images
from pipelines.runs import predictions
from pipelines.runs import run as runs
from pipelines.training import predict

_Array = npt.NDArray[np.floating]


def jumps(foreground: _Array, grid: patches.Grid) -> tuple[float, float]:
    """Return the mean jump across the patch borders of a volume, and beside them.

    Args:
        foreground: probability that a voxel is not background, (*grid.shape).
        grid: how the volume was cut into patches.

    Returns:
        The mean of |p - q| over all pairs of neighbouring voxels p, q with a border
        between them; and over the pairs one voxel before and one behind. NaN where no
        border has two voxels on both sides.
    """
    across, beside = [], []
    for axis, parts in enumerate(grid.axes()):
        steps = np.moveaxis(np.abs(np.diff(foreground, axis=axis)), axis, 0)
        borders = {end for part, _ in parts for end in (part.start, part.stop)}
        for border in sorted(
            end for end in borders if 2 <= end <= grid.shape[axis] - 2
        ):
            across.append(steps[border - 1].ravel())
            beside += [steps[border - 2].ravel(), steps[border].ravel()]
    if not across:
        return float("nan"), float("nan")
    return float(np.concatenate(across).mean()), float(np.concatenate(beside).mean())


def measure(folder: Path, work: Path = runs.WORK) -> dict[str, tuple[float, float]]:
    """Return jumps across and beside borders, by join: means over the cases of a run.

    Args:
        folder: a predicted run of volumes whose network is here.
        work: as for `dscpp`.

    Raises:
        InputError: a run of images, or one whose network or volumes are not here.
    """
    pairs: dict[str, list[tuple[float, float]]] = {join: [] for join in patches.JOINS}
    for join, foreground, grid in _predicted(folder, work):
        pairs[join].append(jumps(foreground, grid))
    means = {join: np.nanmean(values, axis=0) for join, values in pairs.items()}
    return {join: (float(a), float(b)) for join, (a, b) in means.items()}


def _predicted(folder: Path, work: Path) -> Iterator[tuple[str, _Array, patches.Grid]]:
    run = runs.Run.open(folder)
    trained = new_images.open_model(folder)
    if not trained.settings.is_3d:
        raise InputError(f"{folder}: expected a run of volumes, found one of images")
    root = stages.located(run, None, work)
    module = datasets.by_name(run.record["dataset"])
    with tempfile.TemporaryDirectory() as temporary:
        cases = [case for _, case in predictions.cases(run)]
        prepared = cache.prepare(module, root, cases, trained.settings, Path(temporary))
        for case in cases:
            image = prepared.image(case)
            for join in patches.JOINS:
                protocol = replace(trained.protocol, join=join)
                shape, overlap = protocol.input_shape, protocol.overlap
                grid = patches.Grid(image.shape[:-1], shape, overlap, join)
                softmax = predict.volume(trained.model, image, protocol)
                yield join, 1 - softmax[..., 0], grid


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seams")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run of volumes")
    for join, (across, beside) in measure(parser.parse_args().run).items():
        ratio = f"{across / beside:.3f}" if beside else "none: nothing differs beside"
        print(f"{join:9} across {across:.5f}  beside {beside:.5f}  ratio {ratio}")


if __name__ == "__main__":
    _main()
