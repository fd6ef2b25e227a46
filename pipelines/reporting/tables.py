"""Tables of the paper beside ours, tests, thresholds and costs: one frame each.

Needs neither the images nor a backend: everything comes from a `Study`. What every
column means is in `results/README.md`; `pages` writes them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_io.errors import InputError
from data_io.files import schema
from data_io.files.hashing import file_hash
from pipelines.measure import metrics, statistics
from pipelines.reporting import data, estimates
from pipelines.reporting.estimates import Estimate, estimate, mean_of, pm
from pipelines.reporting.evidence import estimated, training_spread
from pipelines.reporting.frame import Study, read_cases, selected
from pipelines.reporting.published import (
    THRESHOLDS,
    Cell,
    Variant,
    each_cell,
    partner_of,
)
from pipelines.runs.record import MeasuredSet
from pipelines.runs.run import OTHER_SETS

COLUMNS: Mapping[str, tuple[str, ...]] = {
    kind: tuple(names.split()) for kind, names in data("columns").items()
}
"""Of each kind of table, in order."""

OURS = "table.csv"
"""Every loss, class and metric of ours, whether the paper has a cell for it or not."""

PRESETS = ("paper", "reduced")
"""What may fill a published cell, the first first; demonstrations never do."""

TEMPERATURE = "temperature"
"""The method of runs that were scaled."""

_TEST_METRICS = ("nll_published", "brier_published", "nll", "brier", "dice", "jaccard")
_TESTS = {"rank_sum": statistics.rank_sum, "signed_rank": statistics.signed_rank}
_MOST_PAIRS = 300
_THRESHOLD_METRICS = ("precision", "recall", "dice")
_SCALED_METRICS = ("nll_published", "nll", "brier", "dice")
_DSCPP = Variant.standard("DSC++")
_CELLS = ("within", "outside", "undecided", "reduced", "not run")
_DIRECTIONS = ("same", "opposite", "no direction")

_Row = dict[str, Any]
_Cells = Mapping[tuple[object, ...], Cell]


def framed(rows: Iterable[Mapping[str, object]], kind: str) -> pd.DataFrame:
    """Make a table of its rows, with the `COLUMNS` of its kind."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS[kind]))


def verdict(preset: str, ours: Estimate, published: float, limit: float) -> str:
    """Judge whether a published mean was reproduced.

    Returns:
        "reduced" for any preset but "paper": there only the direction is judged;
        "undecided" where no limit is known, as no loss has two seeds; "within"
        where |ours - published| is at most the limit (`estimates.prediction_limit`):
        what is printed may be one more training of ours; else "outside", also where
        ours is undefined.
    """
    if preset != "paper":
        return "reduced"
    if math.isnan(limit) and not math.isnan(ours.mean):
        return "undecided"
    # The last bits of a difference of printed decimals must not decide.
    return "within" if abs(ours.mean - published) <= limit + 1e-12 else "outside"


def papers(study: Study) -> dict[str, pd.DataFrame]:
    """Make the tables of our means, alone and beside the paper's, by file name.

    `OURS` has every variant, "table3.csv" to "table6.csv" those of the paper, where the
    data set is in that table. Corrected metrics follow the published ones.
    """
    cells = study.cells
    tables = {
        f"{table}.csv": framed(_beside(study, group), "table")
        for table, group in cells.groupby("table")
    }
    ours = [
        _keys(*key) | vars(estimated(study, *key))
        for key in product(study.runs, study.targets, metrics.METRICS)
    ]
    tables[OURS] = framed(ours, "ours")
    held = {target: study.n_with_class(target) for target in study.targets}
    for rows in tables.values():
        rows["n_with_class"] = rows["target"].map(held).where(rows["n"].notna())
    return tables


