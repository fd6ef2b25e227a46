"""The DSC++ family of losses, and what it is compared with.

    loss = losses.by_name("DSC++", gamma=2)
    loss(y_true, y_pred)  # one-hot labels, probabilities: (N, *spatial, C)

Every loss also takes logits, class indices, one channel from a sigmoid, channels first,
a mask of voxels, and leaves the background out if asked: see `losses.Options`.

Functions return one value per image, classes are `keras.losses.Loss`. Needs Keras and
nothing else, so the folder can be copied into another project.

Importing this package does not import Keras: names and defaults (`losses.catalogue`)
are there at once. The losses are loaded when first used, and together with Keras, so
that a saved model loads without `custom_objects`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import _registration, catalogue
from .catalogue import default_gamma, names, slug

if TYPE_CHECKING:
    from .base import Options, PerImageLoss, Shell
    from .compound import (
        Combo,
        ComboPlusPlus,
        SymmetricUnifiedFocal,
        SymmetricUnifiedFocalPlusPlus,
        UnifiedFocal,
        UnifiedFocalPlusPlus,
        combo_loss,
        unified_focal_loss,
    )
    from .cross_entropy import (
        CrossEntropy,
        Focal,
        asymmetric_focal_loss,
        cross_entropy_loss,
        focal_loss,
        modified_cross_entropy_loss,
    )
    from .overlap import (
        Dice,
        DicePlusPlus,
        FocalTversky,
        FocalTverskyPlusPlus,
        Tversky,
        TverskyPlusPlus,
        asymmetric_focal_tversky_loss,
        dice_loss,
        focal_tversky_loss,
        soft_counts,
        tversky_loss,
    )

__all__ = [
    "Combo",
    "ComboPlusPlus",
    "CrossEntropy",
    "Dice",
    "DicePlusPlus",
    "Focal",
    "FocalTversky",
    "FocalTverskyPlusPlus",
    "Options",
    "PerImageLoss",
    "Shell",
    "SymmetricUnifiedFocal",
    "SymmetricUnifiedFocalPlusPlus",
    "Tversky",
    "TverskyPlusPlus",
    "UnifiedFocal",
    "UnifiedFocalPlusPlus",
    "asymmetric_focal_loss",
    "asymmetric_focal_tversky_loss",
    "by_name",
    "combo_loss",
    "cross_entropy_loss",
    "default_gamma",
    "dice_loss",
    "focal_loss",
    "focal_tversky_loss",
    "modified_cross_entropy_loss",
    "names",
    "slug",
    "soft_counts",
    "tversky_loss",
    "unified_focal_loss",
]

_HOMES = {
    "Options": "base",
    "PerImageLoss": "base",
    "Shell": "base",
    "Combo": "compound",
    "ComboPlusPlus": "compound",
    "SymmetricUnifiedFocal": "compound",
    "SymmetricUnifiedFocalPlusPlus": "compound",
    "UnifiedFocal": "compound",
    "UnifiedFocalPlusPlus": "compound",
    "combo_loss": "compound",
    "unified_focal_loss": "compound",
    "CrossEntropy": "cross_entropy",
    "Focal": "cross_entropy",
    "asymmetric_focal_loss": "cross_entropy",
    "cross_entropy_loss": "cross_entropy",
    "focal_loss": "cross_entropy",
    "modified_cross_entropy_loss": "cross_entropy",
    "Dice": "overlap",
    "DicePlusPlus": "overlap",
    "FocalTversky": "overlap",
    "FocalTverskyPlusPlus": "overlap",
    "Tversky": "overlap",
    "TverskyPlusPlus": "overlap",
    "asymmetric_focal_tversky_loss": "overlap",
    "dice_loss": "overlap",
    "focal_tversky_loss": "overlap",
    "soft_counts": "overlap",
    "tversky_loss": "overlap",
}


def by_name(name: str, /, **hyperparameters: Any) -> "PerImageLoss":
    """Make a loss from its name.

    Args:
        name: one of `names()`, such as "DSC++", in any case.
        **hyperparameters: arguments of its class; what is left out has the value of
            the paper's Table 2, and `gamma`, the ++ exponent, is 2 in the ++ forms.
            `gamma=None` means the default.

    Returns:
        A `keras.losses.Loss`.

    Raises:
        ValueError: no such loss, an argument that it does not take, a bad value.

    Example:
    >>> losses.by_name("DSC++", gamma=1.5).gamma
    1.5
    """
    arguments = catalogue.hyperparameters(name, **hyperparameters)
    made: PerImageLoss = __getattr__(catalogue.entry(name).class_name)(**arguments)
    return made


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_HOMES[name]}", __name__)
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_registration.with_keras(__name__, sorted(set(_HOMES.values())))
