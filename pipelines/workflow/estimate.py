"""Hours to expect, from a few real training steps.

The steps run in a process of their own, so that whoever asks holds no memory of the
backend while the runs go on: `python -m pipelines.workflow.estimate` prints JSON.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_io import bars
from data_io.bars import duration
from pipelines.training.task import Task
from pipelines.workflow import plan, processes


@dataclass(frozen=True)
class Cost:
    """What a run takes at most.

    Attributes:
        seconds_per_epoch: training and validation.
        epochs: the largest number of epochs.
        device: the GPU's name, or "CPU".
    """

    seconds_per_epoch: float
    epochs: int
    device: str

    def hours(self, runs: int, jobs: int = 1) -> float:
        """Return the hours that so many runs take at most."""
        return self.seconds_per_epoch * self.epochs * runs / min(jobs, runs) / 3600


def measure(planned: Sequence[plan.Planned], folder: Path) -> list[Cost]:
    """Time a few steps of each run, up to the first that has a GPU.

    Later ones matter where there is no GPU only; run files go to `folder`.

    Returns:
        As many costs as were timed; none where that failed, which is no reason to
        stop: the runs themselves will say what is wrong.
    """
    files = [
        str(run.write(folder / f"timed-{number}.json"))
        for number, run in enumerate(planned)
    ]
    answer = subprocess.run(
        [sys.executable, "-m", "pipelines.workflow.estimate", *files],
        stdout=subprocess.PIPE,
        env=processes.environment(),
        text=True,
        check=False,
    )
    if answer.returncode:
        bars.note("The time to expect could not be measured; going on.", sys.stderr)
        return []
    return [Cost(**cost) for cost in json.loads(answer.stdout.splitlines()[-1])]


def describe(
    tasks: Sequence[Task], costs: Sequence[Cost], runs: int, jobs: int
) -> list[str]:
    """Return lines on the time of the first task, and on that of the others.

    The tasks are the training at the preset asked for, then at smaller ones; the costs
    those of `measure`; so many `runs` are to be made, `jobs` at a time.
    """
    lines = []
    for task, cost in zip(tasks[:1], costs[:1], strict=False):
        lines.append(
            f"On this machine ({cost.device}) an epoch at preset {task.preset} takes "
            f"about {duration(cost.seconds_per_epoch / 3600)}: for {runs} run(s) of at "
            f"most {cost.epochs} epochs expect at most "
            f"{duration(cost.hours(runs, jobs))}. Early stopping mostly ends a run "
            "sooner. A stopped run goes on when the same command is given."
        )
    for task, cost in zip(tasks[1:], costs[1:], strict=False):
        shape = "x".join(str(size) for size in task.protocol.input_shape)
        unit = "voxels" if len(task.protocol.input_shape) == 3 else "pixels"
        lines.append(
            f"No GPU was found. PRESET={task.preset} is meant for such a machine: "
            f"{shape} {unit}, {task.protocol.filters} filters, at most {cost.epochs} "
            f"epochs; the same runs take at most {duration(cost.hours(runs, jobs))}."
        )
    return lines


def main() -> None:
    """Time the runs whose files are the arguments."""
    processes.follow()
    from pipelines import stages

    costs: list[Cost] = []
    for file in sys.argv[1:]:
        run = plan.load(Path(file))
        os.environ["KERAS_BACKEND"] = run.task.backend
        costs.append(Cost(**stages.estimate(run.task, run.data, run.work)))
        if costs[-1].device != "CPU":
            break
    print(json.dumps([dataclasses.asdict(cost) for cost in costs]))


if __name__ == "__main__":
    main()
