"""Which runs a call asks for: an experiment file, changed by the arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data_io.errors import InputError
from losses import catalogue
from pipelines import run as runs
from pipelines.training.task import Task

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Planned",
    "parse_losses",
    "parse_seeds",
    "plan",
    "read",
]

EXPERIMENTS = Path(__file__).parent / "experiments"
KEYS = {"preset", "seeds", "overrides", "datasets"}


@dataclass(frozen=True)
class Experiment:
    """What an experiment file lists for one data set.

    Attributes:
        dataset: the data set's short name.
        preset: the protocol's preset.
        losses: pairs of a loss and its ++ exponent (None: the loss's default).
        seeds: training seeds.
        overrides: values of the protocol that differ from the preset's.
        split_seed: decides the split where a data set has no fixed one.
        split_files: files that hold the split instead.
    """

    dataset: str
    preset: str
    losses: tuple[tuple[str, float | None], ...]
    seeds: tuple[int, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    split_seed: int = 0
    split_files: tuple[Path, ...] = ()

    def tasks(self) -> list[Task]:
        """Every training of it, in the order in which they are made.

        Raises:
            InputError: unknown data set, preset or loss, or a value out of range.
        """
        tasks = [
            self._task(loss, gamma, seed)
            for seed in self.seeds
            for loss, gamma in self.losses
        ]
        # A loss with its default exponent written out is no other run than without.
        return [task for n, task in enumerate(tasks) if task not in tasks[:n]]

    def _task(self, loss: str, gamma: float | None, seed: int) -> Task:
        try:
            return Task.make(
                self.dataset,
                loss,
                gamma,
                seed,
                self.split_seed,
                self.preset,
                self.overrides,
                self.split_files,
            )
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"losses: {error}") from error


@dataclass(frozen=True)
class Planned:
    """One run to be made: what it is and where it belongs."""

    task: Task
    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def done(self) -> bool:
        """Whether its folder says that nothing is left to do."""
        if not runs.is_run(self.folder):
            return False
        try:
            return runs.Run.open(self.folder).reached(runs.STATES[-1])
        except InputError:  # `dscpp train` will say what is wrong with it
            return False

    def arguments(self) -> list[str]:
        """The arguments of `dscpp train`, but for its places."""
        task = self.task
        arguments = ["--dataset", task.dataset, "--preset", task.preset]
        arguments += ["--loss", task.loss, "--seed", str(task.seed)]
        if task.gamma != catalogue.default_gamma(task.loss):
            arguments += ["--gamma", f"{task.gamma:g}"]
        if task.split_seed is not None:
            arguments += ["--split-seed", str(task.split_seed)]
        for path in task.split_files:
            arguments += ["--split", str(path.absolute())]
        for key, value in task.overrides.items():
            arguments += ["--set", f"{key}={json.dumps(value)}"]
        return arguments


def plan(experiment: Experiment, results: Path) -> list[Planned]:
    """The runs of an experiment and where each belongs below `results`."""
    return [Planned(task, task.folder(results)) for task in experiment.tasks()]


def read(path: Path, dataset: str) -> Experiment:
    """Read what an experiment file lists for a data set.

    Raises:
        InputError: no such file, other keys than expected, or no such data set in it.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: expected an experiment file in YAML, found {error}"
        ) from error
    if not isinstance(content, dict) or set(content) != KEYS:
        raise InputError(
            f"{path}: expected the keys {', '.join(sorted(KEYS))}; see {EXPERIMENTS}"
        )
    try:
        return _experiment(path, content, dataset)
    except (TypeError, AttributeError) as error:  # a list where a mapping belongs, ...
        raise InputError(
            f"{path}: expected the form of {EXPERIMENTS / 'paper.yaml'}, found "
            f"another ({error})"
        ) from error


def _experiment(path: Path, content: dict[str, Any], dataset: str) -> Experiment:
    if dataset not in content["datasets"]:
        raise InputError(
            f"{path}: lists no losses for the data set {dataset!r}, only for "
            f"{', '.join(content['datasets'])}; add it there"
        )
    losses = content["datasets"][dataset].items()
    return Experiment(
        dataset,
        content["preset"],
        tuple((loss, gamma) for loss, gammas in losses for gamma in gammas or [None]),
        tuple(content["seeds"]),
        dict(content["overrides"]),
    )


def parse_losses(text: str) -> tuple[tuple[str, float | None], ...]:
    """Read losses as given on the command line, such as "CE, DSC++, DSC++ 1.5".

    Raises:
        InputError: nothing is named.
    """
    found = [_parse_loss(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise InputError(
            f'losses: expected names such as "CE,DSC,DSC++", received {text!r}'
        )
    return tuple(found)


def _parse_loss(entry: str) -> tuple[str, float | None]:
    name, _, gamma = entry.rpartition(" ")
    try:
        return (name.strip(), float(gamma)) if name else (entry, None)
    except ValueError:  # a name of two words
        return entry, None


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds as given on the command line, such as "0,1,2".

    Raises:
        InputError: something else than whole numbers from 0 on.
    """
    parts: Sequence[str] = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise InputError(
            f'seeds: expected whole numbers such as "0,1,2", received {text!r}'
        )
    return tuple(dict.fromkeys(int(part) for part in parts))
