"""Batches for training and inputs for prediction.

For training a sample is read from the cache, drawn and augmented as MIScnn would do it,
by `data_io.prepare.augment`; threads do this ahead of time. For prediction the
cache takes the place of the raw files behind MIScnn's Data I/O interface, and from
there on a sample goes MIScnn's way.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from data_io import pool
from data_io.prepare import augment
from data_io.prepare.cache import Cache
from data_io.prepare.interface import ReadOnly
from data_io.prepare.miscnn_compat import Data_IO, Preprocessor
from data_io.prepare.preprocessing import EVERY_AXIS, augmentation, subfunctions
from data_io.prepare.shared import Shared

_Item = tuple[np.ndarray, np.ndarray]
_EpochAndIndex = tuple[int, int]


class CachedInterface(ReadOnly):
    """MIScnn's Data I/O interface over prepared samples."""

    def __init__(self, cache: Cache, classes: int = 2) -> None:
        channels = cache.image(cache.cases[0]).shape[-1]
        three_dim = len(cache.settings.input_shape) == 3
        super().__init__(channels=channels, classes=classes, three_dim=three_dim)
        self.cache = cache

    def initialize(self, input_path: str) -> list[str]:
        """Name the samples: the cases of the cache."""
        return list(self.cache.cases)

    def load_image(self, index: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Load a z-scored image, (*input_shape, channels) float32.

        The shape of the raw image goes with it, as MIScnn's Resize leaves it for its
        own postprocessing.
        """
        native_shape = self.cache.native_shape(index)
        return self.cache.image(index), {"original_shape": native_shape}

    def load_segmentation(self, index: str) -> np.ndarray:
        """Load a label map, (*input_shape) uint8."""
        return self.cache.label(index)


class Batches(keras.utils.PyDataset):
    """Batches of one case each, the same for the same seed, epoch and index.

    Neither calls nor workers decide an item. Whoever trains sets `epoch`, which the end
    of an epoch does not advance, so that a resumed run gives the same batches. Keras
    must not shuffle on top of it: `fit(..., shuffle=False)`.

    Of a volume an item is one patch, drawn anew each epoch, also without augmentation.
    A volume that is smaller than a patch is padded with 0, its mean, in the image, and
    with no class at all in the label, as MIScnn does it.

    While an item is used, those that follow it are drawn by threads of this process:
    SciPy works without Python's lock, and nothing outlives the process or copies it.

    Args:
        cache: the prepared samples.
        cases: ids of the cases to draw, all of them once an epoch.
        classes: number of classes, background included.
        seed: fixes order and augmentation.
        augment: whether samples are augmented as MIScnn does it.
        shuffle: whether each epoch has an order of its own.
        redraw: whether each epoch has draws of its own; if not, all have the first's.
        workers: threads that draw ahead, as many items; None for those of
            `pool.threads`.
        mirror_axes: of `data_io.prepare.preprocessing.augmentation`.
    """

    def __init__(
        self,
        cache: Cache,
        cases: Sequence[str],
        classes: int = 2,
        seed: int = 0,
        augment: bool = False,
        shuffle: bool = False,
        redraw: bool = True,
        workers: int | None = None,
        mirror_axes: str | Sequence[int] = EVERY_AXIS,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)  # of Keras: none
        self.cache = cache
        self.cases = tuple(cases)
        self.classes = classes
        self.seed = seed
        self.epoch = 0
        self.redraw = redraw
        self.shuffle = shuffle
        self.augmentation = None
        self._shared = None
        if augment:
            self.augmentation = augmentation(cache.settings, mirror_axes)
            decides = (self.cases, seed, shuffle, mirror_axes)
            self._shared = Shared.here(cache, *decides, classes=classes)
        self._ahead = _Ahead(workers or pool.threads())

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> _Item:
        """Give an item of this epoch, `index` from 0 to len - 1.

        Returns:
            image (1, *input_shape, channels) and one-hot label (1, *input_shape,
            classes), float32; what augmentation takes from outside is of no class.
        """
        self.case(index)  # refuses what is outside
        return self._ahead.take(self, (self._epoch(), index))

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of an item's image and label, the same for all."""
        spatial = (1, *self.cache.settings.input_shape)
        channels = self.cache.image(self.cases[0]).shape[-1]
        return (*spatial, channels), (*spatial, self.classes)

    def draw(self, epoch: int, index: int) -> _Item:
        """Draw an item of any epoch in this thread; see `__getitem__`."""
        item = self._shared.load(epoch, index) if self._shared else None
        if item is None:
            item = self._drawn(epoch, index)
        image, label = item
        return image[np.newaxis], label[np.newaxis]

    def _drawn(self, epoch: int, index: int) -> _Item:
        case = self.order(epoch)[index]
        image, label = self.cache.image(case), self.cache.label(case)
        settings = self.cache.settings
        words = np.random.SeedSequence([self.seed, epoch, index]).generate_state(8)
        plan = augment.plan(
            label.shape,
            image.shape[-1],
            tuple(settings.input_shape) if settings.is_3d else None,
            self.augmentation,
            np.random.RandomState(words),
        )
        item = augment.carry_out(plan, image, label, self.classes)
        if self._shared and plan.coordinates is not None:  # the rest is drawn as fast
            self._shared.leave(epoch, index, item)
        return item

    def after(self, position: _EpochAndIndex) -> Iterator[_EpochAndIndex]:
        """Yield the items that follow one, in this epoch and the next."""
        epoch, index = position
        yield from ((epoch, later) for later in range(index + 1, len(self)))
        following = epoch + 1 if self.redraw else epoch
        yield from ((following, first) for first in range(len(self)))

    def case(self, index: int) -> str:
        """Name the case of an item of this epoch."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0-{len(self) - 1}")
        return self.order()[index]

    def order(self, epoch: int | None = None) -> list[str]:
        """Return the order of the cases in an epoch; None: in this one."""
        if not self.shuffle:
            return list(self.cases)
        epoch = self._epoch() if epoch is None else epoch
        # A third number keeps this stream apart from those of the items.
        generator = np.random.default_rng([self.seed, epoch, 2**32 - 1])
        return [self.cases[index] for index in generator.permutation(len(self))]

    def _epoch(self) -> int:
        return self.epoch if self.redraw else 0


def feed(batches: Batches) -> Any:
    """Give batches in the form in which `fit` waits for nothing.

    On TensorFlow Keras makes a `tf.data.Dataset` of a `PyDataset`, with automatic
    tuning, whose thread may miss that an epoch has ended, for up to 5.1 s. Threads draw
    ahead already, so the dataset is made without.

    Returns:
        on TensorFlow a dataset of the same items in the same order, which in each epoch
        asks for them anew; elsewhere the batches themselves.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    def items() -> Iterator[_Item]:
        return (batches[index] for index in range(len(batches)))

    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_generator(
        items,
        output_signature=tuple(
            tf.TensorSpec(shape, tf.float32) for shape in batches.shapes
        ),
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))
    return dataset.prefetch(1).with_options(options)


