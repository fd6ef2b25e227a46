"""Train, predict, evaluate: on a run folder, each stage alone or all, where missing.

A stage that a run has passed returns at once, without data and without a backend, so a
fresh clone with committed runs trains nothing again.

What the stages take, each the same:

    folder: the run.
    data: the data set's folder, as its `locate` takes it; None for the usual one.
    work: where the cache and the record of verified files lie.
    again: do it even where the run has passed this stage.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_io import bars, splits
from data_io.datasets.folder import ABOUT, READING, own_images
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import hashing, schema
from data_io.files.writing import sweep
from data_io.verification import leaks, verify
from pipelines.environment import backend, installed, provenance
from pipelines.runs import predictions, written
from pipelines.runs import run as runs
from pipelines.training import tracking
from pipelines.training.task import Task, from_record


def train(
    task: Task, data: Path | None, output: Path, work: Path = runs.WORK
) -> runs.Run:
    """Train a run, or go on with one that was stopped or is asked for more epochs.

    `output` is the run folder, made if needed.

    Raises:
        InputError: bad data, an output that cannot be written, a run that another
            process holds, or one that was begun with other settings or data, other
            files in its place.
    """
    runs.require_free(output)
    if not runs.is_run(output):
        installed.require_training()
        root = task.module.locate(data)  # A wrong path leaves no empty run behind.
        if task.module is own_images:
            written.require_apart("--output", output, own_images.places(root))
    with runs.lock_folder(output):
        run = runs.Run.open(output) if runs.is_run(output) else None
        if run:
            sweep(output)
            task = _as_begun(task, run)
            longer = _is_longer(run, task)
            if run.reached("trained") and not longer:
                _require_named_data(run, task, data, work)
                return run
        _require_backend(output, task.backend)
        tracking.requested()
        root = task.module.locate(data)
        training_data, identity = _prepare(task, root, work, run)
        record = task.module.record(root)
        weights = None
        if task.protocol.initial_weights and not (output / runs.STATE).is_file():
            weights = _initial(task, training_data, root, work)
        if run:
            run.require_same(_with_epochs_of(run, identity))
            _note_environment(run, "train")
        else:
            run = runs.Run.create(output, _new_record(task, identity, record))
        _remember(run, task, root, work)
        from pipelines.training import fit

        fit.train(task, training_data, run, weights, tracking.watchers(run))
    return run


def _require_named_data(
    run: runs.Run, task: Task, data: Path | None, work: Path
) -> None:
    """Refuse data named by the user that are not those of a finished run."""
    if data is None:
        return
    root = task.module.locate(data)
    # Files added since, or another --split, are another training.
    run.require_same({"split": task.split(root, work / "cache")})
    _require_same_data(run, task, root, work)
    _remember(run, task, root, work)


def _initial(task: Task, training_data: Any, root: Path, work: Path) -> Any:
    """Return the weights of another run to begin with, if they fit."""
    if task.initial is None:
        raise InputError(
            "initial_weights: expected --from RUN, whose weights these are, received "
            "their hash alone"
        )
    from pipelines.training import predict as prediction

    run = runs.Run.open(task.initial)
    prediction.require_own(run.path(runs.MODEL), run)
    model = prediction.read_model(run.path(runs.MODEL))
    if model.input_shape[-1] != training_data.channels:
        raise InputError(
            f"--from {task.initial}: expected weights of a network for "
            f"{training_data.channels} channel(s), found {model.input_shape[-1]}"
        )
    tested = training_data.split["test"]
    hashes = hashing.image_hashes(task.module, root, tested, work / "cache")
    seen = run.seen()
    if seen is None:
        bars.note(f"  note     which images {run.folder} was trained on is not known")
    leaked = [case for case in tested if hashes[case] in (seen or ())]
    if leaked:
        raise InputError(
            f"--from {task.initial}: expected test images that it was not trained on, "
            f"found {len(leaked)} that it was: {', '.join(leaked[:3])}. Take its "
            f"split: --split {run.path(runs.RECORD)}"
        )
    return model.get_weights()


def _is_longer(run: runs.Run, task: Task) -> bool:
    """Return whether more epochs are asked for; refuse any other difference."""
    epochs, begun = task.protocol.epochs, run.record.get("settings", {}).get("epochs")
    if type(begun) is not int or epochs <= begun:
        run.require_same(task.identity())
        return False
    run.require_same(_with_epochs_of(run, task.identity()))
    parent = run.folder.absolute().parent
    if parent.name == "runs" and parent.parent.name == task.preset:
        raise InputError(
            f"{run.folder}: expected the {begun} epochs of the preset {task.preset}, "
            f"whose tables this run is in, received {epochs}. Train a copy of it on: "
            f"cp -r {run.folder} my-run, then the same command with --output my-run"
        )
    if run.reached("trained") and not run.path(runs.STATE).is_file():
        raise InputError(
            f"{run.folder}: expected the state in which its training ended, "
            f"{runs.STATE}, to train on with up to {epochs} epochs, found none: it is "
            "not kept in git, and `dscpp clean --weights` deletes it. Train from the "
            f"start into another --output; with --from {run.folder} that begins with "
            "its weights"
        )
    return True


def _with_epochs_of(run: runs.Run, identity: dict[str, Any]) -> dict[str, Any]:
    """Return what a command asks for, with the epochs that a run was begun with."""
    changed = dict(identity)
    for key in ("overrides", "settings"):
        begun = {k: v for k, v in run.record[key].items() if k == "epochs"}
        changed[key] = {k: v for k, v in identity[key].items() if k != "epochs"} | begun
    return changed


def predict(
    folder: Path, data: Path | None, work: Path = runs.WORK, again: bool = False
) -> runs.Run:
    """Write the probabilities of a trained run's validation and test cases.

    Raises:
        InputError: no such run, not trained, no weights here, other data than before.
    """
    with _held(folder) as run:
        if again or not run.reached("predicted"):
            run.require_network()
            run.require("trained", f"dscpp train … --output {folder}")
            task = _task(run)
            data = _data_folder(run, task, data)
            _require_backend(run.folder, task.backend)
            parts = run.record["split"].items()
            split = {part: tuple(ids) for part, ids in parts}
            training_data, identity = _prepare(task, data, work, run, split)
            run.require_same(identity)
            if run.reached("evaluated"):
                bars.note(
                    f"  note     {folder} is set back from 'evaluated' to 'predicted': "
                    "its measures are of the probabilities before. Next: "
                    f"dscpp evaluate --run {folder}"
                )
            _note_environment(run, "predict")
            from pipelines.training import predict as prediction

            prediction.predict(task, training_data, run)
    return run


def evaluate(
    folder: Path, data: Path | None, work: Path = runs.WORK, again: bool = False
) -> runs.Run:
    """Measure a predicted run: `cases.csv`, `histograms.npz` and its picture.

    A run whose measures are gone is measured again without being asked.

    Raises:
        InputError: no such run, not predicted, or no probabilities here.
    """
    with _held(folder, "predicted") as run:
        if again or not run.reached("evaluated") or not run.has_measures:
            from pipelines.prediction import evaluate as evaluation
            from pipelines.reporting.figures import photographs

            root = located(run, data, work)
            _note_environment(run, "evaluate", with_backend=False)
            # The measures come last: with them the run is done, picture and all.
            photographs.picture(run, root)
            evaluation.evaluate(run, root)
        else:
            run.require_measures()
    return run


def shift(
    folder: Path, data: Path | None, work: Path = runs.WORK, again: bool = False
) -> runs.Run:
    """Measure an evaluated run on its corrupted test images: `shift.csv`.

    Raises:
        InputError: as in `evaluate`; a run without a network; see `shift.measure`.
    """
    from pipelines.prediction import shift as shifting

    with _held(folder) as run:
        run.require_network()
        run.require("evaluated", f"dscpp evaluate --run {folder}")
        if again or not shifting.is_done(run):
            _require_backend(folder, _task(run).backend)
            root = located(run, data, work)
            backend.start(work)
            _note_environment(run, "shift")
            shifting.measure(run, root, work)
    return run


def choose_threshold(model: Path, wanted: float | str | None) -> float | None:
    """Return the threshold wanted; choose "auto" on validation, and print it.

    Args:
        model: a run folder, or a `.keras` file.
        wanted: a number in (0, 1), "auto", or None for the most probable class.

    Raises:
        InputError: "auto" and a network without its run; see `threshold.choose`.
    """
    if not isinstance(wanted, str):
        return wanted
    from pipelines.posthoc import threshold

    folder = model.parent if model.name == runs.MODEL else model
    if model.is_file() and not runs.is_run(folder):
        raise InputError(
            f"--threshold auto: expected a run folder, whose validation cases it is "
            f"chosen on, found a network alone, {model}; give a number, such as "
            "--threshold 0.5"
        )
    choice = threshold.choose(runs.Run.open(folder))
    print(choice, flush=True)
    return choice.threshold


def evaluate_at(
    folder: Path, data: Path | None, threshold: float, work: Path = runs.WORK
) -> Path:
    """Measure a predicted run at a threshold; see `evaluate.at_threshold`.

    Raises:
        InputError: as `evaluate`.
    """
    from pipelines.prediction import evaluate as evaluation

    with _held(folder, "predicted") as run:
        return evaluation.at_threshold(run, located(run, data, work), threshold)


def scale(
    folder: Path,
    data: Path | None,
    work: Path = runs.WORK,
    again: bool = False,
    method: str = "temperature",
) -> runs.Run:
    """Scale a predicted run by a method, and measure what comes out.

    See `pipelines.posthoc.scaling`. The new run lies beside the run.

    Raises:
        InputError: as in `evaluate`; a run that is scaled already.
    """
    from pipelines.posthoc import scaling

    with _held(folder, "predicted") as run:
        if not run.members:
            run.require_network()
        output = scaling.folder_of(run, method)
        runs.require_replaceable(
            output,
            f"{run.name} after {method}",
            lambda old: old.last_method == method and old.origin == run.name,
        )
        with runs.lock_folder(output):
            if not again and _scaled(output, scaling.model_of(run), [run]):
                root = data
            else:
                root = located(run, data, work)
                scaling.make(run, root, output, method)
    return evaluate(output, root, work, again)


def ensemble(
    folders: Sequence[Path],
    data: Path | None,
    work: Path = runs.WORK,
    again: bool = False,
    mean: str = "probabilities",
) -> runs.Run:
    """Average predicted runs that differ in their seed alone, and measure the mean.

    See `pipelines.posthoc.ensemble`. The new run lies beside the runs.

    Raises:
        InputError: as in `evaluate`; runs that are no ensemble.
    """
    from pipelines.posthoc import ensemble as ensembles
    from pipelines.posthoc import scaling

    members = ensembles.checked([runs.Run.open(folder) for folder in folders])
    names, method = [m.name for m in members], ensembles.method_of(len(members), mean)
    output = scaling.folder_of(members[0], method)
    runs.require_replaceable(
        output,
        f"the mean of {', '.join(names)}",
        lambda old: {*old.members} == {*names},
    )
    ensembles.require_disjoint(output, method, names)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(_held(m.folder, "predicted")) for m in members]
        root = data
        stack.enter_context(runs.lock_folder(output))
        if again or not _scaled(output, ensembles.model_of(held), held):
            root = located(held[0], data, work)
            ensembles.make(held, root, output, mean)
    return evaluate(output, root, work, again)


def _scaled(output: Path, model: str, origins: Sequence[runs.Run]) -> bool:
    """Return whether a run was made of weights, by hash, and these runs as they are."""
    if not runs.is_run(output):
        return False
    scaled = runs.Run.open(output)
    same = scaled.record.get("posthoc", {}).get("model") == model
    made_of = {one.name: predictions.listed(one) for one in origins}
    same = same and predictions.sources(scaled) in ({}, made_of)  # older: {}
    return same and scaled.reached("predicted")


def complete(
    task: Task, data: Path | None, output: Path, work: Path = runs.WORK
) -> Iterator[tuple[str, runs.Run]]:
    """Do all missing stages of a run, from train to temperature.

    Args: as in `train`.

    Yields:
        The name of each stage and its run, once it is done. A run from git has no
        probabilities, and so no temperature to fit.

    Raises:
        InputError: as the stages.
    """
    run = train(task, data, output, work)
    yield "train", run
    yield "predict", predict(run.folder, data, work)
    yield "evaluate", evaluate(run.folder, data, work)
    if run.path(predictions.PROBABILITIES).is_dir():
        yield "temperature", _temperature_or_note(run, data, work)


def _temperature_or_note(run: runs.Run, data: Path | None, work: Path) -> runs.Run:
    """Return the scaled run; if no temperature fits, the run with a note of it."""
    from pipelines.posthoc import scaling

    try:
        return scale(run.folder, data, work)
    except scaling.AtBound as error:
        print(f"There is no scaled run. {error}", file=sys.stderr)
        with _held(run.folder) as held:
            held.update(temperature_at_bound=scaling.model_of(held))
            return held


def is_scaled(folder: Path, method: str) -> bool:
    """Return whether `scale` has nothing left to do for a run."""
    from pipelines.posthoc import scaling

    run = runs.Run.open(folder)
    folder = scaling.folder_of(run, method)
    if not _scaled(folder, scaling.model_of(run), [run]):
        return False
    scaled = runs.Run.open(folder)
    return scaled.reached("evaluated") and scaled.has_measures


def is_complete(run: runs.Run) -> bool:
    """Return whether `complete` has nothing left to do for a run."""
    from pipelines.posthoc import scaling

    if not run.reached("evaluated") or not run.has_measures:
        return False
    if not run.path(predictions.PROBABILITIES).is_dir():
        return True
    if run.record.get("temperature_at_bound") == scaling.model_of(run):
        return True
    return is_scaled(run.folder, "temperature")


def export(
    folder: Path,
    data: Path | None,
    work: Path,
    nifti: bool,
    with_probabilities: bool,
    pictures: bool,
) -> tuple[list[Path], list[Path]]:
    """Write what a run predicted as files to look at.

    Returns:
        Label maps, see `export.volumes`, where `nifti` asks for them; and pictures, see
        `export.pictures`, where `pictures` does.

    Raises:
        InputError: as in `evaluate`; of NIfTI a run of images.
    """
    with _held(folder, "predicted") as run:
        from pipelines.prediction import export as exporting

        root = located(run, data, work)
        labels = exporting.volumes(run, root, with_probabilities) if nifti else []
        return labels, exporting.pictures(run, root) if pictures else []


def located(run: runs.Run, data: Path | None, work: Path = runs.WORK) -> Path:
    """Find the data that a run was trained on.

    Raises:
        InputError: they are not there, or are others than the run's.
    """
    task = _task(run)
    root = Path(task.module.locate(_data_folder(run, task, data)))
    _require_same_data(run, task, root, work)
    return root


def initial(folder: Path) -> runs.Run:
    """Return the run whose weights a training is to begin with.

    Raises:
        InputError: no such run, or none with a trained network here.
    """
    from pipelines.prediction import new_images

    new_images.require_model(folder, "--from ")
    run = runs.Run.open(folder)
    run.require("trained", f"dscpp train … --output {folder}")
    return run


def own_data(run: runs.Run, data: Path | None) -> Path | None:
    """Return the data that a user named if they are of the run's data set, or None."""
    try:
        if data is not None:
            _task(run).module.locate(data)
    except InputError:
        return None
    return data


