"""What one training is asked to be, and what makes it the same as another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import datasets
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files.hashing import file_hash
from pipelines import loss_names
from pipelines.environment import provenance
from pipelines.runs import run as runs
from pipelines.training import protocol

if TYPE_CHECKING:  # Names of data sets are wanted where nothing is read.
    from data_io.datasets.dataset import Dataset
    from data_io.splits import Fold

_SEEDS = 2**32  # as many as the backends' generators tell apart


@dataclass(frozen=True)
class Task:
    """One training: data set, loss, seed and protocol.

    Attributes:
        dataset: short name of the data set, such as "drive".
        loss: name of the loss, as `loss_names.NAMES` spells it.
        gamma: the ++ exponent; None for losses that have none.
        seed: decides weights, order and augmentation.
        split_seed: decides the split where a data set has no fixed one; None where
            `split_files` do.
        preset: name of the preset.
        overrides: values that differ from the preset's.
        protocol: the preset's protocol with the overrides in it.
        split_files: files that hold the split, see `data_io.splits.read`.
        replicate: counts the trainings of the same settings, from 1 on.
        backend: Keras backend; that of this process where nothing else is said.
        fold: of a cross-validation, see `data_io.splits.folded`; None for one split.
        initial: the run whose weights the training begins with; None for fresh ones.
            The protocol has the hash of the weights.
    """

    dataset: str
    loss: str
    gamma: float | None
    seed: int
    split_seed: int | None
    preset: str
    overrides: Mapping[str, Any]
    protocol: protocol.Protocol
    split_files: tuple[Path, ...] = ()
    replicate: int = 1
    backend: str = field(default_factory=provenance.backend)
    fold: Fold | None = None
    initial: Path | None = None

    @classmethod
    def make(
        cls,
        dataset: str,
        loss: str,
        gamma: float | None = None,
        seed: int = 0,
        split_seed: int | None = 0,
        preset: str = "paper",
        overrides: Mapping[str, Any] | None = None,
        split_files: Sequence[Path | str] = (),
        record: Record | None = None,
        replicate: int = 1,
        backend: str | None = None,
        fold: Fold | None = None,
        initial: runs.Run | None = None,
    ) -> Task:
        """Check what was asked and fill in the defaults.

        The arguments are the attributes, but for `record`: that of the images at hand,
        where it depends on them (own data); None for the data set's one; and
        `initial`, the run itself.

        Raises:
            InputError: unknown data set, loss, preset or backend, or a value out of
                range.
        """
        record = record or datasets.by_name(dataset).RECORD
        drawn = 0 if split_seed is None else split_seed
        _check_numbers(seed=seed, split_seed=drawn, replicate=replicate)
        loss, gamma = loss_names.checked(loss, gamma)
        settings = dict(overrides or {})
        if initial:
            settings["initial_weights"] = file_hash(initial.path(runs.MODEL))
        values, changed = protocol.override(protocol.preset(preset, record), settings)
        _require_same_network(initial, values, record)
        return cls(
            dataset=record.name,
            loss=loss,
            gamma=gamma,
            seed=seed,
            split_seed=None if split_files else split_seed,
            preset=preset,
            overrides=changed,
            protocol=values,
            split_files=tuple(Path(path) for path in split_files),
            replicate=replicate,
            backend=_checked_backend(backend),
            fold=fold,
            initial=initial.folder if initial else None,
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `make` that give this task, as JSON knows them."""
        of_protocol = ("method", "settings")
        return {k: v for k, v in self.identity().items() if k not in of_protocol} | {
            "split_files": [str(path.absolute()) for path in self.split_files]
        }

    @property
    def module(self) -> Dataset:
        """The data set."""
        return datasets.by_name(self.dataset)

    def split(self, root: Path, cache: Path) -> dict[str, tuple[str, ...]]:
        """Return the split of the data set at `root`; see `data_io.splits.of`."""
        from data_io import splits  # not above: --help needs none of it

        options = self.split_seed, self.split_files, cache, self.fold
        return splits.of(self.module, root, *options)

    def identity(self) -> dict[str, Any]:
        """Return the values that a run of this task must have, but for its data."""
        return {
            "dataset": self.dataset,
            "preset": self.preset,
            "loss": self.loss,
            "gamma": self.gamma,
            "seed": self.seed,
            "replicate": self.replicate,
            "split_seed": self.split_seed,
            "method": "",
            "backend": self.backend,
            "overrides": dict(self.overrides),
            "settings": self.protocol.as_dict(),
            **({"fold": list(self.fold)} if self.fold else {}),
        }

    def folder(self, results: Path, pooled: bool = False) -> Path:
        """Return the run's folder below the folder of all results.

        `pooled`: of a fold, where the run of all folds belongs.
        """
        name = runs.folder_name(
            self.loss, self.gamma, self.seed, self.backend, replicate=self.replicate
        )
        preset = self.preset
        if self.fold:
            folds = f"{self.fold[1]}folds"
            preset += f"-{folds}" if pooled else f"-{folds}-fold{self.fold[0]}"
        return runs.run_folder(results, self.dataset, preset, name, self.overrides)


def _require_same_network(
    run: runs.Run | None, values: protocol.Protocol, record: Record
) -> None:
    """Refuse weights of a network of another shape, as far as its record tells."""
    if run is None:
        return
    settings = run.record["settings"]
    present = {key: settings[key] for key in ("filters", "depth")}
    present |= {"axes": len(settings["input_shape"])}
    present |= {"classes": len(run.record.get("classes", record.classes))}
    wanted = {"filters": values.filters, "depth": values.depth}
    wanted |= {"axes": len(values.input_shape), "classes": len(record.classes)}
    for key, value in wanted.items():
        if present[key] != value:
            raise InputError(
                f"--from {run.folder}: expected weights of a network with {key} "
                f"{value}, found {present[key]}; choose the preset, --set and images "
                "of that run, or another run"
            )


def _check_numbers(**numbers: Any) -> None:
    for name, value in numbers.items():
        lowest = int(name == "replicate")
        if type(value) is not int or not lowest <= value < _SEEDS:
            raise InputError(
                f"{name}: expected a whole number from {lowest} to {_SEEDS - 1}, "
                f"received {value!r}"
            )


def _checked_backend(name: Any) -> str:
    if name is not None and name not in provenance.BACKENDS:
        raise InputError(
            f"backend: expected one of {', '.join(provenance.BACKENDS)}, "
            f"received {name!r}"
        )
    return name or provenance.backend()


def from_record(record: Mapping[str, Any]) -> Task:
    """Make the task of a run from its `run.json`, even if its preset has changed."""
    loss, gamma = loss_names.checked(record["loss"], record["gamma"])
    return Task(
        dataset=record["dataset"],
        loss=loss,
        gamma=gamma,
        seed=record["seed"],
        replicate=record.get("replicate", 1),
        backend=record["backend"],
        split_seed=record["split_seed"],
        preset=protocol.known_preset(record["preset"]),
        overrides=dict(record["overrides"]),
        protocol=protocol.from_dict(record["settings"]),
        fold=tuple(record["fold"]) if "fold" in record else None,
    )
