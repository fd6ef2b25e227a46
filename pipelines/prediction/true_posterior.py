"""The true probabilities of phantoms, measured as if a network had said them.

A phantom's label is drawn from a probability that is known. Measured on the way that
every network's probabilities take, it has to come out calibrated and ahead of every
network in NLL and Brier score: it shows that the measures are what they say.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from data_io import datasets
from data_io.datasets.phantom import Phantom
from data_io.files.hashing import file_hash
from pipelines.prediction import evaluate
from pipelines.runs import predictions
from pipelines.runs import run as runs

FOLDER = "true-posterior"
"""Its run's folder, beside those of the networks."""

_SHARED = (
    "dataset", "title", "simulated", "classes", "preset", "backend", "overrides",
    "settings", "preprocessing", "split_seed", "split", "data_hash",
)  # fmt: skip


def measure(group: Path, root: Path) -> runs.Run | None:
    """Measure the true probabilities beside the evaluated runs of a group.

    `group` is `results/<dataset>/<preset>`, `root` the data set's folder.

    Returns:
        The run `runs/true-posterior`, with method `run.TRUTH` and no loss; None where
        the data set has no known probability, or no run was evaluated.
    """
    done = [
        run
        for run in runs.find(group)
        if run.state == "evaluated" and run.method != runs.TRUTH
    ]
    module = datasets.by_name(done[0].record["dataset"]) if done else None
    if not isinstance(module, Phantom):
        return None
    record = {key: done[0].record[key] for key in _SHARED if key in done[0].record}
    record |= {"loss": "", "gamma": None, "seed": 0, "method": runs.TRUTH}
    folder = done[0].folder.parent / FOLDER
    runs.require_replaceable(
        folder, "the truth as it was measured", lambda run: run.method == runs.TRUTH
    )
    with runs.lock_folder(folder):
        if _is_current(folder, record):
            return runs.Run.open(folder)
        run = runs.Run.create(folder, record)
        evaluate.write(folder, record, *_measured(module, root, run))
        run.update(files=runs.MEASURES, state="evaluated")
    return run


def _is_current(folder: Path, record: dict[str, Any]) -> bool:
    """Return whether this was measured before, and its files are unchanged."""
    if not runs.is_run(folder):
        return False
    present = runs.Run.open(folder).record
    same = all(present.get(key) == value for key, value in record.items())
    if not same or present["state"] != "evaluated":
        return False
    paths = [folder / name for name in runs.MEASURES]
    hashes = [file_hash(path) for path in paths if path.is_file()]
    return hashes == [present["files"][name] for name in runs.MEASURES]


def _measured(module: Phantom, root: Path, run: runs.Run) -> evaluate.Measured:
    def case_of(part: str, case: str) -> evaluate.Measured:
        p = module.posterior(root, case)
        softmax = np.stack([1 - p, p], axis=-1)
        slabs_of = functools.partial(predictions.native, softmax, False)
        return evaluate.measure_case(module, root, part, case, slabs_of)

    return evaluate.joined(case_of(*named) for named in predictions.cases(run))
