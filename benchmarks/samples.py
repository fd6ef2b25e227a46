"""Time training samples beside those of MIScnn's generator, on one core.

Images and volumes are simulated from a seed, since only their sizes matter here. Both
start from the same prepared samples: MIScnn from its own files (`prepare_subfunctions`,
as in the released notebooks), ours from the cache. Each draw gives both the same random
numbers, so both warp the same samples. Run `python -m benchmarks.samples`; it needs 1
GB of disk while it runs.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing
from data_io.datasets.dataset import Dataset
from data_io.datasets.phantom import vessels
from data_io.prepare.batches import Batches
from data_io.prepare.cache import Cache, prepare
from data_io.prepare.interface import RawInterface
from data_io.prepare.miscnn_compat import Data_IO, Preprocessor
from data_io.prepare.preprocessing import Settings, augmentation, subfunctions

CASES = 4
# Shape, input of the network, channels, classes.
IMAGES = (512, 512), (512, 512), 3, 2
VOLUMES = (128, 248, 248), (80, 160, 160), 1, 3
DRAWS = {2: 200, 3: 100}
# Targets: largest share of MIScnn's time, by axes and augmentation.
TARGETS = {(2, True): 1 / 2, (3, True): 1 / 2, (3, False): 1 / 20}


class Noise(Dataset):
    """Arrays of noise that MIScnn's interface can read."""

    def __init__(self, shape: tuple[int, ...], channels: int, classes: int) -> None:
        self.RECORD = dataclasses.replace(
            vessels.RECORD,
            name="simulated",
            channels=channels,
            classes=tuple(map(str, range(classes))),
            input_shape=shape,
        )

    def cases(self, root: Path) -> tuple[str, ...]:
        """Return the names before `-image.npy`."""
        return tuple(sorted(p.name[:-10] for p in root.glob("*-image.npy")))

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Return the two arrays of a case."""
        image, label = (root / f"{case}-{kind}.npy" for kind in ("image", "label"))
        return {"image": image, "observer1": label}

    def image(self, root: Path, case: str) -> np.ndarray:
        """Return an image as it was written."""
        return np.load(self.roles(root, case)["image"])

    def references(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Return the label as it was written, without the added axis."""
        return {"observer1": np.load(self.roles(root, case)["observer1"])}


def simulated(
    folder: Path,
    shape: tuple[int, ...],
    patch: tuple[int, ...],
    channels: int,
    classes: int,
) -> tuple[Cache, Data_IO]:
    """Write `CASES` images of noise with labels, and prepare them.

    Args:
        folder: receives all files.
        shape: shape of an image or volume.
        patch: shape of the network's input.
        channels: channels of the image.
        classes: number of classes, background included.

    Returns:
        The cache with the prepared samples, and MIScnn's reader of the raw ones.
    """
    raw = folder / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [str(case) for case in range(CASES)]
    for case in names:
        image = random.integers(0, 256, (*shape, channels), dtype=np.uint8)
        np.save(raw / f"{case}-image.npy", image)
        label = random.integers(0, classes, shape, dtype=np.uint8)
        np.save(raw / f"{case}-label.npy", label)
    dataset = Noise(shape, channels, classes)
    cache = prepare(dataset, raw, names, Settings(patch), folder / "cache", False)
    aside = str(folder / "batches")  # the default is the current folder
    return cache, Data_IO(RawInterface(dataset, raw), str(raw), batch_path=aside)


def miscnn_generator(cache: Cache, source: Data_IO, augment: bool) -> Any:
    """Return MIScnn's generator over samples that it has prepared."""
    # Only miscnn_compat may import MIScnn.
    from miscnn.neural_network.data_generator import DataGenerator

    settings = cache.settings
    preprocessor = Preprocessor(
        source,
        batch_size=1,
        subfunctions=subfunctions(settings),
        data_aug=augmentation(settings) if augment else None,
        prepare_subfunctions=True,
        analysis="patchwise-crop" if settings.is_3d else "fullimage",
        patch_shape=tuple(settings.input_shape),
    )
    return DataGenerator(
        list(cache.cases), preprocessor, training=True, validation=not augment
    )


def seed_miscnn(epoch: int, index: int) -> None:
    """Make MIScnn draw what `Batches` draws for this item, with seed 0."""
    words = np.random.SeedSequence([0, epoch, index]).generate_state(8)
    np.random.seed(words)  # noqa: NPY002 (MIScnn draws from it)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process and BLAS on one core inside the block."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def beside_miscnn(
    kind: tuple[Any, ...], augment: bool, draws: int | None = None
) -> timing.Row:
    """Time samples of a kind on one core, in turn with MIScnn's of the same draw.

    Args:
        kind: `IMAGES` or `VOLUMES`.
        augment: whether with augmentation.
        draws: number of samples of each; None for `DRAWS`.
    """
    shape, patch, channels, classes = kind
    axes = len(shape)
    with tempfile.TemporaryDirectory() as temporary, _one_core():
        cache, source = simulated(Path(temporary), *kind)
        generator = miscnn_generator(cache, source, augment)
        batches = Batches(cache, cache.cases, classes, augment=augment)
        # The first two calls, which are not timed, repeat the first sample.
        counters = {name: chain([0] * 2, count()) for name in ("ours", "theirs")}

        def theirs() -> Any:
            number = next(counters["theirs"])
            seed_miscnn(number, number % CASES)
            return generator[number % CASES]

        def ours() -> Any:
            number = next(counters["ours"])
            return batches.draw(number, number % CASES)

        functions: dict[str, Callable[[], Any]] = {"ours": ours, "theirs": theirs}
        seconds = timing.alternate(functions, draws or DRAWS[axes])
    what = "patch of a volume" if axes == 3 else "image"
    return timing.compare(
        "samples",
        f"{what}, {'augmented' if augment else 'not augmented'}, one core",
        (*patch, channels),
        seconds["ours"],
        ("MIScnn DataGenerator", seconds["theirs"]),
        ("miscnn", "batchgenerators", "scipy", "numpy"),
        TARGETS.get((axes, augment)),
        by="mean",
        backend="",
    )


def main() -> None:
    """Measure, print and write the rows to the CSV file."""
    arguments = timing.parser(__doc__).parse_args()
    for kind in (IMAGES, VOLUMES):
        rows = [beside_miscnn(kind, augment) for augment in (True, False)]
        timing.record(rows, arguments.output)


if __name__ == "__main__":
    main()
