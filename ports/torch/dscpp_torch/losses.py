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
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ._counts import across_ranks, over_voxels, overlap, power

__all__ = [
    "Combo",
    "ComboPlusPlus",
    "CrossEntropy",
    "Dice",
    "DicePlusPlus",
    "Focal",
    "FocalTversky",
    "FocalTverskyPlusPlus",
    "Loss",
    "SymmetricUnifiedFocal",
    "SymmetricUnifiedFocalPlusPlus",
    "Tversky",
    "TverskyPlusPlus",
    "UnifiedFocal",
    "UnifiedFocalPlusPlus",
]


class Loss(torch.nn.Module):
    """What the losses share. Each takes these arguments by keyword, as MONAI's do.

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: whether the target holds class indices. An index that is no class
            leaves a voxel without one. Of a single channel, index 1 is the foreground.
        sigmoid: whether to take the sigmoid of the input. Then each channel is a region
            of its own against the rest, and regions may overlap.
        softmax: whether to take the softmax of the input over the channels.
        other_act: another activation, a function of the input.
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

    Raises:
        ValueError: an argument out of its range.
    """

    class_weight: Tensor | None

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
    ) -> None:
        super().__init__()
        reduction = str(getattr(reduction, "value", reduction))  # MONAI has an enum
        given = [bool(sigmoid), bool(softmax), other_act is not None]
        _expect("sigmoid, softmax, other_act", sum(given) < 2, "one at most", given)
        _expect(
            "other_act",
            other_act is None or callable(other_act),
            "a function",
            other_act,
        )
        known = ("mean", "sum", "none")
        _expect("reduction", reduction in known, f"one of {known}", reduction)
        _expect("smooth_nr", smooth_nr >= 0, "a number of at least 0", smooth_nr)
        _expect("smooth_dr", smooth_dr > 0, "a number above 0", smooth_dr)
        _expect("batch", batch or not ddp, "True with ddp=True", batch)
        free = to_onehot_y or ignore_index not in (0, 1)
        expected = "neither 0 nor 1 without to_onehot_y=True"
        _expect("ignore_index", free, expected, ignore_index)
        self.include_background, self.to_onehot_y = include_background, to_onehot_y
        self.sigmoid, self.softmax, self.other_act = sigmoid, softmax, other_act
        self.reduction, self.batch, self.ddp = reduction, batch, ddp
        self.smooth_nr, self.smooth_dr = float(smooth_nr), float(smooth_dr)
        self.soft_label, self.ignore_index = soft_label, ignore_index
        classes: Tensor | None = None
        if weight is not None:
            classes = torch.as_tensor(weight, dtype=torch.float32)
            _expect("weight", bool((classes >= 0).all()), "0 or more each", classes)
        self.register_buffer("class_weight", classes)

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
            ValueError: shapes that do not fit.
        """
        # Of MONAI's MetaTensor the numbers alone: each operation on it copies the rest.
        if not torch.jit.is_scripting() and not torch.compiler.is_compiling():
            input, target = input.as_subclass(Tensor), target.as_subclass(Tensor)
            mask = None if mask is None else mask.as_subclass(Tensor)
        scores = input if input.dtype == torch.float64 else input.float()
        y, w = self._labels(scores, target, mask)
        values = self._per_class(scores, y, w)
        weight = self.class_weight
        if weight is not None:
            values = values * weight.to(values)
        if self.reduction == "mean":
            return values.mean()
        if self.reduction == "sum":
            return values.sum()
        return values.reshape(list(values.shape) + [1] * (input.dim() - 2))

    def _per_class(self, scores: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        """Values of (N, C) whose mean over the classes is the loss of an image."""
        raise NotImplementedError

    def _labels(
        self, scores: Tensor, y: Tensor, w: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Labels of the classes that count, and the weight of each voxel."""
        channels, shape = scores.shape[1], list(scores.shape)
        if channels == 1 and (self.softmax or not self.include_background):
            raise ValueError(
                "input: expected two channels or more with softmax=True or "
                "include_background=False, found one; for one take sigmoid=True"
            )
        if self.to_onehot_y:
            shape[1] = 1
            y = y.unsqueeze(1) if y.dim() == scores.dim() - 1 else y
        if list(y.shape) != shape:
            hint = (
                "" if self.to_onehot_y else "; of class indices with to_onehot_y=True"
            )
            raise ValueError(
                f"target: expected shape {shape}, found {list(y.shape)}{hint}"
            )
        if w is not None:
            shape[1] = 1
            w = (w.unsqueeze(1) if w.dim() == scores.dim() - 1 else w).to(scores)
            if list(w.shape) != shape:
                raise ValueError(f"mask: expected shape {shape}, found {list(w.shape)}")
        if self.ignore_index is not None:
            seen = (y != self.ignore_index).all(1, keepdim=True)
            y = y.masked_fill(~seen, 0)
            w = seen.to(scores) if w is None else w * seen
        if self.to_onehot_y:
            index = torch.arange(max(channels, 2), dtype=torch.int32, device=y.device)
            index = index[-channels:]
            y = y.to(index) == index.reshape([1, channels] + [1] * (scores.dim() - 2))
        y = y if self.include_background else y[:, 1:]
        return y.to(scores), w

    def _chances(self, scores: Tensor) -> Tensor:
        """Probabilities of the classes that count, in [1e-7, 1 - 1e-7]."""
        p = scores
        if self.softmax:
            p = torch.softmax(scores, 1)
        elif self.sigmoid:
            p = torch.sigmoid(scores)
        elif self.other_act is not None:
            p = self.other_act(scores)
        low, high = 1e-7, 1 - 1e-7
        fresh = self.softmax or self.sigmoid
        if not torch.jit.is_scripting() and fresh and not torch.compiler.is_compiling():
            # In place, which autograd need not see: where the slope of the clip would
            # be 0, that of the activation is 1e-7.
            p.data.clamp_(low, high)
        else:
            p = p.clamp(low, high)
        return p if self.include_background else p[:, 1:]

    def _logs(self, scores: Tensor, p: Tensor, rest: bool) -> Tensor:
        """Logarithms of p, or of 1 - p; from the logits where these are given."""
        first = 0 if self.include_background else 1
        if self.sigmoid:
            return functional.logsigmoid(-scores if rest else scores)[:, first:]
        if not self.softmax:
            return torch.log1p(-p) if rest else p.log()
        logs = functional.log_softmax(scores, 1)
        if not rest:
            return logs[:, first:]
        # 1 - p is the sum of the others' p; itself it is 0 where p is 1 in float32.
        others = [
            torch.cat([logs[:, :c], logs[:, c + 1 :]], 1).logsumexp(1, keepdim=True)
            for c in range(first, logs.shape[1])
        ]
        return torch.cat(others, 1)

    def _total(self, sums: Tensor) -> Tensor:
        """Sums of each image, (N, C), over the batch and the processes if asked."""
        if self.batch:
            sums = sums.sum(0, keepdim=True)
        if not torch.jit.is_scripting() and self.ddp:
            sums = across_ranks(sums)
        return sums

    def _mean(self, terms: Tensor, w: Tensor | None) -> Tensor:
        """Weighted mean over voxels, (N, C), 0 where no voxel has a weight."""
        w = torch.ones_like(terms[:, :1]) if w is None else w
        total = self._total(over_voxels(w))
        some = torch.where(total > 0, total, torch.ones_like(total))
        return self._total(over_voxels(terms * w)) / some

    def _errors(
        self,
        scores: Tensor,
        y: Tensor,
        w: Tensor | None,
        gamma: float,
        alpha: float,
        beta: float,
        hits: float = 1.0,
    ) -> Tensor:
        """Errors over everything: alpha of the false positives, beta of the misses."""
        kind = "soft" if self.soft_label else "formula"
        kind = "hard" if self.to_onehot_y else kind
        p = self._chances(scores)
        tp, errors = overlap(p, y, w, gamma, alpha, beta, kind)
        tp, errors = self._total(tp), self._total(errors)
        wrong = (errors + (self.smooth_dr - self.smooth_nr)).clamp(min=0)
        return wrong / (hits * tp + errors + self.smooth_dr)

    def _entropy(
        self,
        scores: Tensor,
        y: Tensor,
        w: Tensor | None,
        positive: float,
        negative: float,
        exponents: tuple[float, float],
        binary: bool = False,
    ) -> Tensor:
        """Cross entropy, (N, C), of right classes and, where binary, of wrong ones.

        The foreground has the weight `positive` and the first of `exponents`, of the
        focal factors; background, or with `binary` the rest, the others. Regions always
        stand against the rest.
        """
        p = self._chances(scores)
        hit = -y * self._logs(scores, p, rest=False)
        if binary or self.sigmoid or scores.shape[1] == 1:
            miss = (y - 1) * self._logs(scores, p, rest=True)
            hit = positive * self._focal(hit, y, p, exponents[0])
            miss = negative * self._focal(miss, 1 - y, 1 - p, exponents[1])
            return self._mean(hit + miss, w)
        # The loss is the sum over classes: times C it is the mean.
        first = 1 if self.include_background else 0
        background = self._focal(
            hit[:, :first], y[:, :first], p[:, :first], exponents[1]
        )
        foreground = self._focal(
            hit[:, first:], y[:, first:], p[:, first:], exponents[0]
        )
        terms = torch.cat([negative * background, positive * foreground], 1)
        return y.shape[1] * self._mean(terms, w)

    def _focal(self, terms: Tensor, y: Tensor, p: Tensor, exponent: float) -> Tensor:
        """Terms times (1 - p)^exponent, of soft labels |y - p|^exponent."""
        if exponent == 0:
            return terms
        return terms * power((y - p).abs() if self.soft_label else 1 - p, exponent)


