"""How far a list of runs is, and how long the rest of it takes."""

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_io import bars
from data_io.bars import duration
from data_io.errors import InputError
from data_io.files import archives, schema
from pipelines.environment import provenance
from pipelines.runs import run as runs
from pipelines.workflow import logs, slurm
from pipelines.workflow.plan import RESULTS, Planned

_STAGES = ("train_s", "predict_s", "evaluate_s")
_STATES = ("done", "running", "queued", "stopped", "left")


@dataclass(frozen=True)
class _Pace:
    """Seconds of a whole run, their source, and whether they are an upper limit."""

    seconds: float
    source: str
    most: bool = False


def show(planned: Sequence[Planned], options: argparse.Namespace) -> int:
    """Print for each run whether it is done, running, queued, stopped or left.

    Then their counts, and the hours to expect.
    """
    placed = [replace(run, work=options.work.absolute()) for run in planned]
    print("\n".join(_lines(placed, options.jobs, options.slurm)))
    return 0


def _lines(
    planned: Sequence[Planned], jobs: int, profile: slurm.Profile | None
) -> list[str]:
    queue = _queue()
    states = [_state(run, queue.get(slurm.job_name(run.folder))) for run in planned]
    lines = [
        f"{state:8} {run.folder}  {note}".rstrip()
        for run, (state, note) in zip(planned, states, strict=True)
    ]
    counts = Counter(state for state, _ in states)
    names = [name for name in _STATES if name != "queued" or counts[name]]
    summary = ", ".join(f"{counts[name]} {name}" for name in names)
    lines.append(f"{len(planned)} run(s): {summary}")
    pending = [run for run in planned if not run.done]
    known, unknown, hours = expect(pending, jobs, profile)
    groups = dict.fromkeys(_title(run) for run in unknown)
    lines += [*known, *(f"{g}: no run to take a time from yet" for g in groups)]
    if profile and pending:
        lines.append(_sum(hours, len(unknown), profile))
    return lines


def _queue() -> dict[str, slurm.Job]:
    """Return the jobs in the queue; none if SLURM is installed but does not answer."""
    try:
        return slurm.queue()
    except InputError as error:
        bars.note(f"What is in the queue of SLURM is not known. {error}", sys.stderr)
        return {}


def _sum(hours: float, unknown: int, profile: slurm.Profile) -> str:
    kind = "GPU hours" if profile.has_gpu else "hours"
    text = f"In sum about {hours:.1f} {kind}"
    if profile.price is not None:
        text += f"; at {profile.price:g} an hour: {hours * profile.price:.2f}"
    return text + f". Not counted: {unknown} run(s) without a time" * bool(unknown)


def _state(planned: Planned, job: slurm.Job | None) -> tuple[str, str]:
    state, note = _state_here(planned)
    if job is None or state == "done":
        return state, note
    note = "; ".join(filter(None, [f"job {job.number}, {job.state}", note]))
    return "queued" if job.state == "PENDING" else "running", note


def _state_here(planned: Planned) -> tuple[str, str]:
    """Return the state by the folder and this machine, and a note."""
    run = planned.run
    if run is None:
        return "left", _reason(planned)
    if planned.done:
        took = _took(run)
        note = f"{took[1]} epochs, {duration(took[0] / 3600)}" if took else ""
        return "done", note
    epochs, _ = _progress(run)
    note = run.state
    if run.state == "training":
        note = f"epoch {epochs} of at most {planned.task.protocol.epochs}"
    if runs.is_held(planned.folder):
        return "running", note
    return "stopped", "; ".join(filter(None, [note, _reason(planned)]))


def _reason(planned: Planned) -> str:
    """Return why the last attempt ended, in one line."""
    return logs.reason(planned.log).partition("\n")[0]


