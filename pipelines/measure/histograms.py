"""Counts of the predicted probability given the label: all of calibration in 2 kB.

One histogram per case, region and target answers for every threshold, reliability
diagram and calibration error without another prediction. Bins are even in logit, since
losses such as Dice push nearly all probabilities close to 0 or 1, and the softmax
thresholds are among the edges, so that the counts at a threshold are exact. Beside the
counts stands the mean probability in each bin, so that the confidence of a bin is what
the network said, not the bin's centre.

What the functions take, each the same: `edges` of the bins, (B + 1,), from 0 to 1; `p`,
probabilities, (n,), in [0, 1]; `bins`, their numbers from `bins_of`, (n,); `counts`,
histograms, (..., 2, B), voxels by truth and bin.
"""

import functools
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from data_io.errors import InputError
from data_io.files import archives
from pipelines.measure import voxels
from pipelines.measure.metrics import overlap_scores

_Array = npt.NDArray[Any]
_Counts = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

THRESHOLDS: _Floats = np.arange(1, 20) / 20
"""Softmax thresholds of section 2.7 and Fig. 5: 0.05, 0.10, ..., 0.95."""

_LOGIT_LIMIT = 16  # logit(1e-7) = -16.1: beyond lies what float32 calls 0 or 1
_BINS_PER_LOGIT = 4


def _edges() -> _Floats:
    """Make the edges: even in logit, joined by the thresholds, from 0 to 1."""
    logits = np.arange(_LOGIT_LIMIT * _BINS_PER_LOGIT, 0, -1) / _BINS_PER_LOGIT
    # Twelve digits: the last bits of exp differ between machines, the edges must not.
    low = [float(f"{1 / (1 + math.exp(x)):.12g}") for x in logits]
    high = [1 - edge for edge in low]
    return np.unique([0.0, *low, *THRESHOLDS, *high, 1.0])


EDGES: _Floats = _edges()
"""Edges of the B bins, (B + 1,), from 0 to 1: bins [e_i, e_i+1), the last closed."""

EDGES.flags.writeable = THRESHOLDS.flags.writeable = False

N_BINS = len(EDGES) - 1
_SHIFT = 16  # half the bits of a float32


def count(
    probability: npt.ArrayLike,
    *labels: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
) -> _Counts:
    """Count voxels by label and bin of probability.

    Args:
        probability: probability of the target, (*spatial), in [0, 1].
        *labels: of each observer 1 where the truth is the target, else 0; integer or
            bool, (*spatial).
        mask: voxels to use, bool, (*spatial); None uses all of them.

    Returns:
        Counts, (2 ** labels, B), whose sum is the number of voxels used. The first
        label varies slowest: rows 0, 1 of one observer, 00, 01, 10, 11 of two.

    Raises:
        ValueError: shapes that do not fit, an empty mask, values out of range.
    """
    maps, p = [_checked_label(label) for label in labels], np.asarray(probability)
    voxels.check_shape("probability", p.shape, maps[0].shape)
    total = np.zeros((2 ** len(maps), N_BINS), dtype=np.int64)
    keep = voxels.check_mask(mask, p.shape)
    for cut, values in voxels.blocks(maps, p, keep):
        total += count_bins(bins_of(values), [label.astype(np.bool_) for label in cut])
    return total


def bins_of(p: _Array) -> _Array:
    """Find the bin of each probability: (n,), intp; see `_edges_in`."""
    if p.dtype != np.float32:
        dtype = np.promote_types(p.dtype, np.float16)
        return np.searchsorted(_edges_in(dtype), p.astype(np.float64), side="right")
    first, bins = _cells()
    spread = _place(p)
    cell = (spread.view(np.uint32) >> _SHIFT).astype(np.intp)
    higher = spread >= first.take(cell)
    cell *= 2
    cell += higher
    return bins.take(cell).astype(np.intp)


def _edges_in(dtype: np.dtype[Any]) -> _Floats:
    """Return the lowest number of each bin but the first, of a type: (B - 1,).

    A threshold is rounded to the type, as `metrics.predicted` does: a stored 0.7 is at
    least 0.7. Of the other edges it is the next number that is not below the edge.
    """
    inner = EDGES[1:-1]
    rounded = inner.astype(dtype)
    above = np.where(rounded < inner, np.nextafter(rounded, dtype.type(1)), rounded)
    lowest = np.where(np.isin(inner, THRESHOLDS), rounded, above)
    return np.asarray(lowest, np.float64)


