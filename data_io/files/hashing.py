"""Hashes of raw files, and facts about them, stored until the files change.

Without MIScnn or Keras, so that a finished run can quickly be compared with its data.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from typing_extensions import TypedDict

if TYPE_CHECKING:  # Run folders are read without the readers of images.
    from data_io.datasets.dataset import Dataset

from data_io.errors import InputError
from data_io.files import schema
from data_io.files.schema import digest
from data_io.files.writing import write_json

_R = TypeVar("_R")


class _Entry(TypedDict):
    stamp: list[int]
    found: Any


class _Kept(TypedDict):
    format: Literal[5]
    files: dict[str, _Entry]


class Memory:
    """Facts about files, kept while the files are unchanged.

    Args:
        path: JSON file to keep them in; None to keep nothing. A damaged file, or one of
            another format, counts as empty.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        kept = schema.recall(path, _Kept) if path else None
        self.files: dict[str, Any] = kept["files"] if kept else {}

    def get(self, file: Path, kind: str) -> Any:
        """Return what `put` stored of a file or folder, by kind; None if changed."""
        entry = self.files.get(_key(file, kind))
        with contextlib.suppress(OSError):
            if entry and entry["stamp"] == stamp_of(file):
                return entry["found"]
        return None

    def put(self, file: Path, kind: str, stamp: list[int], facts: Any) -> None:
        """Store facts of a file that had this stamp."""
        self.files[_key(file, kind)] = {"stamp": stamp, "found": facts}

    def save(self) -> str:
        """Write the file; return why that failed, or ""."""
        if self.path is None:
            return ""
        files = self.files.items()
        kept = {k: v for k, v in files if Path(k.partition(" ")[2]).exists()}
        try:
            # What is wrong with a file may be a number that is not finite.
            content = schema.sealed({"format": 5, "files": kept})
            write_json(self.path, content, indent=None, allow_nan=True)
        except InputError as error:
            return str(error.__cause__)
        return ""


def _key(file: Path, kind: str) -> str:
    return f"{kind.replace(' ', '-')} {file.resolve()}"


def stamp_of(path: Path) -> list[int]:
    """Return size in bytes, and times of modification and of change in nanoseconds.

    Programs can set back the first time, but not the second. For a folder these are the
    total size and the latest times, the folder's own included, since a new or deleted
    file changes it.
    """
    files = [path, *path.iterdir()] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return [
        sum(state.st_size for state in states),
        max(state.st_mtime_ns for state in states),
        max(state.st_ctime_ns for state in states),
    ]


def while_unchanged(
    most: int | None,
) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Decorate a function of a file, `read(path, *more)`: call it once while unchanged.

    What it returns is shared, so nobody may change it. A file that is not there is left
    to the function. `most` results are kept in the process; None for all.
    """

    def decorate(read: Callable[..., _R]) -> Callable[..., _R]:
        @functools.lru_cache(most)
        def kept(path: Path, stamp: tuple[int, ...], *more: Any) -> _R:
            return read(path, *more)

        @functools.wraps(read)
        def call(path: Path, *more: Any) -> _R:
            try:
                stamp = tuple(stamp_of(path))
            except OSError:
                return read(path, *more)
            return kept(path.absolute(), stamp, *more)

        vars(call)["cache_clear"] = kept.cache_clear
        return call

    return decorate


def case_hashes(
    dataset: "Dataset", root: Path, cases: Iterable[str], folder: Path | None
) -> dict[str, str]:
    """Hash the raw files of cases; those that `folder` remembers are not read.

    Args:
        dataset: the data set.
        root: its folder.
        cases: ids.
        folder: cache of all data sets; None to read every file.

    Returns:
        SHA-256 over names and content of its files, in their order, by case.
    """
    files = {case: dataset.files(root, case) for case in cases}
    hashes = _hashes(dataset, folder, (p for paths in files.values() for p in paths))
    return {
        case: digest([(path.name, hashes[path]) for path in paths])
        for case, paths in files.items()
    }


def image_hashes(
    dataset: "Dataset", root: Path, cases: Iterable[str], folder: Path | None
) -> dict[str, str]:
    """Hash the image file of each case, whatever its name: equal means a copy.

    Returns:
        SHA-256 by case; a case without an image has its id, which equals no other.
    """
    paths = {case: dataset.roles(root, case)["image"] for case in cases}
    hashes = _hashes(dataset, folder, (p for p in paths.values() if p.is_file()))
    return {case: hashes.get(path, case) for case, path in paths.items()}


def _hashes(
    dataset: "Dataset", folder: Path | None, paths: Iterable[Path]
) -> dict[Path, str]:
    """Return SHA-256 of files, from memory where they are unchanged."""
    memory = Memory(folder and folder / dataset.RECORD.name / "raw-files.json")
    hashes: dict[Path, str] = {}
    new = False
    for path in paths:
        known = memory.get(path, "sha256")
        if not isinstance(known, str):
            stamp, known, new = stamp_of(path), file_hash(path), True
            memory.put(path, "sha256", stamp, known)
        hashes[path] = known
    if new:
        memory.save()
    return hashes


def data_hash(hashes: Mapping[str, str]) -> str:
    """Return SHA-256 of the raw content of cases, from each hash (`case_hashes`)."""
    return digest(sorted(hashes.items()))


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none that can be read."""
    return schema.recall(path, dict[str, Any])


def file_hash(path: Path) -> str:
    """Return SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
