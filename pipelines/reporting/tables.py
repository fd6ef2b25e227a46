"""Tables of the paper beside ours, tests, thresholds, noise and costs: one frame each.

Needs neither the images nor a backend: everything comes from a `Study`. What every
column means is in `results/README.md`; `pages` writes them.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.measure import metrics, statistics
from pipelines.reporting.estimates import (
    ALPHA,
    Contrast,
    Estimate,
    Z,
    compare,
    estimate,
    is_ratio,
    margin_of,
    mean_of,
    pooled,
    prediction_error,
    prediction_limit,
    student,
)
from pipelines.reporting.evidence import THRESHOLDS, estimated, training_spread
from pipelines.reporting.frame import Study, read_cases
from pipelines.reporting.published import (
    PAPER_TABLES,
    Cell,
    Variant,
    each_cell,
    partner_of,
)
from pipelines.run import OTHER_SETS, Run

__all__ = [
    "COLUMNS", "EXTRA_TABLE", "PRESETS", "TEMPERATURE", "comparisons", "costs",
    "noise", "noise_counts", "other_sets", "over_all", "papers", "same_loss",
    "set_summary", "summary", "temperatures", "thresholds", "usable", "verdict",
]  # fmt: skip

_SPREAD = ("mean", "standard_error", "ci_low", "ci_high", "n")
_WHAT = ("loss", "gamma", "target", "metric")
_TABLE = (
    *_WHAT, *_SPREAD, "seeds", "published", "published_se", "difference", "limit",
    "others_within", "verdict", "p_same", "direction", "partner", "n_undefined",
)  # fmt: skip
_TIMES = (
    "train_s", "epochs", "seconds_per_epoch", "fit_s", "predict_s", "evaluate_s",
)  # fmt: skip
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "table": _TABLE,
    "over all": ("dataset", "preset", *_TABLE),
    "tests": (
        "metric", "loss_a", "loss_b", "test", "n", "statistic", "p", "p_holm", "target",
        "same_loss",
    ),
    "thresholds": (
        "loss", "threshold", "metric", "mean", "ci_low", "ci_high", "target",
    ),
    "costs": (
        "loss", "gamma", "seed", "method", "backend", "device", "machine", *_TIMES,
        "peak_memory_mb",
    ),
    "noise": (
        "table", *_WHAT, "partner", "partner_gamma", "published_difference", "noise",
        "df", "limit", "exceeds",
    ),
    "temperature": (
        *_WHAT, "seeds", "n", "temperature", "temperature_low", "temperature_high",
        "before", "after", "difference", "ci_low", "ci_high", "to_dscpp",
        "to_dscpp_low", "to_dscpp_high", "p_to_dscpp",
    ),
    "other sets": (
        "loss", "gamma", "seed", "backend", "set", "target", "metric", *_SPREAD,
        "n_undefined",
    ),
    "summary": ("kind", "group", "verdict", "count"),
}  # fmt: skip
"""Of each kind of table, in order."""

EXTRA_TABLE = "table.csv"
"""For what no table of the paper has a cell for: phantoms, other gammas, backends."""

PRESETS = ("paper", "reduced")
"""What may fill a published cell, the first first; demonstrations never do."""

TEMPERATURE = "temperature"
"""The method of runs that were scaled."""

TEST_METRICS = ("nll_published", "brier_published", "nll", "brier", "dice", "jaccard")
THRESHOLD_METRICS = ("precision", "recall", "dice")
_SCALED_METRICS = ("nll_published", "nll", "brier", "dice")
_DSCPP = Variant.standard("DSC++")
_CELLS = ("within", "outside", "undecided", "reduced", "not run")
_DIRECTIONS = ("same", "opposite", "no direction")

_Row = dict[str, object]
_Places = Mapping[tuple[object, ...], Cell]


def _frame(rows: Iterable[Mapping[str, object]], kind: str) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS[kind]))


def verdict(preset: str, ours: Estimate, published: float, limit: float) -> str:
    """Say whether a published value was reproduced.

    Args:
        preset: only "paper" can be within or outside.
        ours: our estimate.
        published: the printed mean.
        limit: of `estimates.prediction_limit`.

    Returns:
        "reduced" for any other preset, where only the direction is judged;
        "undecided" where no limit is known, as no loss was trained twice; "within"
        where |ours - published| is at most the limit: what is printed may be one more
        training of ours; else "outside", also where ours is undefined.
    """
    if preset != "paper":
        return "reduced"
    if math.isnan(limit) and not math.isnan(ours.mean):
        return "undecided"
    # The last bits of a difference of printed decimals must not decide.
    return "within" if abs(ours.mean - published) <= limit + 1e-12 else "outside"


def papers(study: Study) -> dict[str, pd.DataFrame]:
    """The paper's tables beside ours, by file name.

    Returns:
        "table3.csv" to "table6.csv" where the data set is in that table of the paper,
        and `EXTRA_TABLE` where variants are left that are in none. Corrected metrics
        follow the published ones.
    """
    cells = study.cells
    tables = {
        f"{table}.csv": _frame(_beside(study, own), "table")
        for table, own in cells.groupby("table")
    }
    rest = [v for v in study.runs if v not in set(cells["variant"])]
    extra = [
        _ours(study, variant, target, metric)
        for variant in rest
        for target in study.targets
        for metric in metrics.METRICS
    ]
    return tables | ({EXTRA_TABLE: _frame(extra, "table")} if extra else {})


def _beside(study: Study, cells: pd.DataFrame) -> Iterator[_Row]:
    """Rows of one table of the paper: published cells, then corrected metrics."""
    places = {one.place: one for one in each_cell(cells)}
    found = {(one.variant, one.target, one.metric): one for one in places.values()}
    for variant, target in dict.fromkeys(key[:2] for key in found):
        for metric in metrics.METRICS:
            cell = found.get((variant, target, metric))
            row = _ours(study, variant, target, metric)
            if cell is not None:
                yield row | _judged(study, cell, places)
            elif "mean" in row:
                yield row


def _ours(study: Study, variant: Variant, target: str, metric: str) -> _Row:
    row: _Row = variant.columns | {"target": target, "metric": metric}
    found = _estimated(study, variant, target, metric)
    return row if found is None else row | vars(found)


def _estimated(
    study: Study, variant: Variant, target: str, metric: str
) -> Estimate | None:
    """Our estimate; None where the variant was not run."""
    trained = study.standing_in(variant)
    if trained is None or target not in study.targets:
        return None
    return estimated(study, trained, target, metric)


def _judged(study: Study, cell: Cell, places: _Places) -> _Row:
    ours, partner = _of_cell(study, cell), partner_of(cell, places)
    row: _Row = {"published": cell.value, "published_se": cell.standard_error}
    if ours is None:
        return row | {"verdict": "not run"}
    # Rounded, as 0.3 - 0.1 - 0.2 is not 0, and what it is differs between machines.
    row["difference"] = round(ours.mean - cell.value, 12) + 0.0
    spread = training_spread(study, cell.target, cell.metric)
    error = prediction_error(ours, spread, cell.judged_error, study.same_images)
    limit = prediction_limit(error, spread.df)
    if spread.df:
        row |= {"limit": limit, "others_within": _others(cell, places, limit)}
    row["verdict"] = verdict(study.preset, ours, cell.value, limit)
    if study.preset == PRESETS[0]:
        row["p_same"] = _p_same(ours, cell, error, spread.df)
    if partner is not None:
        row |= {"partner": partner.variant.label}
        row |= {"direction": _direction(study, cell, partner, ours)}
    return row


def _p_same(ours: Estimate, cell: Cell, error: float, df: int) -> float:
    """P of two one-sided tests that ours and the published mean are the same."""
    ratio = is_ratio(cell.metric)
    mean = ours.mean / cell.value if ratio else ours.mean - cell.value
    if ratio and not mean > 0:
        return math.nan
    error = error / ours.mean if ratio else error
    found = Contrast(mean, error, df or math.nan, math.nan, math.nan, ours.n, ratio)
    return found.p_same(margin_of(cell.metric))


def _of_cell(study: Study, cell: Cell) -> Estimate | None:
    return _estimated(study, cell.variant, cell.target, cell.metric)


def _others(cell: Cell, places: _Places, limit: float) -> str:
    """How many other losses' published values the limit does not tell from this one."""
    values = [
        one.value
        for one in places.values()
        if (one.target, one.metric) == (cell.target, cell.metric)
        and one.variant != cell.variant
    ]
    near = sum(abs(value - cell.value) <= limit + 1e-12 for value in values)
    return f"{near} of {len(values)}"