def expect(
    pending: Sequence[Planned],
    jobs: int = 1,
    profile: slurm.Profile | None = None,
) -> tuple[list[str], list[Planned], float]:
    """Estimate how long runs take, from others on this kind of machine.

    For a cluster, others count that were made on a GPU, or on processors, as its
    profile asks; the line says on which.

    Finished runs of the same data set and preset count first; else the epochs of one
    that has begun, and then it is the most that it may take.

    Returns:
        A line for each data set and preset; the runs for which nothing is known; and
        the hours of all others, one after the other.
    """
    lines, unknown, total = [], list[Planned](), 0.0
    for group in dict.fromkeys(run.group for run in pending):
        group_runs = [run for run in pending if run.group == group]
        pace = _pace(group_runs, *_near(group_runs[0], profile))
        if pace is None:
            unknown += group_runs
            continue
        hours = sum(_remaining(run, pace) for run in group_runs) / 3600
        total += hours
        qualifier = "at most" if pace.most else "about"
        lines.append(
            f"{_title(group_runs[0])}: {len(group_runs)} run(s) take {qualifier} "
            f"{duration(hours / min(jobs, len(group_runs)))} ({pace.source})"
        )
    return lines, unknown, total


def _title(run: Planned) -> str:
    return f"{run.group.parent.name} at {run.group.name}"


def _near(
    planned: Planned, profile: slurm.Profile | None
) -> tuple[list[runs.Run], str]:
    """Return comparable runs of the group, and where they were made."""
    group = planned.group
    if profile is None:
        wanted = {"machine": provenance.machine(), "backend": planned.task.backend}
        near = [
            run for run in _trainings(group) if wanted.items() <= run.record.items()
        ]
        return near, "on this kind of machine"
    usual = RESULTS.absolute() / group.parent.name / group.name
    candidates = [
        run
        for where in dict.fromkeys([group, usual])
        for run in _trainings(where)
        if (run.record.get("device", "CPU") != "CPU") == profile.has_gpu
    ]
    places = Counter(map(_hardware, candidates)).most_common(1)
    where = places[0][0] if places else ""
    return [run for run in candidates if _hardware(run) == where], where


def _hardware(run: runs.Run) -> str:
    device = run.record.get("device", "CPU")
    name = run.record.get("machine") if device == "CPU" else device
    return f"with {run.record.get('backend')} on {name}"


def _pace(
    pending: Sequence[Planned], near: Sequence[runs.Run], where: str
) -> _Pace | None:
    """Return the pace of `near`, runs made `where`; None if they have no times."""
    took = [_took(run) for run in near if run.reached("evaluated")]
    finished = [cost for cost in took if cost]
    if finished:
        seconds, epochs = map(statistics.mean, zip(*finished, strict=True))
        return _Pace(
            seconds,
            f"{len(finished)} finished {where}: "
            f"{duration(seconds / 3600)} and {epochs:.0f} epochs a run",
        )
    for run in near:
        epochs, seconds = _progress(run)
        if epochs:
            most = pending[0].task.protocol.epochs
            return _Pace(
                seconds / epochs * most,
                f"{epochs} epochs of {run.name} {where}: {seconds / epochs:.1f} s "
                f"each, at most {most}; early stopping mostly ends a run sooner",
                most=True,
            )
    return None


def _trainings(group: Path) -> Iterator[runs.Run]:
    readable = map(runs.readable, sorted((group / "runs").glob("*")))
    yield from (run for run in readable if run and not run.method)


def _remaining(planned: Planned, pace: _Pace) -> float:
    run = planned.run
    if run is None:
        return pace.seconds
    if run.reached("trained"):
        return 0.0
    return max(pace.seconds - _progress(run)[1], 0.0)


def _took(run: runs.Run) -> tuple[float, int] | None:
    """Return seconds and epochs of a finished run; None if it has none noted."""
    try:
        times = run.record["times"]
        return float(sum(times[stage] for stage in _STAGES)), int(times["epochs"])
    except (KeyError, TypeError, ValueError):
        return None


def _progress(run: runs.Run) -> tuple[int, float]:
    """Return epochs and seconds of an unfinished training; 0 before the first."""
    try:
        # What `pipelines.training.state` writes, read without Keras.
        with np.load(run.path(runs.STATE), allow_pickle=False) as file:
            progress = schema.parse(str(file["progress"]), dict[str, Any])
        return int(progress["epoch"]), float(progress["seconds"])
    except (*archives.DAMAGED, OSError, ValueError, KeyError, TypeError):
        return 0, 0.0
