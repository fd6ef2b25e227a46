"""Many runs with one command: check, say what it takes, run, make the tables.

`dscpp reproduce` checks everything that can be checked before the first run, measures
the hours to expect, leaves the runs to Snakemake (see `Snakefile`) and ends with the
tables and the runs that failed. Only `dscpp` knows what is done: killed at any moment
and called again, it goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from data_io import datasets, pool
from data_io.errors import InputError
from pipelines import arguments
from pipelines import run as runs
from pipelines.workflow import estimate, leader
from pipelines.workflow.plan import (
    EXPERIMENTS,
    Experiment,
    Planned,
    parse_losses,
    parse_seeds,
    plan,
    read,
)

__all__ = ["add_arguments", "add_demo_arguments", "command", "reproduce"]

SNAKEFILE = Path(__file__).with_name("Snakefile")
PAPER, DEMO = EXPERIMENTS / "paper.yaml", EXPERIMENTS / "demo.yaml"
SHORT = 5  # epochs; up to here there is no time to expect worth measuring
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dscpp reproduce`."""
    parser.add_argument("--dataset", metavar="NAME", help="short name, such as drive")
    arguments.add_data(parser)
    arguments.add_own(parser)
    parser.add_argument(
        "--phantom",
        action="store_true",
        help="the same on simulated images; results go to those of the phantom",
    )
    parser.add_argument(
        "--experiment",
        type=arguments.folder,
        default=PAPER,
        metavar="FILE",
        help=f"what is run where nothing else is said (default: {PAPER.name}, "
        "everything in the paper)",
    )
    _add_common(parser)


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dscpp demo`."""
    parser.set_defaults(dataset="phantom", data=None, phantom=False, experiment=DEMO)
    parser.set_defaults(images=None, masks=None)
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", metavar="P", help="paper, reduced or demo")
    parser.add_argument(
        "--losses",
        metavar="NAMES",
        help='such as "CE,DSC,DSC++"; "DSC++ 1.5" names an exponent',
    )
    parser.add_argument("--seeds", metavar="N,N", help='such as "0,1,2"')
    arguments.add_split(parser)
    arguments.add_epochs(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time (default: %(default)s)",
    )
    arguments.add_results(parser)
    arguments.add_work(parser)


def command(args: argparse.Namespace) -> int:
    """`dscpp reproduce` and `dscpp demo`: see `reproduce`."""
    record = arguments.take_own(args)
    module = datasets.by_name(args.dataset)
    name = datasets.simulated(args.dataset) if args.phantom else args.dataset
    experiment = read(args.experiment, name)
    changes: dict[str, Any] = {"record": record}
    if args.preset:
        changes["preset"] = args.preset
    if args.losses:
        changes["losses"] = parse_losses(args.losses)
    if args.seeds:
        changes["seeds"] = parse_seeds(args.seeds)
    changes["split_seed"], changes["split_files"] = args.split_seed, tuple(args.split)
    if args.epochs is not None:
        changes["overrides"] = {**experiment.overrides, "epochs": args.epochs}
    if args.phantom:
        print("PHANTOM: simulated images, not the data set; results are labelled so.")
    # Volumes are simulated over label maps that may be given; images over nothing.
    drawn = args.phantom and not module.RECORD.is_3d
    return reproduce(
        dataclasses.replace(experiment, **changes),
        None if drawn else args.data,
        args.results,
        args.work,
        args.jobs,
    )


def reproduce(
    experiment: Experiment, data: Path | None, results: Path, work: Path, jobs: int = 1
) -> int:
    """Make every run of an experiment, then the tables of all runs there are.

    Args:
        experiment: data set, preset, losses, seeds and overrides.
        data: the data set's own folder or the folder above it; None: its default.
        results: folder of all results.
        work: folder of cache, logs and stamps, which may be deleted at any time.
        jobs: runs at a time.

    Returns:
        0; 1 when a run or the tables failed; 130 when interrupted.

    Raises:
        InputError: data, a name or a value that cannot be; nothing was started.
    """
    if jobs < 1:
        raise InputError(f"jobs: expected a number from 1 on, received {jobs}")
    results, work = results.absolute(), work.absolute()
    planned = plan(experiment, results)
    root = datasets.by_name(experiment.dataset).locate(data).absolute()
    leader.follow_make()
    with _alone(work, planned[0]) as folder:
        call = Call(experiment, planned, root, results, work, folder, jobs)
        try:
            return call.run()
        except KeyboardInterrupt:
            print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
            return INTERRUPTED


@contextlib.contextmanager
def _alone(work: Path, first: Planned) -> Iterator[Path]:
    """Hold the place in `work` of this data set and preset; wait for whoever has it."""
    group = first.folder.parent.parent
    folder = work / "workflow" / group.parent.name / group.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _wait_for(filelock.FileLock(folder / "lock"), folder)
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder that can be written, found "
            f"{error.strerror or error}; choose another --work"
        ) from error
    with held, leader.lead(folder) as file:
        os.environ[leader.VARIABLE] = str(file)
        try:
            yield folder
        finally:
            del os.environ[leader.VARIABLE]


def _wait_for(lock: filelock.BaseFileLock, folder: Path) -> filelock.AcquireReturnProxy:
    # A second's patience: the processes of a killed call need a moment to end.
    with contextlib.suppress(filelock.Timeout):
        return lock.acquire(timeout=1)
    who = ", ".join(path.name.split("-")[-1] for path in folder.glob("leader-*"))
    print(
        f"These runs are being made already, by process {who}. Waiting for it to end; "
        "Ctrl-C leaves it alone.",
        file=sys.stderr,
    )
    return lock.acquire(poll_interval=0.5)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of `reproduce`, its arguments checked.

    Attributes:
        experiment: what to run.
        planned: its runs.
        data: the data set's own folder.
        results: folder of all results.
        work: folder of cache, logs and stamps.
        folder: the part of `work` that this call holds.
        jobs: runs at a time.
    """

    experiment: Experiment
    planned: Sequence[Planned]
    data: Path
    results: Path
    work: Path
    folder: Path
    jobs: int

    def run(self) -> int:
        """Verify, say what to expect, make the runs and the tables."""
        verify = ["verify", "--dataset", self.experiment.dataset]
        code = self._dscpp(*verify, *self._places())
        if code:
            return code
        pending = [run for run in self.planned if not run.done]
        print(
            f"{len(self.planned)} run(s): {len(self.planned) - len(pending)} done, "
            f"{len(pending)} to do. Logs: {self._log(self.planned[0]).parent}",
            flush=True,
        )
        if pending:
            self._expect(pending)
        failed = self._snakemake()
        self._truth()
        tables = self._tables()
        self._picture()
        self._report(failed)
        return 1 if failed or tables else 0

    def _truth(self) -> None:
        """Of simulated images, measure the true probabilities beside the networks."""
        from pipelines import truth

        try:
            truth.measure(self.planned[0].folder.parent.parent, self.data)
        except InputError as error:  # a run that failed must not hide which one it is
            print(f"The truth was not measured: {error}", file=sys.stderr)

    def _tables(self) -> int:
        overrides = self.planned[0].task.overrides
        if overrides:
            print(
                f"Runs that differ from the preset ({', '.join(overrides)}) are in no "
                f"table; each has its measures: {self.planned[0].folder.parent}"
            )
            return 0
        only = ["--dataset", self.experiment.dataset]
        only += ["--preset", self.experiment.preset]
        return self._dscpp("tables", "--results", str(self.results), *only)

    def _picture(self) -> None:
        """Draw the losses side by side, where their probabilities are."""
        from pipelines import photographs

        try:
            path = photographs.compare(self.planned[0].folder.parent.parent, self.data)
        except InputError as error:  # a run that failed must not hide which one it is
            print(f"No picture side by side: {error}", file=sys.stderr)
            return
        if path:
            print(f"Picture of one test case, CE, DSC and DSC++ side by side: {path}")

    def _expect(self, pending: Sequence[Planned]) -> None:
        task = pending[0].task
        if task.preset == "demo" or task.protocol.epochs <= SHORT:
            return
        tasks = [task]
        if task.preset == "paper":
            small = dataclasses.replace(self.experiment, preset="reduced", overrides={})
            tasks.append(small.tasks()[0])
        print("Timing a few training steps ...", flush=True)
        costs = estimate.measure(tasks, self.data, self.work)
        for line in estimate.describe(tasks, costs, len(pending), self.jobs):
            print(line, flush=True)

    def _snakemake(self) -> list[Planned]:
        """Make the runs; those that failed."""
        stamps = self.folder / "stamps"
        # Stamps say what this call got done; what earlier calls did, run.json says.
        shutil.rmtree(stamps, ignore_errors=True)
        self._log(self.planned[0]).parent.mkdir(parents=True, exist_ok=True)
        config = runs.write_json(self.folder / "config.json", self._config())
        with (self.folder / "snakemake.log").open("w") as log:
            code = subprocess.run(
                [*_snakemake_command(self.jobs), "--configfile", str(config)],
                cwd=self.folder,
                env=self._environment(),
                stderr=log,
                check=False,
            ).returncode
        failed = [run for run in self.planned if not (stamps / run.name).exists()]
        if code and len(failed) in (0, len(self.planned)):
            print(f"Snakemake's own log: {log.name}", file=sys.stderr)
        return failed

    def _config(self) -> dict[str, Any]:
        return {
            "dscpp": dscpp(),
            "cwd": str(Path.cwd()),
            "places": self._places(),
            "many": self.jobs > 1,
            "runs": [
                {
                    "name": run.name,
                    "folder": str(run.folder),
                    "log": str(self._log(run)),
                    "train": run.arguments(),
                }
                for run in self.planned
            ],
        }

    def _environment(self) -> dict[str, str]:
        return {
            **(shared(self.jobs) if self.jobs > 1 else {}),
            **os.environ,
            # Snakemake keeps copies of sources in the user's cache.
            "XDG_CACHE_HOME": str(self.work / "snakemake"),
            "PYTHONUNBUFFERED": "1",
        }

    def _places(self) -> list[str]:
        return ["--data", str(self.data), "--work", str(self.work)]

    def _log(self, run: Planned) -> Path:
        group = run.folder.parent.parent
        return self.work / "logs" / group.parent.name / group.name / f"{run.name}.log"

    def _dscpp(self, *arguments: str) -> int:
        return subprocess.run([*dscpp(), *arguments], check=False).returncode

    def _report(self, failed: Sequence[Planned]) -> None:
        if not failed:
            return
        print(f"\n{len(failed)} of {len(self.planned)} run(s) failed:", file=sys.stderr)
        for run in failed:
            log = self._log(run)
            print(f"  {run.name}: {_last_line(log)}\n    {log}", file=sys.stderr)
        print("The same command tries them again.", file=sys.stderr)


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


def shared(jobs: int) -> dict[str, str]:
    """The variables by which runs at a time share a machine.

    They count when a backend is imported, so that they go into the environment of the
    runs, behind what the user has set.

    Args:
        jobs: runs at a time.
    """
    threads = str(max(1, pool.processors() // jobs))
    return dict.fromkeys(_THREADS, threads) | _MEMORY


def dscpp() -> list[str]:
    """The command `dscpp` of this environment."""
    script = Path(sys.executable).with_name("dscpp")
    return [str(script)] if script.exists() else [sys.executable, "-m", "pipelines.cli"]


def _snakemake_command(jobs: int) -> list[str]:
    # No lock of its own: this call holds one that dies with the process. All runs are
    # asked for each time, so marks of a killed call mean nothing; run.json decides.
    options = "--nolock --forceall --keep-going --rerun-triggers mtime --profile none"
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)),
        *("--cores", str(jobs), "--scheduler", "greedy"),
        *options.split(),
    ]


def _last_line(log: Path) -> str:
    """What a log says last, as a reason; a progress bar's states are one line each."""
    try:
        lines = log.read_text("utf-8", errors="replace").split("\n")
    except OSError:
        return "it was not started"
    found = [line.split("\r")[-1].strip() for line in lines if line.strip()]
    return found[-1] if found else "it said nothing"