def _direction(study: Study, cell: Cell, partner: Cell, ours: Estimate) -> str:
    """Say whether we differ from the cell's partner the way the paper does.

    Returns:
        "same" or "opposite"; "" where the paper's own difference is not beyond 1.96
        sqrt(SE^2 + SE^2), or where the partner was not run.
    """
    theirs = _of_cell(study, partner)
    published = cell.value - partner.value
    limit = Z * math.hypot(cell.judged_error, partner.judged_error)
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
    families = [
        _family(study, target, metric, test)
        for target in study.targets
        for metric in TEST_METRICS
        for test in ("rank_sum", "signed_rank")
    ]
    return _frame((row for family in families for row in family), "tests")


def _family(study: Study, target: str, metric: str, test: str) -> list[_Row]:
    rows: list[_Row] = []
    for a, b in combinations(study.main, 2):
        values_a, values_b = (
            mean_of(study.measures(variant, target, metric)[own], axis=0)
            for variant, own in zip((a, b), study.shared(a, b), strict=True)
        )
        both = ~np.isnan(values_a) & ~np.isnan(values_b)
        result = compare(test, values_a[both], values_b[both])
        row: _Row = {"metric": metric, "loss_a": a.label, "loss_b": b.label}
        row |= {"test": test, "n": int(both.sum()), "target": target}
        rows.append(row | {"statistic": result.statistic, "p": result.p})
    adjusted = statistics.holm([float(str(row["p"])) for row in rows])
    below, of = same_loss(study, target, metric, test)
    for row, p in zip(rows, adjusted, strict=True):
        row |= {"p_holm": float(p), "same_loss": f"{below} of {of}" if of else ""}
    return rows


