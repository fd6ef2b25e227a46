"""Many runs with one command: check, say what it takes, run, make the tables.

`dscpp reproduce` checks everything that can be checked before the first run, measures
the hours to expect, makes each run in a process of its own (`dscpp run`) and ends with
the tables and the runs that failed. Only `dscpp run` knows what is done: killed at any
moment and called again, it goes on. `dscpp study` makes its runs with the same `Call`.

What the functions take, each the same:

    planned: all runs that were asked for; one without data is not looked at.
    results: folder of all results.
    work: folder of cache and logs.
    jobs: runs at a time.
    profile: what SLURM is asked for; None where runs are made here.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from data_io import bars, datasets, pool
from data_io.errors import InputError
from data_io.files.writing import writing
from data_io.prepare.shared import VARIABLE
from pipelines import arguments
from pipelines.environment import commits, installed, provenance
from pipelines.runs import run as runs
from pipelines.workflow import estimate, processes, slurm, status
from pipelines.workflow.plan import (
    EXPERIMENTS,
    Experiment,
    Planned,
    of_dataset,
    parse_losses,
    parse_seeds,
    plan,
)

PAPER, DEMO = EXPERIMENTS / "paper.yaml", EXPERIMENTS / "demo.yaml"
SHORT = 5  # epochs; up to here there is no time to expect worth measuring
INTERRUPTED = 130


def take_runner(options: argparse.Namespace) -> None:
    """Check how runs are to be made; `slurm` becomes the profile, if there is one.

    Raises:
        InputError: no such number or profile; or no SLURM here to submit to.
    """
    if options.jobs < 1:
        raise InputError(f"jobs: expected a number from 1 on, received {options.jobs}")
    if options.slurm is not None:
        options.slurm = slurm.read(options.slurm)
        options.jobs = 1  # SLURM decides how many go at a time
        if not options.status:
            slurm.require()


def demo(args: argparse.Namespace) -> int:
    """`dscpp demo`: `reproduce` on simulated phantoms."""
    defaults = {"dataset": "phantom", "phantom": False, "experiment": DEMO}
    defaults |= dict.fromkeys(("data", "images", "masks"))
    return command(argparse.Namespace(**vars(args), **defaults))


def command(args: argparse.Namespace) -> int:
    """`dscpp reproduce`: see `reproduce`."""
    record = arguments.take_own(args)
    module = datasets.by_name(args.dataset)
    name = datasets.simulated(args.dataset) if args.phantom else args.dataset
    options = {
        "preset": args.preset or None,
        "losses": parse_losses(args.losses) if args.losses else None,
        "seeds": parse_seeds(args.seeds) if args.seeds else None,
        "replicate": args.replicate,
        "split_seed": args.split_seed,
        "split_files": tuple(args.split) or None,
    }
    changes: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    # Some of it is from the command line, so no file is the source of what is wrong.
    changes |= {"dataset": name, "record": record, "source": "", "folds": args.folds}
    more = {} if args.epochs is None else {"epochs": args.epochs}
    experiments = [
        dataclasses.replace(block, **changes, overrides={**block.overrides, **more})
        for block in of_dataset(args.experiment or PAPER, name)
    ]
    if args.phantom:
        bars.note(
            "PHANTOM: simulated images, not the data set; results are labelled so."
        )
    # Volumes are simulated over label maps that may be given; images over nothing.
    drawn = args.phantom and not module.RECORD.is_3d
    if drawn and args.data:
        bars.note(
            f"  note     --data {args.data} is not looked at: images are simulated"
        )
    data = None if drawn else args.data
    return reproduce(experiments, data, args)


def reproduce(
    experiments: Sequence[Experiment],
    data: Path | None,
    options: argparse.Namespace,
) -> int:
    """Make every run of experiments, then the tables of all runs there are.

    The experiments are of one data set; `data` is its own folder or the folder above
    it, None for its default.

    Returns:
        0; 1 when a run or the tables failed; 130 when interrupted.

    Raises:
        InputError: data, a name or a value that cannot be; nothing was started.
    """
    take_runner(options)
    planned = plan(experiments, options.results.absolute())
    if options.status:
        return status.show(planned, options)
    require_installed(planned)
    root = datasets.by_name(planned[0].task.dataset).locate(data).absolute()
    placed = [dataclasses.replace(run, data=root) for run in planned]
    if wrong := unclean([run for run in placed if not run.done]):
        bars.note(f"These runs will count in no verdict. {wrong}", sys.stderr)
    group = planned[0].group
    subfolder = Path(group.parent.name) / group.name
    return make(placed, subfolder, options)


def require_installed(planned: Sequence[Planned]) -> None:
    """Refuse runs for whose training a package is missing."""
    for backend in dict.fromkeys(run.task.backend for run in planned if not run.done):
        # The usual one may be named wrongly, which only the environment tells.
        usual = backend == provenance.backend()
        installed.require_training(None if usual else backend)


def unclean(pending: Sequence[Planned]) -> str:
    """Return why runs at the preset paper would count in no verdict; "" if they do.

    Args:
        pending: runs that are not done. Of own images there is no verdict.
    """
    judged = [
        run
        for run in pending
        if run.task.preset == "paper"
        and not run.task.overrides
        and not datasets.is_own(run.task.dataset)
    ]
    if not judged:
        return ""
    for run in filter(None, (planned.run for planned in judged)):
        if not commits.from_clean_commit(run.record):
            return (
                f"{run.folder}: expected a run at the preset paper that was begun with "
                f"the code of a commit, found {commits.unclean_commit(run.record)}. "
                "Train it again as a replicate, or delete the folder"
            )
    name = commits.commit()
    if commits.is_clean(name):
        return ""
    state = f"changes on top of {name[:12]}" if name else "one without a commit"
    return (
        f"{Path(__file__).parents[2]}: expected a checkout of a commit without "
        f"changes for runs at the preset paper, found {state}. Start from one of "
        "its own: `git worktree add ../study HEAD` or a clone (see docs/cluster.md). "
        f"Where there is no git, set {commits.VARIABLE} to the commit."
    )


def make(
    planned: Sequence[Planned], subfolder: Path, options: argparse.Namespace
) -> int:
    """Make runs as `reproduce` does, each with its data.

    `subfolder` of `work` is where this call keeps its notes; one call at a time has it.
    """
    results, work = options.results.absolute(), options.work.absolute()
    planned = [dataclasses.replace(run, work=work) for run in planned]
    processes.follow_make()
    folder = work / "workflow" / subfolder
    with alone(folder):
        try:
            call = Call(planned, results, work, folder, options.jobs, options.slurm)
            return call.run()
        except KeyboardInterrupt:
            print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
            return INTERRUPTED


def alone(folder: Path) -> filelock.AcquireReturnProxy:
    """Lock a call's folder of notes; wait for the process that holds it."""
    holder = folder / "process"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        held = _wait_for(filelock.FileLock(folder / "lock"), holder)
        holder.write_text(str(os.getpid()))
    return held


