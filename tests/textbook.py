"""A short implementation of the family in keras.ops, and faults planted in it.

Every fault is a subclass that gets one thing wrong, as somebody has or might have.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["FAULTS", "Textbook"]


class Textbook:
    """The family, plainly and right; every method is a place for a fault."""

    def __init__(self, name: str, defaults: dict[str, float]) -> None:
        self.name = name
        self.kind = name.removesuffix("++").removeprefix("Symmetric ")
        self.defaults = {"gamma": 1.0, **defaults}

    def __call__(
        self,
        y: Any,
        p: Any,
        weight: Any = None,
        ignore_background: bool = False,
        soft_labels: bool = False,
        **given: float,
    ) -> Any:
        h = {**self.defaults, **given}
        y, p = self.prepare(y, p)
        self.weight = 1 + 0 * p[..., :1]
        if weight is not None:
            self.weight = ops.cast(weight, p.dtype)[..., None]
        self.first = 1 if ignore_background else 0
        self.soft = soft_labels
        method = "_" + self.kind.lower().replace(" ", "_")
        return getattr(self, method)(y, p, h)

    def prepare(self, y: Any, p: Any) -> tuple[Any, Any]:
        wide = keras.backend.standardize_dtype(p.dtype) == "float64"
        dtype = "float64" if wide else "float32"
        return ops.cast(y, dtype), self.clip(ops.cast(p, dtype))

    def clip(self, p: Any) -> Any:
        return ops.clip(p, 1e-7, 1 - 1e-7)

    def over_voxels(self, terms: Any) -> Any:
        terms = self.weight * terms
        for axis in reversed(range(1, len(terms.shape) - 1)):
            terms = ops.sum(terms, axis=axis)
        return terms

    def voxel_mean(self, terms: Any) -> Any:
        voxels = self.over_voxels(1 + 0 * terms)
        return self.over_voxels(terms) / ops.maximum(voxels, 1e-30)

    def class_sum(self, values: Any) -> Any:
        return ops.sum(values[:, self.first :], axis=-1)

    def over_classes(self, values: Any) -> Any:
        return self.class_sum(values) / (values.shape[-1] - self.first)

    def counts(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        if self.soft:
            return tuple(self.over_voxels(x) for x in self.soft_terms(y, p, g))
        # y^g apart: the slope of (y (1 - p))^g at y = 0 would be infinite below g = 1.
        fn, fp = y**g * (1 - p) ** g, (1 - y) ** g * p**g
        return tuple(self.over_voxels(x) for x in (y * p, fn, fp))

    def soft_terms(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        fn, fp = ops.maximum(y - p, 1e-30), ops.maximum(p - y, 1e-30)
        return ops.minimum(y, p), fn**g, fp**g

    def far(self, y: Any, p: Any) -> Any:
        return ops.maximum(ops.abs(y - p), 1e-30) if self.soft else 1 - p

    def errors(self, counts: Any, alpha: float, beta: float, e: float) -> Any:
        tp, fn, fp = counts
        wrong = alpha * fp + beta * fn
        return wrong / (tp + wrong + e)

    def _dsc(self, y: Any, p: Any, h: dict) -> Any:
        # With halves, TP counts once: so does epsilon.
        counts = self.counts(y, p, h["gamma"])
        return self.over_classes(self.errors(counts, 0.5, 0.5, h["epsilon"] / 2))

    def _ce(self, y: Any, p: Any, h: dict) -> Any:
        return -self.class_sum(self.voxel_mean(y * ops.log(p)))

    def _focal(self, y: Any, p: Any, h: dict) -> Any:
        terms = self.far(y, p) ** h["focal_gamma"] * y * ops.log(p)
        return -h["alpha"] * self.class_sum(self.voxel_mean(terms))

    def _tversky(self, y: Any, p: Any, h: dict) -> Any:
        counts = self.counts(y, p, h["gamma"])
        errors = self.errors(counts, h["alpha"], h["beta"], h["epsilon"])
        return self.over_classes(errors)

    def _focal_tversky(self, y: Any, p: Any, h: dict) -> Any:
        counts = self.counts(y, p, h["gamma"])
        errors = self.errors(counts, h["alpha"], h["beta"], h["epsilon"])
        return self.over_classes(self.power(errors, 1 / h["focal_gamma"]))

    def power(self, errors: Any, exponent: float) -> Any:
        return (errors + 1e-30) ** exponent  # the slope of a root is infinite at 0

    def entropy(self, y: Any, p: Any, beta: float) -> Any:
        terms = beta * y * ops.log(p) + (1 - beta) * (1 - y) * ops.log1p(-p)
        return -self.over_classes(self.voxel_mean(terms))

    def _combo(self, y: Any, p: Any, h: dict) -> Any:
        dice = 1 - self._dsc(y, p, h)
        return h["alpha"] * self.entropy(y, p, h["beta"]) - (1 - h["alpha"]) * dice

    def _unified_focal(self, y: Any, p: Any, h: dict) -> Any:
        counts = self.counts(y, p, h["gamma"])
        errors = self.errors(counts, 1 - h["delta"], h["delta"], h["epsilon"])
        tversky = self.over_classes(self.rooted(errors, h["focal_gamma"]))
        share = h["lambda_"]
        return share * tversky + (1 - share) * self.asymmetric_focal(y, p, h)

    def rooted(self, errors: Any, focal_gamma: float) -> Any:
        roots = self.root(errors, focal_gamma)
        first = roots if self.name.startswith("Symmetric") else errors
        return ops.concatenate([first[:, :1], roots[:, 1:]], axis=-1)

    def root(self, errors: Any, focal_gamma: float) -> Any:
        return self.power(errors, 1 - focal_gamma)

    def asymmetric_focal(self, y: Any, p: Any, h: dict) -> Any:
        factors = self.far(y, p) ** h["focal_gamma"]
        others = factors if self.name.startswith("Symmetric") else 1 + 0 * p
        factors = ops.concatenate([factors[..., :1], others[..., 1:]], axis=-1)
        terms = self.voxel_mean(factors * y * ops.log(p))
        background, foreground = (1 - h["delta"]) * terms[:, :1], h["delta"] * terms
        weighted = ops.concatenate([background, foreground[:, 1:]], axis=-1)
        return -self.class_sum(weighted)


class ClassesOnTheWrongAxis(Textbook):
    def over_voxels(self, terms: Any) -> Any:
        for axis in reversed(range(2, len(terms.shape))):
            terms = ops.sum(terms, axis=axis)
        return terms


class SumOverClasses(Textbook):
    def over_classes(self, values: Any) -> Any:
        return self.class_sum(values)


class MeanOverBatch(Textbook):
    def over_voxels(self, terms: Any) -> Any:
        sums = super().over_voxels(terms)
        return ops.mean(sums, axis=0, keepdims=True) + 0 * sums


class OneRatioForAll(Textbook):
    """Keras' `Dice` as it comes: batch and classes in one ratio."""

    def _dsc(self, y: Any, p: Any, h: dict) -> Any:
        errors = ops.sum(y * (1 - p) + (1 - y) * p)
        return errors / (2 * ops.sum(y * p) + errors + h["epsilon"])


