"""Samples of a training: ours beside MIScnn's generator, and more cores beside one.

Images and volumes are simulated from a seed: their sizes decide, not what they show.
Both start from the same prepared samples: MIScnn from the files that it keeps of them
(`prepare_subfunctions`, as the released notebooks do), ours from the cache. On one core
each draw gives both the same random numbers, so both warp the same samples.
`python -m benchmarks.samples`; it needs 1 GB of disk for a while.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import dataclasses
import os
import pstats
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from scipy import ndimage

from benchmarks import timing
from data_io import pool
from data_io.datasets.dataset import Dataset
from data_io.datasets.phantom import vessels
from data_io.prepare import augment
from data_io.prepare.batches import Batches
from data_io.prepare.cache import Cache, prepare
from data_io.prepare.interface import RawInterface
from data_io.prepare.miscnn_compat import Data_IO, Preprocessor
from data_io.prepare.preprocessing import Settings, augmentation, subfunctions

__all__ = [
    "against_miscnn", "cores_against_miscnn", "cores_against_one", "miscnn_generator",
    "scipys_share", "seed_miscnn", "simulated",
]  # fmt: skip

CASES = 4
IMAGES = (512, 512), (512, 512), 3, 2
VOLUMES = (128, 248, 248), (80, 160, 160), 1, 3
DRAWS = {2: 200, 3: 100}
# Of a round on all cores beside MIScnn's, whose volumes take a second each.
ROUND = {2: 200, 3: 40}
# Of SciPy, called by `data_io.prepare.augment`; draws kept at a time, with arguments.
SCIPYS = "gaussian_filter", "gaussian_filter1d", "map_coordinates"
KEPT = {2: 40, 3: 20}
# What is wanted: times of MIScnn's, by axes and augmentation; and of the cores.
FASTER = {(2, True): 2, (3, True): 2, (3, False): 20}
SCALING = 0.85
PACKAGES = ("miscnn", "batchgenerators", "scipy", "numpy")


class Noise(Dataset):
    """Arrays that MIScnn's interface reads as they are."""

    def __init__(self, shape: tuple[int, ...], channels: int, classes: int) -> None:
        self.RECORD = dataclasses.replace(
            vessels.RECORD,
            name="simulated",
            channels=channels,
            classes=tuple(map(str, range(classes))),
            input_shape=shape,
        )

    def cases(self, root: Path) -> tuple[str, ...]:
        """Returns the names before `-image.npy`."""
        return tuple(sorted(p.name[:-10] for p in root.glob("*-image.npy")))

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Returns the two arrays of a case."""
        image, label = (root / f"{case}-{kind}.npy" for kind in ("image", "label"))
        return {"image": image, "observer1": label}

    def image(self, root: Path, case: str) -> np.ndarray:
        """Returns an image as it was written."""
        return np.load(self.roles(root, case)["image"])

    def references(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Returns the label as it was written, without the axis that is added."""
        return {"observer1": np.load(self.roles(root, case)["observer1"])}


def simulated(
    folder: Path,
    shape: tuple[int, ...],
    patch: tuple[int, ...],
    channels: int,
    classes: int,
    cases: int = CASES,
) -> tuple[Cache, Data_IO]:
    """Write noise with labels, and prepare it.

    Args:
        folder: gets everything.
        shape: of an image or volume.
        patch: shape of the network's input.
        channels: of the image.
        classes: background included.
        cases: how many; their names are "0", "1" and so on.

    Returns:
        The cache with the prepared samples, and MIScnn's way to the raw ones.
    """
    raw = folder / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [str(case) for case in range(cases)]
    for case in names:
        image = random.integers(0, 256, (*shape, channels), dtype=np.uint8)
        label = random.integers(0, classes, shape, dtype=np.uint8)
        np.save(raw / f"{case}-image.npy", image)
        np.save(raw / f"{case}-label.npy", label)
    dataset = Noise(shape, channels, classes)
    cache = prepare(dataset, raw, names, Settings(patch), folder / "cache", False)
    aside = str(folder / "batches")  # else MIScnn leaves its samples in the cwd
    return cache, Data_IO(RawInterface(dataset, raw), str(raw), batch_path=aside)