def _wait_for(lock: filelock.BaseFileLock, holder: Path) -> filelock.AcquireReturnProxy:
    # A second's patience: the processes of a killed call need a moment to end.
    with contextlib.suppress(filelock.Timeout):
        return lock.acquire(timeout=1)
    who = holder.read_text() if holder.exists() else "unknown"
    bars.note(
        f"These runs are being made already, by process {who}. Waiting for it to end; "
        "Ctrl-C leaves it alone.",
        sys.stderr,
    )
    return lock.acquire(poll_interval=0.5)


def _other_split(planned: Sequence[Planned], root: Path, cache: Path) -> str:
    """Return why runs could not be in one table with those that are there, or ""."""
    for run in {run.group: run for run in planned}.values():
        wanted = run.task.split(root, cache)
        for record in sorted((run.group / "runs").glob("*/run.json")):
            other = runs.readable(record.parent)
            if other is None:
                continue
            try:
                other.require_same({"split": wanted})
            except InputError:
                other_sizes, sizes = map(_sizes, (other.record["split"], wanted))
                return (
                    f"{run.group}: expected data and split of the runs there, such "
                    f"as {other.name} ({other_sizes} cases), found others in {root} "
                    f"({sizes} cases). Tables cannot join the two. Give another folder "
                    "for your own runs: --results my-results (make: "
                    "RESULTS=my-results)."
                )
    return ""