@contextlib.contextmanager
def _held(folder: Path, state: str = "training") -> Iterator[runs.Run]:
    """Lock a run that has reached a state; read it once it is locked."""
    runs.Run.open(folder)  # a folder that is no run is not made one by its lock
    with runs.lock_folder(folder):
        run = runs.Run.open(folder)
        run.require(state, run.remake())
        yield run


def _remember(run: runs.Run, task: Task, root: Path, work: Path) -> None:
    """Keep what later stages need: the images seen; the place of own images."""
    # A run from git has no weights to measure on other sets: nothing to note.
    if not run.reached("trained") or run.path(runs.MODEL).is_file():
        parts = run.record["split"]
        seen = [*parts["training"], *parts["validation"]]
        hashes = hashing.image_hashes(task.module, root, seen, work / "cache")
        if task.initial:  # what its weights have seen, these have too
            before = runs.Run.open(task.initial).seen() or set()
            hashes |= {f"before {number}": h for number, h in enumerate(sorted(before))}
        _write_if_other(run.path(runs.SEEN), hashes)
    if task.module is own_images:
        for name in (ABOUT, READING):
            described = hashing.read_json(root / name) or {}
            _write_if_other(run.path(runs.OWN_DATA) / name, described)


def _write_if_other(path: Path, value: dict[str, Any]) -> None:
    """Write a note, unless it is there already with the same content."""
    if hashing.read_json(path) != value:
        # The reading is a part of the data, whose hash runs have.
        runs.write_json(path, value if path.name == READING else schema.sealed(value))


