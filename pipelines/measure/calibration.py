"""Calibration from histograms: reliability diagrams, ECE, ACE, MCE, Murphy's parts.

All of it follows from how often the target is true in each bin of its probability p.
With n_k voxels in bin k of N, o_k the share of them that is the target and f_k their
mean p:

    ECE = sum_k n_k / N |o_k - f_k|      weights: shares of voxels
    ACE = mean over the bins that hold a voxel of |o_k - f_k|
    MCE = largest |o_k - f_k| of the bins that hold a voxel

These are class-wise: p is the probability of one class, whether or not it is the
largest. (Guo et al. 2017 bin the probability of the predicted class instead.) ACE is
the *average* calibration error (Neumann et al. 2018); others write ACE for the
*adaptive* one (Nixon et al. 2019), whose bins hold equally many voxels each. Bins are
20 of width 0.05, `WIDE`, as is usual, or the histograms' own. An empty bin has weight
0 in ECE and is left out of ACE and MCE. `ece`, `ace` and `mce` take the bins of any
number of histograms, (..., M), and give (...), in [0, 1], NaN where there is no voxel.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.measure.histograms import EDGES, THRESHOLDS
from pipelines.measure.metrics import EPSILON, ratio

_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float64]

WIDE: _Floats = np.array([0.0, *THRESHOLDS, 1.0])
"""Edges of the 20 bins of width 0.05, (21,): all are edges of the histograms."""

WIDE.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Bins:
    """How often the target is true in bins of its probability.

    Attributes:
        n: voxels in each bin, (..., M).
        target: those of them that are the target, (..., M); fractions of a voxel where
            observers disagree, see `mean_label`.
        sum_p: sum of p over the voxels of each bin, (..., M).
    """

    n: _Floats
    target: _Floats
    sum_p: _Floats

    @property
    def confidence(self) -> _Floats:
        """Mean p in each bin, (..., M); NaN where there is no voxel."""
        return ratio(self.sum_p, self.n)

    @property
    def frequency(self) -> _Floats:
        """Share of the target in each bin, (..., M); NaN where there is no voxel."""
        return ratio(self.target, self.n)

    @property
    def weight(self) -> _Floats:
        """Share of all voxels, (..., M); NaN where there is no voxel in any bin."""
        return ratio(self.n, self.n.sum(axis=-1, keepdims=True))

    def pooled(self, axis: int | tuple[int, ...] = 0) -> "Bins":
        """Put the voxels of several histograms together, such as those of a set.

        Args:
            axis: over which to sum; not the last, which holds the bins.
        """
        return Bins(
            self.n.sum(axis=axis), self.target.sum(axis=axis), self.sum_p.sum(axis=axis)
        )


def join(
    counts: npt.ArrayLike,
    confidence: npt.ArrayLike,
    edges: npt.ArrayLike = EDGES,
    wanted: npt.ArrayLike | None = WIDE,
) -> Bins:
    """Join the fine bins of histograms to wider ones, exactly.

    Args:
        counts: histograms, (..., 2, B): voxels by truth and bin.
        confidence: mean p in each fine bin, (..., B), from `Histograms.confidence`.
        edges: edges of the fine bins, (B + 1,).
        wanted: edges of the bins wanted, (M + 1,), from 0 to 1, each among `edges` to
            1e-9; None keeps the fine ones.

    Returns:
        The bins, (..., M).

    Raises:
        ValueError: shapes that do not fit; an edge wanted that is none of the edges.
    """
    counts = np.asarray(counts, dtype=np.float64)
    confidence, edges = np.asarray(confidence, dtype=np.float64), np.asarray(edges)
    shape = (*counts.shape[:-2], len(edges) - 1)
    if counts.shape[-2:] != (2, len(edges) - 1) or confidence.shape != shape:
        raise ValueError(
            f"counts: expected shape (..., 2, {len(edges) - 1}) and confidence "
            f"(..., {len(edges) - 1}), received {counts.shape} and {confidence.shape}."
        )
    n = counts.sum(axis=-2)
    fine = Bins(n, counts[..., 1, :], n * confidence)
    if wanted is None:
        return fine
    starts = _starts(edges, np.asarray(wanted, dtype=np.float64))
    return Bins(
        *(
            np.add.reduceat(values, starts, axis=-1)
            for values in (fine.n, fine.target, fine.sum_p)
        )
    )


def _starts(edges: _Array, wanted: _Floats) -> list[int]:
    """Find where each wanted bin begins among the fine ones."""
    nearest = [int(np.abs(edges - edge).argmin()) for edge in wanted]
    if not np.all(np.abs(edges[nearest] - wanted) <= 1e-9) or (
        nearest[0] != 0 or nearest[-1] != len(edges) - 1 or np.any(np.diff(nearest) < 1)
    ):
        raise ValueError(
            "wanted: expected rising edges from 0 to 1, each an edge of the "
            f"histograms, such as 0, 0.05, ..., 1, received {wanted}."
        )
    return nearest[:-1]


def mean_label(pair_counts: npt.ArrayLike) -> _Floats:
    """Turn counts by two observers' labels into counts by the mean of both labels.

    A voxel that one observer alone marked counts half as target.

    Args:
        pair_counts: of two observers, from `histograms.count`, (..., 4, B), rows 00,
            01, 10, 11.

    Returns:
        Counts, (..., 2, B), with halves.

    Raises:
        ValueError: not four rows.
    """
    array = np.asarray(pair_counts, dtype=np.float64)
    if array.ndim < 2 or array.shape[-2] != 4:
        raise ValueError(
            f"pair_counts: expected shape (..., 4, B), received {array.shape}."
        )
    none, second, first, both = np.moveaxis(array, -2, 0)
    half = (first + second) / 2
    return np.stack([none + half, both + half], axis=-2)


def ece(bins: Bins) -> _Floats:
    """Compute the expected calibration error, (...)."""
    gaps = np.abs(bins.target - bins.sum_p).sum(axis=-1)
    return ratio(gaps, bins.n.sum(axis=-1))


def ace(bins: Bins) -> _Floats:
    """Compute the average calibration error, (...): bins with a voxel weigh alike."""
    held = (bins.n > 0).sum(axis=-1)
    return ratio(np.nan_to_num(_gaps(bins)).sum(axis=-1), held)


def mce(bins: Bins) -> _Floats:
    """Compute the maximum calibration error, (...), over the bins with a voxel."""
    largest = np.nan_to_num(_gaps(bins), nan=-1.0).max(axis=-1)
    return np.where(largest < 0, np.nan, largest)


def scores(bins: Bins) -> dict[str, _Floats]:
    """Compute NLL and Brier score with the mean p of a bin for all its voxels.

    Of the histograms' own bins, 0.25 wide in logit, the NLL is off by about 0.1 % or
    less.

    Returns:
        "nll" and "brier" as in `metrics.case_metrics`, each (...); NaN where there is
        no voxel.
    """
    p, n_other = np.nan_to_num(bins.confidence), bins.n - bins.target
    right = np.clip(np.stack([1 - p, p]), EPSILON, 1 - EPSILON)
    nll = -(np.log(right) * np.stack([n_other, bins.target])).sum(axis=0)
    squares = bins.target * (1 - p) ** 2 + n_other * p**2
    n = bins.n.sum(axis=-1)
    summed = {"nll": nll, "brier": squares}
    return {name: ratio(sums.sum(axis=-1), n) for name, sums in summed.items()}


def _gaps(bins: Bins) -> _Floats:
    return np.abs(bins.frequency - bins.confidence)


def murphy(bins: Bins, brier: npt.ArrayLike) -> dict[str, _Floats]:
    """Take the Brier score apart (Murphy 1973; Stephenson et al. 2008).

    With o the share of the target among all N voxels:

        Brier = reliability - resolution + uncertainty + within_bins
        reliability = sum_k n_k / N (f_k - o_k)^2   what recalibration can mend
        resolution  = sum_k n_k / N (o_k - o)^2     how far the bins are told apart
        uncertainty = o (1 - o)                     of the truth, whatever p says
        within_bins = what p does inside the bins: the variance of p there less twice
                      its covariance with the truth, sums over voxels divided by N

    Take the histograms' own bins: within them p hardly varies, and the last part, which
    is computed as what is left, is small.

    Args:
        bins: of any number of histograms, (..., M).
        brier: mean((y - p)^2) over the same voxels, (...).

    Returns:
        "reliability", "resolution", "uncertainty", "within_bins", each (...); NaN where
        there is no voxel.
    """
    total = bins.n.sum(axis=-1)
    share = ratio(bins.target.sum(axis=-1), total)
    squares = {
        "reliability": _gaps(bins) ** 2,
        "resolution": (bins.frequency - share[..., np.newaxis]) ** 2,
    }
    parts = {
        name: ratio((bins.n * np.nan_to_num(square)).sum(axis=-1), total)
        for name, square in squares.items()
    }
    parts["uncertainty"] = share * (1 - share)
    explained = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    return parts | {"within_bins": np.asarray(brier, dtype=np.float64) - explained}