def _beside(study: Study, cells: pd.DataFrame) -> Iterator[_Row]:
    """Make rows of a table of the paper: published cells, then corrected metrics."""
    by_key = {published.key: published for published in each_cell(cells)}
    measured = dict.fromkeys(key[:2] for key in by_key)
    for (variant, target), metric in product(measured, metrics.METRICS):
        cell = by_key.get((variant, target, metric))
        ours = _estimated(study, variant, target, metric)
        row = _keys(variant, target, metric) | (vars(ours) if ours else {})
        if cell or ours:
            yield row | (_judged(study, cell, by_key, ours) if cell else {})


def _keys(variant: Variant, target: str, metric: str) -> _Row:
    return variant.columns | {"target": target, "metric": metric}


def _estimated(
    study: Study, variant: Variant, target: str, metric: str
) -> Estimate | None:
    """Return our estimate; None where the variant was not run."""
    known = target in study.targets and study.same_training(variant)
    return estimated(study, variant, target, metric) if known else None


def _judged(study: Study, cell: Cell, cells: _Cells, ours: Estimate | None) -> _Row:
    """Return the columns that a published cell adds to the row of our estimate."""
    partner = partner_of(cell, cells)
    row: _Row = {"published": cell.value, "published_se": cell.standard_error}
    if ours is None:
        return row | {"verdict": "not run"}
    # Rounded, as 0.3 - 0.1 - 0.2 is not 0, and what it is differs between machines.
    row["difference"] = round(ours.mean - cell.value, 12) + 0.0
    spread = training_spread(study, cell.target, cell.metric)
    error = estimates.prediction_error(
        ours, spread, cell.judged_error, study.same_images
    )
    limit = estimates.prediction_limit(error, spread.df)
    if spread.df:
        row |= {"limit": limit, "others_within": _others(cell, cells, limit)}
    row["verdict"] = verdict(study.preset, ours, cell.value, limit)
    if study.preset == PRESETS[0]:
        row["p_same"] = _p_same(ours, cell, error, spread.df)
    if partner is not None:
        row |= {"partner": partner.variant.label}
        row |= {"direction": _direction(study, cell, partner, ours)}
    return row


def _p_same(ours: Estimate, cell: Cell, error: float, df: int) -> float:
    """Test that ours and the published mean are the same: p of two one-sided tests."""
    ratio = estimates.is_ratio(cell.metric)
    mean = ours.mean / cell.value if ratio else ours.mean - cell.value
    if ratio and not mean > 0:
        return math.nan
    error = error / ours.mean if ratio else error
    contrast = estimates.Contrast(
        mean, error, df or math.nan, math.nan, math.nan, ours.n, ratio
    )
    return contrast.p_same(estimates.margin_of(cell.metric))


def _others(cell: Cell, cells: _Cells, limit: float) -> str:
    """Count other losses whose published values are within the limit of this one."""
    same = (cell.target, cell.metric)
    others = (other for other in cells.values() if other.variant != cell.variant)
    gaps = [abs(o.value - cell.value) for o in others if (o.target, o.metric) == same]
    return f"{sum(gap <= limit + 1e-12 for gap in gaps)} of {len(gaps)}"


def _direction(study: Study, cell: Cell, partner: Cell, ours: Estimate) -> str:
    """Compare the sign of a difference with the paper: "same", "opposite" or "".

    "" where the paper's own difference is within its errors, or the partner not run.
    """
    theirs = _estimated(study, partner.variant, partner.target, partner.metric)
    published = cell.value - partner.value
    limit = estimates.Z * math.hypot(cell.judged_error, partner.judged_error)
    if theirs is None or abs(published) <= limit + 1e-12:
        return ""
    return "same" if published * (ours.mean - theirs.mean) > 0 else "opposite"


def comparisons(study: Study) -> pd.DataFrame:
    """Compare all pairs of the study's main variants.

    Each case is averaged over the seeds that both have. Both tests take the cases that
    are defined for both losses. Holm's correction is over the pairs of one metric,
    target and test. Both compare the weights at hand, not the losses: `same_loss`
    says how often they find a difference between two trainings of the same loss.
    """
    families = product(study.targets, _TEST_METRICS, _TESTS)
    return framed(
        (row for family in families for row in _family(study, *family)), "tests"
    )