class CrossEntropy(Loss):
    """Cross entropy, Eq. 1. With `sigmoid`, the binary one of each region."""

    def _per_class(self, scores: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        return self._entropy(scores, y, w, 1.0, 1.0, (0.0, 0.0))


class Focal(Loss):
    """Focal loss, Eq. 2: cross entropy times `alpha * (1 - p) ** focal_gamma`."""

    def __init__(
        self, *, alpha: float = 0.5, focal_gamma: float = 2.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.alpha = _fraction("alpha", alpha)
        self.focal_gamma = _not_negative("focal_gamma", focal_gamma)

    def _per_class(self, scores: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        exponents = (self.focal_gamma, self.focal_gamma)
        return self._entropy(scores, y, w, self.alpha, self.alpha, exponents)


class DicePlusPlus(Loss):
    """DSC++ loss, Eq. 9: `(fn + fp) / (2 tp + fn + fp + smooth_dr)`."""

    def __init__(self, *, gamma: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        self.gamma = _positive("gamma", gamma)

    def _per_class(self, scores: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        return self._errors(scores, y, w, self.gamma, 1.0, 1.0, hits=2.0)


class TverskyPlusPlus(Loss):
    """Tversky++ loss, Eqs. 15 and 16: `alpha` weighs `fp`, `beta` weighs `fn`."""

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.alpha, self.beta = _fraction("alpha", alpha), _fraction("beta", beta)
        self.gamma = _positive("gamma", gamma)

    def _per_class(self, scores: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        return self._errors(scores, y, w, self.gamma, self.alpha, self.beta)


class FocalTverskyPlusPlus(TverskyPlusPlus):
    """Focal Tversky++ loss, Eq. 17: Tversky++ of each class to 1 / `focal_gamma`."""

    def __init__(self, *, focal_gamma: float = 4 / 3, **options: Any) -> None:
        super().__init__(**options)
        self.focal_gamma = _positive("focal_gamma", focal_gamma)

    def _per_class(self, scores: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        errors = self._errors(scores, y, w, self.gamma, self.alpha, self.beta)
        return power(errors, 1 / self.focal_gamma)


class ComboPlusPlus(Loss):
    """Combo++ loss, Eqs. 13 and 14: a cross entropy minus the overlap of DSC++.

    `alpha` weighs the cross entropy of each class against the rest, in which `beta`
    weighs the misses. It ends at `alpha - 1` for a perfect prediction, not at 0.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.alpha, self.beta = _fraction("alpha", alpha), _fraction("beta", beta)
        self.gamma = _positive("gamma", gamma)

    def _per_class(self, scores: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        betas = self.beta, 1 - self.beta
        entropy = self._entropy(scores, y, w, betas[0], betas[1], (0.0, 0.0), True)
        dice = self._errors(scores, y, w, self.gamma, 1.0, 1.0, hits=2.0)
        return self.alpha * entropy - (1 - self.alpha) * (1 - dice)


class UnifiedFocalPlusPlus(Loss):
    """Unified Focal++ loss, Eqs. 18 to 21: a focal Tversky and a focal part.

    `lambda_` weighs the Tversky part; `delta` the misses there, and the foreground in
    the focal part. Of background, the focal part has the factor `(1 - p) **
    focal_gamma`; of foreground, the Tversky part the exponent `1 - focal_gamma`.
    `symmetric`: both effects on every class.
    """

    def __init__(
        self,
        *,
        lambda_: float = 0.5,
        delta: float = 0.6,
        focal_gamma: float = 0.5,
        gamma: float = 2.0,
        symmetric: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.symmetric = symmetric
        self.lambda_, self.delta = (
            _fraction("lambda_", lambda_),
            _fraction("delta", delta),
        )
        self.focal_gamma = _fraction("focal_gamma", focal_gamma)
        _expect("focal_gamma", focal_gamma < 1, "a number below 1", focal_gamma)
        self.gamma = _positive("gamma", gamma)

    def _per_class(self, scores: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        rest, focal = 1 - self.delta, self.focal_gamma
        exponents = (focal if self.symmetric else 0.0, focal)
        entropy = self._entropy(scores, y, w, self.delta, rest, exponents)
        errors = self._errors(scores, y, w, self.gamma, rest, self.delta)
        regions = self.sigmoid or scores.shape[1] == 1
        rooted = self.symmetric or regions or not self.include_background
        first = 0 if rooted else 1
        parts = [errors[:, :first], power(errors[:, first:], 1 - focal)]
        return self.lambda_ * torch.cat(parts, 1) + (1 - self.lambda_) * entropy


class SymmetricUnifiedFocalPlusPlus(UnifiedFocalPlusPlus):
    """Unified Focal++ loss with both effects on every class; not in the paper."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(symmetric=True, **arguments)


class Dice(DicePlusPlus):
    """DSC loss, Eqs. 4, 5 and 8: `DicePlusPlus` at `gamma=1`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(gamma=1.0, **arguments)


class Tversky(TverskyPlusPlus):
    """Tversky loss, Eqs. 15 and 16: `TverskyPlusPlus` at `gamma=1`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(gamma=1.0, **arguments)


class FocalTversky(FocalTverskyPlusPlus):
    """Focal Tversky loss, Eq. 17: `FocalTverskyPlusPlus` at `gamma=1`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(gamma=1.0, **arguments)


class Combo(ComboPlusPlus):
    """Combo loss, Eqs. 13 and 14: `ComboPlusPlus` at `gamma=1`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(gamma=1.0, **arguments)


class UnifiedFocal(UnifiedFocalPlusPlus):
    """Unified Focal loss, Eqs. 18 to 21: `UnifiedFocalPlusPlus` at `gamma=1`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(gamma=1.0, **arguments)


class SymmetricUnifiedFocal(UnifiedFocalPlusPlus):
    """Symmetric Unified Focal loss: `SymmetricUnifiedFocalPlusPlus` at `gamma=1`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(gamma=1.0, symmetric=True, **arguments)


def _expect(name: str, holds: bool, expected: str, found: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, found {found!r}")


def _positive(name: str, value: float) -> float:
    _expect(name, 0 < value < math.inf, "a number above 0", value)
    return float(value)


def _not_negative(name: str, value: float) -> float:
    _expect(name, 0 <= value < math.inf, "a number of at least 0", value)
    return float(value)


def _fraction(name: str, value: float) -> float:
    _expect(name, 0 <= value <= 1, "a number from 0 to 1", value)
    return float(value)
