"""`dscpp calibrate`: a decision file from validation probabilities."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_io import bars
from data_io.errors import InputError
from data_io.files.hashing import file_hash
from data_io.files.schema import digest
from data_io.own_images import probabilities as probability_files
from pipelines import arguments
from pipelines.measure import histograms
from pipelines.posthoc import decision, maps, scaling, threshold
from pipelines.prediction import judge
from pipelines.runs import run as runs

_VOXELS = 2**24
"""Held at most to fit a temperature on, shared equally among the cases."""


def command(options: argparse.Namespace) -> str:
    """`dscpp calibrate`: write the file; return a summary of it."""
    places = options.probabilities, options.labels
    files = (*places, options.classes)
    if any(files) if options.run_folder else not all(places):
        raise InputError(
            "expected PROBABILITIES and LABELS, or --run RUN without --classes; "
            "received another combination"
        )
    decision.require_free(options.output)
    if options.run_folder:
        new_decision = of_run(options.run_folder, options.missed)
    else:
        classes = tuple(arguments.class_names(options))
        new_decision = of_files(*places, classes, options.missed)
    decision.save(options.output, new_decision)
    return "\n".join([*_summary(new_decision), str(options.output)])


def of_run(folder: Path, missed: float | None = None) -> decision.Decision:
    """Decide from the validation cases of an evaluated run.

    Needs neither images nor probabilities. The temperature is that of a run after
    temperature scaling, 1 of others.

    For `missed` see `decision.choose`.

    Raises:
        InputError: a run that is not evaluated, an ensemble, or a run that `maps`
            scaled; else as `decision.choose`.
    """
    run = runs.Run.open(folder)
    if run.record.get("posthoc", {}).keys() & {"members", "trained"}:
        raise InputError(
            f"{run.folder}: expected a run of one network, as a decision file is for, "
            f"found one after {run.method}; give a member of the ensemble"
        )
    run.require("evaluated", f"dscpp evaluate --run {run.folder}")
    run.require_measures()
    if run.last_method in maps.METHODS:
        raise InputError(
            f"{run.folder}: expected a run as it was trained or after a temperature, "
            f"as a decision file holds no other scaling, found one after {run.method}; "
            f"give {run.trained}"
        )
    table = histograms.load(run.path("histograms.npz"))
    inputs: decision.Inputs = {
        "kind": "run",
        "probabilities": f"run {run.name}",
        "labels": str(run.record["dataset"]),
        "cases": len(run.record["split"]["validation"]),
        "sha256": file_hash(run.path("histograms.npz")),
    }
    classes = run.record.get("classes") or (
        "background",
        *dict.fromkeys(map(str, table.target)),
    )
    if model := scaling.model_of(run):
        inputs["model"] = model
    scaled_by = float(run.record.get("posthoc", {}).get("temperature", 1))
    return decision.choose(table, classes, scaled_by, missed, inputs)


def of_files(
    probabilities: Path,
    labels: Path,
    classes: tuple[str, ...] = (),
    missed: float | None = None,
) -> decision.Decision:
    """Decide from probabilities of any program: fit a temperature, then count.

    The files are as `judge.judge` takes them; for `missed` see `decision.choose`.

    Raises:
        InputError: files that cannot be read or do not fit; else as
            `decision.choose`.
    """
    decision.require_unapplied(probabilities)
    files = probability_files.pairs(probabilities, labels)
    temperature = _temperature(files, probabilities.resolve())
    (measured,), classes = judge.measured(
        files, "calibrate", classes, "validation", temperature
    )
    inputs: decision.Inputs = {
        "kind": "files",
        "probabilities": probabilities.resolve().name,
        "labels": labels.resolve().name,
        "cases": len(files),
        "sha256": digest([file_hash(path) for pair in files.values() for path in pair]),
    }
    table = histograms.Histograms.from_rows(*measured)
    return decision.choose(table, classes, temperature, missed, inputs)


def _temperature(files: Mapping[str, tuple[Path, Path]], source: Path) -> float:
    """Fit a temperature; at the bounds it is 1, with a note."""
    try:
        return scaling.fitted(_samples(files), source).temperature
    except scaling.AtBound as error:
        bars.note(f"  note     {error}. The temperature is left at 1")
        return 1.0


def _samples(files: Mapping[str, tuple[Path, Path]]) -> list[scaling.Sample]:
    """Read the voxels of each case; of a large one, draw a sample by a fixed seed.

    Left out are those with a p that the file has rounded to 0: its logit is not known,
    and a fit to the others has the same best temperature. Where there are no others, as
    with hard label maps, all are used.
    """
    most, every, known = _VOXELS // len(files), [], []
    shown = bars.bar(
        probability_files.read_all(files), "read", total=len(files), unit="case"
    )
    for number, (_, case) in enumerate(shown):
        p, label = case.softmax.reshape(-1, case.softmax.shape[-1]), case.label.ravel()
        if label.size > most:
            drawn = np.random.default_rng(number).integers(0, label.size, most)
            p, label = p[drawn], label[drawn]
        every.append(scaling.Sample(p, label))
        sure = p.min(axis=-1) >= case.least
        known.append(every[-1] if sure.all() else scaling.Sample(p[sure], label[sure]))
    return known if any(sample.label.size for sample in known) else every


def _summary(new_decision: decision.Decision) -> list[str]:
    best, promise = new_decision["best_dice"], new_decision["missed"]
    cases = new_decision["inputs"]["cases"]
    lines = [
        f"{new_decision['inputs']['probabilities']}: {cases} case{'s' * (cases != 1)}",
        f"  temperature {new_decision['temperature']:g}",
        f"  best Dice {best['dice']:.3f} at threshold {best['threshold']:g} "
        f"({threshold.counted(best['cases'], cases)})",
    ]
    if promise:
        lines += [
            f"  threshold {promise['threshold']:.4g} by --missed: these cases miss "
            f"{promise['observed']:.3f}, and {promise['set_size']:.3g} times the true "
            "size is marked",
            f"  {promise['guarantee']}",
        ]
    factors = new_decision["volume_factors"].items()
    lines += [f"  volume of {name} times {factor:.3f}" for name, factor in factors]
    return lines
