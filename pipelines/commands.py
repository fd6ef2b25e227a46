"""What the commands of `commands.yaml` do that have no module of their own.

Each takes the arguments as typed. Heavy imports live inside the functions.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import bars, datasets
from data_io.errors import InputError, Problems
from pipelines import arguments, loss_names
from pipelines.environment import installed
from pipelines.runs import run as runs
from pipelines.runs.run import Run

if TYPE_CHECKING:
    from data_io.verification.report import Report
    from pipelines.posthoc.decision import Decision
    from pipelines.reporting import pages


def fetch(options: argparse.Namespace) -> None:
    """`dscpp fetch`: download a data set, or check the one that is here."""
    from data_io.fetching import fetch as fetching

    if options.name.lower() not in datasets.NAMES:
        known = ", ".join(datasets.NAMES)
        raise InputError(f"fetch: expected {known}, received {options.name}")
    module = datasets.by_name(options.name)
    root, record = fetching.fetch(module, options.output), module.RECORD
    print(
        f"{record.title} is in {root}\nnext: dscpp verify --dataset {record.name}",
        end="",
    )
    print(f" --data {root}" if options.output else "")


def verify(options: argparse.Namespace) -> Report:
    """`dscpp verify`: return its report; write it to `options.json` too, if given.

    Raises:
        Problems: all that is wrong; the report is written all the same.
        InputError: in place of the JSON file is another file than a report.
    """
    from data_io.verification.report import Finding, Report
    from pipelines.runs import written

    if options.json:
        written.require_report(options.json, Report("", Path(), {}).as_dict())
    try:
        arguments.take_own(options)
        report = _verified(options)
        failed: Problems | None = None if report.ok else report.error()
    except Problems as error:  # images that could not be made a data set
        findings = [Finding("own", text) for text in error.problems]
        name = options.dataset or "own"
        report = Report(error.title, Path(), {}, name=name, problems=findings)
        failed = error
    if options.json:
        runs.write_json(options.json, report.as_dict())
    if failed:
        raise failed
    return report


def _verified(options: argparse.Namespace) -> Report:
    """Decode every file; look for leaks where there is a split."""
    from data_io import splits
    from data_io.verification import leaks, verify

    module, work = datasets.by_name(options.dataset), options.work
    root = Path(module.locate(options.data))
    state = work / "verify" / f"{module.RECORD.name}.json"
    report = verify.audit(module, root, state, jobs=options.jobs)
    fixed = options.split or module.split(root) is not None
    if fixed or len(splits.cases(module, root)) > 2:
        split_options = options.split_seed, options.split, work / "cache"
        leaks.audit(module, root, report, *split_options)
    return report


def run(options: argparse.Namespace) -> None:
    """`dscpp run`: do what is missing of one run."""
    from pipelines import stages
    from pipelines.workflow import plan

    planned = plan.load(options.file)
    os.environ["KERAS_BACKEND"] = planned.task.backend
    finished = stages.complete(planned.task, planned.data, planned.folder, planned.work)
    for stage, run in finished:
        print(_STAGE_MESSAGES[stage](run), flush=True)


def _trained(run: Run) -> str:
    return (
        f"{run.folder}: {run.state}, best validation loss "
        f"{run.record['best_val_loss']:.4f}, {run.record['times']['epochs']} epochs"
    )


def _predicted(run: Run) -> str:
    return f"{run.folder}: {run.state}"


def _evaluated(run: Run) -> str:
    from pipelines.reporting import tables

    means = tables.set_summary(run.path("cases.csv"), "test")
    seen = f"{run.folder}: {run.state}; see cases.csv and histograms.npz"
    return "\n".join([*means, seen])


def _scaled(run: Run) -> str:
    fitted = run.record.get("posthoc")
    if fitted is None:  # the best one lies at a bound
        return f"{run.folder}: {run.state}, no temperature"
    value = f" {fitted['temperature']:g}" if "temperature" in fitted else ""
    return (
        f"{run.folder}: {run.state}, {run.method}{value}, NLL of the validation cases "
        f"{fitted['nll_before']:.4f} before, {fitted['nll_after']:.4f} after"
    )


# What is printed when a stage is done.
_STAGE_MESSAGES: dict[str, Callable[[Run], str]] = {
    "train": _trained,
    "predict": _predicted,
    "evaluate": _evaluated,
    "temperature": _scaled,
}


def train(options: argparse.Namespace) -> str:
    """`dscpp train`: train one run, or go on with it."""
    from pipelines import stages
    from pipelines.training import protocol
    from pipelines.training.task import Task

    record = arguments.take_own(options)
    overrides = protocol.parse_overrides(options.set)
    if options.epochs is not None:
        overrides["epochs"] = options.epochs
    task = Task.make(
        options.dataset,
        options.loss,
        options.gamma,
        options.seed,
        options.split_seed,
        options.preset,
        overrides,
        options.split,
        record,
        runs.replicate_of(options.output) if options.output else 1,
        initial=stages.initial(options.initial) if options.initial else None,
    )
    if record:
        shape = " x ".join(str(size) for size in task.protocol.input_shape)
        bars.note(f"  network  input {shape} (preset {task.preset})")
    output = options.output or task.folder(options.results)
    return _trained(stages.train(task, options.data, output, options.work))


def predict(options: argparse.Namespace) -> None:
    """`dscpp predict`: the cases of a run, or any images."""
    from pipelines import stages

    model = options.model or options.run_folder
    image_options = [options.model, options.input, options.output]
    if options.run_folder and not any(image_options):
        _predict_run(options)
        return
    both = options.model and options.run_folder
    if both or not all([model, *image_options[1:]]):
        raise InputError(
            "expected --run RUN, or --run RUN or --model M with --images PATH and "
            "--output DIR; received another combination"
        )
    _refuse(options, "--images", "data", "again", "nifti")
    from pipelines.prediction import new_images

    decision = _decision(options)
    written = new_images.predict_images(
        model,
        options.input,
        options.output,
        stages.choose_threshold(model, options.threshold),
        options.work,
        options.probabilities,
        options.pictures,
        decision,
    )
    maps = f"{len(written)} label map{'s' * (len(written) != 1)}"
    print(f"{options.output}: {maps}")


def _refuse(options: argparse.Namespace, beside: str, *names: str) -> None:
    """Refuse options that would change nothing beside another one.

    Raises:
        InputError: names the first.
    """
    for name in names:
        if getattr(options, name):
            raise InputError(
                f"--{name}: expected none beside {beside}, where it changes nothing"
            )


def _note_unused(options: argparse.Namespace, done: bool) -> None:
    """Print that `--data` is not used, as the run has passed this stage."""
    if options.data and done and not options.again:
        bars.note(
            f"  note     --data {options.data} is not looked at: this was done before; "
            "--again does it anew"
        )


def _decision(options: argparse.Namespace) -> Decision | None:
    if options.decision is None:
        return None
    if options.threshold is not None:
        raise InputError(
            "--decision: expected no --threshold beside it, as the file has one"
        )
    from pipelines.posthoc import decision

    return decision.load(options.decision)


def _predict_run(options: argparse.Namespace) -> None:
    from pipelines import stages
    from pipelines.prediction import export

    if options.decision is not None:
        raise InputError(
            "--decision: expected --images and --output with it; `dscpp judge "
            "--decision` measures probabilities that are there"
        )
    if options.threshold is not None:
        raise InputError(
            "--threshold: expected --images and --output with it; a run keeps "
            "probabilities: `dscpp evaluate --threshold` measures them at one, `dscpp "
            "tables` at 0.05 to 0.95"
        )
    if options.probabilities and not options.nifti:
        raise InputError(
            "--probabilities: expected --nifti too; without it probabilities are "
            "written on the network's grid, RUN/probabilities/CASE.npy"
        )
    files = options.nifti, options.probabilities, options.pictures
    known = Run.open(options.run_folder)
    _note_unused(options, known.reached("predicted") and not any(files))
    export.require_free(known, *files)
    run = stages.predict(options.run_folder, options.data, options.work, options.again)
    print(_predicted(run))
    if not (options.nifti or options.pictures):
        return
    exported = stages.export(run.folder, options.data, options.work, *files)
    for paths, what in zip(exported, ("label maps", "pictures"), strict=True):
        if paths:
            print(f"{paths[0].parent}: {len(paths)} {what}")


def evaluate(options: argparse.Namespace) -> None:
    """`dscpp evaluate`: measure a run on its own cases, or on another set."""
    from pipelines import stages

    if options.images is None and options.masks is None:
        _refuse(options, "the run's own cases", "name", "classes")
        _evaluate_run(options)
        return
    if options.images is None or options.masks is None or options.data:
        raise InputError(
            "expected both --images DIR and --masks DIR of the other set, and no --data"
        )
    _refuse(options, "--images", "again")
    from pipelines.prediction import new_images

    threshold = stages.choose_threshold(options.run_folder, options.threshold)
    folder = new_images.evaluate_set(
        options.run_folder,
        options.images,
        options.masks,
        options.name or "other",
        arguments.class_names(options),
        options.work,
        threshold,
    )
    from pipelines.prediction import evaluate as evaluation
    from pipelines.reporting import tables

    print("\n".join(tables.set_summary(folder / "cases.csv")))
    print(f"{folder}: see cases.csv and histograms.npz")
    if threshold is not None:
        _print_at_threshold(folder / evaluation.threshold_file(threshold))


def _evaluate_run(options: argparse.Namespace) -> None:
    from pipelines import stages

    run_and_data = options.run_folder, options.data
    known = Run.open(options.run_folder)
    done = known.reached("evaluated") and known.has_measures
    _note_unused(options, done and options.threshold is None)
    print(_evaluated(stages.evaluate(*run_and_data, options.work, options.again)))
    threshold = stages.choose_threshold(options.run_folder, options.threshold)
    if threshold is not None:
        path = stages.evaluate_at(*run_and_data, threshold, options.work)
        _print_at_threshold(path, "test")


def _print_at_threshold(path: Path, split: str | None = None) -> None:
    from pipelines.reporting import tables

    shown = ("dice", "jaccard", "precision", "recall")
    lines = tables.set_summary(path, split, shown)
    print(*(f"{path.stem}: {line}" for line in lines), f"{path}", sep="\n")


def shift(options: argparse.Namespace) -> Path:
    """`dscpp shift`: measure a run on its corrupted test images; print means."""
    from pipelines import stages
    from pipelines.prediction import shift as shifting
    from pipelines.reporting import shift as measured

    folder = options.run_folder
    _note_unused(options, shifting.is_done(Run.open(folder)))
    run = stages.shift(folder, options.data, options.work, options.again)
    rows = measured.read(run).replace({"method": {"": "no method"}})
    for measure in ("nll", "dice"):
        by = ["method", "target", "kind"]
        means = rows.pivot_table(measure, by, "strength", sort=False)
        print(f"{measure}, mean of the test images by strength")
        print(means.to_string(float_format="{:.3f}".format, na_rep=""))
    return folder / runs.SHIFT


def scale(options: argparse.Namespace) -> str:
    """`dscpp scale`: map a run's probabilities."""
    from pipelines import stages

    scale_options = options.run_folder, options.data, options.work, options.again
    _note_unused(options, stages.is_scaled(options.run_folder, options.method))
    return _scaled(stages.scale(*scale_options, options.method))