def _place(p: _Array) -> _Array:
    """Spread out the float32 near 1 as those near 0 are: by their distance from it."""
    # From p > 1/2 it takes 1 + 2^-23. Nothing is rounded, since both are multiples of
    # 2^-24 and the difference is below 1. So p <= 1/2 stay, the others become negative,
    # and within each half the order is as it was.
    spread = np.rint(p)
    spread *= np.float32(1 + 2**-23)
    return np.subtract(p, spread, out=spread)


@functools.cache
def _cells() -> tuple[_Array, _Array]:
    """Make the table in which bins are looked up instead of searched for.

    A cell is all places that have their first 16 bits in common: sign, and magnitude to
    a part in 128. That is narrower than any bin, so one edge at most lies in it.

    Returns:
        By cell, the lowest place that belongs to a higher bin, infinity if none does,
        float32; and twice by cell, the bin below that and the bin from there on, uint8.
    """
    edges = _place(_edges_in(np.dtype(np.float32)).astype(np.float32))
    bits, half = np.arange(1 << _SHIFT, dtype=np.uint32) << _SHIFT, 1 << (_SHIFT - 1)
    # Negative places rise as their magnitudes, and so their bits, fall.
    bits[half:] |= (1 << _SHIFT) - 1
    lowest = bits.view(np.float32)
    bins = np.searchsorted(np.sort(edges), lowest, side="right")
    # That has the negative places first; they come last.
    negative = np.count_nonzero(edges < 0)
    bins[:half] -= negative
    bins[half:] += edges.size - negative
    table = np.repeat(bins.astype(np.uint8), 2)
    first = np.full(bits.size, np.inf, np.float32)
    for number, lower_edge in enumerate(edges, start=1):
        cell = int(lower_edge.view(np.uint32)) >> _SHIFT
        if lower_edge > lowest[cell]:
            # Where two edges lie between two float32, the later number stays.
            first[cell], table[2 * cell + 1] = lower_edge, number
    return first, table


def count_bins(bins: _Array, labels: Sequence[npt.NDArray[np.bool_]]) -> _Counts:
    """Count voxels by labels and bin.

    Args:
        bins: of the voxels.
        labels: where the truth is the target, (n,) each, of any number of observers.

    Returns:
        Counts, (2 ** labels, B); the first label varies slowest.
    """
    if not labels:
        return np.bincount(bins, minlength=N_BINS)[np.newaxis]
    # Few voxels are the target: count these, and take them off the whole.
    first, *others = labels
    there = count_bins(bins[first], [label[first] for label in others])
    return np.concatenate([count_bins(bins, others) - there, there])


def sum_bins(bins: _Array, p: _Array) -> _Floats:
    """Sum up the probability in each bin: (B,), float64."""
    return np.asarray(np.bincount(bins, p, N_BINS), np.float64)


def bin_of_threshold(edges: _Floats, threshold: float) -> int:
    """Return the index of the bin, (B + 1,) `edges`, that begins at a threshold."""
    return int(np.abs(edges[:-1] - threshold).argmin())


def centres(edges: npt.ArrayLike = EDGES) -> _Floats:
    """Give the middle of each bin, (B,): half-way in logit; of the outermost in p."""
    edges = np.asarray(edges, dtype=np.float64)
    middle = (edges[:-1] + edges[1:]) / 2
    inner = edges[1:-1]
    logits = np.log(inner) - np.log1p(-inner)
    middle[1:-1] = 1 / (1 + np.exp(-(logits[:-1] + logits[1:]) / 2))
    return middle


def _checked_label(label: npt.ArrayLike) -> _Array:
    array = np.asarray(label)
    if array.ndim == 0 or array.dtype.kind not in "iub":
        raise ValueError(
            "label: expected integers or bool with at least one axis, received "
            f"{array.dtype} of shape {array.shape}."
        )
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"label: expected 0 and 1, received {array.min()} to {array.max()}; "
            "compare a label map with the target first."
        )
    return array


def confusion(
    counts: npt.ArrayLike, threshold: float, edges: npt.ArrayLike = EDGES
) -> tuple[_Counts, _Counts, _Counts, _Counts]:
    """Count right and wrong voxels at a threshold, exactly.

    Positive is p >= threshold: Eq. 10 corrected, which has the comparison the other
    way round. At 0.5 this differs from argmax where p is 0.5 exactly: argmax then
    takes the background.

    Args: the module's, and
        threshold: one of the edges, to 1e-9; all of `THRESHOLDS` are.

    Returns:
        True positives, false positives, false negatives, true negatives, each (...).

    Raises:
        ValueError: counts that do not fit the edges; a threshold that is no edge.
    """
    counts, edges = np.asarray(counts), np.asarray(edges)
    if counts.ndim < 2 or counts.shape[-2:] != (2, len(edges) - 1):
        raise ValueError(
            f"counts: expected shape (..., 2, {len(edges) - 1}), received "
            f"{counts.shape}."
        )
    # 0.05 * 3 is not 0.15 to the last bit; the threshold meant is the edge.
    index = int(np.abs(edges - threshold).argmin())
    if not abs(edges[index] - threshold) <= 1e-9:
        raise ValueError(
            "threshold: expected an edge of the bins, such as 0.05, 0.10, ..., 0.95, "
            f"received {threshold}."
        )
    below, above = counts[..., :index].sum(axis=-1), counts[..., index:].sum(axis=-1)
    return above[..., 1], above[..., 0], below[..., 1], below[..., 0]


