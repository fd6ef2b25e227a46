# SPDX-License-Identifier: Apache-2.0
"""The DSC++ family of losses for PyTorch: fourteen modules with one set of options.

With y the labels and p the probabilities, for each image and class, over all voxels:

    TP = sum(y p)    FN = sum((y (1 - p))^g)    FP = sum(((1 - y) p)^g)

The exponent g, `gamma`, is 1 in the plain losses and 2 in the ++ losses, where a
confident error costs more than several hesitant ones. A loss of overlap is errors over
everything, (FN + FP) / (2 TP + FN + FP + e), and not 1 minus a ratio, which is 0 in
float32 where the loss is small. Formulas and defaults are those of Yeung et al.,
"Calibrating the Dice loss" (2021), with the mean over classes of its released code.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ._sums import (
    Voxels,
    Weights,
    across_ranks,
    in_parts,
    log_rest,
    over_voxels,
    overlap,
    power,
    transformed,
)

__all__ = [
    "Combo", "ComboPlusPlus", "CrossEntropy", "Dice", "DicePlusPlus", "Focal",
    "FocalTversky", "FocalTverskyPlusPlus", "Loss", "SymmetricUnifiedFocal",
    "SymmetricUnifiedFocalPlusPlus", "Tversky", "TverskyPlusPlus", "UnifiedFocal",
    "UnifiedFocalPlusPlus",
]  # fmt: skip

# What a number may be: the words for it, and the check.
Range = tuple[str, Callable[[float], bool]]
Hyperparameter = tuple[float, Range]  # the default, and what it may be
FRACTION: Range = ("from 0 to 1", lambda x: 0 <= x <= 1)
BELOW_ONE: Range = ("from 0 to below 1", lambda x: 0 <= x < 1)
POSITIVE: Range = ("above 0", lambda x: 0 < x < math.inf)
NOT_NEGATIVE: Range = ("of at least 0", lambda x: 0 <= x < math.inf)
HALF, SQUARED = (0.5, FRACTION), (2.0, POSITIVE)

NAMES: dict[str, type["Loss"]] = {}
"""The losses by the names that the paper prints; each class enters itself."""


class Loss(torch.nn.Module):
    """What the losses share. Each takes these arguments by keyword, as MONAI's do.

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: whether the target holds class indices. An index that is no class
            leaves a voxel without one. Of a single channel, index 1 is the foreground.
        sigmoid: whether to take the sigmoid of the input. Then each channel is a region
            of its own against the rest, and regions may overlap.
        softmax: whether to take the softmax of the input over the channels.
        other_act: another activation, a function of the input. What it returns in half
            precision is computed with in that of the input.
        reduction: "mean" over images and classes, "sum", or "none" for one value an
            image and class.
        smooth_nr: in the numerator of the overlap, at least 0.
        smooth_dr: in its denominator, above 0. A class that is absent and not predicted
            costs `1 - smooth_nr / smooth_dr`.
        batch: whether sums and means over voxels run over the batch's images too.
        weight: weight of each class that counts, a number or a sequence.
        soft_label: whether labels between 0 and 1 are to be reached: hits are then
            min(y, p), errors (y - p)+ and (p - y)+, and the focal factor is |y - p|.
            With labels of 0 and 1 the value stays the same. False puts labels into
            the formulas as they are.
        ignore_index: label of the voxels that do not count.
        ddp: whether, with `batch`, sums run over the batches of all processes.
        **hyperparameters: the loss's own hyperparameters: see its `hyperparameters`.

    Raises:
        ValueError: an argument out of its range.
        TypeError: an argument that the loss does not take.
    """

    hyperparameters: ClassVar[dict[str, Hyperparameter]] = {
        "smooth_nr": (1e-7, NOT_NEGATIVE),
        "smooth_dr": (1e-7, POSITIVE),
    }
    class_weight: Tensor | None

    def __init_subclass__(
        cls, name: str = "", **hyperparameters: Hyperparameter
    ) -> None:
        cls.hyperparameters = cls.hyperparameters | hyperparameters
        if name:
            NAMES[name] = cls

    def __init__(
        self,
        *,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        reduction: str = "mean",
        smooth_nr: float = 1e-7,
        smooth_dr: float = 1e-7,
        batch: bool = False,
        weight: float | Sequence[float] | Tensor | None = None,
        soft_label: bool = False,
        ignore_index: int | None = None,
        ddp: bool = False,
        **hyperparameters: float,
    ) -> None:
        super().__init__()
        reduction = str(getattr(reduction, "value", reduction))  # MONAI has an enum
        acts = [bool(sigmoid), bool(softmax), other_act is not None]
        _expect("sigmoid, softmax, other_act", sum(acts) < 2, "one at most", acts)
        known = other_act is None or callable(other_act)
        _expect("other_act", known, "a function", other_act)
        known = reduction in ("mean", "sum", "none")
        _expect("reduction", known, "one of mean, sum, none", reduction)
        _expect("batch", batch or not ddp, "True with ddp=True", batch)
        free = to_onehot_y or ignore_index not in (0, 1)
        expected = "neither 0 nor 1 without to_onehot_y=True"
        _expect("ignore_index", free, expected, ignore_index)
        self.include_background, self.to_onehot_y = include_background, to_onehot_y
        self.sigmoid, self.softmax, self.other_act = sigmoid, softmax, other_act
        self.reduction, self.batch, self.ddp = reduction, batch, ddp
        self.soft_label, self.ignore_index = soft_label, ignore_index
        classes = None if weight is None else torch.as_tensor(weight).float()
        if classes is not None:
            allowed = classes.dim() < 2 and bool((classes >= 0).all())
            _expect("weight", allowed, "0 or more each, in one row", classes)
        self.register_buffer("class_weight", classes)
        self._set({"smooth_nr": smooth_nr, "smooth_dr": smooth_dr, **hyperparameters})

    def _set(self, values: dict[str, float]) -> None:
        """Set the numbers; `gamma` is 1 where it is none of them."""
        unknown = ", ".join(name for name in values if name not in self.hyperparameters)
        if unknown:
            name, known = type(self).__name__, list(self.hyperparameters)
            raise TypeError(
                f"{name}: expected an argument of every loss or one of {known}, "
                f"found {unknown}"
            )
        self.gamma = 1.0
        for name, (default, (words, holds)) in self.hyperparameters.items():
            value = values.get(name, default)
            _expect(name, holds(value), f"a number {words}", value)
            setattr(self, name, float(value))

    def forward(
        self, input: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        Args:
            input: logits with `softmax` or `sigmoid`, else probabilities,
                (N, C, *spatial), of any floating type; computed in float32 or float64.
            target: labels in [0, 1], (N, C, *spatial), or with `to_onehot_y` class
                indices, (N, 1, *spatial) or (N, *spatial).
            mask: weight of each voxel, at least 0, (N, 1, *spatial) or (N, *spatial).

        Returns:
            One number; with `reduction="none"` (N, C, 1, ..., 1), where N is 1 with
            `batch`, and C is without a background that is not included.

        Raises:
            TypeError: no tensor, such as the list of a network with deep supervision.
            ValueError: shapes that do not fit.
        """
        if not torch.jit.is_scripting() and not torch.compiler.is_compiling():
            input, target = _plain("input", input), _plain("target", target)
            mask = None if mask is None else _plain("mask", mask)
        scores = input if input.dtype == torch.float64 else input.float()
        y, w = self._labels(scores, target, mask)
        if not torch.jit.is_scripting() and self.other_act is not None:
            scores = self.other_act(scores).to(scores)
        hard = self.to_onehot_y or not target.is_floating_point()
        kind = "soft" if self.soft_label else "hard" if hard else "formula"
        values = self._per_class(Voxels(scores, y, w, kind))
        weight = self.class_weight
        if weight is not None:
            if weight.dim() == 1 and weight.shape[0] != values.shape[1]:
                raise ValueError(
                    f"weight: expected one number, or one for each of the "
                    f"{values.shape[1]} classes that count, found {weight.shape[0]}"
                )
            values = values * weight.to(values)
        if self.reduction == "mean":
            return values.mean()
        if self.reduction == "sum":
            return values.sum()
        return values.reshape(list(values.shape) + [1] * (input.dim() - 2))

    def _per_class(self, v: Voxels) -> Tensor:
        """Values of (N, C) whose mean over the classes is the loss of an image."""
        raise NotImplementedError

    def _labels(
        self, scores: Tensor, y: Tensor, w: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Labels of the classes that count, and the weight of each voxel."""
        shape = list(scores.shape)
        if len(shape) < 3:
            raise ValueError(f"input: expected (N, C, *spatial), found shape {shape}")
        if shape[1] == 1 and (self.softmax or not self.include_background):
            raise ValueError(
                "input: expected two channels or more with softmax=True or "
                "include_background=False, found one; for one take sigmoid=True"
            )
        one_channel = list(shape)
        one_channel[1] = 1
        hint = "" if self.to_onehot_y else "; of class indices with to_onehot_y=True"
        y = _fitting("target", y, one_channel if self.to_onehot_y else shape, hint)
        if w is not None:
            w = _fitting("mask", w, one_channel, "").to(scores)
        if self.ignore_index is not None:
            seen = (y != self.ignore_index).all(1, keepdim=True)
            y = y.masked_fill(~seen, 0)
            w = seen.to(scores) if w is None else w * seen
        if self.to_onehot_y:
            y = _one_hot(y.long(), scores)
        y = y if self.include_background else y[:, 1:]
        return y.to(scores), w

    def _chances(self, scores: Tensor, clip: bool = True) -> Tensor:
        """Probabilities of the classes that count, clipped to [1e-7, 1 - 1e-7]."""
        p, fresh = scores, self.softmax or self.sigmoid
        if self.softmax:
            p = torch.softmax(scores, 1)
        elif self.sigmoid:
            p = torch.sigmoid(scores)
        if torch.jit.is_scripting() or not fresh or transformed():
            p = p.clamp(1e-7, 1 - 1e-7)
        elif clip:
            # In place, which autograd need not see: where the slope of the clip would
            # be 0, that of the activation is 1e-7.
            p.data.clamp_(1e-7, 1 - 1e-7)
        return p if self.include_background else p[:, 1:]

    def _total(self, sums: Tensor) -> Tensor:
        """Sums of each image, (N, C), over the batch and the processes if asked."""
        if self.batch:
            sums = sums.sum(0, keepdim=True)
        if not torch.jit.is_scripting() and self.ddp:
            sums = across_ranks(sums)
        return sums

    def _mean(self, sums: Tensor, v: Voxels) -> Tensor:
        """Mean over voxels, from sums of each image; 0 where no voxel has a weight."""
        w, n = v.w, v.y.flatten(2).shape[2]
        count = sums.new_full([sums.shape[0], 1], n) if w is None else over_voxels(w)
        total = self._total(count)
        return self._total(sums) / torch.where(total > 0, total, 1.0)

    def _errors(self, v: Voxels, alpha: float, beta: float, hits: float) -> Tensor:
        """Errors over everything: alpha of the false positives, beta of the misses."""
        p = self._chances(v.scores, clip=self.gamma < 2)  # 1e-7 squared is nothing
        tp, errors = overlap(p, v, self.gamma, alpha, beta)
        tp, errors = self._total(tp), self._total(errors)
        total = hits * tp + errors + self.smooth_dr
        if self.smooth_nr != self.smooth_dr:
            errors = (errors + (self.smooth_dr - self.smooth_nr)).clamp(min=0)
        return errors / total

    def _entropy(self, v: Voxels, how: Weights, binary: bool = False) -> Tensor:
        """Cross entropy, (N, C), of the right class of each voxel; of regions, binary.

        `how`: the weights of foreground and background, or of a region and its rest,
        and the exponents of their focal factors. `binary`: each class is a region.
        """
        binary = binary or self._regions(v.scores)
        if torch.jit.is_scripting():
            sums = self._entropy_sums(v.scores, v.y, v.w, how, binary)
        else:
            sums = in_parts(self._entropy_sums, v, (how, binary))
        return self._mean(sums, v)

    def _entropy_sums(
        self, scores: Tensor, y: Tensor, w: Tensor | None, how: Weights, binary: bool
    ) -> Tensor:
        if binary:
            return self._binary_sums(scores, y, w, how)
        positive, negative, fore, back = how
        logs = functional.log_softmax(scores, 1) if self.softmax else None
        plain = self.softmax and fore == 0 and back == 0
        p = y if plain else self._chances(scores)  # of the classes that count
        logs = p.log() if logs is None else logs[:, -y.shape[1] :]
        first = 1 if self.include_background else 0
        parts = []
        for start, stop, share, exponent in (
            (0, first, negative, back),
            (first, logs.shape[1], positive, fore),
        ):
            truth = y[:, start:stop]
            hit = self._focal(logs[:, start:stop], truth, p[:, start:stop], exponent)
            parts.append(-share * over_voxels(truth * hit, w))
        # The loss is the sum over classes: times C it is the mean.
        return logs.shape[1] * torch.cat(parts, 1)

    def _binary_sums(
        self, scores: Tensor, y: Tensor, w: Tensor | None, how: Weights
    ) -> Tensor:
        positive, negative, fore, back = how
        plain = fore == 0 and back == 0
        p = y if plain else self._chances(scores)  # of the classes that count
        if self.softmax:
            hit = functional.log_softmax(scores, 1)
            hit, miss = hit[:, -y.shape[1] :], log_rest(hit)[:, -y.shape[1] :]
        else:
            odds = scores if self.sigmoid else torch.logit(self._chances(scores))
            odds = odds[:, -y.shape[1] :]
            hit, miss = functional.logsigmoid(odds), functional.logsigmoid(-odds)
        hit = self._focal(hit, y, p, fore)
        miss = self._focal(miss, 1 - y, 1 - p, back)
        if positive == negative:  # in fewer passes
            return -positive * over_voxels(torch.lerp(miss, hit, y), w)
        return -over_voxels(torch.lerp(negative * miss, positive * hit, y), w)

    def _regions(self, scores: Tensor) -> bool:
        """Whether each channel stands against the rest."""
        return self.sigmoid or scores.shape[1] == 1

    def _focal(self, logs: Tensor, y: Tensor, p: Tensor, exponent: float) -> Tensor:
        """Logarithms of p times (1 - p)^exponent; of soft labels, |y - p|^exponent."""
        if exponent == 0:
            return logs
        if self.soft_label:
            return logs * power((y - p).abs(), exponent)
        return logs * (1 - p).pow(exponent)


class CrossEntropy(Loss, name="CE"):
    """Cross entropy, Eq. 1. With `sigmoid`, the binary one of each region."""

    def _per_class(self, v: Voxels) -> Tensor:
        return self._entropy(v, (1.0, 1.0, 0.0, 0.0))


class Focal(Loss, name="Focal", alpha=HALF, focal_gamma=(2.0, NOT_NEGATIVE)):
    """Focal loss, Eq. 2: cross entropy times `alpha * (1 - p) ** focal_gamma`."""

    def _per_class(self, v: Voxels) -> Tensor:
        share, exponent = self.alpha, self.focal_gamma
        return self._entropy(v, (share, share, exponent, exponent))


class Dice(Loss, name="DSC"):
    """DSC loss, Eqs. 4, 5 and 8: `(fn + fp) / (2 tp + fn + fp + smooth_dr)`."""

    def _per_class(self, v: Voxels) -> Tensor:
        return self._errors(v, 1.0, 1.0, hits=2.0)


class DicePlusPlus(Dice, name="DSC++", gamma=SQUARED):
    """DSC++ loss, Eq. 9."""


class Tversky(Loss, name="Tversky", alpha=(0.3, FRACTION), beta=(0.7, FRACTION)):
    """Tversky loss, Eqs. 15 and 16: `alpha` weighs `fp`, `beta` weighs `fn`."""

    def _per_class(self, v: Voxels) -> Tensor:
        return self._errors(v, self.alpha, self.beta, hits=1.0)


class TverskyPlusPlus(Tversky, name="Tversky++", gamma=SQUARED):
    """Tversky++ loss, Eqs. 15 and 16."""


class FocalTversky(Tversky, name="Focal Tversky", focal_gamma=(4 / 3, POSITIVE)):
    """Focal Tversky loss, Eq. 17: Tversky of each class to 1 / `focal_gamma`."""

    def _per_class(self, v: Voxels) -> Tensor:
        errors = self._errors(v, self.alpha, self.beta, hits=1.0)
        return power(errors, 1 / self.focal_gamma)


class FocalTverskyPlusPlus(FocalTversky, name="Focal Tversky++", gamma=SQUARED):
    """Focal Tversky++ loss, Eq. 17."""


class Combo(Loss, name="Combo", alpha=HALF, beta=HALF):
    """Combo loss, Eqs. 13 and 14: a cross entropy minus the overlap of DSC.

    `alpha` weighs the cross entropy of each class against the rest, in which `beta`
    weighs the misses. It ends at `alpha - 1` for a perfect prediction, not at 0.
    """

    def _per_class(self, v: Voxels) -> Tensor:
        entropy = self._entropy(v, (self.beta, 1 - self.beta, 0.0, 0.0), binary=True)
        dice = self._errors(v, 1.0, 1.0, hits=2.0)
        return self.alpha * entropy - (1 - self.alpha) * (1 - dice)


class ComboPlusPlus(Combo, name="Combo++", gamma=SQUARED):
    """Combo++ loss, Eqs. 13 and 14."""


class UnifiedFocal(
    Loss,
    name="Unified Focal",
    lambda_=HALF,
    delta=(0.6, FRACTION),
    focal_gamma=(0.5, BELOW_ONE),
):
    """Unified Focal loss, Eqs. 18 to 21: a focal Tversky and a focal part.

    `lambda_` weighs the Tversky part; `delta` the misses there, and the foreground in
    the focal part. Of background, the focal part has the factor `(1 - p) **
    focal_gamma`; of foreground, the Tversky part the exponent `1 - focal_gamma`.
    """

    def _per_class(self, v: Voxels) -> Tensor:
        return self._unified(v, symmetric=False)

    def _unified(self, v: Voxels, symmetric: bool) -> Tensor:
        rest, focal = 1 - self.delta, self.focal_gamma
        fore, first = (focal, 0) if symmetric else (0.0, 1)
        entropy = self._entropy(v, (self.delta, rest, fore, focal))
        errors = self._errors(v, rest, self.delta, hits=1.0)
        if self._regions(v.scores) or not self.include_background:
            first = 0
        parts = [errors[:, :first], power(errors[:, first:], 1 - focal)]
        return self.lambda_ * torch.cat(parts, 1) + (1 - self.lambda_) * entropy


class UnifiedFocalPlusPlus(UnifiedFocal, name="Unified Focal++", gamma=SQUARED):
    """Unified Focal++ loss, Eqs. 18 to 21."""


class SymmetricUnifiedFocal(UnifiedFocal, name="Symmetric Unified Focal"):
    """Unified Focal loss with both effects on every class; not in the paper."""

    def _per_class(self, v: Voxels) -> Tensor:
        return self._unified(v, symmetric=True)


class SymmetricUnifiedFocalPlusPlus(
    SymmetricUnifiedFocal, name="Symmetric Unified Focal++", gamma=SQUARED
):
    """Unified Focal++ loss with both effects on every class; not in the paper."""


def _expect(name: str, holds: bool, expected: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, found {value!r}")


def _plain(name: str, x: Tensor) -> Tensor:
    """The numbers of MONAI's MetaTensor: each operation on it copies the rest."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, found {type(x).__name__}")
    return x if type(x) is Tensor else x.as_subclass(Tensor)


def _one_hot(y: Tensor, like: Tensor) -> Tensor:
    """Class indices, (N, 1, *spatial), as channels; one channel is that of index 1."""
    count = like.shape[1]
    first = 1 if count == 1 else 0
    if not torch.jit.is_scripting() and transformed():
        # A broadcast along the channels keeps the compiler from vector instructions.
        return torch.cat([(y == first + c).to(like) for c in range(count)], 1)
    index = torch.arange(first, first + count, device=y.device).to(like)
    index = index.reshape([1, -1] + [1] * (like.dim() - 2))
    # Of one type on all sides it is one pass.
    return torch.eq(y.to(like), index, out=torch.empty_like(like))


def _fitting(name: str, x: Tensor, shape: list[int], hint: str) -> Tensor:
    """`x` of this shape; a channel axis of one may be missing."""
    if x.dim() == len(shape) - 1 and shape[1] == 1:
        x = x.unsqueeze(1)
    if list(x.shape) != shape:
        shape_of_x = list(x.shape)
        raise ValueError(f"{name}: expected shape {shape}, found {shape_of_x}{hint}")
    return x
