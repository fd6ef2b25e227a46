"""A decision file: what to do with a network's probabilities, from validation cases.

Temperature, threshold and volume correction in one JSON file, which `dscpp calibrate`
writes and `dscpp predict` and `dscpp judge` apply. The temperature comes first: the
others hold for the scaled probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from data_io.errors import InputError
from data_io.files import schema
from data_io.files.hashing import file_hash
from pipelines.environment import commits
from pipelines.measure import decisions
from pipelines.measure.histograms import Histograms
from pipelines.posthoc import scaling, threshold
from pipelines.runs import run as runs
from pipelines.runs import written

_Share = Annotated[float, Field(ge=0, le=1)]
_Cut = Annotated[float, Field(gt=0, lt=1)]


class Inputs(TypedDict):
    """What a decision was made from.

    With `kind` "files" the temperature scales probabilities as they are in these files,
    with "run" those of the run's network, before any temperature; `model` is then the
    SHA-256 of its weights, which older files lack.
    """

    kind: Literal["files", "run"]
    probabilities: str
    labels: str
    cases: Annotated[int, Field(ge=1)]
    sha256: str
    model: NotRequired[str]


class BestDice(TypedDict):
    """The threshold of 0.05, 0.10, ..., 0.95 with the best mean Dice.

    `cases` are those with foreground, which the mean is of; earlier files lack it.
    """

    threshold: _Cut
    dice: _Share
    cases: NotRequired[Annotated[int, Field(ge=1)]]


class Missed(TypedDict):
    """The conformal threshold: see `decisions.conformal`.

    `observed` and `set_size`, the positive voxels over the true ones, are means over
    the `cases` with foreground; earlier files lack `set_size`.
    """

    at_most: _Cut
    threshold: _Cut
    observed: _Share
    set_size: NotRequired[Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    cases: Annotated[int, Field(ge=1)]
    guarantee: str


class Decision(TypedDict):
    """The values of a decision file; docs/judge.md says what each means."""

    format: Literal[1]
    written_by: str
    inputs: Inputs
    classes: Annotated[list[str], Field(min_length=2)]
    temperature: Annotated[float, Field(ge=scaling.BOUNDS[0], le=scaling.BOUNDS[1])]
    threshold: _Cut
    best_dice: BestDice
    missed: Missed | None
    volume_factors: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]


def load(path: Path) -> Decision:
    """Read a decision file.

    Raises:
        InputError: it cannot be read, or a value is missing or out of range.
    """
    try:
        decision: Decision = schema.load(path, Decision)
    except (OSError, ValueError) as error:
        changed = isinstance(error, schema.Changed)
        raise InputError(
            f"{path}: expected a decision file, found one that cannot be used "
            f"({error}). Write it with `dscpp calibrate`"
            + changed * f"; if you changed a value on purpose, {schema.UNSEAL}"
            + "."
        ) from error
    return decision


def require_free(path: Path) -> None:
    """Refuse to write over a file that is no decision file, or one that was changed."""
    written.require_report(path, {*Decision.__required_keys__, schema.SEAL})


def save(path: Path, decision: Decision) -> None:
    """Write a decision file; an earlier one is replaced.

    Raises:
        InputError: as `require_free`, or it cannot be written.
    """
    require_free(path)
    with runs.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(path, schema.sealed(decision))


def require_classes(decision: Decision, names: Sequence[str], what: object) -> None:
    """Refuse probabilities of other classes than was decided for.

    Names may differ, as files of probabilities have none of their own.
    """
    expected, number = decision["classes"], len(names)
    if set(names) == set(expected) and list(names) != expected:
        raise InputError(
            f"{what}: expected the classes in the order of the decision file, "
            f"{', '.join(expected)}; found {', '.join(names)}. Make a decision file "
            "for these: `dscpp calibrate`."
        )
    if len(expected) != number:
        raise InputError(
            f"{what}: expected probabilities of {len(decision['classes'])} classes, as "
            f"the decision file is for {', '.join(decision['classes'])}; found "
            f"{number}. Make a decision file for these: `dscpp calibrate`."
        )


def require_of_files(decision: Decision) -> None:
    """Refuse a decision of kind "run" where files of probabilities are given.

    Nobody can say whether a temperature scaled these already.
    """
    if (inputs := decision["inputs"])["kind"] == "run":
        raise InputError(
            "--decision: expected a decision file made from files of probabilities, "
            f"found one from {inputs['probabilities']}, which is for its network. "
            "Apply it with `dscpp predict` and judge what that writes without "
            "--decision; or make a file with `dscpp calibrate PROBABILITIES LABELS`."
        )


def require_network(decision: Decision, model: Path, run: runs.Run | None) -> None:
    """Refuse a network that a decision of kind "run" was not made for.

    Args:
        decision: one without the weights' SHA-256 is taken for any network.
        model: the network, as given.
        run: in whose folder it lies.
    """
    if (inputs := decision["inputs"])["kind"] != "run":
        return
    if run and run.method not in ("", scaling.TEMPERATURE):
        raise InputError(
            f"{model}: expected a run as it was trained or after a temperature, as the "
            f"decision file's temperature would replace another scaling, found one "
            f"after {run.method}. Predict with {run.trained}, or without --decision."
        )
    found = scaling.model_of(run) if run else file_hash(model)
    if inputs.get("model", found) != found:
        raise InputError(
            f"{model}: expected the weights of {inputs['probabilities']}, which the "
            "decision file was made from, found others. Make a decision file for "
            "these: `dscpp calibrate --run`."
        )


APPLIED = "decision.json"
"""The decision file that lies among the probabilities it was applied to."""

WRITTEN = ("volumes.csv", APPLIED)
"""What `dscpp predict` writes of a decision."""


def require_unapplied(probabilities: Path) -> None:
    """Refuse probabilities, in a folder or file, that a decision was applied to."""
    folder = probabilities.parent if probabilities.is_file() else probabilities
    if APPLIED in written.known(folder):  # a file of calibrate's own is not listed
        raise InputError(
            f"{folder}: expected probabilities as the network gives them, found some "
            f"that {APPLIED} there was applied to. Judge these without --decision, or "
            "predict into another folder without it."
        )


def choose(
    histogram: Histograms,
    classes: Sequence[str],
    scaled_by: float,
    missed: float | None,
    inputs: Inputs,
) -> Decision:
    """Choose threshold and volume correction from counts of scaled probabilities.

    Args:
        histogram: counts of voxels; of the part "validation" all cases are used.
        classes: names, background first.
        scaled_by: the temperature.
        missed: share of the true voxels that may be missed, in (0, 1); None: no promise
            is wanted, and the threshold is that of the best Dice.
        inputs: where they are from.

    Raises:
        InputError: a promise that so few cases cannot give, or that is wanted for
            several classes; no case with foreground.
    """
    best = threshold.best_of(histogram, inputs["probabilities"])
    promise = None if missed is None else _promise(histogram, missed, classes, inputs)
    return {
        "format": 1,
        "written_by": f"dscpp {_version()}, commit {commits.commit() or 'unknown'}",
        "inputs": inputs,
        "classes": list(classes),
        "temperature": scaled_by,
        "threshold": promise["threshold"] if promise else best.threshold,
        "best_dice": {
            "threshold": best.threshold,
            "dice": round(best.dice, 6),
            "cases": best.cases,
        },
        "missed": promise,
        "volume_factors": _factors(histogram, classes),
    }


def _promise(
    histogram: Histograms, at_most: float, classes: Sequence[str], inputs: Inputs
) -> Missed:
    """Choose the conformal threshold, or raise InputError if there is none."""
    source = inputs["probabilities"]
    if len(classes) != 2:
        raise InputError(
            f"{source}: --missed: expected one class besides the background, found "
            f"{', '.join(classes[1:])}. Calibrate one class at a time, as the "
            "foreground."
        )
    counts = histogram.counts[_rows(histogram, classes[1])]
    counts = counts[decisions.has_foreground(counts)]
    shares = decisions.false_negatives(counts)
    cut, n = decisions.conformal(shares, at_most), len(counts)
    if cut is None:
        raise InputError(
            f"{source}: impossible to promise that at most {at_most:.3g} of the "
            f"foreground is missed, from {n} cases with foreground: {n} cases can "
            f"promise {1 / (n + 1):.3g} at best, by marking everything. Give more "
            "cases, a larger --missed, or none."
        )
    sizes = decisions.positives(counts)[:, cut] / counts[:, 1].sum(axis=-1)
    return {
        "at_most": at_most,
        "threshold": float(histogram.edges[cut]),
        "observed": round(float(shares[:, cut].mean()), 6),
        "set_size": float(f"{sizes.mean():.6g}"),
        "cases": n,
        "guarantee": _guarantee(at_most, inputs["kind"]),
    }


def _guarantee(at_most: float, kind: Literal["files", "run"]) -> str:
    """Say what is promised, and under which conditions."""
    weights = {
        "files": "These must not have chosen the network's weights.",
        "run": "It is approximate, as these also chose the network's weights.",
    }
    return (
        f"At most {at_most:g} of the foreground of a new case from the same source is "
        "missed, on average over draws of it and of these cases. The cases must be "
        f"independent, one for each patient. {weights[kind]}"
    )


def _factors(histogram: Histograms, classes: Sequence[str]) -> dict[str, float]:
    """Divide true by expected voxels of all cases; no factor where either is 0."""
    factors = {}
    for target in classes[1:]:
        rows = _rows(histogram, target)
        true = histogram.counts[rows, 1].sum()
        expected = decisions.expected_volume(
            histogram.counts[rows], histogram.confidence()[rows]
        ).sum()
        if true and expected:
            factors[target] = float(f"{true / expected:.6g}")
    return factors


def _rows(histogram: Histograms, target: str) -> Any:
    return histogram.where(target=target, **threshold.OF_RUN)


def _version() -> str:
    try:
        return metadata.version("dscpp")
    except metadata.PackageNotFoundError:
        return "(not installed)"
