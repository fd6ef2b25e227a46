"""What to do with probabilities: where to cut them, and how large a structure is.

From histograms, (..., 2, B), see `histograms.count`; `confidence`, (..., B), is the
mean probability in each bin. A voxel is positive at a threshold where p >= threshold;
the thresholds here are the lower edges of the bins, so that every count is exact.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipelines.measure.histograms import THRESHOLDS, bin_of_threshold
from pipelines.measure.metrics import ratio

_Floats = npt.NDArray[np.float64]


def _from(values: npt.ArrayLike) -> _Floats:
    """Sum over a bin and all above it, (..., B)."""
    array = np.asarray(values, dtype=np.float64)
    sums: _Floats = np.cumsum(array[..., ::-1], axis=-1)[..., ::-1]
    return sums


def positives(counts: npt.ArrayLike) -> _Floats:
    """Count positive voxels at each threshold, (..., B)."""
    return _from(np.asarray(counts).sum(axis=-2))


def dice(counts: npt.ArrayLike) -> _Floats:
    """Compute Dice at each threshold, (..., B), in [0, 1]; NaN where 0 / 0."""
    right = _from(np.asarray(counts)[..., 1, :])
    return ratio(2 * right, positives(counts) + right[..., :1])


def has_foreground(counts: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Tell which histograms have true voxels, (...)."""
    return np.asarray(np.asarray(counts)[..., 1, :].any(axis=-1))


def best_threshold(
    classes: Sequence[npt.NDArray[np.int64]], edges: _Floats
) -> tuple[float, float] | None:
    """Choose of `THRESHOLDS` the one with the best mean Dice.

    Of each class the mean is over the cases that have it: the same cases at every
    threshold. It is then averaged over the classes that occur. Where nothing is true,
    Dice is 0 if any voxel is positive, and undefined if none is: such cases would
    favour a threshold at which they drop out of the mean.

    Args:
        classes: of each class the histograms of its cases, (cases, 2, B).
        edges: of the bins, (B + 1,).

    Returns:
        The threshold and the mean Dice there; None where no case has a class.
    """
    bins = [bin_of_threshold(edges, threshold) for threshold in THRESHOLDS]
    used = [counts[has_foreground(counts)] for counts in classes]
    curves = [dice(counts)[:, bins].mean(axis=0) for counts in used if len(counts)]
    if not curves:
        return None
    means = np.mean(curves, axis=0)
    at = best(means, THRESHOLDS)
    return float(THRESHOLDS[at]), float(means[at])


def best(dice: npt.ArrayLike, thresholds: npt.ArrayLike) -> int:
    """Choose the threshold with the best Dice, of equal ones the nearest to 0.5.

    Args:
        dice: mean Dice at each threshold, (T,).
        thresholds: (T,).

    Returns:
        Its number.
    """
    means = np.asarray(dice, dtype=np.float64)
    # The last bits of a mean must not decide.
    equal = np.flatnonzero(means >= means.max() - 1e-12)
    nearest = np.abs(np.asarray(thresholds)[equal] - 0.5).argmin()
    return int(equal[nearest])


def expected_volume(counts: npt.ArrayLike, confidence: npt.ArrayLike) -> _Floats:
    """Sum the probabilities, (...), in voxels."""
    n = np.asarray(counts).sum(axis=-2)
    volume: _Floats = (n * np.asarray(confidence, np.float64)).sum(axis=-1)
    return volume


def expected_dice(counts: npt.ArrayLike, confidence: npt.ArrayLike) -> _Floats:
    """Compute Dice at each threshold if the probabilities are right, (..., B).

    2 sum_{p >= t} p / (positives + sum p): the ratio of the expected numerator and
    denominator, which for many voxels is near the expectation of the ratio. Its
    largest value over t decodes an image without its label (RankSEG of Dai and Li,
    2023, takes the expectation itself). The true labels in `counts` are not used.
    """
    n = np.asarray(counts).sum(axis=-2)
    right = _from(n * np.asarray(confidence, np.float64))
    return ratio(2 * right, _from(n) + right[..., :1])


def false_negatives(counts: npt.ArrayLike) -> _Floats:
    """Compute the share of true voxels missed at each threshold, (..., B).

    It never falls from one threshold to the next. NaN where nothing is true.
    """
    right = _from(np.asarray(counts)[..., 1, :])
    return 1 - ratio(right, right[..., :1])


def conformal(missed: npt.ArrayLike, alpha: float) -> int | None:
    """Choose a threshold whose expected share of missed voxels is at most `alpha`.

    Conformal risk control (Angelopoulos et al. 2022, Eq. 4): the largest threshold
    with (sum of the cases' shares + 1) / (n + 1) <= alpha. It holds on average over
    draws of these cases and of a new one, if all are exchangeable.

    Args:
        missed: from `false_negatives`, (cases, B); cases with NaN are left out.
        alpha: the share wanted, in (0, 1).

    Returns:
        Number of the bin whose lower edge it is. None if no threshold above the first
        one fits: at the first edge, 0, everything is marked. So it is where
        n + 1 < 1 / alpha.
    """
    shares = np.asarray(missed, dtype=np.float64)
    shares = shares[~np.isnan(shares).any(axis=-1)]
    bound = (shares.sum(axis=0) + 1) / (len(shares) + 1)
    fitting = np.flatnonzero(bound <= alpha)
    return int(fitting[-1]) if len(fitting) and fitting[-1] else None


def aurc(
    risk: Sequence[float] | _Floats, confidence: Sequence[float] | _Floats
) -> float:
    """Compute the area under the risk-coverage curve (Geifman et al. 2019).

    The mean over k of the mean risk of the k cases of highest confidence.

    Args:
        risk: of each case, such as 1 - Dice, (n,); cases with NaN are left out.
        confidence: of each case, (n,), such as the expected Dice.

    Returns:
        In the range of the risk; NaN without cases.
    """
    values, order = np.asarray(risk, float), np.argsort(-np.asarray(confidence))
    values = values[order][~np.isnan(values[order])]
    if not len(values):
        return float("nan")
    return float((np.cumsum(values) / np.arange(1, len(values) + 1)).mean())
