"""Batches for training and inputs for prediction, drawn through MIScnn.

The cache takes the place of the raw files behind MIScnn's Data I/O interface; from
there on a sample goes MIScnn's way: `Data_IO.sample_loader`, then `Preprocessor.run`
with its one-hot label, its augmentation and its making of batches. Of a volume it draws
one random patch ("patchwise-crop"), and is given only the piece that this patch needs.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from data_io import windows
from data_io.cache import Cache
from data_io.miscnn_compat import Abstract_IO, Data_IO, Preprocessor
from data_io.preprocessing import augmentation, subfunctions

__all__ = ["Batches", "CachedInterface", "prediction_input", "to_native"]

# batchgenerators draws from numpy's global state: one at a time.
_DRAWING = threading.Lock()


class CachedInterface(Abstract_IO):
    """MIScnn's Data I/O interface over prepared samples.

    Args:
        cache: the prepared samples.
        classes: number of classes, background included.
    """

    def __init__(self, cache: Cache, classes: int = 2) -> None:
        channels = cache.image(cache.cases[0]).shape[-1]
        three_dim = len(cache.settings.input_shape) == 3
        super().__init__(channels=channels, classes=classes, three_dim=three_dim)
        self.cache = cache
        # The piece that is loaded of a sample; None for all of it.
        self.piece: tuple[slice, ...] | None = None

    def initialize(self, input_path: str) -> list[str]:
        """Name the samples: the cases of the cache."""
        return list(self.cache.cases)

    def load_image(self, index: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Load a z-scored image, (*input_shape, channels) float32.

        The shape of the raw image goes with it, as MIScnn's Resize leaves it for its
        own postprocessing.
        """
        native_shape = self.cache.native_shape(index)
        return self._cut(self.cache.image(index)), {"original_shape": native_shape}

    def load_segmentation(self, index: str) -> np.ndarray:
        """Load a label map, (*input_shape) uint8."""
        return self._cut(self.cache.label(index))

    def _cut(self, array: np.ndarray) -> np.ndarray:
        return array if self.piece is None else array[self.piece]

    def load_prediction(self, index: str, output_path: str) -> np.ndarray:
        """Refuse: predictions are the run folder's, not the cache's."""
        raise NotImplementedError("predictions are not kept behind this interface")

    def save_prediction(self, sample: Any, output_path: str) -> None:
        """Refuse: predictions are the run folder's, not the cache's."""
        raise NotImplementedError("predictions are not kept behind this interface")

    @staticmethod
    def check_file_termination(termination: str) -> bool:
        """Claim no file type: samples are known by case, not by file."""
        return False


class Batches(keras.utils.PyDataset):
    """Batches of one case each, the same for the same seed, epoch and index.

    Nothing else decides an item: not the order or the number of calls, not the state
    of numpy's generator, which is put back after each draw. `epoch` is set by whoever
    trains; the end of an epoch does not advance it, so that a resumed run and a
    repeated look give the same batches. Keras must not shuffle on top of it:
    `fit(..., shuffle=False)`.

    Of a volume an item is one patch, drawn anew each epoch, also without augmentation.
    A volume that is smaller than a patch is padded with 0, its mean, in the image, and
    with no class at all in the label, as MIScnn does it.

    Args:
        cache: the prepared samples.
        cases: ids of the cases to draw, all of them once an epoch.
        classes: number of classes, background included.
        seed: fixes order and augmentation.
        augment: whether samples go through MIScnn's augmentation.
        shuffle: whether each epoch has an order of its own.
    """

    def __init__(
        self,
        cache: Cache,
        cases: Sequence[str],
        classes: int = 2,
        seed: int = 0,
        augment: bool = False,
        shuffle: bool = False,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.cases = tuple(cases)
        self.seed = seed
        self.epoch = 0
        self.augment = augment
        self.shuffle = shuffle
        self.source = CachedInterface(cache, classes)
        self.preprocessor = Preprocessor(
            Data_IO(self.source, ""),
            batch_size=1,
            data_aug=augmentation(cache.settings) if augment else None,
            analysis="patchwise-crop" if cache.settings.is_3d else "fullimage",
            patch_shape=tuple(cache.settings.input_shape),
        )

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw an item of this epoch.

        Args:
            index: place in the epoch's order, 0 to len - 1.

        Returns:
            image (1, *input_shape, channels) float32 and one-hot label
            (1, *input_shape, classes) float32. Augmentation leaves pixels from outside
            the image without any class.
        """
        case = self.case(index)
        with _drawing_from([self.seed, self.epoch, index]) as rewind:
            self.source.piece = self._piece(case)
            rewind()
            batches = self.preprocessor.run(
                [case], training=True, validation=not self.augment
            )
        image, label = batches[0]
        return _float32(image), _float32(label)

    def _piece(self, case: str) -> tuple[slice, ...] | None:
        """The piece of a volume that a patch needs; None where that is all of it."""
        cache = self.source.cache
        if not cache.settings.is_3d:
            return None
        *shape, channels = cache.image(case).shape
        return windows.draw(shape, channels, cache.settings, self.augment)

    def case(self, index: int) -> str:
        """Name the case of an item of this epoch."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0-{len(self) - 1}")
        return self.order()[index]

    def order(self) -> list[str]:
        """The epoch's order of the cases."""
        if not self.shuffle:
            return list(self.cases)
        # A third number keeps this stream apart from those of the items.
        generator = np.random.default_rng([self.seed, self.epoch, 2**32 - 1])
        return [self.cases[place] for place in generator.permutation(len(self))]


def prediction_input(cache: Cache, case: str) -> np.ndarray:
    """Give the network's input for a case, through MIScnn's Preprocessor.

    Args:
        cache: the prepared samples.
        case: id of the case.

    Returns:
        (1, *input_shape, channels) float32, z-scored, not augmented.
    """
    preprocessor = Preprocessor(
        Data_IO(CachedInterface(cache), ""), batch_size=1, analysis="fullimage"
    )
    batches = preprocessor.run([case], training=False)
    return _float32(batches[0][0])


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
    return _float32(native)


def _float32(array: np.ndarray) -> np.ndarray:
    """Copy to float32, contiguous and writable: nothing points into the cache."""
    return np.array(array, dtype=np.float32, order="C")


@contextlib.contextmanager
def _drawing_from(entropy: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Seed numpy's and Python's global generators for a while, then put them back.

    Yields:
        What seeds them once more, so that the same is drawn again.
    """
    words = np.random.SeedSequence(list(entropy)).generate_state(8)
    with _DRAWING:
        numpy_state = np.random.get_state()  # noqa: NPY002 (batchgenerators' own)
        python_state = random.getstate()

        def rewind() -> None:
            np.random.seed(words)  # noqa: NPY002
            random.seed(words.tobytes())

        rewind()
        try:
            yield rewind
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