def _sizes(split: Mapping[str, Sequence[str]]) -> str:
    return " + ".join(str(len(ids)) for ids in split.values())


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of `reproduce` or `study`, its arguments checked.

    `folder` is the part of `work` that this call holds.
    """

    planned: Sequence[Planned]
    results: Path
    work: Path
    folder: Path
    jobs: int = 1
    profile: slurm.Profile | None = None

    def run(self) -> int:
        """Verify, print the time to expect, make or submit runs, write the tables."""
        placed = [run for run in self.planned if run.data is not None]
        refused = self._refused(placed)
        todo = [run for run in placed if run.task.dataset not in refused]
        if placed and not todo:
            return max(refused.values())
        pending = [run for run in todo if not run.done]
        left = sum(not run.done for run in self.planned)
        bars.note(
            f"{len(self.planned)} run(s): {len(self.planned) - left} done, {left} to "
            f"do. Logs: {os.path.commonpath([run.log.parent for run in self.planned])}"
        )
        if pending and self.profile:
            submitted = [
                dataclasses.replace(run, data=None)
                if run.task.dataset in refused
                else run
                for run in self.planned
            ]
            slurm.submit(submitted, pending, self.folder, self.profile)
            return 1 if left > len(pending) else 0
        self._expect(pending)
        return self.finish(todo, self._make(todo))

    def finish(
        self, todo: Sequence[Planned], failed: Sequence[tuple[Planned, str]]
    ) -> int:
        """Write the tables and what else needs all runs; print which runs failed.

        `todo` are the runs that were made; `failed` the others, with their last words.
        """
        from pipelines.prediction import true_posterior
        from pipelines.reporting.figures import photographs

        groups = {run.group: run.data for run in todo if run.data is not None}
        try:
            for group, data in groups.items():
                with _noted("The truth was not measured"):
                    true_posterior.measure(group, data)
            self._pool(todo)
            tables = self._tables()
            for group, data in groups.items():
                with _noted("No picture side by side"):
                    path = photographs.compare(group, data, provenance.backend())
                    if path:
                        print(f"Picture of a test case, losses side by side: {path}")
        finally:  # why a run failed comes last, whatever came of the rest
            self._report(failed)
        return 1 if failed or tables else 0

    def _refused(self, placed: Sequence[Planned]) -> dict[str, int]:
        """Return the data sets that `verify` refuses, with its exit codes."""
        roots = {run.task.dataset: str(run.data) for run in placed}
        work = ("--work", str(self.work))
        codes = {
            name: self._dscpp(
                "verify", "--dataset", name, "--data", root, *work, is_note=True
            )
            for name, root in roots.items()
        }
        for name in [name for name, code in codes.items() if not code]:
            of_data_set = [run for run in placed if run.task.dataset == name]
            if other := _other_split(
                of_data_set, Path(roots[name]), self.work / "cache"
            ):
                print(other, file=sys.stderr)
                codes[name] = 2
        return {name: code for name, code in codes.items() if code}

    def _pool(self, finished: Sequence[Planned]) -> None:
        from pipelines.runs import folds

        joined: dict[Path, list[Path]] = {}
        for run in finished:
            if run.task.fold:
                pooled = run.task.folder(self.results, pooled=True)
                joined.setdefault(pooled, []).append(run.folder)
        for output, folders in joined.items():
            with _noted("The folds were not joined"):
                folds.pool_with_methods(folders, output)

    def _tables(self) -> int:
        """Write the tables; print those of a single data set and preset."""
        custom = {
            run.group: run
            for run in self.planned
            if run.task.overrides and not datasets.is_own(run.task.dataset)
        }
        for group, run in custom.items():
            print(
                f"Runs that differ from the preset ({', '.join(run.task.overrides)}) "
                f"are in no table; each has its measures: {group / 'runs'}"
            )
        usual = [run for run in self.planned if run.group not in custom]
        groups = {
            run.task.folder(self.results, pooled=True).parents[1] for run in usual
        }
        if not groups:
            return 0
        only: list[str] = []
        if len(groups) == 1:
            (group,) = groups
            only = ["--dataset", group.parent.name, "--preset", group.name]
        return self._dscpp("tables", "--results", str(self.results), *only)

    def _expect(self, pending: Sequence[Planned]) -> None:
        """Print the time to expect: from earlier runs, else from a few steps."""
        pending = [
            run
            for run in pending
            if run.task.preset != "demo" and run.task.protocol.epochs > SHORT
        ]
        lines, unknown, _ = status.expect(pending, self.jobs)
        bars.note("\n".join(lines), end="\n" * bool(lines))
        # A study of several data sets begins at once: its status says the time.
        if unknown and len({run.task.dataset for run in self.planned}) == 1:
            self._time([run for run in unknown if run.group == unknown[0].group])

    def _time(self, pending: Sequence[Planned]) -> None:
        first = pending[0]
        timed = [first]
        if first.task.preset == "paper":
            small = {**first.task.arguments(), "preset": "reduced", "overrides": {}}
            record = first.task.module.record(Path(first.data or ""))
            task = first.task.make(**small, record=record)
            timed.append(dataclasses.replace(first, task=task))
        bars.note("Timing a few training steps ...")
        costs = estimate.measure(timed, self.folder)
        tasks = [run.task for run in timed]
        for line in estimate.describe(tasks, costs, len(pending), self.jobs):
            bars.note(line)

    def _make(self, todo: Sequence[Planned]) -> list[tuple[Planned, str]]:
        jobs = [self._job(number, run) for number, run in enumerate(todo)]
        shutil.rmtree(self._samples, ignore_errors=True)  # of a call that was killed
        try:
            failures = processes.make(jobs, self.jobs, self._environment)
        finally:
            shutil.rmtree(self._samples, ignore_errors=True)
        reasons = {
            run.folder: "" if run.data is None and run.done else "it was not started"
            for run in self.planned
        } | dict(zip((run.folder for run in todo), failures, strict=True))
        return [
            (run, reasons[run.folder]) for run in self.planned if reasons[run.folder]
        ]

    @property
    def _samples(self) -> Path:
        return self.folder / "samples"

    @property
    def _environment(self) -> dict[str, str]:
        more = shared(self.jobs, self._samples) if self.jobs > 1 else {}
        return {**more, **processes.environment(), "PYTHONUNBUFFERED": "1"}

    def _job(self, number: int, run: Planned) -> processes.Job:
        file = run.write(self.folder / "runs" / f"{number}.json")
        # Several runs share the terminal: each line says whose it is.
        title = f"{run.name}: " if self.jobs > 1 else ""
        return processes.Job([*dscpp(), "run", str(file)], run.log, title)

    def _dscpp(self, *arguments: str, is_note: bool = False) -> int:
        command = [*dscpp(), *arguments]
        env = processes.environment()
        out = subprocess.DEVNULL if is_note and bars.quiet() else None
        return subprocess.run(command, env=env, stdout=out, check=False).returncode

    def _report(self, failed: Sequence[tuple[Planned, str]]) -> None:
        if not failed:
            return
        lines = [f"\n{len(failed)} of {len(self.planned)} run(s) failed:"]
        for run, reason in failed:
            text = f"{run.name}: {reason}\n  {run.log}"
            lines.append(textwrap.indent(text, "  "))
        lines.append("The same command tries them again.")
        print("\n".join(lines), file=sys.stderr)


@contextlib.contextmanager
def _noted(failed: str) -> Iterator[None]:
    """Print an error and go on: it must not hide which run failed."""
    try:
        yield
    except (InputError, OSError) as error:
        print(f"{failed}: {error}", file=sys.stderr)


# PyTorch and NumPy, TensorFlow, JAX.
_THREADS = (
    "OMP_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "PJRT_NPROC",
)
# The first run would take all of a GPU's memory; PyTorch takes what it needs.
_MEMORY = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


def shared(jobs: int, samples: Path) -> dict[str, str]:
    """Return the variables by which runs at a time share a machine and samples.

    They count when a backend is imported, so that they go into the environment of the
    runs, behind what the user has set.
    """
    threads = str(max(1, pool.processors() // jobs))
    return dict.fromkeys(_THREADS, threads) | _MEMORY | {VARIABLE: str(samples)}


def dscpp() -> list[str]:
    """Return the command `dscpp` of this environment."""
    script = Path(sys.executable).with_name("dscpp")
    return [str(script)] if script.exists() else [sys.executable, "-m", "pipelines.cli"]