def ensemble(options: argparse.Namespace) -> str:
    """`dscpp ensemble`: average runs of several seeds."""
    from pipelines import stages

    ensemble_options = options.data, options.work, options.again, options.mean
    return _evaluated(stages.ensemble(options.folders, *ensemble_options))


def tables(options: argparse.Namespace) -> None:
    """`dscpp tables`: of all runs, or of those named."""
    report, pages = _pages(options)
    written = report.write(pages)
    for page in pages:
        print(page.text(), end="\n\n")
        page_files = [path for path in written if path.parent == page.study.folder]
        print("\n".join(str(path) for path in page_files))
    over_all = [path for path in written if path.parent == options.results]
    if over_all:
        print(report.counts(), end="\n\n")
        print("\n".join(str(path) for path in over_all))
    for path in options.readme:
        report.update(path)


def _pages(
    options: argparse.Namespace,
) -> tuple[pages.Report, list[pages.Page]]:
    """Return the tables of the runs named, or of the results chosen."""
    from pipelines.reporting import frame
    from pipelines.reporting.pages import Report as Tables

    if not options.folders:
        _warn_unrecorded(options)
        report = Tables(options.results)
        return report, report.chosen(options.dataset, options.preset)
    named = runs.listed(options.folders)
    unfinished = [_unfinished(run) for run in named if run.state != "evaluated"]
    for line in [*unfinished, *frame.left_out(named).values()]:
        print(f"dscpp: warning: left out: {line}", file=sys.stderr)
    report = Tables(options.results, named, options.output)
    return report, report.pages


