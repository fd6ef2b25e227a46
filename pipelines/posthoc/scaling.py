"""Scaling after a training: a run in, a run out, fitted on the validation cases.

A temperature (Guo et al., 2017) divides the logits of a network: above 1 probabilities
move towards each other, below 1 apart; the order of the classes, and with it Dice,
stays. It is fitted on the probabilities themselves. `maps` has the other methods, which
are fitted on the run's histograms.

What a run keeps are probabilities at native size (of volumes on the network's grid).
All methods scale these: after an image was brought back to its size, and before a
volume is. Histograms of volumes are at native size, so a map does not fit these quite.

The scaled run lies beside the run, `<run>-<method>`. It keeps what was fitted and no
probabilities: `pipelines.runs.predictions` scales those of the run where they are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from data_io import bars, datasets
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from data_io.prepare import native_grid
from pipelines.measure import calibration, histograms
from pipelines.posthoc import maps, threshold
from pipelines.runs import predictions
from pipelines.runs import run as runs
from pipelines.runs.predictions import SMALLEST, scale

TEMPERATURE = "temperature"
METHODS = (TEMPERATURE, *maps.METHODS)
BOUNDS = (0.05, 20.0)
"""Temperatures that are looked at."""

_TOLERANCE = 1e-4  # of log T
_LEAST = 1e-9  # of the NLL: with less, all temperatures are equal
_SLICES = 16  # of a volume, evenly spread: 4 million voxels of 512x512

_Array = npt.NDArray[Any]


class AtBound(InputError):
    """The best temperature lies at `BOUNDS`: nothing is scaled by it."""


_AT_BOUND = (  # what it means, for each of `BOUNDS`
    "lower ones are as good or better. For example, the most probable class is the "
    "true one in every voxel: give more cases, or harder ones",
    "higher ones are as good or better. For example, the probabilities are 0 and 1 "
    "alone and some are wrong, or have nothing to do with the labels",
)


@dataclass(frozen=True)
class Fit:
    """A fitted temperature.

    Attributes:
        temperature: T, above 0.
        nll_before: mean of -log p of the true class over the voxels used, at T = 1.
        nll_after: the same at T.
        cases: validation cases used.
        n_voxels: voxels used.
    """

    temperature: float
    nll_before: float
    nll_after: float
    cases: int
    n_voxels: int


def best(nll: Callable[[float], float]) -> float:
    """Find the temperature within `BOUNDS` at which a function is lowest.

    Args:
        nll: of a temperature; with one minimum.
    """
    minimum = optimize.minimize_scalar(
        lambda log_temperature: nll(float(np.exp(log_temperature))),
        bounds=np.log(BOUNDS),
        method="bounded",
        options={"xatol": _TOLERANCE},
    )
    return float(np.exp(minimum.x))


def of_histograms(run: runs.Run, method: str) -> dict[str, Any]:
    """Fit a method of `maps` on a run's validation histograms.

    Returns:
        `maps`, the parameters of each class but the background; `nll_before` and
        `nll_after`, the NLL of a class against the others over all voxels and classes,
        with the mean p of each bin; `cases` and `n_voxels`.

    Raises:
        InputError: a run that is not evaluated, files that are not the run's, no
            validation case, or a class that all or none of its voxels are.
    """
    run.require("evaluated", f"dscpp evaluate --run {run.folder}")
    run.require_measures()
    histogram = histograms.load(run.path("histograms.npz"))
    rows = histogram.where(**threshold.OF_RUN)
    cases = len(np.unique(histogram.case[rows]))
    if not cases:
        raise InputError(
            f"{run.folder}: expected histograms of validation cases to fit a map on, "
            "found none; train with another split"
        )
    counts, p = histogram.counts[rows], histogram.confidence()[rows]
    q, fitted = np.empty_like(p), []
    for target in dict.fromkeys(histogram.target[rows]):
        of_class = histogram.target[rows] == target
        if lacks := maps.lacking(counts[of_class]):
            raise InputError(
                f"{run.folder}: expected validation voxels with and without {target} "
                f"to fit a map on, found none {lacks} it in {cases} cases; train with "
                "a split that has both, or use `dscpp temperature`, which is fitted "
                "on all classes together"
            )
        fitted.append(maps.fit(method, counts[of_class], p[of_class]))
        q[of_class] = maps.mapped(method, p[of_class], fitted[-1])
    before, after = (
        calibration.scores(
            calibration.join(counts, values, histogram.edges, None).pooled()
        )
        for values in (p, q)
    )
    return {
        "maps": fitted,
        "nll_before": float(f"{before['nll']:.6g}"),
        "nll_after": float(f"{after['nll']:.6g}"),
        "cases": cases,
        "n_voxels": int(counts.sum()) // len(fitted),
    }


def fit(run: runs.Run, root: Path) -> Fit:
    """Find the temperature with the lowest NLL on a run's validation cases.

    The NLL is that of all classes (Eq. 1), over all voxels of the images together; of
    volumes, over evenly spread slices at native resolution.

    Args:
        run: a predicted run, with its probabilities.
        root: the data set's folder.

    Returns:
        The fit.

    Raises:
        InputError: no validation case; no probabilities here.
        AtBound: a best temperature at the bounds.
    """
    module = datasets.by_name(run.record["dataset"])
    cases = run.record["split"]["validation"]
    if not cases:
        raise InputError(
            f"{run.folder}: expected validation cases to fit a temperature on, found "
            "none in its split; train with another split"
        )
    return fitted([Sample.read(run, module, root, case) for case in cases], run.folder)


def fitted(samples: Sequence[Sample], source: Path) -> Fit:
    """Find the temperature with the lowest NLL over samples; see `fit`.

    Args:
        samples: one a case.
        source: where they are from, for the bar and the message.

    Returns:
        The fit; T = 1 where another lowers the NLL by less than `_LEAST`.

    Raises:
        AtBound: as `fit`.
    """
    with bars.bar(desc=f"{source.name} {TEMPERATURE}", total=28) as bar:

        def nll(temperature: float) -> float:
            bar.update()
            return _nll(samples, temperature)

        temperature = best(nll)
        before = nll(1.0)
        lowest = nll(temperature)
        if before < lowest + _LEAST:
            temperature, lowest = 1.0, -np.inf
        for bound, meaning in zip(BOUNDS, _AT_BOUND, strict=True):
            if nll(bound) < lowest + _LEAST:
                raise AtBound(
                    f"{source}: expected a best temperature between {BOUNDS[0]} and "
                    f"{BOUNDS[1]}, found {bound}: {meaning}"
                )
    # The same to the last digit that is written, on every machine.
    temperature = float(f"{temperature:.4g}")
    return Fit(
        temperature=temperature,
        nll_before=float(f"{before:.6g}"),
        nll_after=float(f"{_nll(samples, temperature):.6g}"),
        cases=len(samples),
        n_voxels=sum(sample.label.size for sample in samples),
    )


@dataclass(frozen=True)
class Sample:
    """What a temperature is fitted on in one case.

    `softmax` is as the run keeps it. `label` is all of an image, or those `slices` of a
    volume of native `shape`.
    """

    softmax: _Array
    label: _Array
    shape: tuple[int, ...] | None = None
    slices: Sequence[int] = ()

    @classmethod
    def read(cls, run: runs.Run, module: Dataset, root: Path, case: str) -> Sample:
        """Read what a run keeps of a case, and its label."""
        label = next(iter(module.references(root, case).values()))
        if not module.record(root).is_3d:
            return cls(predictions.probabilities(run, case, label.shape), label)
        softmax, _ = predictions.volume(run, module, root, case)
        count = min(_SLICES, label.shape[0])
        # The middle of each of `count` equal parts.
        slices = [int((part + 0.5) * label.shape[0] / count) for part in range(count)]
        return cls(softmax, label[slices], label.shape, slices)

    def scaled(self, temperature: float) -> Iterator[tuple[_Array, _Array]]:
        """Yield labels and scaled probabilities, slice by slice."""
        softmax = scale(self.softmax, temperature)
        if self.shape is None:
            yield self.label, softmax
            return
        for label, number in zip(self.label, self.slices, strict=True):
            yield label, native_grid.plane(softmax, self.shape, number)


def _nll(samples: Sequence[Sample], temperature: float) -> float:
    """Average -log p of the true class over all voxels."""
    total, voxels = 0.0, 0
    for sample in samples:
        for label, softmax in sample.scaled(temperature):
            index = label[..., np.newaxis].astype(np.intp)
            p = np.take_along_axis(softmax, index, axis=-1)
            total -= float(np.log(np.maximum(p, SMALLEST)).sum(dtype=np.float64))
            voxels += label.size
    return total / voxels


def folder_of(run: runs.Run, method: str = TEMPERATURE) -> Path:
    """Return the folder of a scaled run, `<run>-<method>`, beside the run."""
    return run.folder.with_name(f"{run.folder.name}-{method}")


def trained(run: runs.Run) -> runs.Run:
    """Return the run whose network gives a run's probabilities.

    Returns:
        Of a scaled run what it was made from, beside it; else the run itself.

    Raises:
        InputError: no such run beside it, one whose weights are others than those that
            the method was fitted to, or a run without a network.
    """
    if run.method not in METHODS:
        run.require_network()
        return run
    origin = runs.Run.open(run.trained)
    if model_of(origin) != run.record["posthoc"]["model"]:
        raise InputError(
            f"{run.folder}: expected the weights in {origin.folder} to be those that "
            f"its {run.method} was fitted to, found others; run `{run.remake()}`"
        )
    return origin


def make(
    run: runs.Run, root: Path, output: Path, method: str = TEMPERATURE
) -> runs.Run:
    """Fit a method and write the scaled run, which keeps no probabilities.

    Args:
        run: a predicted run, with its probabilities, held by the caller.
        root: the data set's folder.
        output: the new run's folder, held by the caller.
        method: one of `METHODS`.

    Returns:
        The new run, in state "predicted": its record is the run's, with `method` and
        what was fitted under `posthoc`.

    Raises:
        InputError: as `fit` or `of_histograms`.
    """
    start = time.perf_counter()
    module = datasets.by_name(run.record["dataset"])
    # All are looked at before anything is written.
    for _, case in predictions.cases(run):
        predictions.as_kept(run, module, root, case)
    is_map = method in maps.METHODS
    parameters = of_histograms(run, method) if is_map else asdict(fit(run, root))
    origin = {"run": run.name, "model": model_of(run), **parameters}
    origin["probabilities"] = predictions.listed(run)
    if run.method:  # an ensemble
        method, origin["trained"] = f"{run.method} + {method}", run.trained.name
    return write(run, output, method, origin, start)


def write(
    run: runs.Run, output: Path, method: str, origin: dict[str, Any], start: float
) -> runs.Run:
    """Begin the run that a method makes of others, in state "predicted".

    Args:
        run: whose record it has, but for what is of the training alone.
        output: its folder, held by the caller.
        method: what it is called in tables.
        origin: its `posthoc`. Where another one is in place, what was made of that
            one's probabilities is deleted.
        start: of the work, by `time.perf_counter`.
    """
    kept = {key: value for key, value in run.record.items() if key not in _OWN}
    added = {"method": method, "posthoc": origin, "times": {}, "files": {}}
    before = runs.Run.open(output).record if runs.is_run(output) else {}
    if before.get("posthoc") != origin:
        former = added | {"files": before.get("files", {})}
        predictions.discard_derived(runs.Run(output, former))
    new = runs.Run.create(output, kept | added)
    seconds = round(time.perf_counter() - start, 1)
    new.update(state="predicted", times={"fit_s": seconds})
    return new


# Of the training alone: the new run has its own, or none.
_OWN = ("times", "files", "state", "peak_memory_mb")


def model_of(run: runs.Run) -> str:
    """Return the SHA-256 of a run's weights, "" where it names none.

    Of an ensemble one over those of its members.
    """
    made_from = run.record.get("posthoc", {}).get("model", "")
    return str(run.record.get("files", {}).get(runs.MODEL, made_from))
