"""Measures of one image: NLL, Brier, Dice, Jaccard, precision, recall.

NLL and Brier come in two forms. The published form is what the paper's released code
computes, and so what its tables print; the corrected form is what the names promise.
Both stand in every row, under names of their own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "COLUMNS",
    "COUNTS",
    "EPSILON",
    "METRICS",
    "PAPER_COLUMN",
    "CaseMetrics",
    "case_metrics",
    "overlap_scores",
    "probability_slabs",
]

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

# Resizing softmax values may leave [0, 1] by a rounding error; more is a mistake.
_TOLERANCE = 1e-5
_SUM_TOLERANCE = 1e-2
# About 8 MB a temporary array: a volume of 1e8 voxels needs no more than a photograph.
_SLAB_VOXELS = 1 << 20

_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float64]


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
    """

    def __init__(self, targets: Sequence[int]) -> None:
        self._sums: dict[int, list[dict[str, float]]] = {t: [] for t in targets}
        self._n_classes = 0

    def add(
        self,
        label: npt.ArrayLike,
        probabilities: npt.ArrayLike,
        mask: npt.ArrayLike | None = None,
    ) -> None:
        """Add a part of the image; arguments and errors as for `case_metrics`."""
        label, probabilities = np.asarray(label), np.asarray(probabilities)
        for target in self._sums:
            _check_case(label, probabilities, target)
        self._n_classes = probabilities.shape[-1]
        for (y,), p in probability_slabs(label, probabilities, mask=mask):
            for target, sums in _sums(y, p, list(self._sums)).items():
                self._sums[target].append(sums)

    def of(self, target: int) -> dict[str, float]:
        """Measure what was added, for one of the targets; see `case_metrics`.

        Raises:
            ValueError: nothing was added.
        """
        parts = self._sums[target]
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
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "jaccard": _ratio(tp, tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
    }