def same_loss(study: Study, target: str, metric: str, test: str) -> tuple[int, int]:
    """How often a test finds two trainings of one loss different.

    Returns:
        The pairs of trainings with p < 0.05, and all of them.
    """
    pairs = [
        pair
        for variant in study.main
        for pair in combinations(study.measures(variant, target, metric), 2)
    ]
    return sum(compare(test, a, b).p < ALPHA for a, b in pairs), len(pairs)


def thresholds(study: Study) -> pd.DataFrame:
    """Measure the main variants at each softmax threshold, from the histograms alone.

    Mean and interval as in `estimate`.
    """
    rows = []
    for target in study.targets:
        for variant in study.main:
            for threshold in THRESHOLDS:
                at: _Row = {"loss": variant.label, "target": target}
                at["threshold"] = threshold
                rows += [
                    at
                    | {"metric": one}
                    | vars(estimated(study, variant, target, one, threshold))
                    for one in THRESHOLD_METRICS
                ]
    return _frame(rows, "thresholds")


def costs(study: Study) -> pd.DataFrame:
    """What each run cost: hours, memory and the hardware that it took."""
    return _frame(
        (
            variant.columns
            | {"loss": variant.loss, "method": variant.method}
            | {name: run.record.get("times", {}).get(name) for name in _TIMES}
            | {key: run.record.get(key) for key in ("seed", "backend", "device")}
            | {key: run.record.get(key) for key in ("machine", "peak_memory_mb")}
            for variant, runs in study.runs.items()
            for run in runs
        ),
        "costs",
    )


def noise(study: Study) -> pd.DataFrame:
    """Hold each published difference against the spread over seeds.

    The noise is what two single trainings that differ in nothing but the seed differ
    by, one standard deviation: sqrt(2) s, where s^2 is the variance over seeds of the
    mean over test cases, pooled over the losses with several seeds, with `df` degrees
    of freedom. A difference exceeds it beyond the 97.5 % quantile of Student's t for
    these, times the noise (`limit`).

    Returns:
        A row for each published cell and its `partner_of`, once, in the order of the
        tables; none where no loss has several seeds.
    """
    rows: list[_Row] = []
    seen: set[frozenset[tuple[object, ...]]] = set()
    cells = {one.place: one for one in each_cell(study.cells)}
    for cell in cells.values():
        partner = partner_of(cell, cells)
        if partner is None or cell.target not in study.targets:
            continue
        key = frozenset((cell.place, partner.place))
        measured = (
            study.measures(variant, cell.target, cell.metric)
            for variant in study.runs
            if not variant.method
        )
        s, df, _ = pooled(measured)
        if key in seen or not df:
            continue
        seen.add(key)
        # Rounded, as the difference of printed decimals has last bits of its own.
        difference = round(cell.value - partner.value, 12) + 0.0
        spread = math.sqrt(2) * s
        limit = student(df) * spread
        row: _Row = cell._asdict() | {"table": cell.table.removeprefix("table")}
        row |= {"partner": partner.loss, "partner_gamma": partner.gamma}
        row |= {"published_difference": difference, "noise": spread, "df": df}
        row |= {"limit": limit, "exceeds": "yes" if abs(difference) > limit else "no"}
        rows.append(row)
    return _frame(rows, "noise")


