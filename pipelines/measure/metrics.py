"""Measures of one image: NLL, Brier, Dice, Jaccard, precision, recall.

NLL and Brier come in two forms. The published form is what the paper's released code
computes, and so what its tables print; the corrected form is what the names promise.
Both stand in every row, under names of their own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.measure import voxels

EPSILON = 1e-7
"""Probabilities are clipped to [EPSILON, 1 - EPSILON] before a logarithm."""

COUNTS = ("n_voxels", "n_foreground", "n_predicted")

METRICS = (
    "nll_published",
    "brier_published",
    "nll",
    "brier",
    "nll_categorical",
    "brier_categorical",
    "dice",
    "jaccard",
    "precision",
    "recall",
)

COLUMNS = COUNTS + METRICS
"""The keys of `case_metrics`, in order."""

PAPER_COLUMN: Mapping[str, str] = {
    "nll": "nll_published",
    "brier": "brier_published",
    "dice": "dice",
    "jaccard": "jaccard",
    "precision": "precision",
    "recall": "recall",
}
"""The name in the paper's tables, and the column of ours that it is compared with."""

_SUM_TOLERANCE = 1e-2

_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float64]
_Sums = dict[str, float]


def case_metrics(
    label: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    target: int,
    mask: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Measure the prediction of one image for one class.

    With y = 1 where the label is `target`, p the probability of `target`, C the number
    of classes and means over the voxels inside the mask:

    | key | value |
    |---|---|
    | n_voxels, n_foreground, n_predicted | counts: all, truth, argmax prediction |
    | nll_published | -mean(y log p): "all foreground" scores 0 |
    | brier_published | mean((y - p)^2) |
    | nll | -mean(y log p + (1 - y) log(1 - p)) |
    | brier | mean((y - p)^2) |
    | nll_categorical | Eq. 1: -mean(sum_c y_c log p_c) |
    | brier_categorical | Eq. 11: mean((y_c - p_c)^2) over voxels and classes |
    | dice, jaccard, precision, recall | of the argmax labels |

    The two published forms follow the released notebooks. With more than two classes
    (KiTS19) these put the label map itself, 0, 1, 2, ..., where y belongs, so a perfect
    prediction does not score 0 there.

    Argmax takes the lower class where two probabilities are equal, so p = 0.5 exactly
    is background here, but positive at threshold 0.5 in `histograms` (p >= T).

    Args:
        label: true classes, integers in [0, C), shape (*spatial).
        probabilities: softmax values in [0, 1], shape (*spatial, C), C >= 2.
        target: the class to measure, in [0, C).
        mask: voxels to use, bool, shape (*spatial); None uses all of them.

    Returns:
        The keys of `COLUMNS`, in order; counts are int. Undefined is NaN, never 0 or 1:
        precision where nothing is predicted, recall where nothing is true, Dice and
        Jaccard where both are empty.

    Raises:
        ValueError: shapes that do not fit, an empty mask, labels or probabilities out
            of range.
    """
    case = CaseMetrics([target])
    case.add(label, probabilities, mask)
    return case.of(target)


class CaseMetrics:
    """The measures of one image for several classes, from parts of it.

    A volume at native resolution is too large to be held; its parts are given one
    after the other, each once, and are not kept.

    Args:
        targets: the classes to measure.
        threshold: what is predicted is `predicted` at it; None: the argmax.
    """

    def __init__(self, targets: Sequence[int], threshold: float | None = None) -> None:
        self._threshold = threshold
        self._parts: dict[int, list[_Sums]] = {target: [] for target in targets}
        self._n_classes = 0

    def add(
        self,
        label: npt.ArrayLike,
        probabilities: npt.ArrayLike,
        mask: npt.ArrayLike | None = None,
    ) -> None:
        """Add a part of the image; arguments and errors as for `case_metrics`."""
        label, probabilities = np.asarray(label), np.asarray(probabilities)
        self.check(label, probabilities)
        keep = voxels.check_mask(mask, label.shape)
        for (y,), p in voxels.blocks([label], probabilities, keep):
            self.add_block(y, p)

    def check(self, label: _Array, probabilities: _Array) -> None:
        """Check kinds and numbers of axes and the targets before anything is summed.

        Raises:
            ValueError: they do not fit; says what was expected.
        """
        for target in self._parts:
            _check_case(label, probabilities, target)

    def add_block(self, label: _Array, probabilities: _Array) -> None:
        """Add voxels that `voxels.blocks` gave, of arrays that were checked.

        Args:
            label: true classes, (n,).
            probabilities: softmax values, classes first, (C, n).

        Raises:
            ValueError: labels that are no classes; probabilities that do not add up
                to 1.
        """
        self._n_classes = len(probabilities)
        chosen = predicted(probabilities, self._threshold)
        sums_of = _sums(label, probabilities, chosen, list(self._parts))
        for target, sums in sums_of.items():
            self._parts[target].append(sums)

    def join(self, other: "CaseMetrics") -> None:
        """Add what was added to another one, of the same targets."""
        self._n_classes = other._n_classes or self._n_classes
        for target, sums in other._parts.items():
            self._parts[target] += sums

    def of(self, target: int) -> dict[str, float]:
        """Measure what was added, for one of the targets; see `case_metrics`.

        Raises:
            ValueError: nothing was added.
        """
        parts = self._parts[target]
        if not parts:
            raise ValueError("case: expected at least one part, received none.")
        total = {name: math.fsum(part[name] for part in parts) for name in parts[0]}
        n, tp = total["n_voxels"], total["true_positives"]
        true, predicted = total["n_foreground"], total["n_predicted"]
        result: dict[str, float] = {name: int(total[name]) for name in COUNTS}
        result |= {name: total[name] / n for name in METRICS if name in total}
        result["brier_categorical"] /= self._n_classes
        scores = overlap_scores(tp, predicted - tp, true - tp)
        return result | {name: float(value) for name, value in scores.items()}


def overlap_scores(
    tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike
) -> dict[str, _Floats]:
    """Compute Dice, Jaccard (Eq. 12), precision and recall from counts.

    Args:
        tp: true positives, >= 0, any shape.
        fp: false positives, of the same shape.
        fn: false negatives, of the same shape.

    Returns:
        "dice", "jaccard", "precision", "recall", each of that shape, in [0, 1]; NaN
        where the denominator is 0: both empty (Dice, Jaccard), nothing predicted
        (precision), nothing true (recall).
    """
    tp, fp, fn = (np.asarray(count, dtype=np.float64) for count in (tp, fp, fn))
    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "jaccard": ratio(tp, tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
    }


def _sums(
    label: _Array, probabilities: _Array, chosen: _Array, targets: Sequence[int]
) -> dict[int, _Sums]:
    """Sum over the voxels of one block by target, named after the metrics."""
    _check_classes(label, probabilities)
    marked = np.flatnonzero(label)
    sums_of: dict[int, _Sums] = {}
    nll = brier = 0.0
    for index, p in enumerate(probabilities):
        is_class = label == index
        error, log_right = _errors(is_class, p)
        squares = float(np.square(error).sum())
        nll -= _sum_where(log_right, is_class)
        brier += squares
        if index not in targets:
            continue
        sums = {"nll": float(-log_right.sum()), "brier": squares}
        if len(probabilities) > 2:
            # Elsewhere both labels, the map's and one-hot, are 0; of class 0 nowhere.
            where = marked if index else slice(None)
            sums |= _published(label[where], p[where], error[where], squares)
        else:
            sums["nll_published"] = -_sum_where(log_right, is_class)
            sums["brier_published"] = squares
        sums_of[index] = _counts(is_class, chosen == index) | sums
    categorical = {"nll_categorical": nll, "brier_categorical": brier}
    return {target: sums | categorical for target, sums in sums_of.items()}


def _errors(is_class: npt.NDArray[np.bool_], p: _Array) -> tuple[_Floats, _Floats]:
    """Compute |y - p|, and the log of the probability given to what is true.

    That is log(1 - |y - p|), of p or 1 - p: one logarithm a voxel.
    """
    error = np.subtract(is_class, p, dtype=np.float64)
    np.abs(error, out=error)
    log_right = np.clip(error, EPSILON, 1 - EPSILON)
    np.negative(log_right, out=log_right)
    return error, np.log1p(log_right, out=log_right)


def _sum_where(values: _Floats, where: npt.NDArray[np.bool_]) -> float:
    """Sum the chosen values, picking the fewer voxels of the two kinds."""
    # No digits are lost: what is taken off is log(1 - p) of voxels of other classes,
    # and no less than log p of those classes, which is in the same sum.
    if 2 * np.count_nonzero(where) > where.size:
        return float(values.sum() - values[~where].sum())
    return float(values[where].sum())


def _published(label: _Array, p: _Array, error: _Floats, squares: float) -> _Sums:
    """Sum NLL and Brier as published, of three and more classes, where label is not 0.

    The notebooks put the label map itself where the one-hot truth belongs. `squares` is
    the sum of (y - p)^2 over all voxels.
    """
    p = p.astype(np.float64)
    changed = np.square(label - p) - np.square(error)
    log_p = np.log(np.clip(p, EPSILON, 1 - EPSILON))
    return {
        "nll_published": float(-(label * log_p).sum()),
        "brier_published": squares + float(changed.sum()),
    }


def predicted(probabilities: _Array, threshold: float | None = None) -> _Array:
    """Choose class numbers from probabilities.

    Args:
        probabilities: classes first, (C, ...), in [0, 1].
        threshold: None for the most probable class. Else the most probable class but
            background where its probability is at least this (Eq. 10, whose comparison
            is printed the wrong way round), and background elsewhere.

    Returns:
        (...), unsigned integers; the lower class of two that are equally probable.
    """
    if threshold is None:
        return _argmax(probabilities)
    foreground = probabilities[1:]
    likeliest = _argmax(foreground) + np.uint8(1)
    # In the precision of the probabilities: a stored 0.7 is at least 0.7.
    is_certain = foreground.max(axis=0) >= foreground.dtype.type(threshold)
    return np.where(is_certain, likeliest, 0).astype(likeliest.dtype)


def _argmax(probabilities: _Array) -> _Array:
    """Find the most probable class, (n,); the lower one of two that are equal."""
    best = probabilities[0]
    classes = np.zeros(best.shape, np.min_scalar_type(len(probabilities) - 1))
    for index, p in enumerate(probabilities[1:], start=1):
        # Of a higher class than all before: the larger number is the newer one.
        np.maximum(classes, (p > best) * classes.dtype.type(index), out=classes)
        best = np.maximum(best, p)
    return classes


def _counts(is_class: _Array, predicted: _Array) -> _Sums:
    return {
        "n_voxels": is_class.size,
        "n_foreground": int(np.count_nonzero(is_class)),
        "n_predicted": int(np.count_nonzero(predicted)),
        "true_positives": int(np.count_nonzero(is_class & predicted)),
    }


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> _Floats:
    """Divide; 0 / 0 is NaN, without a warning, since it is foreseen."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _check_case(label: _Array, probabilities: _Array, target: int) -> None:
    if label.ndim == 0 or label.dtype.kind not in "iub":
        raise ValueError(
            "label: expected integer classes with at least one axis, received "
            f"{label.dtype} of shape {label.shape}."
        )
    if probabilities.ndim != label.ndim + 1 or probabilities.shape[-1] < 2:
        raise ValueError(
            f"probabilities: expected shape {label.shape} + (C,) with C >= 2, received "
            f"{probabilities.shape}."
        )
    n_classes = probabilities.shape[-1]
    if not 0 <= target < n_classes:
        raise ValueError(f"target: expected 0 to {n_classes - 1}, received {target}.")


def _check_classes(label: _Array, probabilities: _Array) -> None:
    n_classes = len(probabilities)
    if label.min() < 0 or label.max() >= n_classes:
        raise ValueError(
            f"label: expected classes 0 to {n_classes - 1}, received {label.min()} to "
            f"{label.max()}."
        )
    total = probabilities.sum(axis=0)
    error = max(total.max() - 1, 1 - total.min())
    if error > _SUM_TOLERANCE:
        raise ValueError(
            "probabilities: expected a sum of 1 over the classes, received a sum that "
            f"is off by {error:.3g}."
        )
