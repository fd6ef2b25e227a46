"""What the raw files of a data set are: hashes of their content, remembered.

Without MIScnn or Keras, so that a finished run can be compared with its data at once.
"""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Run folders are read without the readers of images.
    from data_io.datasets.dataset import Dataset

__all__ = [
    "ASIDE", "content", "data_hash", "digest", "file_hash", "images", "read_json",
]  # fmt: skip

# Begins the name of what is being written; the cache sweeps up what is left of it.
ASIDE = ".making-"


def content(
    dataset: "Dataset", root: Path, cases: Iterable[str], folder: Path
) -> dict[str, str]:
    """Hash the raw files of cases; files seen before are recognised, not read.

    Args:
        dataset: the data set.
        root: the data set's folder.
        cases: ids of cases.
        folder: the cache, where hashes are remembered by path, size and time of change.

    Returns:
        per case the SHA-256 over names and content of its files, in their order.
    """
    with _memory(dataset, folder) as remembered:
        return {
            case: digest([(p.name, remembered(p)) for p in dataset.files(root, case)])
            for case in cases
        }


def images(
    dataset: "Dataset", root: Path, cases: Iterable[str], folder: Path | None
) -> dict[str, str]:
    """Hash the image file of each case, whatever its name: equal means a copy.

    Args:
        dataset: the data set.
        root: the data set's folder.
        cases: ids of cases.
        folder: as for `content`; None to remember nothing.

    Returns:
        SHA-256 by case; a case whose image is not there has its id, equal to no other.
    """
    found = {}
    with _memory(dataset, folder) as remembered:
        for case in cases:
            path = dataset.roles(root, case)["image"]
            found[case] = remembered(path) if path.is_file() else case
    return found


@contextlib.contextmanager
def _memory(dataset: "Dataset", folder: Path | None) -> Iterator[Callable[[Path], str]]:
    """Gives a function that hashes files; what is new is written down at the end."""
    memory = None if folder is None else folder / dataset.RECORD.name / "raw-files.json"
    known = (read_json(memory) if memory else None) or {}
    fresh: dict[str, list[Any]] = {}
    yield lambda path: _remembered(path, known, fresh)
    if memory and any(known.get(path) != value for path, value in fresh.items()):
        _remember(memory, {**known, **fresh})


def data_hash(hashes: Mapping[str, str]) -> str:
    """SHA-256 of the raw content of cases, from the hash of each (`content`)."""
    return digest(sorted(hashes.items()))


def digest(value: Any) -> str:
    """SHA-256 of a value's JSON."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _remembered(path: Path, known: dict[str, Any], fresh: dict[str, list[Any]]) -> str:
    """SHA-256 of a file, from memory while its size and time of change are the same."""
    state = path.stat()
    name = str(path.resolve())
    stamp = [state.st_size, state.st_mtime_ns]
    value = known.get(name)
    if not isinstance(value, list) or value[:2] != stamp or len(value) != 3:
        value = [*stamp, file_hash(path)]
    fresh[name] = value
    return str(value[2])


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remember(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file aside and rename it; without it, files are hashed again."""
    aside = path.parent / f"{ASIDE}{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(value), encoding="utf-8")
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
