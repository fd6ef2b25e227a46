"""`dscpp`: thin commands, one stage each. Heavy imports live inside the functions."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import bars, datasets
from data_io.errors import InputError, NotFinite, escaped, is_text, not_text
from pipelines import arguments, backend, installed, loss_names, streams
from pipelines import run as runs
from pipelines.run import Run

if TYPE_CHECKING:
    from pipelines.posthoc.decision import Decision

_NO_READER = 141  # exit code, as where SIGPIPE ends a process
_DATASETS, _LOSSES = ", ".join(datasets.NAMES), ", ".join(loss_names.NAMES)


def main(typed: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        typed: the arguments as typed; None for those of this process.

    Returns:
        0 on success, 1 when a run failed, 2 on bad input (message on stderr).
    """
    from pipelines.workflow import processes

    # Started by `dscpp reproduce`, a command ends when that one is killed.
    processes.follow()
    # TensorFlow's own notes would bury ours; its errors still come through.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # The default is TensorFlow, whatever a keras.json in the home folder says.
    os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"
    with streams.named():
        return _result(typed)


def _result(typed: Sequence[str] | None) -> int:
    """Run a command, and say what is wrong where it fails."""
    try:
        with _bars_closed_first():
            options = _parser().parse_args(typed)
            _require_text(sys.argv[1:] if typed is None else typed)
            with bars.quiet_if(options.quiet):
                backend.clear_environment()
                code = int(options.run(options) or 0)
        sys.stdout.flush()
        return code
    except InputError as error:
        streams.say(escaped(str(error)))
        return 2
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not name or installed.is_here(name):
            raise  # Of a package that is here: no command would bring it.
        streams.say(str(installed.missing(name)))
        return 2
    except OSError as error:
        if error.filename is None:
            raise  # Of no file: permissions or disk space would not help.
        if isinstance(error, BrokenPipeError):
            return _NO_READER  # such as `head`, which has seen enough
        streams.say(
            f"{escaped(str(error.filename))}: expected a place that can be used, "
            f"found: {error.strerror}. Fix its permissions, free space, or name "
            "another."
        )
        return 2
    except KeyboardInterrupt:
        streams.say("stopped; the same command goes on from here")
        return 130
    except NotFinite as error:
        streams.say(str(error))
        return 1


def _require_text(names: Iterable[str]) -> None:
    """Refuse names that could not be written into a record; that of this folder too.

    Raises:
        InputError: the first that is no text, or this folder was deleted.
    """
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:
        raise InputError(
            "expected a folder to work in, found that this one was deleted; change to "
            "another"
        ) from error
    for name in (*names, here):
        if not is_text(name):
            raise InputError(not_text(name))


@contextlib.contextmanager
def _bars_closed_first() -> Iterator[None]:
    """Let what is said of an error begin on a line of its own, and be the last."""
    try:
        yield
    except BaseException:
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dscpp",
        description="Calibrated segmentation with the DSC++ loss: train, predict, "
        "evaluate and compare with the paper (Yeung et al., 2021).",
        epilog="examples:\n  dscpp demo\n  dscpp reproduce --dataset drive --data DIR\n"
        "Not for clinical use.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the version and exit"
    )
    _add_quiet(parser, default=False)
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=("bash", "zsh", "tcsh"),
        help="print the script by which a shell completes commands, options and files",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _demo,
        _reproduce,
        _study,
        _fetch,
        _verify,
        _run,
        _train,
        _predict,
        _evaluate,
        _temperature,
        _judge,
        _calibrate,
        _tables,
        _figures,
        _runs,
        _clean,
    ):
        add(commands)
    return parser


_Commands = argparse._SubParsersAction


