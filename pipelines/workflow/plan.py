"""Which runs are made: experiment files, and one run as a file.

An experiment file is a list of blocks, in the order in which their runs are made. A
block names a data set and losses; the rest has defaults (see `experiments/`). A run
file, which `dscpp run` takes, is one run with the places of its data and results.
Both are YAML; JSON is YAML too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from data_io import datasets
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import schema
from pipelines import run as runs
from pipelines.training.task import Task

EXPERIMENTS = Path(__file__).parent / "experiments"
RESULTS = Path("results")
# The keys of the two kinds of files, and of what type their values are.
_SHARED: dict[str, Any] = {
    "dataset": str,
    "preset": str,
    "overrides": dict,
    "replicate": int,
    "split_seed": int | None,
    "split_files": list,
    "backend": str,
}
_BLOCK = {**_SHARED, "losses": list, "seeds": list}
_RUN = {
    **_SHARED,
    "loss": str,
    "gamma": float | int | None,
    "seed": int,
    "fold": list | None,
    "data": str | None,
    "folder": str,
    "work": str,
}


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
        """Every training of it, in the order in which they are made: seed by seed.

        Raises:
            InputError: unknown data set, preset or loss, or a value out of range.
        """
        shared = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("losses", "seeds", "folds")
        }
        numbers = range(1, self.folds + 1) if self.folds else [None]
        tasks = [
            _make(
                loss=loss, gamma=gamma, seed=seed, fold=k and (k, self.folds), **shared
            )
            for seed in self.seeds
            for loss, gamma in self.losses
            for k in numbers
        ]
        # A loss with its default exponent written out is no other run than without.
        return [task for n, task in enumerate(tasks) if task not in tasks[:n]]


def _make(source: str, **arguments: Any) -> Task:
    """Make a task; what is wrong with it is said of `source`, where that is known."""
    before = f"{source}: " if source else ""
    try:
        return Task.make(**arguments)
    except InputError as error:
        raise InputError(f"{before}{error}") from error


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
        """Where its output is kept."""
        place = self.work / "logs" / self.group.parent.name / self.group.name
        return place / f"{self.name}.log"

    @property
    def run(self) -> runs.Run | None:
        """The run as far as it has come; `dscpp run` says why one can't be read."""
        return runs.readable(self.folder)

    @property
    def done(self) -> bool:
        """Whether its folder says that nothing is left to do."""
        from pipelines import stages  # not above: --help needs none of it

        try:
            if (run := self.run) is None:
                return False
            run.require_same(self.task.identity())
            return stages.is_complete(run)
        except InputError:  # `dscpp run` will say what is wrong with it
            return False

    def write(self, path: Path) -> Path:
        """Write it as a run file, which `load` reads."""
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
    found = _checked(path, "run", _yaml(path), _RUN, ("dataset", "loss"))
    data = Path(found["data"]) if found.get("data") else None
    kept = {key: found[key] for key in _RUN if key in found and key not in _PLACES}
    module = datasets.by_name(found["dataset"])
    if module is datasets.by_name("own"):
        kept["record"] = module.record(module.locate(data))
    task = _make(str(path), **kept)
    folder = Path(found["folder"]) if "folder" in found else task.folder(RESULTS)
    return Planned(task, folder, data, Path(found.get("work", runs.WORK)))


_PLACES = ("data", "folder", "work")


def plan(experiments: Sequence[Experiment], results: Path) -> list[Planned]:
    """The runs of experiments and where each belongs below `results`, in order.

    Raises:
        InputError: see `Experiment.tasks`; or two different runs in one folder.
    """
    found: dict[Path, Task] = {}
    for task in (task for experiment in experiments for task in experiment.tasks()):
        folder = task.folder(results)
        if found.setdefault(folder, task) != task:
            raise InputError(
                f"{folder}: expected one run, found two that differ in their split; "
                "give another --results, or leave one out"
            )
    return [Planned(task, folder) for folder, task in found.items()]


def read(path: Path) -> list[Experiment]:
    """Read an experiment file, block by block.

    Raises:
        InputError: no such file, or one of another form.
    """
    content = _yaml(path)
    if not isinstance(content, list) or not content:
        raise InputError(
            f"{path}: expected a list of runs, each with dataset and losses, found "
            f"{type(content).__name__}; see {EXPERIMENTS / 'paper.yaml'}"
        )
    return [_experiment(path, number, block) for number, block in enumerate(content, 1)]


def of_dataset(path: Path, dataset: str) -> list[Experiment]:
    """The blocks of an experiment file that are about one data set.

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


def _experiment(path: Path, number: int, block: Any) -> Experiment:
    name = f"block {number}"
    found = _checked(path, name, block, _BLOCK, ("dataset", "losses"))
    losses = found["losses"]
    if not losses or not all(isinstance(loss, str) for loss in losses):
        raise InputError(
            f'{path}: {name}: losses: expected a list such as [CE, DSC++, "DSC++ 1.5"]'
            f", found {losses!r}"
        )
    if found.get("seeds") == []:
        raise InputError(f"{path}: {name}: seeds: expected one or more, found none")
    found["losses"] = tuple(_parse_loss(loss.strip()) for loss in losses)
    found["seeds"] = tuple(found.get("seeds", [0]))
    found["split_files"] = tuple(Path(file) for file in found.get("split_files", []))
    return Experiment(**found, source=f"{path}: {name}")


def _checked(
    path: Path, name: str, found: Any, types: Mapping[str, Any], required: Sequence[str]
) -> dict[str, Any]:
    """A mapping of a file, its keys and the types of its values looked at."""
    others = ", ".join(key for key in types if key not in required)
    keys = f"the keys {', '.join(required)} and any of {others}"
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: {name}: expected {keys}, found {type(found).__name__}"
        )
    wrong = [f"the unknown {key}" for key in found if key not in types]
    wrong += [f"no {key}" for key in required if key not in found]
    if wrong:
        raise InputError(f"{path}: {name}: expected {keys}, found {', '.join(wrong)}")
    for key, value in found.items():
        if not isinstance(value, types[key]) or isinstance(value, bool):
            kind = getattr(types[key], "__name__", str(types[key]))
            raise InputError(
                f"{path}: {name}: {key}: expected {_KINDS.get(kind, kind)}, found "
                f"{value!r}"
            )
    if not all(isinstance(file, str) for file in found.get("split_files", [])):
        raise InputError(
            f"{path}: {name}: split_files: expected a list of file names, found "
            f"{found['split_files']}"
        )
    return dict(found)


_KINDS = {
    "str": "a word",
    "int": "a whole number",
    "int | None": "a whole number or null",
    "float | int | None": "a number or null",
    "str | None": "a word or null",
    "list": "a list, such as [a, b]",
    "dict": "keys with values, such as {epochs: 3}",
}


def parse_losses(text: str) -> tuple[tuple[str, float | None], ...]:
    """Read losses as given on the command line, such as "CE, DSC++, DSC++ 1.5".

    A gamma may be given as the tables print it, "DSC++ g=1.5".

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
