"""What temperature scaling does to each loss, and whether it makes up for the loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.measure import statistics
from pipelines.reporting.estimates import estimate, mean_of
from pipelines.reporting.markdown import table
from pipelines.reporting.study import STANDARD_GAMMA, Study, Variant

__all__ = ["COLUMNS", "METHOD", "METRICS", "TABLE", "markdown", "rows"]

TABLE = "temperature.csv"
METHOD = "temperature"
METRICS = ("nll_published", "nll", "brier", "dice")
COLUMNS = (
    "loss", "gamma", "target", "metric", "seeds", "n", "temperature",
    "temperature_low", "temperature_high", "before", "after", "difference", "ci_low",
    "ci_high", "to_dscpp", "to_dscpp_low", "to_dscpp_high", "p_to_dscpp",
)  # fmt: skip

_REFERENCE = Variant("DSC++", STANDARD_GAMMA)
_Floats = npt.NDArray[np.float64]


def rows(study: Study) -> list[dict[str, object]]:
    """A row for each loss that was scaled, class and metric; none without any.

    Only seeds with both runs count, the trained and the scaled. Differences are of the
    same cases: `difference` is after - before, `to_dscpp` the scaled loss less the
    unscaled DSC++ of the seeds that both have, with the signed-rank p.
    """
    return [
        _row(study, Variant(scaled.loss, scaled.gamma, "", scaled.backend), scaled, *of)
        for scaled in study.runs
        if scaled.method == METHOD
        for of in ((t, metric) for t in study.targets for metric in METRICS)
    ]


def _row(
    study: Study, plain: Variant, scaled: Variant, target: str, metric: str
) -> dict[str, object]:
    before, after = _paired(study, plain, scaled, target, metric)
    change = estimate(after - before)
    found = [float(run.record["posthoc"]["temperature"]) for run in study.runs[scaled]]
    row: dict[str, object] = {
        "loss": Variant(scaled.loss, None, "", scaled.backend).label,
        "gamma": scaled.gamma,
        "target": target,
        "metric": metric,
        "seeds": len(before),
        "n": change.n,
        "temperature": float(np.mean(found)),
        "temperature_low": min(found),
        "temperature_high": max(found),
        "before": estimate(before).mean,
        "after": estimate(after).mean,
        "difference": change.mean,
        "ci_low": change.ci_low,
        "ci_high": change.ci_high,
    }
    return row | _to_reference(study, scaled, target, metric)


def _to_reference(
    study: Study, scaled: Variant, target: str, metric: str
) -> dict[str, object]:
    reference = Variant(_REFERENCE.loss, _REFERENCE.gamma, "", scaled.backend)
    unscaled, after = _paired(study, reference, scaled, target, metric)
    if not len(after) or (scaled.loss, scaled.gamma) == (
        reference.loss,
        reference.gamma,
    ):
        return {}
    gap = estimate(after - unscaled)
    test = statistics.signed_rank(mean_of(after, axis=0), mean_of(unscaled, axis=0))
    return {
        "to_dscpp": gap.mean,
        "to_dscpp_low": gap.ci_low,
        "to_dscpp_high": gap.ci_high,
        "p_to_dscpp": test.p,
    }


def _paired(
    study: Study, a: Variant, b: Variant, target: str, metric: str
) -> tuple[_Floats, _Floats]:
    """One metric of both variants for the seeds that both have, (seeds, cases) each."""
    found = []
    shared = [
        seed
        for seed in (study.seeds(b) if b in study.runs else ())
        if a in study.runs and seed in study.seeds(a)
    ]
    for variant in (a, b):
        values = [
            study.measures(variant, target, metric)[study.seeds(variant).index(seed)]
            for seed in shared
        ]
        found.append(np.reshape(values, (len(shared), len(study.cases))))
    return found[0], found[1]


def markdown(study: Study) -> str:
    """Lay out the temperatures of one study for the README: a row a loss and class."""
    found = rows(study)
    if not found:
        return "*No run was scaled yet.*"
    header = ["loss", "seeds", "temperature", "NLL", "scaled", "Brier", "scaled"]
    header.append("scaled NLL less that of DSC++")
    lines = []
    for row in (row for row in found if row["metric"] == "nll"):
        brier = next(
            other
            for other in found
            if other["metric"] == "brier"
            and all(other[key] == row[key] for key in ("loss", "gamma", "target"))
        )
        lines.append(_line(study, row, brier))
    return table(header, lines)


def _line(study: Study, row: dict[str, object], brier: dict[str, object]) -> list[str]:
    gamma = row["gamma"]
    name = str(row["loss"])
    if gamma not in (None, STANDARD_GAMMA):
        name += f" g={gamma:g}"
    if len(study.targets) > 1:
        name += f", {row['target']}"
    spread = " ({temperature_low:.2f} to {temperature_high:.2f})"
    cells = [
        name,
        str(row["seeds"]),
        "{temperature:.2f}" + ("" if row["seeds"] == 1 else spread),
        "{before:.3f}",
        "{after:.3f}",
        f"{brier['before']:.3f}",
        f"{brier['after']:.3f}",
        "{to_dscpp:+.3f} ({to_dscpp_low:+.3f} to {to_dscpp_high:+.3f})"
        if "to_dscpp" in row
        else "",
    ]
    return [cell.format(**row) for cell in cells]