def _data_folder(run: runs.Run, task: Task, data: Path | None) -> Path | None:
    """Return the data folder given; without it, that of own images in training."""
    if data is not None or task.module is not own_images:
        return data
    root = run.trained / runs.OWN_DATA
    problem = "no note of where that was"
    if (root / ABOUT).is_file():
        gone = len(task.module.check(task.module.locate(root)))
        problem = f"{gone} files gone" if gone else ""
    if problem:
        raise InputError(
            f"{run.folder}: expected its images where they were in training, found "
            f"{problem}. Put them back; or, where they were moved, give this run's "
            "`dscpp train` command with their --images and --masks of today and "
            f"--output {run.trained}: it trains nothing. Then give this command again."
        )
    return root


def _task(run: runs.Run) -> Task:
    if run.method == runs.TRUTH:
        raise InputError(
            f"{run.folder}: expected a run of a network, found the {runs.TRUTH}; "
            f"`{run.remake()}` with the runs beside it measures it anew"
        )
    try:
        return from_record(run.record)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{run.path(runs.RECORD)}: expected the settings of a run, found others "
            f"({error}); restore the file, or train again into another --output"
        ) from error


def estimate(task: Task, data: Path | None, work: Path = runs.WORK) -> dict[str, Any]:
    """Time a few training steps; see `pipelines.training.fit.estimate`."""
    training_data, _ = _prepare(task, data, work)
    from pipelines.training import fit

    return fit.estimate(task, training_data)


