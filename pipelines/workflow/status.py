"""How far a list of runs is, and how long the rest of it takes."""

from __future__ import annotations

import statistics
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_io.bars import duration
from data_io.files import schema
from pipelines import provenance
from pipelines import run as runs
from pipelines.workflow import logs
from pipelines.workflow.plan import Planned

_STAGES = ("train_s", "predict_s", "evaluate_s")


@dataclass(frozen=True)
class _Pace:
    """Seconds of a whole run, what they were taken from, and whether it may be less."""

    seconds: float
    source: str
    most: bool = False


def describe(planned: Sequence[Planned], jobs: int = 1) -> list[str]:
    """Lines that say of each run whether it is done, running, stopped or left.

    Args:
        planned: the runs, in their order.
        jobs: runs at a time.

    Returns:
        A line a run, their counts, and the time to expect.
    """
    states = [_state(run) for run in planned]
    lines = [
        f"{state:8} {run.folder}  {note}".rstrip()
        for run, (state, note) in zip(planned, states, strict=True)
    ]
    counts = Counter(state for state, _ in states)
    said = (f"{counts[name]} {name}" for name in ("done", "running", "stopped", "left"))
    lines.append(f"{len(planned)} run(s): {', '.join(said)}")
    known, unknown = expect([run for run in planned if not run.done], jobs)
    groups = dict.fromkeys(_title(run) for run in unknown)
    return [*lines, *known, *(f"{g}: no run to take a time from yet" for g in groups)]


def _state(planned: Planned) -> tuple[str, str]:
    """One of done, running, stopped and left, and what more there is to say."""
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
    """Why its last attempt ended, in one line."""
    return logs.reason(planned.log).partition("\n")[0]


def expect(
    pending: Sequence[Planned], jobs: int = 1
) -> tuple[list[str], list[Planned]]:
    """Say how long runs take, from what others took on this kind of machine.

    Finished runs of the same data set and preset count first; else the epochs of one
    that has begun, and then it is the most that it may take.

    Args:
        pending: runs that are not done.
        jobs: runs at a time.

    Returns:
        A line for each data set and preset, and the runs for which nothing is known.
    """
    lines, unknown = [], []
    for group in dict.fromkeys(run.group for run in pending):
        own = [run for run in pending if run.group == group]
        pace = _pace(group, own)
        if pace is None:
            unknown += own
            continue
        seconds = sum(_remaining(run, pace) for run in own) / min(jobs, len(own))
        about = "at most" if pace.most else "about"
        lines.append(
            f"{_title(own[0])}: {len(own)} run(s) take {about} "
            f"{duration(seconds / 3600)} ({pace.source})"
        )
    return lines, unknown


def _title(run: Planned) -> str:
    return f"{run.group.parent.name} at {run.group.name}"


def _pace(group: Path, pending: Sequence[Planned]) -> _Pace | None:
    like = {"machine": provenance.machine(), "backend": pending[0].task.backend}
    near = [run for run in _trainings(group) if like.items() <= run.record.items()]
    took = [_took(run) for run in near if run.reached("evaluated")]
    finished = [each for each in took if each]
    if finished:
        seconds, epochs = map(statistics.mean, zip(*finished, strict=True))
        return _Pace(
            seconds,
            f"{len(finished)} finished on this kind of machine: "
            f"{duration(seconds / 3600)} and {epochs:.0f} epochs a run",
        )
    for run in near:
        epochs, seconds = _progress(run)
        if epochs:
            most = pending[0].task.protocol.epochs
            return _Pace(
                seconds / epochs * most,
                f"{epochs} epochs of {run.name}: {seconds / epochs:.1f} s each, at "
                f"most {most}; early stopping mostly ends a run sooner",
                most=True,
            )
    return None


def _trainings(group: Path) -> Iterator[runs.Run]:
    """Runs of a group as they were trained; one that cannot be read says nothing."""
    found = map(runs.readable, sorted((group / "runs").glob("*")))
    yield from (run for run in found if run and not run.method)


def _remaining(planned: Planned, pace: _Pace) -> float:
    """Seconds that are left of a run."""
    run = planned.run
    if run is None:
        return pace.seconds
    if run.reached("trained"):
        return 0.0
    return max(pace.seconds - _progress(run)[1], 0.0)


def _took(run: runs.Run) -> tuple[float, int] | None:
    """Seconds of all stages and epochs of a finished run; None where it has no note."""
    try:
        times = run.record["times"]
        return float(sum(times[stage] for stage in _STAGES)), int(times["epochs"])
    except (KeyError, TypeError, ValueError):
        return None


def _progress(run: runs.Run) -> tuple[int, float]:
    """Epochs and seconds of a training that is not at its end; 0 before the first."""
    try:
        # What `pipelines.training.state` writes, read without Keras.
        with np.load(run.path(runs.STATE), allow_pickle=False) as file:
            found = schema.parse(str(file["progress"]), dict[str, Any])
        return int(found["epoch"]), float(found["seconds"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return 0, 0.0