def probability_slabs(
    *arrays: _Array, mask: npt.ArrayLike | None = None
) -> Iterator[tuple[list[_Array], _Array]]:
    """Cut label maps and their probabilities into slabs along the first axis.

    A slab holds about a million voxels, so that the temporary arrays of a measure stay
    small whatever the size of the volume.

    Args:
        *arrays: label maps (*spatial), then, last, probabilities in [0, 1], (*spatial)
            or (*spatial, C).
        mask: voxels to keep, bool, (*spatial); None keeps all of them.

    Yields:
        The label maps, each (n,), and the probabilities, (n,) or (n, C), of one slab,
        inside the mask only.

    Raises:
        ValueError: shapes that do not fit, an empty mask, probabilities that are NaN or
            outside [0, 1].
    """
    *labels, probabilities = arrays
    shape = labels[0].shape
    keep = _checked_mask(mask, shape)
    for position, other in enumerate(labels[1:], start=2):
        _check_shape(f"label map {position}", other.shape, shape)
    _check_shape("probabilities", probabilities.shape[: len(shape)], shape)
    rows = max(1, _SLAB_VOXELS // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        part = np.s_[start : start + rows]
        # A mask of everything, as that of a volume is, needs no picking.
        chosen = None if keep is None or keep[part].all() else keep[part]
        cut = [_chosen(array[part], chosen, len(shape)) for array in arrays]
        _check_range(cut[-1])
        yield cut[:-1], cut[-1]


def _chosen(array: _Array, mask: _Array | None, spatial_axes: int) -> _Array:
    """Flatten the spatial axes, keeping the voxels in the mask."""
    if mask is None:
        return array.reshape(-1, *array.shape[spatial_axes:])
    return array[mask]


def _sums(
    label: _Array, probabilities: _Array, targets: Sequence[int]
) -> dict[int, dict[str, float]]:
    """Sum everything `CaseMetrics` needs over the voxels of one slab.

    Args:
        label: true classes, (n,).
        probabilities: softmax values, (n, C).
        targets: the classes to measure.

    Returns:
        By target, sums over the voxels, named after the metric they lead to.
    """
    _check_classes(label, probabilities)
    categorical = _categorical_sums(label, probabilities)
    predicted = probabilities.argmax(axis=-1)
    return {
        target: {
            **_counts(label == target, predicted == target),
            **_target_sums(label, label == target, probabilities, target),
            **categorical,
        }
        for target in targets
    }


def _counts(truth: _Array, predicted: _Array) -> dict[str, float]:
    return {
        "n_voxels": truth.size,
        "n_foreground": int(np.count_nonzero(truth)),
        "n_predicted": int(np.count_nonzero(predicted)),
        "true_positives": int(np.count_nonzero(truth & predicted)),
    }


def _target_sums(
    label: _Array, truth: npt.NDArray[np.bool_], probabilities: _Array, target: int
) -> dict[str, float]:
    """Sum NLL and Brier of the target's channel, published and corrected."""
    p = _as_float64(probabilities[:, target])
    clipped = np.clip(p, EPSILON, 1 - EPSILON)
    log_p = np.log(clipped)
    squares = np.square(truth - p).sum()
    published = {
        "nll_published": -log_p[truth].sum(),
        "brier_published": squares,
    }
    if probabilities.shape[-1] > 2:
        # The notebooks put the label map itself where the one-hot truth belongs.
        published = {
            "nll_published": -(label * log_p).sum(),
            "brier_published": np.square(label - p).sum(),
        }
    missed = np.log1p(-clipped[~truth]).sum()
    return published | {"nll": -log_p[truth].sum() - missed, "brier": squares}


def _categorical_sums(label: _Array, probabilities: _Array) -> dict[str, float]:
    """Sum Eq. 1 and Eq. 11 over all classes."""
    nll = brier = 0.0
    for index in range(probabilities.shape[-1]):
        truth, p = label == index, _as_float64(probabilities[:, index])
        nll -= np.log(np.clip(p[truth], EPSILON, 1 - EPSILON)).sum()
        brier += np.square(truth - p).sum()
    return {"nll_categorical": nll, "brier_categorical": brier}


def _as_float64(p: _Array) -> _Floats:
    """Widen before summing, and take off what rounding left outside [0, 1]."""
    return np.clip(p.astype(np.float64), 0.0, 1.0)


def _ratio(numerator: _Floats, denominator: _Floats) -> _Floats:
    """Divide; 0 / 0 is NaN, without a warning, since it is foreseen."""
    undefined = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _check_case(label: _Array, probabilities: _Array, target: int) -> None:
    """Check kinds and numbers of axes and the target before anything is summed."""
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
    """Check that labels are classes and that probabilities add up to 1."""
    n_classes = probabilities.shape[-1]
    if not label.size:
        return
    if label.min() < 0 or label.max() >= n_classes:
        raise ValueError(
            f"label: expected classes 0 to {n_classes - 1}, received {label.min()} to "
            f"{label.max()}."
        )
    error = np.abs(sum(probabilities[:, c] for c in range(n_classes)) - 1).max()
    if error > _SUM_TOLERANCE:
        raise ValueError(
            "probabilities: expected a sum of 1 over the classes, received a sum that "
            f"is off by {error:.3g}."
        )


def _check_range(probabilities: _Array) -> None:
    """Check for [0, 1]; NaN fails, as no comparison with it is true."""
    if not probabilities.size:
        return
    low, high = probabilities.min(), probabilities.max()
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise ValueError(
            f"probabilities: expected values in [0, 1], received {low} to {high}."
        )


def _check_shape(
    name: str, received: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    if received != expected:
        raise ValueError(
            f"{name}: expected spatial shape {expected}, that of the label, received "
            f"{received}."
        )


def _checked_mask(
    mask: npt.ArrayLike | None, shape: tuple[int, ...]
) -> npt.NDArray[np.bool_] | None:
    """Return the mask as an array, after checking that there is something in it."""
    if mask is None:
        if not math.prod(shape):
            raise ValueError(f"label: expected voxels, received shape {shape}.")
        return None
    array = np.asarray(mask)
    _check_shape("mask", array.shape, shape)
    # A mask of 0 and 255 would pick rows by index, not voxels.
    if array.dtype != np.bool_:
        raise ValueError(f"mask: expected bool, received {array.dtype}.")
    if not array.any():
        raise ValueError("mask: expected at least one voxel inside, received none.")
    return array
