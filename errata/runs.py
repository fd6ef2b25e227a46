"""Entries measured on the committed runs: on their `cases.csv` and `history.csv`.

Each entry names its runs, those of seed 0, so a new run does not change a number. A run
that is trained again does; `make tables` measures these entries again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from data_io.errors import InputError
from errata.registry import RESULTS, Row, measured
from pipelines.measure import histograms, statistics
from pipelines.measure.metrics import EPSILON

LOSSES = {"CE": "ce", "DSC": "dsc", "DSC++": "dscpp"}
DRIVE, DSB, KITS = (
    f"{name}/reduced" for name in ("drive", "dsb2018", "kits19-simulated")
)
NAMES = {"nll": "NLL", "brier": "Brier", "dice": "Dice"}
TUMOUR = "phantom kidney tumour"


def column(
    group: str, loss: str, name: str, region: str = "image", target: str = ""
) -> np.ndarray:
    """Return one measure of all test cases of a committed run, by observer 1.

    Args:
        group: such as "drive/reduced".
        loss: a key of `LOSSES`.
        name: a column of `cases.csv`.
        region: where it was measured.
        target: the class, where there are several.

    Returns:
        float64 (cases,); NaN where undefined.
    """
    cases = _cases(_file(group, loss, "cases.csv"))
    wanted = cases["region"] == region
    if target:
        wanted &= cases["target"] == target
    return cases.loc[wanted, name].to_numpy(np.float64)


@cache
def _cases(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path)
    return rows.query("split == 'test' and reference == 'observer1'")


def _file(group: str, loss: str, name: str) -> Path:
    """Return the path of a file of a committed run.

    Raises:
        InputError: the file is missing.
    """
    path = RESULTS / group / "runs" / f"{LOSSES[loss]}-s0" / name
    if not path.exists():
        raise InputError(
            f"{path}: expected a file of the committed run, found none; restore it, or "
            "train the run again"
        )
    return path


def mean(group: str, loss: str, name: str, **where: str) -> float:
    """Return the mean over the test cases where the measure is defined."""
    return float(np.nanmean(column(group, loss, name, **where)))


def forms(
    group: str, metric: str, target: str = "", losses: Sequence[str] = tuple(LOSSES)
) -> dict[str, tuple[float, ...]]:
    """Return the published and the corrected mean of NLL or Brier, by loss."""
    names = f"{metric}_published", metric
    return {
        loss: tuple(mean(group, loss, name, target=target) for name in names)
        for loss in losses
    }


def lowest(pairs: dict[str, tuple[float, ...]]) -> Iterator[str]:
    """Yield the losses with the lowest published and the lowest corrected value."""
    for form in (0, 1):
        yield min(pairs, key=lambda loss: pairs[loss][form])


@measured("foreground-nll", "run", "DRIVE and 2018DSB, preset reduced, seed 0, test")
def foreground_nll() -> Iterator[Row]:
    """Compare the NLL without and with the background term, and its ranking."""
    for title, group in (("DRIVE", DRIVE), ("2018DSB", DSB)):
        values = forms(group, "nll")
        for loss, pair in values.items():
            yield Row(f"NLL of {loss}, {title}", *pair)
        yield Row(f"lowest NLL of the three, {title}", *lowest(values))
        p = (
            statistics.signed_rank(*(column(group, x, name) for x in ("DSC++", "CE"))).p
            for name in ("nll_published", "nll")
        )
        yield Row(f"p of DSC++ against CE, signed-rank, {title}", *p)
    share = column(DRIVE, "CE", "n_foreground") / column(DRIVE, "CE", "n_voxels")
    yield Row(
        'NLL of "all foreground" (p = 1 everywhere), DRIVE',
        float(np.mean(share * -np.log1p(-EPSILON))),
        float(np.mean((1 - share) * -np.log(EPSILON))),
    )


@measured("label-map-scores", "run", "simulated KiTS19, preset reduced, seed 0, test")
def label_map_scores() -> Iterator[Row]:
    """Compare NLL and Brier of the tumour by label map and by one-vs-rest."""
    for metric, name in (("nll", "NLL"), ("brier", "Brier")):
        values = forms(KITS, metric, TUMOUR, ("DSC", "DSC++"))
        for loss, pair in values.items():
            yield Row(f"{name} of the tumour, {loss}", *pair)
        yield Row(f"lower {name} of the tumour", *lowest(values))


@measured("brier-over-classes", "run", "preset reduced, seed 0, test, DSC++")
def brier_over_classes() -> Iterator[Row]:
    """Compare Brier of the foreground channel with Eq. 11's mean over classes."""
    names = ("brier", "brier_categorical")
    yield Row(
        "Brier on DRIVE, two classes", *(mean(DRIVE, "DSC++", name) for name in names)
    )
    for target in ("phantom kidney", TUMOUR):
        yield Row(
            f"Brier on simulated KiTS19, three classes: {target.split(maxsplit=1)[1]}",
            *(mean(KITS, "DSC++", name, target=target) for name in names),
        )


