"""What one training is asked to be, and what makes it the same as another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from data_io import datasets
from data_io.datasets.record import Record
from data_io.errors import InputError
from losses import catalogue
from pipelines import provenance
from pipelines import run as runs
from pipelines.training import protocol

__all__ = ["Task", "from_record"]

_SEEDS = 2**32  # as many as the backends' generators tell apart


@dataclass(frozen=True)
class Task:
    """One training: data set, loss, seed and protocol.

    Attributes:
        dataset: short name of the data set, such as "drive".
        loss: name of the loss, as the catalogue spells it.
        gamma: the ++ exponent; None for losses that have none.
        seed: decides weights, order and augmentation.
        split_seed: decides the split where a data set has no fixed one; None where
            `split_files` do.
        preset: name of the preset.
        overrides: values that differ from the preset's.
        protocol: the preset's protocol with the overrides in it.
        split_files: files that hold the split, see `data_io.splits.read`.
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
        split_files: Sequence[Path] = (),
    ) -> Task:
        """Check what was asked and fill in the defaults.

        Raises:
            InputError: unknown data set or preset, or a value out of range.
            ValueError: unknown loss, or a gamma that it does not take.
        """
        record: Record = datasets.by_name(dataset).RECORD
        _check_seed("seed", seed)
        if split_seed is not None:
            _check_seed("split_seed", split_seed)
        values, changed = protocol.override(
            protocol.preset(preset, record), overrides or {}
        )
        return cls(
            dataset=record.name,
            loss=catalogue.canonical(loss),
            gamma=catalogue.check_gamma(loss, gamma),
            seed=seed,
            split_seed=None if split_files else split_seed,
            preset=preset,
            overrides=changed,
            protocol=values,
            split_files=tuple(split_files),
        )

    @property
    def module(self) -> ModuleType:
        """The data set's module."""
        return datasets.by_name(self.dataset)

    def identity(self) -> dict[str, Any]:
        """What a run must agree in to be this task, but for the data."""
        return {
            "dataset": self.dataset,
            "preset": self.preset,
            "loss": self.loss,
            "gamma": self.gamma,
            "seed": self.seed,
            "split_seed": self.split_seed,
            "method": "",
            "backend": provenance.backend(),
            "overrides": dict(self.overrides),
            "settings": self.protocol.as_dict(),
        }

    def folder(self, results: Path) -> Path:
        """Where this run belongs below the folder of all results."""
        name = runs.folder_name(self.loss, self.gamma, self.seed, provenance.backend())
        return runs.run_folder(results, self.dataset, self.preset, name, self.overrides)


def _check_seed(name: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value < _SEEDS:
        raise InputError(
            f"{name}: expected a whole number from 0 to {_SEEDS - 1}, "
            f"received {value!r}"
        )


def from_record(record: Mapping[str, Any]) -> Task:
    """The task of a run, from its `run.json`."""
    return Task.make(
        dataset=record["dataset"],
        loss=record["loss"],
        gamma=record["gamma"],
        seed=record["seed"],
        split_seed=record["split_seed"],
        preset=record["preset"],
        overrides=record["overrides"],
    )