def _command(
    commands: _Commands[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    help_: str,
    examples: tuple[str, ...],
    note: str = "",
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog="\n".join([note, "examples:", *(f"  dscpp {one}" for one in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_quiet(parser, default=argparse.SUPPRESS)  # what stands before it counts too
    parser.set_defaults(run=run)
    return parser


def _add_quiet(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=default,
        help="print errors and results only",
    )


class _Version(argparse.Action):
    """`--version`; a tree that runs without being installed has none to look up."""

    def __call__(self, parser: Any, *_: Any) -> None:
        try:
            version = metadata.version("dscpp")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"{parser.prog} {version}")
        parser.exit()


class _Completion(argparse.Action):
    """`--print-completion SHELL`; what it needs is imported only then."""

    def __call__(self, parser: Any, namespace: Any, values: Any, *_: Any) -> None:
        from pipelines.training import protocol

        installed.require("shtab")
        import shtab

        known = {"dataset": list(datasets.NAMES), "loss": list(loss_names.NAMES)}
        known["preset"] = list(protocol.PRESETS)
        (commands,) = (a for a in parser._actions if isinstance(a, _Commands))
        for action in (a for each in commands.choices.values() for a in each._actions):
            action.choices = known.get(action.dest, action.choices)
            if action.type is arguments.folder:
                action.complete = shtab.FILE
        print(shtab.complete(parser, values))
        parser.exit()


def _demo(commands: _Commands[argparse.ArgumentParser]) -> None:
    from pipelines.workflow import reproduce

    parser = _command(
        commands,
        "demo",
        reproduce.command,
        "train CE, DSC and DSC++ on simulated phantoms and compare them (minutes)",
        ("demo", "demo --losses DSC,DSC++ --seeds 0,1 --results my-demo"),
    )
    reproduce.add_demo_arguments(parser)


def _reproduce(commands: _Commands[argparse.ArgumentParser]) -> None:
    from pipelines.workflow import reproduce

    parser = _command(
        commands,
        "reproduce",
        reproduce.command,
        "train, predict and evaluate many runs, then the tables",
        (
            "reproduce --dataset drive --data DIR --preset reduced --losses CE,DSC++",
            "reproduce --images photos --masks labels --preset reduced",
        ),
    )
    reproduce.add_arguments(parser)


def _study(commands: _Commands[argparse.ArgumentParser]) -> None:
    from pipelines.workflow import study

    parser = _command(
        commands,
        "study",
        study.command,
        "make the runs of a list in its order, at low priority, or say how far it is",
        ("study --data DIR", "study --status"),
        "The same command goes on after any interruption.",
    )
    study.add_arguments(parser)


def _fetch(commands: _Commands[argparse.ArgumentParser]) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_io.fetching import fetch

        if options.name.lower() not in datasets.NAMES:
            raise InputError(f"fetch: expected {_DATASETS}, received {options.name}")
        module = datasets.by_name(options.name)
        plan = fetch.plan(module, options.output)
        print(plan, end="\n" * bool(plan), flush=True)
        done = fetch.fetch(module, options.output)
        print(f"{done}\nnext: dscpp verify --dataset {module.RECORD.name}", end="")
        print(f" --data {done.root}" if options.output else "")

    parser = _command(
        commands,
        "fetch",
        run,
        "download a data set, or say where to get it; run it again to check the files",
        ("fetch dsb2018", "fetch isic2018 --output DIR"),
        "Run it again to resume an interrupted download.",
    )
    parser.add_argument("name", metavar="NAME", help=_DATASETS)
    parser.add_argument(
        "--output",
        type=arguments.folder,
        metavar="DIR",
        help="the data set's folder (default: where all commands look, data/...)",
    )


def _verify(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "verify",
        _run_verify,
        "decode every file of a data set, look for leaks between the parts of its "
        "split, and report every problem",
        (
            "verify --dataset dsb2018 --data DIR --json report.json",
            "verify --images photos --masks labels --split split.json",
        ),
    )
    parser.add_argument("--dataset", metavar="NAME", help=_DATASETS)
    arguments.add(parser, "--data")
    arguments.add_own(parser)
    arguments.add(parser, "--work", *arguments.SPLIT)
    parser.add_argument(
        "--jobs",
        type=arguments.number,
        metavar="N",
        help="decode in N processes, whose crash stops nothing else; 0: in this one "
        "(default: one a processor where there is much to decode, else 0)",
    )
    parser.add_argument(
        "--json",
        type=arguments.folder,
        metavar="FILE",
        help="write the report as JSON too, also where there are problems; "
        "docs/verify.md has its schema",
    )


def _run_verify(options: argparse.Namespace) -> None:
    from pipelines import check

    print(check.command(options))


def _run(commands: _Commands[argparse.ArgumentParser]) -> None:
    def run(options: argparse.Namespace) -> None:
        from pipelines import stages
        from pipelines.workflow import plan

        planned = plan.load(options.file)
        os.environ["KERAS_BACKEND"] = planned.task.backend
        given = (planned.task, planned.data, planned.folder, planned.work)
        for stage, done in stages.complete(*given):
            print(_LINES[stage](done), flush=True)

    parser = _command(
        commands,
        "run",
        run,
        "train, predict, evaluate and fit the temperature of one run, whatever is "
        "missing",
        ("run my-run.yaml", "run --quiet my-run.json"),
        "FILE is YAML or JSON: dataset and loss; and where they are not the defaults\n"
        "gamma, seed, preset, replicate, overrides, split_seed, split_files, backend,\n"
        "data (the data set's folder), folder (the run's) and work.",
    )
    parser.add_argument("file", type=arguments.folder, metavar="FILE")


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
    return (
        f"{run.folder}: {run.state}, temperature {fitted['temperature']:g}, NLL "
        f"of the validation cases {fitted['nll_before']:.4f} before, "
        f"{fitted['nll_after']:.4f} after"
    )


# What each stage says when it is done.
_LINES: dict[str, Callable[[Run], str]] = {
    "train": _trained,
    "predict": _predicted,
    "evaluate": _evaluated,
    "temperature": _scaled,
}


def _train(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "train",
        _run_train,
        "train one run; the same command resumes one that was stopped",
        (
            "train --dataset phantom --loss DSC++ --preset demo --output my-run",
            "train --images photos --masks labels --loss DSC++ --preset reduced",
        ),
    )
    parser.add_argument("--dataset", metavar="NAME", help=_DATASETS)
    arguments.add(parser, "--data")
    arguments.add_own(parser)
    arguments.add(parser, "--work")
    _add_choices(parser)
    parser.add_argument(
        "--from",
        dest="initial",
        type=arguments.folder,
        metavar="RUN",
        help="begin with the weights of another run, whose network has the same shape",
    )
    parser.add_argument(
        "--output",
        type=arguments.folder,
        metavar="RUN",
        help="the run folder (default: its place in --results); a name with .r2 "
        "behind it is a second training of the same settings",
    )
    arguments.add(parser, "--results")


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """What decides a training besides its data."""
    from pipelines.training import protocol

    parser.add_argument("--loss", required=True, metavar="NAME", help=_LOSSES)
    parser.add_argument(
        "--gamma",
        type=float,
        metavar="G",
        help="exponent of a ++ loss (default: 2, as in the paper)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="decides weights, order and augmentation (default: 0)",
    )
    arguments.add(parser, *arguments.SPLIT)
    parser.add_argument(
        "--preset",
        default="paper",
        metavar="P",
        help="paper (the study's size, GPU), reduced (CPU) or demo (default: paper)",
    )
    arguments.add(parser, "--epochs")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change any value of the protocol, such as --set filters=16; "
        f"may be repeated; keys: {', '.join(protocol.KEYS)}",
    )


def _run_train(options: argparse.Namespace) -> None:
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
    print(_trained(stages.train(task, options.data, output, options.work)))


def _predict(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "predict",
        _run_predict,
        "write the probabilities of a trained run, or predict any images with a model",
        (
            "predict --run RUN --data DIR --nifti --probabilities",
            "predict --run RUN --images photos --output labels --threshold auto "
            "--pictures",
        ),
    )
    _add_stage(parser, "predict", required=False)
    _add_any_images(parser)
    parser.add_argument(
        "--nifti",
        action="store_true",
        help="with --run, of volumes: write label maps too, RUN/nifti/CASE.nii.gz, "
        "with the affine and header of their images",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="with --nifti, and with --images of volumes: write the probabilities "
        "beside the label maps, at native resolution (large)",
    )
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="draw each case, CASE_picture.png: image, prediction, probability of each "
        "class, entropy; of volumes one slice, with CASE_probabilities.nii.gz and "
        "CASE_entropy.nii.gz; into --output, with --run into RUN/pictures",
    )


def _add_any_images(parser: argparse.ArgumentParser) -> None:
    """Arguments to predict images that belong to no run."""
    other = parser.add_argument_group("any images, without label maps")
    other.add_argument(
        "--model",
        type=arguments.folder,
        metavar="M",
        help="in place of --run: a run folder, or a .keras file",
    )
    other.add_argument(
        "--images",
        "--input",
        dest="input",
        type=arguments.folder,
        metavar="PATH",
        help="an image or NIfTI volume, or a folder of them",
    )
    other.add_argument(
        "--output",
        type=arguments.folder,
        metavar="DIR",
        help="label maps and probabilities are written here",
    )
    arguments.add(other, "--threshold", "--decision")


def _run_predict(options: argparse.Namespace) -> None:
    from pipelines import stages

    model = options.model or options.run_folder
    given = [options.model, options.input, options.output]
    if options.run_folder and not any(given):
        _run_predict_run(options)
        return
    both = options.model and options.run_folder
    if both or not all([model, *given[1:]]):
        raise InputError(
            "expected --run RUN, or --run RUN or --model M with --images PATH and "
            "--output DIR; received another combination"
        )
    decision = _decision(options)
    written = stages.predict_images(
        model,
        options.input,
        options.output,
        stages.choose_threshold(model, options.threshold),
        options.work,
        options.probabilities,
        options.pictures,
        decision,
    )
    print(f"{options.output}: {len(written)} label maps")


def _decision(options: argparse.Namespace) -> Decision | None:
    if options.decision is None:
        return None
    if options.threshold is not None:
        raise InputError(
            "--decision: expected no --threshold beside it, as the file has one"
        )
    from pipelines.posthoc import decision

    return decision.load(options.decision)


def _run_predict_run(options: argparse.Namespace) -> None:
    from pipelines import stages

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
    stages.require_free(options.run_folder, *files)
    run = stages.predict(options.run_folder, options.data, options.work, options.again)
    print(_predicted(run))
    if not (options.nifti or options.pictures):
        return
    made = stages.export(run.folder, options.data, options.work, *files)
    for paths, what in zip(made, ("label maps", "pictures"), strict=True):
        if paths:
            print(f"{paths[0].parent}: {len(paths)} {what}")


def _evaluate(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "evaluate",
        _run_evaluate,
        "measure a predicted run, or a trained one on another set of images",
        (
            "evaluate --run RUN --threshold auto",
            "evaluate --run RUN --images DIR --masks DIR --name clinic-b",
        ),
    )
    _add_stage(parser, "measure")
    arguments.add(parser, "--threshold")
    arguments.add_own(parser, "another set, to measure a trained run on")


def _run_evaluate(options: argparse.Namespace) -> None:
    from pipelines import stages

    if options.images is None and options.masks is None:
        _run_evaluate_run(options)
        return
    if options.images is None or options.masks is None or options.data:
        raise InputError(
            "expected both --images DIR and --masks DIR of the other set, and no --data"
        )
    threshold = stages.choose_threshold(options.run_folder, options.threshold)
    backend.start(options.work)
    from pipelines import apply

    folder = apply.evaluate_set(
        options.run_folder,
        options.images,
        options.masks,
        options.name or "other",
        arguments.class_names(options),
        options.work,
        threshold,
    )
    from pipelines import evaluate
    from pipelines.reporting import tables

    print("\n".join(tables.set_summary(folder / "cases.csv")))
    print(f"{folder}: see cases.csv and histograms.npz")
    if threshold is not None:
        _print_at_threshold(folder / evaluate.threshold_file(threshold))


def _run_evaluate_run(options: argparse.Namespace) -> None:
    from pipelines import stages

    given = options.run_folder, options.data
    print(_evaluated(stages.evaluate(*given, options.work, options.again)))
    threshold = stages.choose_threshold(options.run_folder, options.threshold)
    if threshold is not None:
        path = stages.evaluate_at(*given, threshold, options.work)
        _print_at_threshold(path, "test")


def _print_at_threshold(path: Path, split: str | None = None) -> None:
    from pipelines.reporting import tables

    shown = ("dice", "jaccard", "precision", "recall")
    lines = tables.set_summary(path, split, shown)
    print(*(f"{path.stem}: {line}" for line in lines), f"{path}", sep="\n")


def _temperature(commands: _Commands[argparse.ArgumentParser]) -> None:
    def run(options: argparse.Namespace) -> None:
        from pipelines import stages

        done = stages.temperature(
            options.run_folder, options.data, options.work, options.again
        )
        print(_scaled(done))

    parser = _command(
        commands,
        "temperature",
        run,
        "fit a temperature on a predicted run's validation cases; the scaled run is "
        "written and measured beside it",
        ("temperature --run RUN --data DIR", "temperature --run RUN --again"),
    )
    _add_stage(parser, "fit")


def _add_stage(
    parser: argparse.ArgumentParser, verb: str, required: bool = True
) -> None:
    """`--run`, `--data`, `--work` and `--again`: a stage of a run that is there."""
    # `run` itself is the command's function.
    parser.add_argument(
        "--run",
        dest="run_folder",
        type=arguments.folder,
        required=required,
        metavar="RUN",
        help="the run folder",
    )
    arguments.add(parser, "--data", "--work")
    parser.add_argument(
        "--again", action="store_true", help=f"{verb} again although it was done"
    )


def _judge(commands: _Commands[argparse.ArgumentParser]) -> None:
    def run(options: argparse.Namespace) -> None:
        from pipelines import judge

        print(judge.command(options))

    parser = _command(
        commands,
        "judge",
        run,
        "measure the probabilities of any program: scores, calibration, volumes",
        (
            "judge nnunet/validation labelsTr --output judged",
            'judge probabilities labels --name "my network" --output judged',
        ),
    )
    _add_probabilities(parser)
    parser.add_argument(
        "--output",
        type=arguments.folder,
        required=True,
        metavar="DIR",
        help="tables and diagram; judge several methods into one DIR to compare them",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="what the tables call them (default: the name of their folder)",
    )
    arguments.add(parser, "--decision")


def _add_probabilities(
    parser: argparse.ArgumentParser, nargs: str | None = None
) -> None:
    """Probabilities of any program, their label maps and the names of the classes."""
    parser.add_argument(
        "probabilities",
        nargs=nargs,
        type=arguments.folder,
        metavar="PROBABILITIES",
        help="a folder or file: .npz as nnU-Net writes it, .npy, NIfTI, PNG or TIFF",
    )
    parser.add_argument(
        "labels",
        nargs=nargs,
        type=arguments.folder,
        metavar="LABELS",
        help="a folder or file of label maps with the same names",
    )
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help='names of the classes in order, such as "background, kidney, tumour"',
    )


def _calibrate(commands: _Commands[argparse.ArgumentParser]) -> None:
    def run(options: argparse.Namespace) -> None:
        from pipelines import calibrate

        print(calibrate.command(options))

    parser = _command(
        commands,
        "calibrate",
        run,
        "write a decision file from validation cases: temperature, threshold, volume "
        "correction; `predict` and `judge` apply it",
        (
            "calibrate nnunet/validation labelsTr --output decision.json",
            "calibrate --run RUN --missed 0.1",
        ),
    )
    _add_probabilities(parser, "?")
    parser.add_argument(
        "--run",
        dest="run_folder",
        type=arguments.folder,
        metavar="RUN",
        help="in place of files: the validation cases of an evaluated run",
    )
    parser.add_argument(
        "--missed",
        type=arguments.share,
        metavar="SHARE",
        help="promise that at most this share of the foreground is missed, on average "
        "over cases (default: the threshold with the best mean Dice)",
    )
    parser.add_argument(
        "--output",
        type=arguments.folder,
        default=Path("decision.json"),
        metavar="FILE",
        help="the decision file (default: %(default)s)",
    )


def _tables(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "tables",
        _run_tables,
        "write every table from the runs at hand, beside the published values "
        "(needs neither images nor a backend)",
        ("tables --dataset drive", "tables RUN OTHER-RUN --output comparison"),
    )
    _add_folders(parser, "join these alone and write their tables to --output")
    parser.add_argument(
        "--output",
        type=arguments.folder,
        default=Path("tables"),
        metavar="DIR",
        help="with RUN, where tables are written (default: %(default)s)",
    )
    arguments.add(parser, "--results")
    only = "write and print this one only"
    parser.add_argument("--dataset", metavar="NAME", help=only)
    parser.add_argument("--preset", metavar="P", help=only)
    parser.add_argument(
        "--readme",
        type=arguments.folder,
        nargs="+",
        default=[],
        metavar="FILE",
        help="put the tables between their markers in these Markdown files too",
    )


def _add_folders(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument(
        "folders",
        nargs="*",
        type=arguments.folder,
        metavar="RUN",
        help=f"run folders, or folders of them: {verb} (default: all in --results)",
    )


def _run_tables(options: argparse.Namespace) -> None:
    from pipelines.reporting.pages import Report

    if options.folders:
        named = runs.listed(options.folders)
        for run in named:
            if run.state != "evaluated":
                print(f"dscpp: warning: left out: {_unfinished(run)}", file=sys.stderr)
        report = Report(options.results, named, options.output)
        pages = report.pages
    else:
        _warn_unrecorded(options)
        report = Report(options.results)
        pages = report.chosen(options.dataset, options.preset)
    written = report.write(pages)
    for page in pages:
        print(page.text(), end="\n\n")
        own = [path for path in written if path.parent == page.study.folder]
        print("\n".join(str(path) for path in own))
    over_all = [path for path in written if path.parent == options.results]
    if over_all:
        print(report.counts(), end="\n\n")
        print("\n".join(str(path) for path in over_all))
    for path in options.readme:
        report.update(path)


def _unfinished(run: Run) -> str:
    return (
        f"{run.folder}: expected a run that is 'evaluated', found {run.state!r}; give "
        f"`dscpp predict --run {run.folder}`, then `dscpp evaluate --run {run.folder}`"
    )


def _warn_unrecorded(options: argparse.Namespace) -> None:
    """Say which folders are left out because their record is gone."""
    from pipelines.reporting.frame import unclean

    for line in [*runs.unrecorded(options.results), *unclean(options.results)]:
        bars.note(f"dscpp: warning: left out: {line}", sys.stderr)


def _figures(commands: _Commands[argparse.ArgumentParser]) -> None:
    def run(options: argparse.Namespace) -> None:
        from pipelines import stages, written
        from pipelines.reporting.figures import curves, photographs

        written.require_figures(options.output or options.results)
        _warn_unrecorded(options)
        named = (options.losses or "").split(",")
        losses = [loss_names.checked(one.strip())[0] for one in named if one.strip()]
        own = options.output, losses, options.width, not options.no_title
        if options.output is None and any((losses, options.width, options.no_title)):
            raise InputError(
                "--losses, --width, --no-title: expected --output DIR with them, so "
                "that the figures beside the runs stay as they are"
            )
        for path in curves.write_figures(options.results, *own):
            print(path)
        if options.output:
            return

        asked: dict[Path | None, str] = {}

        def locate(found: Run) -> Path:
            data = stages.own_data(found, options.data)
            asked[data] = found.record["dataset"]
            return stages.located(found, data, options.work)

        drawn, skipped = photographs.write_pictures(options.results, locate)
        for path in drawn:
            print(path)
        if skipped:
            bars.note(skipped)
        if asked and options.data not in asked:
            raise InputError(
                f"--data {options.data}: expected the images of a data set whose "
                f"probabilities are here, such as {asked[None]}, found others"
            )

    parser = _command(
        commands,
        "figures",
        run,
        "draw every figure from the runs at hand; those with images where "
        "probabilities and images are",
        (
            "figures --data DIR",
            "figures --output paper --losses CE,DSC,DSC++ --width 3.5 --no-title",
        ),
    )
    arguments.add(parser, "--results", "--data", "--work")
    own = parser.add_argument_group("curves for a paper")
    own.add_argument(
        "--output",
        type=arguments.folder,
        metavar="DIR",
        help="write the curves there, in the folders that they have in --results, and "
        "no pictures",
    )
    own.add_argument("--losses", metavar="NAMES", help="these alone, as CE,DSC,DSC++")
    own.add_argument("--width", type=arguments.inches, metavar="INCHES", help="1 to 20")
    own.add_argument(
        "--no-title", action="store_true", help="leave out titles and notes"
    )


def _runs(commands: _Commands[argparse.ArgumentParser]) -> None:
    def run(options: argparse.Namespace) -> None:
        groups = sorted(options.results.glob("*/*/runs"))
        every = [run for group in groups for run in runs.find(group.parent)]
        found = runs.listed(options.folders) if options.folders else every
        if not options.folders:
            _warn_unrecorded(options)
        for line in map(_listed, found):
            print(line)
        if found:
            print("Dice and NLL: means over test images, then over classes")
        else:
            print(
                f"{options.results}: no runs yet; `dscpp demo` makes some. One "
                "elsewhere is listed by name: `dscpp runs RUN`"
            )

    parser = _command(
        commands,
        "runs",
        run,
        "list the runs, how far each has come and what it measured",
        ("runs", "runs RUN OTHER-RUN"),
    )
    _add_folders(parser, "list these alone")
    arguments.add(parser, "--results")


def _listed(run: Run) -> str:
    """A line on one run: its state, epochs, measures and folder."""
    from pipelines.reporting import tables

    trained = f"{run.record.get('times', {}).get('epochs', 0):>5} epochs"
    if run.method:
        scaled_by = run.record.get("posthoc", {}).get("temperature")
        trained = f"T = {scaled_by:.3g}" if scaled_by else run.method
    said = " " * 23
    if run.state == "evaluated":
        try:
            said = "Dice {dice:.3f}, NLL {nll:.3f}".format(
                **tables.brief_means(run.path("cases.csv"))
            )
        except InputError:  # `dscpp tables` says what is wrong with them
            said = "measures damaged"
    return f"{run.state:10} {trained:12}  {said:23}  {run.folder}"


def _clean(commands: _Commands[argparse.ArgumentParser]) -> None:
    def run(options: argparse.Namespace) -> None:
        from pipelines import cleaning

        found = cleaning.find(options.results, options.work, options.weights)
        print("\n".join(cleaning.lines(found)))
        if options.yes:
            cleaning.remove(found)
        elif found:
            bars.note("Nothing was deleted; --yes deletes what is listed.")

    parser = _command(
        commands,
        "clean",
        run,
        "list what takes room and can be made again, or delete it",
        ("clean", "clean --yes --results my-results"),
        "Records, histories, measures and pictures of runs are never deleted.",
    )
    arguments.add(parser, "--results", "--work")
    parser.add_argument("--yes", action="store_true", help="delete what is listed")
    parser.add_argument(
        "--weights",
        action="store_true",
        help="weights and training states of finished runs too, which only a new "
        "training makes again",
    )


if __name__ == "__main__":
    sys.exit(main())