def noise_counts(found: pd.DataFrame) -> list[list[str]]:
    """How many of each table's differences exceed the noise, by metric.

    Args:
        found: of `noise`, of one study and class.

    Returns:
        Lines of cells, the header first: a line for each table, then the noise.
    """
    words = {column: word for word, column in metrics.PAPER_COLUMN.items()}
    names = list(found["metric"].unique())
    heads = [words[name].capitalize() for name in names]
    lines = [["", *("NLL" if one == "Nll" else one for one in heads)]]
    for table, own in found.groupby("table"):
        beyond = own["exceeds"].eq("yes").groupby(own["metric"]).agg(["sum", "size"])
        beyond = beyond.reindex(names, fill_value=0)
        cells = [f"{yes} of {n}" for yes, n in beyond.itertuples(index=False)]
        lines.append([f"Table {table}", *cells])
    noises = found.drop_duplicates("metric")["noise"]
    return [*lines, ["noise", *(f"{value:.4f}" for value in noises)]]


def temperatures(study: Study) -> pd.DataFrame:
    """What temperature scaling does to each loss, and whether it makes up for it.

    Only seeds with both runs count, the trained and the scaled. Differences are of the
    same cases: `difference` is after - before, `to_dscpp` the scaled loss less the
    unscaled DSC++ of the seeds that both have, with the signed-rank p.
    """
    rows = [
        _temperature(study, scaled, target, metric)
        for scaled in study.runs
        if scaled.method == TEMPERATURE
        for target in study.targets
        for metric in _SCALED_METRICS
    ]
    return _frame(rows, "temperature")


def _temperature(study: Study, scaled: Variant, target: str, metric: str) -> _Row:
    unscaled = Variant(scaled.loss, scaled.gamma, "", scaled.backend)
    before, after = _paired(study, unscaled, scaled, target, metric)
    change = estimate(after - before)
    found = [float(run.record["posthoc"]["temperature"]) for run in study.runs[scaled]]
    row: _Row = {
        "loss": Variant(scaled.loss, None, "", scaled.backend).label,
        "gamma": scaled.columns["gamma"],
        "target": target,
        "metric": metric,
        "temperature": float(np.mean(found)),
        "temperature_low": min(found),
        "temperature_high": max(found),
        "before": estimate(before).mean,
        "after": estimate(after).mean,
    }
    row |= vars(change) | {"difference": change.mean}
    reference = Variant(_DSCPP.loss, _DSCPP.gamma, "", scaled.backend)
    plus, after = _paired(study, reference, scaled, target, metric)
    if not len(after) or unscaled == reference:
        return row
    gap = estimate(after - plus)
    row |= {"to_dscpp_low": gap.ci_low, "to_dscpp_high": gap.ci_high}
    sides = (mean_of(values, axis=0) for values in (after, plus))
    return row | {"to_dscpp": gap.mean, "p_to_dscpp": compare("signed_rank", *sides).p}


def _paired(
    study: Study, a: Variant, b: Variant, target: str, metric: str
) -> list[np.ndarray]:
    """One metric of both variants for the seeds that both have, (seeds, cases) each."""
    if a not in study.runs or not set(study.seeds(a)) & set(study.seeds(b)):
        return [np.empty((0, len(study.cases)))] * 2
    return [
        study.measures(variant, target, metric)[rows]
        for variant, rows in zip((a, b), study.shared(a, b), strict=True)
    ]


def other_sets(runs: Iterable[Run]) -> pd.DataFrame:
    """A row for each run, other set, class and metric; none where none was measured.

    Seeds are not joined: each row is one network on all images of one set.
    """
    rows = [
        {key: run.record[key] for key in ("loss", "gamma", "seed", "backend")} | row
        for run in runs
        for path in sorted(run.path(OTHER_SETS).glob("*/cases.csv"))
        for row in _of_set(path)
    ]
    return _frame(rows, "other sets")


def set_summary(path: Path) -> list[str]:
    """What a `cases.csv` of one set says, in a line for each class."""
    lines = []
    for target, own in pd.DataFrame(_of_set(path)).groupby("target", sort=False):
        by_metric = own.set_index("metric")
        values = [
            "{} {mean:.3f} ± {standard_error:.3f}".format(name, **by_metric.loc[name])
            for name in ("nll", "brier", "dice", "jaccard")
        ]
        n = by_metric.loc["nll", "n"]
        lines.append(f"{target}: {', '.join(values)} ({n} images)")
    return lines


def _of_set(path: Path) -> list[_Row]:
    """Means of one set by class and metric; see `frame.read_cases`."""
    found = read_cases(path, "dscpp evaluate --run … --images … --masks …")
    # As in the tables: all of the image, and not its band once more.
    found = found[found["region"] == "image"]
    return [
        {"set": path.parent.name, "target": target, "metric": metric}
        | vars(estimate([own[metric]]))
        for target, own in found.groupby("target", sort=False)
        for metric in metrics.METRICS
    ]