def _family(study: Study, target: str, metric: str, test: str) -> list[_Row]:
    rows: list[_Row] = []
    for a, b in combinations(study.main, 2):
        sides = study.paired(a, b, target, metric)
        values_a, values_b = (mean_of(values, axis=0) for values in sides)
        both = ~np.isnan(values_a) & ~np.isnan(values_b)
        result = _TESTS[test](values_a[both], values_b[both])
        row: _Row = {f"{key}_a": value for key, value in a.columns.items()}
        row |= {f"{key}_b": value for key, value in b.columns.items()}
        row |= {"metric": metric, "test": test, "n": int(both.sum()), "target": target}
        rows.append(row | {"statistic": result.statistic, "p": result.p})
    adjusted = statistics.holm([row["p"] for row in rows])
    below, total = same_loss(study, target, metric, test)
    for row, p in zip(rows, adjusted, strict=True):
        row |= {"p_holm": float(p), "same_loss": f"{below} of {total}" if total else ""}
    return rows


def same_loss(study: Study, target: str, metric: str, test: str) -> tuple[int, int]:
    """Count the pairs of trainings of one loss with p < 0.05, and all of them.

    Of more than `_MOST_PAIRS` pairs so many are compared at most, evenly spread: their
    number grows with the square of that of the trainings.
    """
    pairs = [
        pair
        for variant in study.main
        for pair in combinations(study.of_trainings(variant, target, metric), 2)
    ]
    pairs = pairs[:: math.ceil(len(pairs) / _MOST_PAIRS) or 1]
    return sum(_TESTS[test](a, b).p < estimates.ALPHA for a, b in pairs), len(pairs)


def thresholds(study: Study) -> pd.DataFrame:
    """Measure the main variants at each softmax threshold, from the histograms."""
    keys = product(study.targets, study.main, THRESHOLDS, _THRESHOLD_METRICS)
    rows = (
        variant.columns
        | {"threshold": at, "metric": metric, "target": target}
        | vars(estimated(study, replace(variant, threshold=at), target, metric))
        for target, variant, at, metric in keys
    )
    return framed(rows, "thresholds")


def costs(study: Study) -> pd.DataFrame:
    """Make the table of costs: hours, memory and hardware of each run."""
    rows = [
        {"replicate": 1} | run.record | run.record.get("times", {}) | variant.columns
        for variant, runs in study.runs.items()
        for run in runs
    ]
    return framed(rows, "costs")


def temperatures(study: Study) -> pd.DataFrame:
    """Compare losses and ensembles before and after a temperature, and with DSC++.

    Only seeds with both runs count; with one of them intervals are over images alone.
    Differences are of the same cases: `difference` is after - before, `to_dscpp` the
    scaled loss less the unscaled DSC++ of the seeds that both have.
    """
    scaled = [one for one in study.runs if one.method.endswith(TEMPERATURE)]
    keys = product(scaled, study.targets, _SCALED_METRICS)
    return framed((_temperature(study, *key) for key in keys), "temperature")


def _temperature(study: Study, scaled: Variant, target: str, metric: str) -> _Row:
    unscaled = scaled.before
    before, after = _paired(study, unscaled, scaled, target, metric)
    change = estimate(after - before)
    fitted = [run.record["posthoc"]["temperature"] for run in study.runs[scaled]]
    fitted_by_seed = study.by_seed(scaled, fitted)
    row = _keys(scaled, target, metric) | {
        "temperature": float(np.mean(fitted_by_seed)),
        "temperature_low": float(min(fitted_by_seed)),
        "temperature_high": float(max(fitted_by_seed)),
        "before": estimate(before).mean,
        "after": estimate(after).mean,
    }
    row |= vars(change) | {"difference": change.mean}
    reference = replace(unscaled, loss=_DSCPP.loss, gamma=_DSCPP.gamma)
    plus, after = _paired(study, reference, scaled, target, metric)
    if not len(after) or unscaled == reference:
        return row
    gap = estimate(after - plus)
    row |= {"to_dscpp_low": gap.ci_low, "to_dscpp_high": gap.ci_high}
    sides = (mean_of(values, axis=0) for values in (after, plus))
    return row | {"to_dscpp": gap.mean, "p_to_dscpp": statistics.signed_rank(*sides).p}


