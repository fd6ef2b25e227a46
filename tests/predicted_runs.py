"""Predicted runs of phantoms that no network was needed for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_io.datasets import phantom
from data_io.files import hashing
from pipelines.posthoc import scaling
from pipelines.runs import predictions, written
from pipelines.runs import run as runs
from pipelines.training.task import Task


def make_run(
    folder: Path, data: Path, power: float = 0.5, seed: int = 0, loss: str = "DSC"
) -> runs.Run:
    """A run that says the truth to a power: below 1 it is less sure than it should."""
    split = {part: list(cases) for part, cases in phantom.vessels.split(data).items()}
    task = Task.make("phantom", loss, seed=seed, preset="demo")
    cases = [case for ids in split.values() for case in ids]
    hashes = hashing.case_hashes(phantom.vessels, data, cases, folder / ".cache")
    record = {"title": "phantom", "simulated": True, **task.identity(), "split": split}
    record |= {"classes": ["background", "vessel"], "preprocessing": {}, "files": {}}
    record |= {"data_hash": hashing.data_hash(hashes), "backend": "tensorflow"}
    run = runs.Run.create(folder, record)
    run.path(predictions.PROBABILITIES).mkdir()
    for _, case in predictions.cases(run):
        p = phantom.vessels.posterior(data, case)
        softmax = scaling.scale(np.stack([1 - p, p], -1), 1 / power)
        np.save(predictions.path(run, case), softmax)
    run.record["files"] = {runs.MODEL: f"hash of the weights of seed {seed}"}
    return seal(run)


def seal(run: runs.Run) -> runs.Run:
    """Note the probabilities that are there as the run's own."""
    names = [f"{case}.npy" for _, case in predictions.cases(run)]
    written.seal(run.path(predictions.PROBABILITIES), names)
    run.update(files=[predictions.LIST], state="predicted")
    return run
