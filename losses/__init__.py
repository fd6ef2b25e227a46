# SPDX-License-Identifier: Apache-2.0
"""The DSC++ family of losses, and what it is compared with.

    loss = losses.by_name("DSC++", gamma=2)
    loss(y_true, y_pred)  # one-hot labels, probabilities: (N, *spatial, C)

Every loss also takes logits, class indices, one channel from a sigmoid, channels first,
a mask of voxels, soft labels, and leaves the background out if asked: see `Options`.

Functions return one value per image, (N,). Besides what is their own they take:

    y_true: one-hot labels, (N, *spatial, C), in [0, 1], or class indices; any type.
    y_pred: probabilities, (N, *spatial, C), in [0, 1], which are clipped to
        [1e-7, 1 - 1e-7], or logits.
    gamma: the ++ exponent of a loss of overlap, above 0; 1 is the plain loss.
    epsilon: in its denominator, above 0; decides the value of a class that is absent
        from an image.
    weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.
    **options: see `Options`.

and raises ValueError for a number out of its range, an option that is none, shapes that
do not fit, class indices that are not announced, and a tensor of another framework than
Keras runs on.

Classes are `keras.losses.Loss`, and take the same hyperparameters and options:

    model.compile(optimizer="sgd", loss=losses.DicePlusPlus(gamma=2, axis=-1))

Needs Keras and nothing else. Importing it registers the classes with Keras, so that a
saved model loads without `custom_objects`.
"""

from typing import Any

try:
    import keras
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("tensorflow", "jax", "torch"):
        raise
    raise ImportError(
        f"Keras is set to run on {error.name}, which is not installed here. Set the "
        "environment variable KERAS_BACKEND to the one that is (torch, jax or "
        "tensorflow) before Keras or the losses are imported"
    ) from None

from . import calibration, compound, cross_entropy, overlap, titles
from .base import Options, PerImageLoss, Shell
from .calibration import *  # noqa: F403
from .compound import *  # noqa: F403
from .cross_entropy import *  # noqa: F403
from .overlap import *  # noqa: F403

__all__ = ["Options", "PerImageLoss", "Shell"]
__all__ += ["by_name", "default_gamma", "names", "slug"]
__all__ += calibration.__all__
__all__ += compound.__all__
__all__ += cross_entropy.__all__
__all__ += overlap.__all__

_REGISTRY = {each.title: each for each in PerImageLoss.__subclasses__()}
for _each in _REGISTRY.values():
    keras.saving.register_keras_serializable(package="dscpp")(_each)


def names() -> list[str]:
    """Names of the losses: the paper's fourteen, then those of others."""
    return list(titles.NAMES)


def slug(name: str) -> str:
    """The name in logs and file names: "DSC++" gives "dscpp"."""
    return titles.slug(titles.find(name))


def default_gamma(name: str) -> float | None:
    """Default of the ++ exponent: 2 in a ++ form, 1 in a plain form, else None."""
    return titles.default_gamma(titles.find(name))


def by_name(name: str, /, **arguments: Any) -> PerImageLoss:
    """Make a loss from its name.

    Args:
        name: one of `names()`, such as "DSC++", in any case.
        **arguments: of its class; what is left out has the value of the paper's
            Table 2, or of the authors of L1-ACE and NACL, and `gamma`, the ++ exponent,
            is 2 in the ++ forms. `gamma=None` means the default; a plain form takes
            `gamma=1` as well.

    Raises:
        ValueError: no such loss, an argument that it does not take, a bad value.

    Examples:
        >>> losses.by_name("DSC++", gamma=1.5).gamma
        1.5
    """
    title, gamma = titles.find(name), arguments.get("gamma")
    if gamma is None or gamma == titles.default_gamma(title) == 1:
        arguments.pop("gamma", None)
    return _REGISTRY[title](**arguments)