def _paired(
    study: Study, a: Variant, b: Variant, target: str, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """See `Study.paired`; empty where a was not run, or with none of the seeds of b."""
    if a not in study.runs or not set(study.seeds(a)) & set(study.seeds(b)):
        return (np.empty((0, len(study.cases))),) * 2
    return study.paired(a, b, target, metric)


def other_sets(study: Study) -> pd.DataFrame:
    """Make a row for each run, other set, class and metric that was measured.

    Seeds are not joined: each row is one network on all images of one set.
    """
    rows = [
        {"replicate": 1} | run.record | variant.columns | row
        for variant, runs in study.runs.items()
        for run in runs
        for path in sorted(run.path(OTHER_SETS).glob("*/cases.csv"))
        for row in _of_other_set(path)
    ]
    return framed(rows, "other sets")


def _of_other_set(path: Path) -> list[_Row]:
    """Return the means of another set, after a check of its file hash."""
    description = path.with_name("set.json")
    try:
        record = schema.load(description, MeasuredSet) if description.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{description}: expected what describes the measures of a set, found a "
            f"file that cannot be read ({error}); delete the folder and measure it "
            "again"
        ) from error
    expected = record.get("files", {}).get(path.name)  # older sets have none
    if expected and file_hash(path) != expected:
        raise InputError(
            f"{path}: expected the file that {description.name} describes, found "
            "another; restore it, or delete the folder and measure the set again"
        )
    return _of_set(path)


def set_summary(
    path: Path,
    split: str | None = None,
    shown: Sequence[str] = ("nll", "brier", "dice", "jaccard"),
) -> list[str]:
    """Summarise a `cases.csv` in a line for each class.

    Args:
        path: the file.
        split: of this part of it, such as "test"; None for all of another set.
        shown: the metrics.
    """
    lines = []
    by_target = pd.DataFrame(_of_set(path, split)).groupby("target", sort=False)
    for target, group in by_target:
        rows, n = group.set_index("metric"), group["n"].max()
        values = []
        for name, row in rows.loc[list(shown)].iterrows():
            fewer = f" (of {row['n']})" if row["n"] < n else ""
            values.append(f"{name} {pm(row['mean'], row['standard_error'])}{fewer}")
        images = f"{split or ''} images".strip()
        lines.append(f"{target}: {', '.join(values)} ({n} {images})")
    return lines


def _of_set(path: Path, split: str | None = None) -> list[_Row]:
    """Return means of one set by class and metric; see `frame.read_cases`."""
    rows = read_cases(path, "dscpp evaluate --run … --images … --masks …")
    if split is not None:
        rows = rows[rows["split"] == split]
    # As in the tables: all of the image, and not its band once more.
    by_target = selected(rows).groupby("target", sort=False)
    return [
        {"set": path.parent.name, "target": target, "metric": metric}
        | vars(estimate([group[metric]]))
        for (target, group), metric in product(by_target, metrics.METRICS)
    ]


def brief_means(path: Path) -> dict[str, float]:
    """Average Dice and NLL of a run's `cases.csv` over test images, then classes."""
    rows = selected(read_cases(path, "dscpp evaluate --run …"))
    by_class = rows[rows["split"] == "test"].groupby("target")
    return by_class[["dice", "nll"]].mean().mean().to_dict()


def usable(studies: Iterable[Study]) -> list[Study]:
    """Return the studies that may fill a published cell, preset paper first."""
    kept = [
        study for study in studies if not study.simulated and study.preset in PRESETS
    ]
    return sorted(kept, key=lambda study: PRESETS.index(study.preset))


