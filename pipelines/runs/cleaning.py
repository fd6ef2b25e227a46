"""What takes room and can be made again: `dscpp clean`.

Records, histories, measures and pictures of runs stay, and so does every file that
dscpp did not write. Weights and training states stay unless they are asked for.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tqdm import tqdm

from data_io import datasets
from data_io.datasets import layout
from data_io.errors import InputError
from pipelines.runs import predictions
from pipelines.runs import run as runs

# Folders of `work`, and what they hold.
_WORK = {
    "cache": "prepared images",
    "jax": "compiled steps",
    "own": "descriptions of own images",
    "verify": "which files were looked at",
    "workflow": "notes of calls that ended",
}
# Folders of `.work`, whatever another `work` is named.
_IMAGES = {
    layout.UNPACKED.name: "unpacked zips",
    **dict.fromkeys(datasets.NAMES, "simulated images"),
}
_WEIGHTS = {runs.MODEL: "weights", runs.STATE: "training state"}


@dataclass(frozen=True)
class Thing:
    """A file or folder that can go.

    Attributes:
        path: where it is.
        what: what it holds.
        size: bytes on the disk.
    """

    path: Path
    what: str
    size: int

    @classmethod
    def at(cls, path: Path, what: str) -> Self:
        """Return the thing at an existing path; do not follow links."""
        files = [path, *path.rglob("*")] if path.is_dir() else [path]
        return cls(path, what, sum(f.lstat().st_size for f in files if not f.is_dir()))


def find(results: Path, work: Path, weights: bool = False) -> list[Thing]:
    """Return everything that can be made again, the largest first.

    With `weights`, those and the states of finished trainings too, which only a new
    training makes again. Probabilities are listed where the weights that make them are.

    Raises:
        InputError: a process is working on a run, or with the cache.
    """
    places = {work / name: what for name, what in _WORK.items()}
    places |= {runs.WORK / name: what for name, what in _IMAGES.items()}
    locks = work.glob("workflow/**/lock")
    if any(runs.is_locked(path, unknown=True) for path in locks):
        raise InputError(
            f"{work}: expected no command at work, found one; wait for it to end"
        )
    for folder in sorted(results.glob("*/*")):
        for run in runs.find(folder):
            if runs.is_held(run.folder):
                raise InputError(
                    f"{run.folder}: expected no command at work, found one; wait for "
                    "it to end"
                )
            places |= _of_run(run, weights)
    present = {
        p: what for p, what in places.items() if p.exists() and not p.is_symlink()
    }
    things = [Thing.at(path, what) for path, what in present.items()]
    return sorted(things, key=lambda thing: -thing.size)


def _of_run(run: runs.Run, weights: bool) -> dict[Path, str]:
    if not run.reached("evaluated"):
        return {}
    # Of a run after a method the weights are those of the run it came from.
    can_predict = (run.trained / runs.MODEL).is_file()
    names = {predictions.PROBABILITIES: "probabilities"} if can_predict else {}
    names |= _WEIGHTS if weights else {}
    return {run.path(name): what for name, what in names.items()}


def lines(things: Sequence[Thing]) -> list[str]:
    """Return a line for each thing, and one for their sum."""
    shown = [
        f"{_bytes(thing.size):>9}  {thing.path}  ({thing.what})" for thing in things
    ]
    return [*shown, f"{_bytes(sum(thing.size for thing in things)):>9}  in all"]


def _bytes(size: float) -> str:
    return tqdm.format_sizeof(size, "B", 1000)


def remove(things: Sequence[Thing]) -> None:
    """Delete things.

    Raises:
        OSError: the first that could not be deleted.
    """
    for thing in things:
        if thing.path.is_dir():
            shutil.rmtree(thing.path)
        else:
            thing.path.unlink()