class _Ahead:
    """Draws the next items, at most one for each worker, while one is used."""

    def __init__(self, workers: int) -> None:
        pool.still_blas()
        self.workers = workers
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._futures: dict[_EpochAndIndex, Future[_Item]] = {}

    def take(self, batches: Batches, position: _EpochAndIndex) -> _Item:
        """Return an item, and start drawing those that follow it."""
        with self._lock:
            wanted = [position]
            for later in batches.after(position):
                if len(wanted) > self.workers or later in wanted:
                    break
                wanted.append(later)
            for old in self._futures.keys() - set(wanted):
                self._futures.pop(old).cancel()
            for new in wanted:
                if new not in self._futures:
                    self._futures[new] = self._pool.submit(batches.draw, *new)
            future = self._futures.pop(position)
        return future.result()


def prediction_input(cache: Cache, case: str) -> np.ndarray:
    """Give the network's input for a case, through MIScnn's Preprocessor.

    Returns:
        (1, *input_shape, channels) float32, z-scored, not augmented.
    """
    preprocessor = Preprocessor(
        Data_IO(CachedInterface(cache), ""), batch_size=1, analysis="fullimage"
    )
    batches = preprocessor.run([case], training=False)
    return np.array(batches[0][0], np.float32, order="C")


def to_native(cache: Cache, case: str, softmax: np.ndarray) -> np.ndarray:
    """Bring a prediction back to the size of the raw image, as MIScnn does.

    Linear interpolation of every class's values, without renormalising: they sum to 1
    up to rounding, since the weights of each pixel do.

    Args:
        cache: the prepared samples.
        case: id of the case.
        softmax: probabilities, (*input_shape, classes), in [0, 1].

    Returns:
        probabilities, (*native_shape, classes) float32, in [0, 1].

    Raises:
        ValueError: the prediction has another shape than the network's input.
    """
    expected = tuple(cache.settings.input_shape)
    if softmax.shape[:-1] != expected:
        raise ValueError(
            f"softmax: expected shape (*{expected}, classes), received {softmax.shape}"
        )
    source = Data_IO(CachedInterface(cache, softmax.shape[-1]), "")
    preprocessor = Preprocessor(
        source,
        batch_size=1,
        subfunctions=subfunctions(cache.settings),
        analysis="fullimage",
    )
    sample = source.sample_loader(case, load_seg=False)
    native = preprocessor.postprocessing(
        sample, softmax[np.newaxis], activation_output=True
    )
    return np.array(native, np.float32, order="C")  # nothing points into the cache