def deciding(studies: Iterable[Study]) -> list[Study]:
    """Sort `usable` studies; last those that decide nothing: no loss has two seeds."""
    return sorted(
        usable(studies),
        key=lambda study: all(len(study.seeds(loss)) < 2 for loss in study.main),
    )


def over_all(
    cells: pd.DataFrame, files_of: Mapping[Study, Mapping[str, pd.DataFrame]]
) -> dict[str, pd.DataFrame]:
    """Make tables with every published cell once, filled by any preset, by file name.

    `cells` (`Paper.cells`) give the order; `files_of` has each study's own tables.
    """
    tables = {}
    for table, rows in cells.groupby("table"):
        name = f"{table}.csv"
        frames = [
            files_of[study][name].assign(dataset=study.title, preset=study.preset)
            for study in usable(files_of)
            if name in files_of[study]
        ]
        tables[name] = _every_cell(rows, frames)
    return tables


def _every_cell(cells: pd.DataFrame, parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Make one table over all data sets; of several parts the first fills a cell."""
    published = {"value": "published", "standard_error": "published_se"}
    empty = cells.rename(columns=published).assign(verdict="not run")
    columns = [*COLUMNS["over all"], "class"]
    joined = pd.concat([*parts, empty], ignore_index=True).reindex(columns=columns)
    joined = joined.astype({"gamma": float})  # None of several losses is an object.
    run = joined["published"].notna() & (joined["verdict"] != "not run")
    # Last come the cells themselves, for what nothing fills.
    joined = joined[run | (joined.index >= len(joined) - len(empty))]
    # Only tables whose cells name the class have several.
    named = joined["target"] if cells["target"].ne("").any() else ""
    key = ["dataset", "loss", "gamma", "class", "metric"]
    joined = joined.assign(**{"class": named}).drop_duplicates(key)
    order = empty.assign(**{"class": cells["target"]})[key]
    return order.merge(joined, on=key, how="left")[columns[:-1]]


def summary(
    tables: Mapping[str, pd.DataFrame], claims: pd.DataFrame, verdicts: Sequence[str]
) -> pd.DataFrame:
    """Count verdicts: for each table, each section and for all.

    A comparison of two cells counts once, and so does a fact, however many cells and
    claims there are of it. The tables are those of `over_all`, the claims
    `claims.decide`'s, and the verdicts what can become of one.
    """
    named = (rows.assign(group=f"Table {name[5]}") for name, rows in tables.items())
    cells = pd.concat(named, ignore_index=True)
    compared = cells[cells["partner"].notna()]
    places = [_comparison(row) for row in compared.to_dict("records")]
    compared = compared[~pd.Series(places, compared.index, object).duplicated()]
    facts = claims[claims["fact"] == claims["id"]]
    directions = compared["direction"].replace("", _DIRECTIONS[-1])
    parts = [
        _counted("cells", cells["group"], cells["verdict"], _CELLS),
        _counted("comparisons", compared["group"], directions, _DIRECTIONS),
        _counted("facts", "section " + facts["section"], facts["verdict"], verdicts),
    ]
    return pd.concat(parts, ignore_index=True)


def _comparison(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what a cell compares, the same for either table and side."""
    gamma = row["gamma"] if row["gamma"] == row["gamma"] else None
    labels = (Variant(row["loss"], gamma).label, row["partner"])
    # Gamma 1 is the plain loss.
    sides = frozenset(label.removesuffix("++ g=1") for label in labels)
    return row["dataset"], row["target"], row["metric"], sides


def _counted(
    kind: str, groups: pd.Series, values: pd.Series, verdicts: Sequence[str]
) -> pd.DataFrame:
    count = pd.crosstab(groups.to_numpy(), values.to_numpy())
    count = count.reindex(groups.unique(), columns=list(verdicts), fill_value=0)
    count.loc["all"] = count.sum()
    rows = count.rename_axis(index="group", columns="verdict").stack()
    return (
        rows.astype(int)
        .reset_index(name="count")
        .assign(kind=kind)[list(COLUMNS["summary"])]
    )