def miscnn_generator(cache: Cache, source: Data_IO, augment: bool) -> Any:
    """MIScnn's generator over samples that it has prepared."""
    # Loaded with MIScnn by miscnn_compat, which alone knows how.
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
    """Let MIScnn draw what `Batches` draws for this item, with seed 0."""
    words = np.random.SeedSequence([0, epoch, index]).generate_state(8)
    np.random.seed(words)  # noqa: NPY002 (MIScnn draws from it)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process, and BLAS with it, on one of its cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def against_miscnn(
    kind: tuple[Any, ...], augment: bool, draws: int | None = None
) -> timing.Row:
    """Time samples of a kind on one core, in turn with MIScnn's of the same draw.

    Args:
        kind: `IMAGES` or `VOLUMES`.
        augment: with augmentation.
        draws: samples of each; None for `DRAWS`.
    """
    shape, patch, channels, classes = kind
    with tempfile.TemporaryDirectory() as place, _one_core():
        cache, source = simulated(Path(place), *kind)
        generator = miscnn_generator(cache, source, augment)
        batches = Batches(cache, cache.cases, classes, augment=augment)
        # The first again for each call that is not timed: then those of the other rows.
        counters = {name: chain([0] * 2, count()) for name in ("ours", "theirs")}

        def theirs() -> Any:
            number = next(counters["theirs"])
            seed_miscnn(number, number % CASES)
            return generator[number % CASES]

        def ours() -> Any:
            number = next(counters["ours"])
            return batches.draw(number, number % CASES)

        functions: dict[str, Callable[[], Any]] = {"ours": ours, "theirs": theirs}
        seconds = timing.alternate(functions, draws or DRAWS[len(shape)])
    faster = FASTER.get((len(shape), augment))
    return timing.compare(
        "samples",
        _name(kind, augment) + ", one core",
        (*patch, channels),
        seconds["ours"],
        ("MIScnn DataGenerator", seconds["theirs"]),
        PACKAGES,
        None if faster is None else 1 / faster,
        by="mean",
        backend="",
    )


def _name(kind: tuple[Any, ...], augment: bool) -> str:
    what = "patch of a volume" if len(kind[0]) == 3 else "image"
    return f"{what}, {'augmented' if augment else 'not augmented'}"