def _unfinished(run: Run) -> str:
    return (
        f"{run.folder}: expected a run that is 'evaluated', found {run.state!r}; give "
        f"`dscpp predict --run {run.folder}`, then `dscpp evaluate --run {run.folder}`"
    )


def _warn_unrecorded(options: argparse.Namespace) -> None:
    """Name the folders that are left out because their record is gone."""
    from pipelines.reporting.frame import left_out_of

    for line in [*runs.unrecorded(options.results), *left_out_of(options.results)]:
        bars.note(f"dscpp: warning: left out: {line}", sys.stderr)


def figures(options: argparse.Namespace) -> None:
    """`dscpp figures`: those of run files, and those with images where they are."""
    from pipelines.reporting.figures import curves, photographs
    from pipelines.runs import written

    written.require_figures(options.output or options.results)
    _warn_unrecorded(options)
    for path in curves.write_figures(options.results, *_column(options)):
        print(path)
    if options.output:
        return
    with _located(options) as locate:
        drawn, skipped = photographs.write_pictures(options.results, locate)
        for path in drawn:
            print(path)
        if skipped:
            bars.note(skipped)


def _column(options: argparse.Namespace) -> tuple[Path | None, list[str], Any, bool]:
    """Return the output folder, losses, width and use of titles of the curves."""
    named = (options.losses or "").split(",")
    losses = [loss_names.checked(name.strip())[0] for name in named if name.strip()]
    if options.output is None and any((losses, options.width, options.no_title)):
        raise InputError(
            "--losses, --width, --no-title: expected --output DIR with them, so "
            "that the figures beside the runs stay as they are"
        )
    if options.output:
        _refuse(options, "--output", "data")
    return options.output, losses, options.width, not options.no_title


