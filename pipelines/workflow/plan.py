"""Which runs are made: experiment files, and one run as a file.

An experiment file is a list of blocks, in the order in which their runs are made. A
block names a data set and losses; the rest has defaults (see `experiments/`). A run
file, which `dscpp run` takes, is one run with the places of its data and results.
Both are YAML; JSON is YAML too.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Required, get_type_hints

import yaml
from annotated_types import MinLen
from typing_extensions import TypedDict

from data_io import datasets
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import schema
from pipelines.runs import run as runs
from pipelines.training.task import Task

EXPERIMENTS = Path(__file__).parent / "experiments"
RESULTS = Path("results")
_MOST_FOLDS = 1000


class _Shared(TypedDict, total=False):
    """The keys of both kinds of files; the arguments of `Task.make`."""

    dataset: Required[str]
    preset: str
    overrides: dict[str, Any]
    replicate: int
    split_seed: int | None
    split_files: tuple[Path, ...]
    backend: str


class _Block(_Shared, total=False):
    losses: Required[Annotated[tuple[str, ...], MinLen(1)]]
    seeds: Annotated[tuple[int, ...], MinLen(1)]


class _Run(_Shared, total=False):
    loss: Required[str]
    gamma: float | None
    seed: int
    fold: tuple[int, int] | None
    data: Path | None
    folder: Path
    work: Path


_ALONE = {"extra": "forbid", "strict": True}
_Block.__pydantic_config__ = _ALONE  # type: ignore[attr-defined]
_Run.__pydantic_config__ = _ALONE  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Experiment:
    """One block of an experiment file: the trainings of one data set and preset.

    Attributes: the arguments of `Task.make`, and
        losses: pairs of a loss and its ++ exponent (None: the loss's default).
        seeds: training seeds.
        folds: of a cross-validation, so many trainings in place of one; 0 for none.
        source: file and block that say so, for errors; "" where the caller does.
    """

    dataset: str
    losses: tuple[tuple[str, float | None], ...]
    seeds: tuple[int, ...] = (0,)
    preset: str = "paper"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    split_seed: int | None = 0
    split_files: tuple[Path, ...] = ()
    record: Record | None = None
    replicate: int = 1
    backend: str | None = None
    folds: int = 0
    source: str = ""

    def tasks(self) -> list[Task]:
        """Return its trainings, in the order in which they are made: seed by seed.

        Raises:
            InputError: unknown data set, preset or loss, or a value out of range.
        """
        own = ("losses", "seeds", "folds", "source")
        shared = {key: value for key, value in vars(self).items() if key not in own}
        if self.folds and not 2 <= self.folds <= _MOST_FOLDS:
            raise InputError(
                f"folds: expected 2 to {_MOST_FOLDS}, or 0 for none, received "
                f"{self.folds}"
            )
        pairs = [(k, self.folds) for k in range(1, self.folds + 1)]
        folds: Sequence[tuple[int, int] | None] = pairs or [None]
        # A loss with its default exponent written out is no other run than without.
        by_identity: dict[str, Task] = {}
        with _errors_of(self.source):
            for seed, (loss, gamma), fold in product(self.seeds, self.losses, folds):
                task = Task.make(loss=loss, gamma=gamma, seed=seed, fold=fold, **shared)
                key = json.dumps(task.arguments(), sort_keys=True)
                by_identity.setdefault(key, task)
        return list(by_identity.values())


@contextlib.contextmanager
def _errors_of(source: str) -> Iterator[None]:
    """Put the source, where it is known, before the message of an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{source}: {error}" if source else str(error)) from error


@dataclass(frozen=True)
class Planned:
    """One run to be made: what it is and where it belongs.

    Attributes:
        task: the training.
        folder: the run's folder.
        data: the data set's folder; None for its default.
        work: folder of the cache.
    """

    task: Task
    folder: Path
    data: Path | None = None
    work: Path = runs.WORK

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def group(self) -> Path:
        """`results/<dataset>/<preset>`, or the folder of runs with these overrides."""
        return self.folder.parent.parent

    @property
    def log(self) -> Path:
        """The file of its output."""
        folder = self.work / "logs" / self.group.parent.name / self.group.name
        return folder / f"{self.name}.log"

    @property
    def run(self) -> runs.Run | None:
        """The run in its folder; None if there is none that can be read."""
        return runs.readable(self.folder)

    @property
    def done(self) -> bool:
        """Whether its folder shows that nothing is left to do."""
        from pipelines import stages

        try:
            if (run := self.run) is None:
                return False
            run.require_same(self.task.identity())
            return stages.is_complete(run)
        except InputError:  # `dscpp run` will say what is wrong with it
            return False

    def write(self, path: Path) -> Path:
        """Write the run file that `load` reads."""
        places = {
            "data": None if self.data is None else str(self.data),
            "folder": str(self.folder),
            "work": str(self.work),
        }
        return runs.write_json(path, self.task.arguments() | places)


def load(path: Path) -> Planned:
    """Read a run file.

    Args:
        path: keys are the arguments of `Task.make`, `data`, `folder` and `work`;
            only `dataset` and `loss` have no default.

    Raises:
        InputError: no such file, or one that describes no run.
    """
    values = _typed(path, "run", _yaml(path), _Run)
    data, folder = values.pop("data", None), values.pop("folder", None)
    work = values.pop("work", runs.WORK)
    module = datasets.by_name(values["dataset"])
    if module is datasets.by_name("own"):
        values["record"] = module.record(module.locate(data))
    with _errors_of(str(path)):
        task = Task.make(**values)
    return Planned(task, folder or task.folder(RESULTS), data, work)


def plan(experiments: Sequence[Experiment], results: Path) -> list[Planned]:
    """Return the runs of experiments, in order, and their folders in `results`.

    Raises:
        InputError: see `Experiment.tasks`; or two different runs in one folder.
    """
    task_of_folder: dict[Path, Task] = {}
    for task in (task for experiment in experiments for task in experiment.tasks()):
        folder = task.folder(results)
        if task_of_folder.setdefault(folder, task) != task:
            raise InputError(
                f"{folder}: expected one run, found two that differ in their split; "
                "give another --results, or leave one out"
            )
    return [Planned(task, folder) for folder, task in task_of_folder.items()]


def read(path: Path) -> list[Experiment]:
    """Read an experiment file, block by block.

    Raises:
        InputError: no such file, or one of another form.
    """
    blocks = _yaml(path)
    if not isinstance(blocks, list) or not blocks:
        raise InputError(
            f"{path}: expected a list of runs, each with dataset and losses, found "
            f"{type(blocks).__name__}; see {EXPERIMENTS / 'paper.yaml'}"
        )
    experiments = []
    for number, block in enumerate(blocks, 1):
        name = f"block {number}"
        values = _typed(path, name, block, _Block)
        values["losses"] = tuple(_parse_loss(loss.strip()) for loss in values["losses"])
        experiments.append(Experiment(**values, source=f"{path}: {name}"))
    return experiments


def of_dataset(path: Path, dataset: str) -> list[Experiment]:
    """Return the blocks of an experiment file that are about one data set.

    Raises:
        InputError: as `read`; no such data set in it.
    """
    listed = "own" if dataset.startswith("own-") else dataset
    blocks = read(path)
    chosen = [block for block in blocks if block.dataset == listed]
    if not chosen:
        known = ", ".join(dict.fromkeys(block.dataset for block in blocks))
        raise InputError(
            f"{path}: expected losses for the data set {dataset!r}, found them only "
            f"for {known}; add it there"
        )
    return chosen


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(schema.read(path).decode())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: expected a file in YAML or JSON, found {error}"
        ) from error


def _typed(path: Path, name: str, value: Any, kind: Any) -> dict[str, Any]:
    try:
        values: dict[str, Any] = schema.typed(value, kind)
    except ValueError as error:
        keys = ", ".join(get_type_hints(kind))
        raise InputError(f"{path}: {name}: {error}; its keys are {keys}") from error
    return values


def parse_losses(text: str) -> tuple[tuple[str, float | None], ...]:
    """Read losses as given on the command line, such as "CE, DSC++, DSC++ 1.5".

    A gamma may be given as the tables print it, "DSC++ g=1.5".

    Raises:
        InputError: nothing is named.
    """
    losses = [_parse_loss(part.strip()) for part in text.split(",") if part.strip()]
    if not losses:
        raise InputError(
            f'losses: expected names such as "CE,DSC,DSC++", received {text!r}'
        )
    return tuple(losses)


def _parse_loss(entry: str) -> tuple[str, float | None]:
    name, _, gamma = entry.rpartition(" ")
    try:
        gamma = gamma.removeprefix("g=")
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