@measured("rank-sum", "run", "DSC++ against DSC, preset reduced, seed 0, test")
def rank_sum() -> Iterator[Row]:
    """Compare p of the test for independent samples with p of the paired test."""
    for title, group in (("DRIVE", DRIVE), ("2018DSB", DSB)):
        for metric in ("nll", "brier", "dice"):
            a, b = (column(group, loss, metric) for loss in ("DSC++", "DSC"))
            yield Row(
                f"p of {NAMES[metric]}, {title}",
                statistics.rank_sum(a, b).p,
                statistics.signed_rank(a, b).p,
            )


@measured("undefined-scores", "run", "DSC and DSC++, preset reduced, seed 0, test")
def undefined_scores() -> Iterator[Row]:
    """Count undefined overlap scores of the committed runs."""
    groups = {"DRIVE": DRIVE, "2018DSB": DSB, "simulated KiTS19": KITS}
    names = ("dice", "jaccard", "precision", "recall")
    for title, group in groups.items():
        values = [
            column(group, loss, name) for loss in ("DSC", "DSC++") for name in names
        ]
        scores = np.concatenate(values)
        undefined = np.isnan(scores).sum()
        yield Row(f"undefined scores, {title}, of {scores.size}", None, undefined)


@measured("threshold-comparison", "run", "DRIVE, preset reduced, DSC++, seed 0, test")
def threshold_comparison() -> Iterator[Row]:
    """Compare overlap with s < T as foreground and with s >= T."""
    histogram = histograms.load(_file(DRIVE, "DSC++", "histograms.npz"))
    rows = histogram.where(
        target="vessel", split="test", region="image", reference="observer1"
    )
    counts = histogram.counts[rows]
    for threshold, metric in ((0.5, "dice"), (0.8, "precision"), (0.2, "recall")):
        tp, fp, fn, tn = histograms.confusion(counts, threshold, histogram.edges)
        pair = (
            np.nanmean(histograms.overlap_scores(*three)[metric])
            for three in ((fn, tn, tp), (tp, fp, fn))
        )
        yield Row(f"{metric} at T = {threshold}", *pair)


@measured("field-of-view", "run", "DRIVE, preset reduced, seed 0, test")
def field_of_view() -> Iterator[Row]:
    """Compare measures over the whole photograph and in the field of view."""
    for loss in LOSSES:
        for metric, name in NAMES.items():
            inside = mean(DRIVE, loss, metric, region="field of view")
            yield Row(f"{name} of {loss}", mean(DRIVE, loss, metric), inside)


@measured("best-checkpoint", "run", "DRIVE, preset reduced, seed 0")
def best_checkpoint() -> Iterator[Row]:
    """Compare the validation losses of the last and of the saved epoch."""
    for loss in LOSSES:
        values = pd.read_csv(_file(DRIVE, loss, "history.csv"))["val_loss"]
        what = f"validation loss of {loss}, last and best epoch"
        yield Row(what, values.iloc[-1], values.min())


@measured("counts", "run", "run.json of the committed runs on 2018DSB")
def counts() -> Iterator[Row]:
    """Compare images of 2018DSB in Table 1 and in the corrected copy that we used."""
    from errata.printed import TABLE_1

    record = json.loads(_file(DSB, "DSC", "run.json").read_text("utf-8"))
    parts = ("training", "validation", "test")
    sizes = [len(record["split"][part]) for part in parts]
    names, ours = ("images", *parts), (sum(sizes), *sizes)
    for name, printed, counted in zip(names, TABLE_1["2018DSB"], ours, strict=True):
        yield Row(f"2018DSB, {name}: paper, ours", printed, counted)