class SwappedWeights(Textbook):
    def errors(self, counts: Any, alpha: float, beta: float, e: float) -> Any:
        return super().errors(counts, beta, alpha, e)


class NoClip(Textbook):
    def clip(self, p: Any) -> Any:
        return p


class ClipTooFarIn(Textbook):
    def clip(self, p: Any) -> Any:
        return ops.clip(p, 1e-5, 1 - 1e-5)


class ClipBeforeTheCast(Textbook):
    def prepare(self, y: Any, p: Any) -> tuple[Any, Any]:
        clipped = self.clip(p)  # 1 - 1e-7 is 1 in float16
        return ops.cast(y, "float32"), ops.cast(clipped, "float32")


class HalfPrecision(Textbook):
    def prepare(self, y: Any, p: Any) -> tuple[Any, Any]:
        return ops.cast(y, p.dtype), self.clip(p)


class Float32Alone(Textbook):
    def prepare(self, y: Any, p: Any) -> tuple[Any, Any]:
        return super().prepare(y, ops.cast(p, "float32"))


class GammaOnTruePositives(Textbook):
    def counts(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        _, fn, fp = super().counts(y, p, g)
        return self.over_voxels(y * p**g), fn, fp


class GammaOutsideTheSum(Textbook):
    def counts(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        tp, fn, fp = super().counts(y, p, 1.0)
        return tp, fn**g, fp**g


class GammaOnMissedAlone(Textbook):
    def counts(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        return (*super().counts(y, p, g)[:2], super().counts(y, p, 1.0)[2])


class GammaStaysAtTwo(Textbook):
    def counts(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        return super().counts(y, p, 2.0)


class PowerOfTheProduct(Textbook):
    def counts(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        terms = (y * p, (y * (1 - p)) ** g, ((1 - y) * p) ** g)
        return tuple(self.over_voxels(x) for x in terms)


class EpsilonBelowAlone(Textbook):
    def errors(self, counts: Any, alpha: float, beta: float, e: float) -> Any:
        tp, fn, fp = counts
        return 1 - tp / (tp + alpha * fp + beta * fn + e)


class EpsilonAboveToo(Textbook):
    def errors(self, counts: Any, alpha: float, beta: float, e: float) -> Any:
        tp, fn, fp = counts
        wrong = alpha * fp + beta * fn
        return (wrong + e) / (tp + wrong + e)


class OneMinusTheIndex(Textbook):
    def errors(self, counts: Any, alpha: float, beta: float, e: float) -> Any:
        tp, fn, fp = counts
        return 1 - (tp + e) / (tp + alpha * fp + beta * fn + e)


class NoFloorUnderTheRoot(Textbook):
    def power(self, errors: Any, exponent: float) -> Any:
        return errors**exponent


class ReleasedPower(OneMinusTheIndex):
    def root(self, errors: Any, focal_gamma: float) -> Any:
        return errors * errors**-focal_gamma  # NaN where the index is 1


class LambdaOnTheFocalPart(Textbook):
    def _unified_focal(self, y: Any, p: Any, h: dict) -> Any:
        return super()._unified_focal(y, p, {**h, "lambda_": 1 - h["lambda_"]})


class RootOnEveryClass(Textbook):
    def rooted(self, errors: Any, focal_gamma: float) -> Any:
        return self.root(errors, focal_gamma)


class RareClassIsTheLast(Textbook):
    def rooted(self, errors: Any, focal_gamma: float) -> Any:
        roots = self.root(errors, focal_gamma)
        return ops.concatenate([errors[:, :-1], roots[:, -1:]], axis=-1)


class ExponentNotInverted(Textbook):
    def _focal_tversky(self, y: Any, p: Any, h: dict) -> Any:
        return super()._focal_tversky(y, p, {**h, "focal_gamma": 1 / h["focal_gamma"]})


class FirstVoxelWeighsMore(Textbook):
    def over_voxels(self, terms: Any) -> Any:
        return super().over_voxels(terms) + terms[:, 0, 0]


class FirstClassWeighsMore(Textbook):
    def over_classes(self, values: Any) -> Any:
        return super().over_classes(values) + 0.1 * values[:, 0]


class PlusTheCoefficient(Textbook):
    def _combo(self, y: Any, p: Any, h: dict) -> Any:
        entropy = h["alpha"] * self.entropy(y, p, h["beta"])
        return entropy + (1 - h["alpha"]) * (1 - self._dsc(y, p, h))


class AsEquation14Prints(Textbook):
    def entropy(self, y: Any, p: Any, beta: float) -> Any:
        terms = -beta * y * ops.log(p) + (1 - beta) * (1 - y) * ops.log1p(-p)
        return self.over_classes(self.voxel_mean(terms))


class MeanOverAllVoxels(Textbook):
    def voxel_mean(self, terms: Any) -> Any:
        voxels = terms.shape[1] * terms.shape[2]
        return self.over_voxels(terms) / voxels


class MeanOverAtLeastOneVoxel(Textbook):
    def voxel_mean(self, terms: Any) -> Any:
        voxels = self.over_voxels(1 + 0 * terms)
        return self.over_voxels(terms) / ops.maximum(voxels, 1.0)


class WeightInMeansAlone(Textbook):
    def counts(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        weight, self.weight = self.weight, 1 + 0 * self.weight
        counts = super().counts(y, p, g)
        self.weight = weight
        return counts


class BackgroundVoxelsLeftOut(Textbook):
    def counts(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        seen = 1 - y[..., :1] if self.first else 1.0
        return super().counts(seen * y, seen * p, g)


class RoundsLabels(Textbook):
    def prepare(self, y: Any, p: Any) -> tuple[Any, Any]:
        return super().prepare(ops.round(y), p)


class VoxelsWithoutClassLeftOut(Textbook):
    def prepare(self, y: Any, p: Any) -> tuple[Any, Any]:
        y, p = super().prepare(y, p)
        return y, p * ops.sum(y, axis=-1, keepdims=True)


class GradientOfHalf(Textbook):
    def prepare(self, y: Any, p: Any) -> tuple[Any, Any]:
        y, p = super().prepare(y, p)
        return y, 0.5 * p + 0.5 * ops.stop_gradient(p)


class OneValuePerVoxel(Textbook):
    def _ce(self, y: Any, p: Any, h: dict) -> Any:
        return -ops.sum(y * ops.log(p), axis=-1)


class SoftLabelsAreNotReached(Textbook):
    def soft_terms(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        return y * p, (y * (1 - p)) ** g, ((1 - y) * p) ** g


class SquaredDifferences(Textbook):
    """Errors below p = y and above it in both counts."""

    def soft_terms(self, y: Any, p: Any, g: float) -> tuple[Any, Any, Any]:
        hits, _, _ = super().soft_terms(y, p, g)
        return hits, (y - p) ** 2 / 2, (y - p) ** 2 / 2


class FactorOfOneMinusP(Textbook):
    def far(self, y: Any, p: Any) -> Any:
        return 1 - p


FAULTS = [
    (ClassesOnTheWrongAxis, "DSC", "values_agree"),
    (SumOverClasses, "DSC++", "values_agree"),
    (SumOverClasses, "Unified Focal", "values_agree"),
    (MeanOverBatch, "DSC", "images_are_independent"),
    (OneRatioForAll, "DSC", "images_are_independent"),
    (OneRatioForAll, "DSC", "values_agree"),
    (SwappedWeights, "Tversky", "values_agree"),
    (SwappedWeights, "Focal Tversky++", "values_agree"),
    (SwappedWeights, "Symmetric Unified Focal", "values_agree"),
    (NoClip, "CE", "finite_at_all_wrong"),
    (NoClip, "CE", "wrong_predictions_are_clipped_at_1e_7"),
    (NoClip, "Combo", "finite_at_perfect_prediction"),
    (ClipTooFarIn, "CE", "wrong_predictions_are_clipped_at_1e_7"),
    (ClipTooFarIn, "DSC++", "values_agree_where_p_is_extreme"),
    (ClipBeforeTheCast, "Combo", "float16_is_computed_in_float32"),
    (HalfPrecision, "DSC++", "bfloat16_is_computed_in_float32"),
    (Float32Alone, "DSC", "values_agree"),
    (GammaOnTruePositives, "DSC++", "values_agree"),
    (GammaOutsideTheSum, "Tversky++", "values_agree"),
    (GammaOnMissedAlone, "DSC++", "values_agree"),
    (GammaStaysAtTwo, "DSC++", "gamma_1_is_the_plain_loss"),
    (GammaStaysAtTwo, "Combo++", "values_agree_with_other_hyperparameters"),
    (PowerOfTheProduct, "DSC++", "gradients_are_finite_with_gamma_below_1"),
    (EpsilonBelowAlone, "DSC", "absent_classes_cost_what_epsilon_says"),
    (EpsilonAboveToo, "Tversky", "absent_classes_cost_what_epsilon_says"),
    (OneMinusTheIndex, "DSC++", "values_agree_where_p_is_extreme"),
    (NoFloorUnderTheRoot, "Focal Tversky", "a_mask_is_as_if_voxels_were_absent"),
    (ReleasedPower, "Unified Focal++", "finite_at_perfect_prediction"),
    (LambdaOnTheFocalPart, "Unified Focal", "values_agree_with_other_hyperparameters"),
    (RootOnEveryClass, "Unified Focal++", "values_agree"),
    (RareClassIsTheLast, "Unified Focal", "class_order_is_irrelevant"),
    (ExponentNotInverted, "Focal Tversky", "values_agree"),
    (FirstVoxelWeighsMore, "CE", "voxel_order_is_irrelevant"),
    (FirstClassWeighsMore, "DSC", "class_order_is_irrelevant"),
    (PlusTheCoefficient, "Combo", "errors_never_pay"),
    (AsEquation14Prints, "Combo++", "errors_never_pay"),
    (MeanOverAllVoxels, "CE", "a_mask_is_as_if_voxels_were_absent"),
    (MeanOverAtLeastOneVoxel, "CE", "scale_of_weights_is_irrelevant"),
    (WeightInMeansAlone, "Combo", "a_mask_is_as_if_voxels_were_absent"),
    (BackgroundVoxelsLeftOut, "DSC", "background_can_be_ignored"),
    (RoundsLabels, "DSC", "soft_labels_follow_the_formula"),
    (SoftLabelsAreNotReached, "DSC++", "soft_labels_can_be_reached"),
    (SquaredDifferences, "Tversky++", "soft_labels_can_be_reached"),
    (FactorOfOneMinusP, "Focal", "soft_labels_can_be_reached"),
    (VoxelsWithoutClassLeftOut, "DSC", "values_agree_on_voxels_without_class"),
    (GradientOfHalf, "CE", "gradients_agree"),
    (OneValuePerVoxel, "CE", "values_agree"),
]
"""(fault, the loss that has it, a check that must catch it)"""