def cores_against_miscnn(
    kind: tuple[Any, ...],
    augment: bool,
    rounds: int = 3,
    cores: int | None = None,
    draws: int | None = None,
) -> timing.Row:
    """Time samples as a training takes them, in turn with MIScnn's in as many threads.

    Of the same kind of draw, but not the same: MIScnn's threads share one generator of
    random numbers.

    Args:
        kind: `IMAGES` or `VOLUMES`.
        augment: with augmentation.
        rounds: of each.
        cores: threads; None for those of a training.
        draws: samples a round; None for `ROUND`.

    Returns:
        A row, ms for each sample. Ours has the draws of a few more in it, which were
        begun and not asked for.
    """
    shape, patch, channels, classes = kind
    cores = cores or pool.threads()
    draws = draws or ROUND[len(shape)]
    epochs = {name: count() for name in ("ours", "theirs")}
    with tempfile.TemporaryDirectory() as place:
        cache, source = simulated(Path(place), *kind)
        generator = miscnn_generator(cache, source, augment)
        cases = list(cache.cases) * -(-draws // CASES)

        def ours() -> None:
            batches = Batches(
                cache, cases[:draws], classes, augment=augment, workers=cores
            )
            batches.epoch = next(epochs["ours"])
            for index in range(draws):
                batches[index]
            batches._ahead._pool.shutdown()  # nothing is left to the peer's time

        def theirs() -> None:
            seed_miscnn(next(epochs["theirs"]), 0)
            with ThreadPoolExecutor(cores) as threads:
                _run([partial(generator.__getitem__, 0)] * draws, threads)

        seconds = timing.alternate({"ours": ours, "theirs": theirs}, rounds, warm_up=1)
    return timing.compare(
        "samples",
        f"{_name(kind, augment)}, {cores} cores",
        (*patch, channels),
        seconds["ours"] / draws,
        ("MIScnn DataGenerator, as many threads", seconds["theirs"] / draws),
        PACKAGES,
        by="mean",
        backend="",
    )


def cores_against_one(
    kind: tuple[Any, ...],
    rounds: int = 6,
    cores: int | None = None,
    draws: int | None = None,
) -> list[timing.Row]:
    """Time augmented samples drawn by a thread a core, in turn with one thread.

    And so the calls of SciPy in them by themselves: what the machine gives.

    Args:
        kind: `IMAGES` or `VOLUMES`.
        rounds: of each; of SciPy's calls half as many.
        cores: None for the threads of a training.
        draws: samples a round; None for `DRAWS`. A round ends with its last sample, and
            one costs up to ten times another: many hide that.

    Returns:
        Rows of the samples and of the calls, ms for each sample.
    """
    shape, patch, channels, classes = kind
    cores = cores or pool.threads()
    draws = draws or DRAWS[len(shape)]
    what = f"{_name(kind, True)}, {cores} cores"
    with tempfile.TemporaryDirectory() as place:
        cache, _ = simulated(Path(place), *kind)
        batches = Batches(cache, cache.cases, classes, augment=True)
        work = [partial(batches.draw, n, n % CASES) for n in range(draws)]
        seconds = {
            what: _one_and_all(work, cores, rounds),
            f"SciPy's calls in {what}": _calls_alone(
                batches, draws, KEPT[len(shape)], cores, max(rounds // 2, 1)
            ),
        }
    return [
        timing.compare(
            "samples",
            name,
            (*patch, channels),
            found["all"] / draws,
            ("one core", found["one"] / draws),
            PACKAGES,
            1 / (SCALING * cores) if name == what else None,
            by="mean",
            backend="",
        )
        for name, found in seconds.items()
    ]


def _one_and_all(
    work: Sequence[Callable[[], Any]], cores: int, rounds: int
) -> dict[str, np.ndarray]:
    """Seconds of all of it, on one thread and on as many as there are cores."""
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(cores) as every:
        pools: dict[str, Callable[[], Any]] = {
            "one": partial(_run, work, one),
            "all": partial(_run, work, every),
        }
        return timing.alternate(pools, rounds, warm_up=1)


def _run(work: Sequence[Callable[[], Any]], threads: ThreadPoolExecutor) -> None:
    # Nothing is kept: memory for samples is used again, as in a training.
    for done in [threads.submit(_all_of, [piece]) for piece in work]:
        done.result()


def _calls_alone(
    batches: Batches, draws: int, kept: int, cores: int, rounds: int
) -> dict[str, np.ndarray]:
    """As `_one_and_all`, of SciPy's calls in draws, of a number of these at a time."""
    parts = [range(n, min(n + kept, draws)) for n in range(0, draws, kept)]
    found = [_one_and_all(_calls(batches, part), cores, rounds) for part in parts]
    names = "one", "all"
    return {name: np.sum([part[name] for part in found], axis=0) for name in names}


def _calls(batches: Batches, numbers: Sequence[int]) -> list[Callable[[], Any]]:
    """What draws ask SciPy for: for each draw a call of all that."""
    calls: dict[int, list[Callable[[], Any]]] = {number: [] for number in numbers}

    def noted(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        calls[number].append(partial(function, *args, **options))
        return function(*args, **options)

    functions = {name: partial(noted, getattr(ndimage, name)) for name in SCIPYS}
    with mock.patch.object(augment, "ndimage", SimpleNamespace(**functions)):
        for number in numbers:
            batches.draw(number, number % CASES)
    return [partial(_all_of, pieces) for pieces in calls.values()]


def _all_of(pieces: Sequence[Callable[[], Any]]) -> None:
    for piece in pieces:
        piece()


def scipys_share(kind: tuple[Any, ...], draws: int | None = None) -> timing.Row:
    """How much of an augmented sample's time is spent in SciPy, on one core.

    What is left to gain where SciPy's values are wanted to the bit.

    Args:
        kind: `IMAGES` or `VOLUMES`.
        draws: samples; None for `DRAWS`.
    """
    shape, patch, channels, classes = kind
    with tempfile.TemporaryDirectory() as place, _one_core():
        cache, _ = simulated(Path(place), *kind)
        batches = Batches(cache, cache.cases, classes, augment=True)
        batches.draw(0, 0)
        profile = cProfile.Profile()
        with profile:
            for number in range(draws or DRAWS[len(shape)]):
                batches.draw(number, number % CASES)
    found = pstats.Stats(profile)
    inside = sum(
        cumulative
        for (_, _, name), (_, _, _, cumulative, _) in found.stats.items()  # type: ignore[attr-defined]
        if name in ("map_coordinates", "gaussian_filter")
    )
    return timing.compare(
        "samples",
        f"SciPy's calls in {_name(kind, True)}",
        (*patch, channels),
        np.array([inside]),
        ("the whole of it", np.array([found.total_tt])),  # type: ignore[attr-defined]
        PACKAGES,
        unit="s",
        backend="",
    )


def main() -> None:
    """Measure all, print it and write it to the CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=timing.RESULTS)
    arguments = parser.parse_args()
    for kind in (IMAGES, VOLUMES):
        rows = [against_miscnn(kind, augment) for augment in (True, False)]
        rows += [cores_against_miscnn(kind, augment) for augment in (True, False)]
        rows += [*cores_against_one(kind), scipys_share(kind)]
        for row in rows:
            print(timing.describe(row), flush=True)
        timing.write(rows, arguments.output)


if __name__ == "__main__":
    main()