@contextlib.contextmanager
def _located(options: argparse.Namespace) -> Iterator[Callable[[Run], Path]]:
    """Yield a function that finds the images of a run; then refuse an unused `--data`.

    Raises:
        InputError: `--data` has the images of none of the runs that were asked for.
    """
    from pipelines import stages

    dataset_by_data: dict[Path | None, str] = {}

    def locate(run: Run) -> Path:
        data = stages.own_data(run, options.data)
        dataset_by_data[data] = run.record["dataset"]
        return stages.located(run, data, options.work)

    yield locate
    if options.data and not dataset_by_data:
        bars.note(
            f"  note     --data {options.data} is not looked at: no run that was asked "
            "for has probabilities here to show beside its images"
        )
    if dataset_by_data and options.data not in dataset_by_data:
        raise InputError(
            f"--data {options.data}: expected the images of a data set whose "
            f"probabilities are here, such as {dataset_by_data[None]}, found others"
        )


def report(options: argparse.Namespace) -> Path:
    """`dscpp report`: one HTML page of the runs at hand."""
    installed.require("jinja2")
    from pipelines.report import page

    page.require_replaceable(options.output)
    options.dataset = options.preset = None  # of all, but for own images
    if options.images is not None or options.masks is not None:
        arguments.take_own(options)
    all_tables, pages = _pages(options)
    with _located(options) as locate:
        text = page.html(all_tables, pages, locate)
    return page.write(text, options.output)


def card(options: argparse.Namespace) -> str:
    """`dscpp card`: the model card of a run."""
    installed.require("jinja2")
    from pipelines.report import card as model_card

    return model_card.card(Run.open(options.run_folder), options.results).rstrip()


def list_runs(options: argparse.Namespace) -> str:
    """`dscpp runs`: a line for each run."""
    if options.folders:
        shown_runs = runs.listed(options.folders)
    else:
        groups = sorted(options.results.glob("*/*/runs"))
        shown_runs = [run for group in groups for run in runs.find(group.parent)]
        _warn_unrecorded(options)
    if not shown_runs:
        return (
            f"{options.results}: no runs yet; `dscpp demo` makes some. One elsewhere "
            "is listed by name: `dscpp runs RUN`"
        )
    last = "Dice and NLL: means over test images, then over classes"
    return "\n".join([*map(_listed, shown_runs), last])


def _listed(run: Run) -> str:
    """Return a line on one run: its state, epochs, measures and folder."""
    from pipelines.reporting import tables

    trained = f"{run.record.get('times', {}).get('epochs', 0):>5} epochs"
    if run.method:
        scaled_by = run.record.get("posthoc", {}).get("temperature")
        trained = f"T = {scaled_by:.3g}" if scaled_by else run.method
    measures = " " * 23
    if run.state == "evaluated":
        try:
            measures = "Dice {dice:.3f}, NLL {nll:.3f}".format(
                **tables.brief_means(run.path("cases.csv"))
            )
        except InputError:  # `dscpp tables` says what is wrong with them
            measures = "measures damaged"
    return f"{run.state:10} {trained:12}  {measures:23}  {run.folder}"


def clean(options: argparse.Namespace) -> None:
    """`dscpp clean`: list or delete what can be made again."""
    from pipelines.runs import cleaning

    things = cleaning.find(options.results, options.work, options.weights)
    print("\n".join(cleaning.lines(things)))
    if options.yes:
        cleaning.remove(things)
    elif things:
        bars.note("Nothing was deleted; --yes deletes what is listed.")