def threshold_metrics(
    counts: npt.ArrayLike,
    thresholds: Sequence[float] | _Floats = THRESHOLDS,
    edges: npt.ArrayLike = EDGES,
) -> dict[str, _Floats]:
    """Compute Dice, Jaccard, precision and recall at each threshold (Fig. 5).

    Args: the module's, such as counts (K, 2, B) of K cases, and
        thresholds: edges to cut at, (T,).

    Returns:
        "dice", "jaccard", "precision", "recall", each (..., T), in [0, 1]; NaN where
        undefined, as in `metrics.overlap_scores`.

    Raises:
        ValueError: as in `confusion`.
    """
    parts = [confusion(counts, float(threshold), edges) for threshold in thresholds]
    tp, fp, fn, _ = (np.stack(part, axis=-1) for part in zip(*parts, strict=True))
    return overlap_scores(tp, fp, fn)


_KEYS = ("case", "split", "region", "reference", "target")
_PAIR_KEYS = ("pair_case", "pair_split", "pair_region", "pair_target")


@dataclass(frozen=True, eq=False)
class Histograms:
    """The histograms of one run, as they stand in histograms.npz.

    Attributes:
        edges: edges of the bins, (B + 1,).
        case, split, region, reference, target: text, (K,), as in cases.csv.
        counts: (K, 2, B), see `count`.
        means: mean probability of the voxels in each bin, (K, B), float32; NaN where a
            bin is empty; None in files from before it was kept.
        pair_case, pair_split, pair_region, pair_target: text, (K2,); K2 = 0 where no
            case has a second observer.
        pair_counts: (K2, 4, B), see `count`.
    """

    edges: _Floats
    case: _Array
    split: _Array
    region: _Array
    reference: _Array
    target: _Array
    counts: _Counts
    pair_case: _Array
    pair_split: _Array
    pair_region: _Array
    pair_target: _Array
    pair_counts: _Counts
    means: _Array | None = None

    def __post_init__(self) -> None:
        """Check that everything fits together.

        Raises:
            ValueError: arrays of unequal length; counts that do not fit the edges.
        """
        n_bins = len(self.edges) - 1
        self._check("counts", _KEYS, (2, n_bins))
        self._check("pair_counts", _PAIR_KEYS, (4, n_bins))
        expected = (len(self.counts), n_bins)
        if self.means is not None and self.means.shape != expected:
            raise ValueError(
                f"means: expected shape {expected}, received {self.means.shape}."
            )

    def confidence(self) -> _Floats:
        """Return mean p in each bin, (K, B), float64: the bin's centre if unknown.

        Unknown are the bins that are empty, and all bins of files without `means`.
        """
        middle = np.broadcast_to(centres(self.edges), self.counts[:, 0].shape)
        if self.means is None:
            return middle
        return np.where(np.isnan(self.means), middle, self.means.astype(np.float64))

    def _check(self, name: str, keys: tuple[str, ...], shape: tuple[int, int]) -> None:
        counts = getattr(self, name)
        expected = (len(counts), *shape)
        if counts.shape != expected or counts.dtype.kind != "i":
            raise ValueError(
                f"{name}: expected integers of shape {expected}, received "
                f"{counts.dtype} of shape {counts.shape}."
            )
        for key in keys:
            array = getattr(self, key)
            if array.shape != (len(counts),) or array.dtype.kind != "U":
                raise ValueError(
                    f"{key}: expected text of shape {(len(counts),)}, as {name} has, "
                    f"received {array.dtype} of shape {array.shape}."
                )

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Mapping[str, object]],
        pairs: Sequence[Mapping[str, object]] = (),
    ) -> Self:
        """Stack histograms that were counted one by one, with `EDGES`.

        Args:
            rows: mappings with case, split, region, reference, target, counts (2, B)
                and, in all of them or in none, sums (B,), from `count_bins` and
                `sum_bins`; other keys are left out.
            pairs: mappings with case, split, region, target and counts (4, B).

        Returns:
            The histograms, in the order given.

        Raises:
            KeyError: a key is missing.
            ValueError: counts of another shape.
        """
        keys = {key: _texts(rows, key) for key in _KEYS}
        pair_keys = {
            key: _texts(pairs, key.removeprefix("pair_")) for key in _PAIR_KEYS
        }
        counts = _stacked(rows, 2)
        return cls(
            edges=EDGES,
            counts=counts,
            means=_means(rows, counts.sum(axis=1)),
            pair_counts=_stacked(pairs, 4),
            **keys,
            **pair_keys,
        )

    def where(self, **wanted: str) -> npt.NDArray[np.bool_]:
        """Tell which rows match, such as `split="test"`.

        Args:
            **wanted: any of case, split, region, reference, target.

        Returns:
            bool, (K,).
        """
        match = np.ones(len(self.counts), dtype=np.bool_)
        for key, value in wanted.items():
            match &= getattr(self, key) == value
        return match

    def part(self, split: str) -> Self:
        """Return the histograms of one part of the split alone."""
        rows, pairs = self.split == split, self.pair_split == split
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, values in kept.items():
            if name != "edges" and values is not None:
                kept[name] = values[pairs if name.startswith("pair_") else rows]
        return type(self)(**kept)