def _prepare(
    task: Task,
    data: Path | None,
    work: Path,
    run: runs.Run | None = None,
    split: splits.Split | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Verify and preprocess the data; return them, and the identity with the data."""
    installed.require_training()
    module = task.module
    root = module.locate(data)
    report = verify.audit(module, root, work / "verify" / f"{task.dataset}.json")
    if split is None:
        split_options = task.split_seed, task.split_files, work / "cache", task.fold
        known = len(report.warnings)
        split = leaks.audit(module, root, report, *split_options)
        for text in report.warnings[known:]:
            bars.note(f"  warning: {text}")
    leaks.require(report)
    backend.start(work)
    from data_io.prepare import cache
    from data_io.prepare.preprocessing import Settings
    from pipelines.training.fit import TrainingData

    record = module.record(root)
    settings = Settings.of(record, task.protocol.input_shape)
    if run and module is own_images:
        # Another version may have derived other settings of the same images.
        settings = Settings.from_dict(run.record["preprocessing"])
    cases = [case for ids in split.values() for case in ids]
    prepared = cache.prepare(module, root, cases, settings, work / "cache")
    training_data = TrainingData(
        cache=prepared,
        split=split,
        classes=len(record.classes),
        channels=record.channels,
    )
    identity = {
        **task.identity(),
        "preprocessing": settings.as_dict(),
        "split": {name: list(ids) for name, ids in split.items()},
        "data_hash": prepared.data_hash,
    }
    return training_data, identity


def _new_record(task: Task, identity: dict[str, Any], record: Record) -> dict[str, Any]:
    initial = {}
    if task.initial:
        start_record = runs.Run.open(task.initial).record
        origin = {
            key: str(start_record[key]) for key in ("dataset", "loss", "data_hash")
        }
        initial = {"initial": {"run": task.initial.name, **origin}}
    return {
        **initial,
        "title": record.title,
        "classes": list(record.classes),
        "simulated": record.simulated,
        **identity,
        **provenance.environment(),
        "times": {},
        "files": {},
    }


def _note_environment(run: runs.Run, stage: str, with_backend: bool = True) -> None:
    """Record changes of the environment; warn if a training goes on."""
    now = provenance.environment(with_backend)
    changed = provenance.changes(run.record, now)
    if not changed:
        return
    if stage == "train":
        lines = [f"  {key}: now {value}" for key, value in changed.items()]
        start = (
            f"{run.folder}: this training goes on in another environment than before, "
            "and may not give the figures it would have given, to the bit:"
        )
        text = "\n".join([start, *lines, f"Both are in {runs.RECORD}."])
        bars.note(text, sys.stderr)
    earlier = run.record.get("environment_changes", [])
    run.update(environment_changes=[*earlier, {"stage": stage, **changed}])


def _as_begun(task: Task, run: runs.Run) -> Task:
    """Return the task with the join of patches that its run began with.

    Earlier versions joined those as the released code does.
    """
    join = run.record.get("settings", {}).get("join")
    if task.module is not own_images or join is None or "join" in task.overrides:
        return task
    return replace(task, protocol=replace(task.protocol, join=join))


def _require_backend(folder: Path, wanted: str) -> None:
    """Refuse another backend than the run's: its probabilities are of one."""
    current = provenance.backend()
    if wanted != current:
        raise InputError(
            f"{folder}: expected backend {wanted!r}, found {current!r}; "
            f"set KERAS_BACKEND={wanted} or use its environment"
        )


def _require_same_data(run: runs.Run, task: Task, root: Path, work: Path) -> None:
    """Refuse data that a finished run was not made from."""
    module = task.module
    known = set(splits.cases(module, root))
    cases = [case for ids in run.record["split"].values() for case in ids]
    gone = [
        case
        for case in cases
        if case not in known or not any(p.exists() for p in module.files(root, case))
    ]
    if gone:
        raise InputError(
            f"{run.folder}: expected the {len(cases)} cases of its split in {root}, "
            f"found {len(gone)} gone: {', '.join(gone[:3])}. Put them back."
        )
    hashes = hashing.case_hashes(module, root, cases, work / "cache")
    run.require_same({"data_hash": hashing.data_hash(hashes)})
