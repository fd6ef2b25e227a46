"""The only import of MIScnn, and what today's packages need mended in it.

MIScnn 1.4.0 pins TensorFlow 2.7 and packages of its time. Its data side (Data I/O,
subfunctions, augmentation, Preprocessor) works with today's once four things are
mended; everything else in this project imports MIScnn's names from here.

1.  It imports TensorFlow, TensorFlow Addons, SimpleITK and pydicom for parts that are
    not used here. Stand-ins take their places while it is imported, and leave
    ``sys.modules`` again, so that a later ``import tensorflow`` tells the truth.
    TensorFlow itself is used where Keras has loaded it already.
2.  ``Resize`` and ``Resampling`` pass ``cval_seg`` and ``cval``, which batchgenerators
    no longer takes. The values had no effect (the border mode was ``edge``).
3.  ``Preprocessor`` keeps its queue and its cache on the class, so that two of them
    mix their samples. Each one gets its own here.
4.  Its import draws from ``random``. The state is put back.

``Neural_Network`` is not offered: its training does not run on Keras 3.
"""

import contextlib
import functools
import importlib
import importlib.util
import inspect
import random
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras

__all__ = [
    "Abstract_Architecture", "Abstract_IO", "Clipping", "Data_Augmentation",
    "Data_IO", "Normalization", "Preprocessor", "Resampling", "Resize",
    "Sample", "crop_patch", "pad_patch", "standard_unet",
]  # fmt: skip

_KERAS_PARTS = ("backend", "callbacks", "layers", "models", "optimizers", "utils")
_OPTIONAL = ("SimpleITK", "pydicom")
# Imported by MIScnn too. They come first, since some look for optional packages and
# would take a stand-in for one.
_NOT_TO_BE_FOOLED = ("nibabel", "pandas", "skimage.transform", "matplotlib.pyplot")


class _Absent(types.ModuleType):
    """A module that can be imported but not used."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"MIScnn asked for {self.__name__}.{name}, but {self.__name__} is not "
            "loaded: this part of MIScnn is not available here."
        )


def _instance_normalization(**settings: Any) -> keras.layers.Layer:
    """Give Keras' form of tensorflow_addons' layer of that name."""
    return keras.layers.GroupNormalization(groups=-1, **settings)


def _tensorflow() -> dict[str, types.ModuleType]:
    """Modules under which MIScnn finds Keras, whatever its backend."""
    modules: dict[str, types.ModuleType] = {"tensorflow.keras": keras}
    for part in _KERAS_PARTS:
        modules[f"tensorflow.keras.{part}"] = getattr(keras, part)
    if "tensorflow" not in sys.modules:
        modules["tensorflow"] = _Absent("tensorflow")
    return modules


def _addons() -> dict[str, types.ModuleType]:
    """tensorflow_addons with the one layer that MIScnn uses."""
    addons = _Absent("tensorflow_addons")
    layers = types.ModuleType("tensorflow_addons.layers")
    layers.InstanceNormalization = _instance_normalization  # type: ignore[attr-defined]
    addons.layers = layers  # type: ignore[attr-defined]
    return {"tensorflow_addons": addons}


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Let MIScnn be imported; leave ``sys.modules`` and ``random`` as they were."""
    for name in _NOT_TO_BE_FOOLED:
        importlib.import_module(name)
    modules = {**_tensorflow(), **_addons()}
    for name in _OPTIONAL:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            modules[name] = _Absent(name)
    before = {name: sys.modules.get(name) for name in modules}
    state = random.getstate()
    sys.modules.update(modules)
    try:
        yield
    finally:
        random.setstate(state)
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


with _stand_ins():
    from miscnn.data_loading.data_io import Data_IO
    from miscnn.data_loading.interfaces.abstract_io import Abstract_IO
    from miscnn.data_loading.sample import Sample
    from miscnn.neural_network.architecture.abstract_architecture import (
        Abstract_Architecture,
    )
    from miscnn.neural_network.architecture.unet import standard as standard_unet
    from miscnn.processing.data_augmentation import Data_Augmentation
    from miscnn.processing.preprocessor import Preprocessor as _Preprocessor
    from miscnn.processing.subfunctions import resampling as _resampling
    from miscnn.processing.subfunctions import resize as _resize
    from miscnn.processing.subfunctions.clipping import Clipping
    from miscnn.processing.subfunctions.normalization import Normalization
    from miscnn.processing.subfunctions.resampling import Resampling
    from miscnn.processing.subfunctions.resize import Resize
    from miscnn.utils.patch_operations import crop_patch, pad_patch


def _without(function: Callable[..., Any], argument: str) -> Callable[..., Any]:
    """Drop an argument that MIScnn passes and `function` no longer takes."""
    if argument in inspect.signature(function).parameters:
        return function

    @functools.wraps(function)
    def mended(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop(argument, None)
        return function(*args, **kwargs)

    return mended


for _module in (_resize, _resampling):
    _module.augment_resize = _without(_module.augment_resize, "cval_seg")
    _module.resize_segmentation = _without(_module.resize_segmentation, "cval")


class Preprocessor(_Preprocessor):
    """MIScnn's Preprocessor with a queue, a cache and a lock of its own.

    Augmentation has to be asked for: MIScnn's default is one with its own settings,
    shared by all.

    Args:
        data_io: where samples are loaded from.
        batch_size: samples in a batch.
        data_aug: MIScnn's augmentation for training samples; None: none.
        **settings: as in MIScnn (`subfunctions`, `analysis`, `patch_shape`, ...).
    """

    def __init__(
        self,
        data_io: Data_IO,
        batch_size: int,
        data_aug: Data_Augmentation | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(data_io, batch_size, data_aug=data_aug, **settings)
        self.img_queue: list[Any] = []
        self.cache: dict[Any, Any] = {}
        self.thread_lock = threading.Lock()
