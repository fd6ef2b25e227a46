"""What temperature scaling does to each loss, and whether it makes up for the loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.measure import statistics
from pipelines.reporting.estimates import estimate, mean_of
from pipelines.reporting.study import STANDARD_GAMMA, Study, Variant

__all__ = ["COLUMNS", "METHOD", "METRICS", "TABLE", "rows"]

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
