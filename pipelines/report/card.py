"""A model card: what a run was trained on, what it measures, and where it ends."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from data_io.errors import InputError
from data_io.files.hashing import read_json
from pipelines.measure import metrics
from pipelines.report.page import template
from pipelines.reporting import calibration_tables, tables
from pipelines.reporting.evidence import estimated
from pipelines.reporting.figures.curves import name_of
from pipelines.reporting.frame import Study, join, require_described
from pipelines.reporting.markdown import escape, table
from pipelines.reporting.published import Paper, paper_folder
from pipelines.runs.run import JUDGED, OTHER_SETS, TRUTH, Run, spelled

_CALIBRATION = ("ece", "ace", "mce", "nll", "brier")


def card(run: Run, results: Path) -> str:
    """Make the model card of a run, in Markdown.

    Args:
        run: an evaluated one.
        results: the folder of all results, for the published values beside it.

    Raises:
        InputError: a run that is not evaluated, or no network's.
    """
    _require_network(run)
    run.require("evaluated", f"dscpp evaluate --run {run.folder}")
    require_described(run)
    # No table has runs with overrides; the card of one run compares it with none.
    alone = Run(run.folder, run.record | {"overrides": {}})
    study = join(run.folder, [alone], Paper(paper_folder(results)))
    sets = list(_seen(run))
    scaled = "trained" in run.record.get("posthoc", {})  # an ensemble
    ensemble = Run.open(run.folder.with_name(run.origin)) if scaled else run
    context = {
        "run": run,
        "record": run.record,
        "name": name_of(run.record),
        "members": ensemble.members,
        "variant": next(iter(study.runs)),
        "overrides": spelled(run.record.get("overrides", {})),
        "sizes": {part: len(ids) for part, ids in run.record["split"].items()},
        "measures": _measures(study),
        "calibration": _calibration(study),
        "others": _others(study),
        "sets": sets,
        "elsewhere": any(other["seen"] == 0 for other in sets),
        "second": calibration_tables.OBSERVERS[1] in set(study.frame["reference"]),
    }
    return template("card.md").render(context)


def _require_network(run: Run) -> None:
    if run.method == TRUTH:
        raise InputError(f"{run.folder}: expected a network's run, found the {TRUTH}")
    if run.record.get("dataset") == JUDGED:
        folder = run.folder.absolute().parents[1]
        raise InputError(
            f"{run.folder}: expected a network that dscpp trained, found probabilities "
            "that `dscpp judge` measured: nothing is known of what made them. Their "
            f"measures are in {folder / 'table.csv'} and {folder / 'calibration.csv'}"
        )


def _measures(study: Study) -> str:
    variant = next(iter(study.runs))
    keys = [*product(study.targets, metrics.METRICS)]
    shown = [key for key in keys if not key[1].endswith(_OF_ALL)]
    if len(study.targets) > 1:  # of two classes it is the measure of the one itself
        shown += [key for key in keys if key not in shown and key[0] == keys[0][0]]
    rows = []
    for target, metric in shown:
        whole = metric.endswith(_OF_ALL)
        subject = "all classes together" if whole else escape(target)
        values = vars(estimated(study, variant, target, metric))
        name = metric.removesuffix(_OF_ALL).replace("_", " ")
        rows.append([f"{subject}: {name}", *_cells(values)])
    return table(_HEAD, rows)


_OF_ALL = "_categorical"  # end of the measures that every class has the same of
_HEAD = ("measure", "mean", "95 % interval", "cases")


def _cells(row: Any) -> list[Any]:
    """Mean, interval and number of cases of a row; "undefined" where there is none."""
    values = [float(row[name]) for name in ("mean", "ci_low", "ci_high")]
    mean, low, high = ("undefined" if v != v else f"{v:#.4g}" for v in values)
    return [
        mean,
        "" if "undefined" in (low, high) else f"{low} to {high}",
        row["n"],
    ]


def _calibration(study: Study) -> str:
    measured = calibration_tables.tables(study)["calibration.csv"]
    measured = measured[measured["measure"].isin(_CALIBRATION)]
    measured = measured[measured["reference"] == calibration_tables.OBSERVERS[0]]
    rows = [
        [f"{name}, {row['region']}: {row['measure'].upper()}", *_cells(row)]
        for row in measured.to_dict("records")
        for name in [escape(row["target"])]
    ]
    return table(_HEAD, rows)


def _seen(run: Run) -> Iterator[dict[str, Any]]:
    """Count the images of each other set, and those trained on; None: not known."""
    for path in sorted(run.path(OTHER_SETS).glob("*/cases.csv")):
        record = read_json(path.with_name("set.json")) or {}
        seen, cases = record.get("seen"), record.get("cases")
        known = isinstance(seen, list) and isinstance(cases, list)
        k = len(seen or ()) if known else None
        yield {"name": path.parent.name, "seen": k, "n": len(cases or ())}


def _others(study: Study) -> str:
    measured = tables.other_sets(study)
    shown = measured[measured["metric"].isin(["dice", "nll"])].to_dict("records")
    rows = [
        [f"{escape(r['set'])}, {escape(r['target'])}: {r['metric']}", *_cells(r)]
        for r in shown
    ]
    return table(_HEAD, rows) if rows else ""