def usable(studies: Sequence[Study]) -> list[Study]:
    """Those that may fill a published cell, the paper's preset before others."""
    found = [one for one in studies if not one.simulated and one.preset in PRESETS]
    return sorted(found, key=lambda one: PRESETS.index(one.preset))


def over_all(
    cells: pd.DataFrame, made: Sequence[tuple[Study, Mapping[str, pd.DataFrame]]]
) -> dict[str, pd.DataFrame]:
    """Every published cell once, whichever preset fills it, by file name.

    Args:
        cells: `Paper.cells`.
        made: each study with its own tables, as `papers` makes them.

    Returns:
        `dataset`, `preset` and the columns of the study's own row, in the order of
        `cells`. A cell that no preset was run for has its published values alone and
        the verdict "not run".
    """
    ranked = usable([study for study, _ in made])
    own = {id(study): tables for study, tables in made}
    return {
        f"{table}.csv": _every_cell(
            cells[cells["table"] == table],
            [(study, own[id(study)].get(f"{table}.csv")) for study in ranked],
        )
        for table in sorted(PAPER_TABLES)
    }


def _every_cell(
    cells: pd.DataFrame, made: Sequence[tuple[Study, pd.DataFrame | None]]
) -> pd.DataFrame:
    """One table over all data sets."""
    empty = cells.rename(columns={"value": "published", "standard_error": "own_se"})
    empty = empty.rename(columns={"own_se": "published_se"}).assign(verdict="not run")
    parts = [
        rows.assign(dataset=study.title, preset=study.preset)
        for study, rows in made
        if rows is not None
    ]
    columns = [*COLUMNS["over all"], "class"]
    found = pd.concat([*parts, empty], ignore_index=True).reindex(columns=columns)
    found = found.astype({"gamma": float})  # None of several losses is an object.
    run = found["published"].notna() & (found["verdict"] != "not run")
    # Last come the cells themselves, for what nothing fills.
    found = found[run | (found.index >= len(found) - len(empty))]
    # Only tables whose cells name the class have several.
    named = found["target"] if cells["target"].ne("").any() else ""
    key = ["dataset", "loss", "gamma", "class", "metric"]
    found = found.assign(**{"class": named}).drop_duplicates(key)
    order = empty.assign(**{"class": cells["target"]})[key]
    return order.merge(found, on=key, how="left")[columns[:-1]]


def summary(
    tables: Mapping[str, pd.DataFrame], claims: pd.DataFrame, verdicts: Sequence[str]
) -> pd.DataFrame:
    """Count verdicts: for each table, each section and for all.

    A comparison of two cells counts once, and so does a fact, however many cells and
    claims there are of it.

    Args:
        tables: of `over_all`.
        claims: of `claims.decide`.
        verdicts: what can become of a claim.
    """
    cells: list[tuple[str, str]] = []
    compared: dict[tuple[object, ...], tuple[str, str]] = {}
    for name, table in tables.items():
        group = f"Table {name.removesuffix('.csv')[-1]}"
        cells += [(group, str(found)) for found in table["verdict"]]
        for row in table[table["partner"].notna()].to_dict("records"):
            found = str(row["direction"] or "no direction")
            compared.setdefault(_comparison(row), (group, found))
    facts = claims[claims["fact"] == claims["id"]]
    said = [
        (f"section {section}", str(found))
        for section, found in zip(facts["section"], facts["verdict"], strict=True)
    ]
    rows = [
        *_counted("cells", cells, _CELLS),
        *_counted("comparisons", list(compared.values()), _DIRECTIONS),
        *_counted("facts", said, verdicts),
    ]
    return _frame(rows, "summary")


def _comparison(row: Mapping[str, Any]) -> tuple[object, ...]:
    """What is compared in a cell, whichever table or side it stands on."""
    gamma = row["gamma"] if row["gamma"] == row["gamma"] else None
    labels = (Variant(row["loss"], gamma).label, row["partner"])
    # Gamma 1 is the plain loss.
    sides = frozenset(label.removesuffix("++ g=1") for label in labels)
    return row["dataset"], row["target"], row["metric"], sides


def _counted(
    kind: str, found: Sequence[tuple[str, str]], verdicts: Sequence[str]
) -> list[_Row]:
    count = Counter(found) + Counter(("all", verdict) for _, verdict in found)
    return [
        {"kind": kind, "group": group, "verdict": one, "count": count[group, one]}
        for group in [*dict.fromkeys(group for group, _ in found), "all"]
        for one in verdicts
    ]