def joined(parts: Sequence[Histograms]) -> Histograms:
    """Join histograms with the same edges, in the order given.

    Raises:
        ValueError: some keep mean probabilities and others do not, or other edges.
    """
    if any(not np.array_equal(histogram.edges, parts[0].edges) for histogram in parts):
        raise ValueError("edges: expected the same in all histograms, received others.")
    kept: dict[str, Any] = {"edges": parts[0].edges}
    for field in fields(Histograms):
        values = [getattr(histogram, field.name) for histogram in parts]
        if field.name != "edges" and not all(value is None for value in values):
            kept[field.name] = np.concatenate(values)
    return Histograms(**kept)


def _texts(rows: Sequence[Mapping[str, object]], key: str) -> _Array:
    return np.array([str(row[key]) for row in rows], dtype=np.str_)


def _stacked(rows: Sequence[Mapping[str, object]], n_labels: int) -> _Counts:
    """Stack the counts of the rows, (K, n_labels, B), also where K is 0."""
    empty = np.zeros((0, n_labels, len(EDGES) - 1), dtype=np.int64)
    return np.concatenate([empty, *(np.asarray(row["counts"])[None] for row in rows)])


def _means(rows: Sequence[Mapping[str, object]], voxels: _Counts) -> _Array | None:
    """Average p in each bin, (K, B), NaN where it is empty; None: no sums.

    `voxels` are the counts in each bin, (K, B).
    """
    if not any("sums" in row for row in rows):
        return None
    means = np.full(voxels.shape, np.nan, dtype=np.float32)
    for mean, row, n in zip(means, rows, voxels, strict=True):
        sums = np.asarray(row["sums"], dtype=np.float64)
        np.divide(sums, n, out=mean, where=n > 0, casting="same_kind")
    return means


def save(file: Path | str | BinaryIO, histograms: Histograms) -> None:
    """Write histograms as .npz: the same histograms give the same bytes.

    Args:
        file: where to write; a path is overwritten. Writing aside and renaming is the
            caller's business.
        histograms: what to write.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for field in fields(histograms):
            value = getattr(histograms, field.name)
            if value is None:
                continue
            array = io.BytesIO()
            np.lib.format.write_array(array, value, allow_pickle=False)
            # numpy.savez would write the time of day into the file.
            entry = zipfile.ZipInfo(f"{field.name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, array.getbuffer())


def load(file: Path | str | BinaryIO) -> Histograms:
    """Read histograms that `save` wrote. Nothing in the file is ever executed.

    Args:
        file: the .npz file.

    Returns:
        The histograms, with the edges they were counted with.

    Raises:
        InputError: no such file, damaged, or not a file of histograms.
    """
    names = [field.name for field in fields(Histograms)]
    damage = (*archives.DAMAGED, OSError, KeyError, ValueError)
    try:
        with zipfile.ZipFile(file) as archive:
            if "means.npy" not in archive.namelist():
                names.remove("means")
            return Histograms(**{name: _member(archive, name) for name in names})
    except damage as error:
        raise InputError(
            f"{file}: expected the histograms of a run, received a file that cannot be "
            f"read as such ({error}). Measure again: `dscpp evaluate --again`."
        ) from error


def _member(archive: zipfile.ZipFile, name: str) -> _Array:
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)
