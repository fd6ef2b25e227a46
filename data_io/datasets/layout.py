"""Finding a data set's folder, and comparing it with the layout as distributed."""

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import archives, schema
from data_io.files.hashing import while_unchanged
from data_io.files.writing import folder_aside

ABOUT = "dataset.json"
"""The file in which a set that was made says what it is."""
UNPACKED = Path(".work/data")
_KINDS = ("png", "tif", "tiff", "jpg", "jpeg", "bmp", "gif")
ENDINGS = tuple(f".{e}" for kind in _KINDS for e in (kind, kind.upper()))
"""Endings of image files, as they are written."""

# The layout that MIScnn's own interfaces read, and so that of the authors' copies.
IMAGE, LABEL = "imaging", "segmentation"
PREPARED = f"*/{IMAGE}.[bgjptBGJPT]*"
"""A mark of `locate`: a folder for each case with `imaging.png`, `segmentation.png`."""


def locate(
    record: Record,
    data: Path | None,
    default: Path,
    marks: tuple[str, ...],
) -> Path:
    """Find the folder of a data set, see `Dataset.locate`.

    It has one at least of the subfolders `marks` (or what `PREPARED` stands for), in
    which `*` is any name.

    Raises:
        InputError: there is no such folder; says how to get the data set.
    """
    start = default if data is None else Path(data)
    for folder in candidates(start, default.name):
        matches = ((p, mark) for mark in marks for p in folder.glob(mark))
        if any(p.is_file() if mark == PREPARED else p.is_dir() for p, mark in matches):
            return folder
    raise absent(record, start, default)


def absent(record: Record, start: Path, default: Path) -> InputError:
    """The error for a data set that is not in a folder; says how to get it."""
    from data_io import datasets  # not above: it imports this module

    fetch = f"\n`dscpp fetch {record.name}` downloads it." if record.downloads else ""
    simulated = ", and PHANTOM=1 (dscpp reproduce: --phantom) simulates such images"
    return InputError(
        f"{record.title}: expected the data set in {start}, found "
        f"{contents_of(start)}.\n{record.access}{fetch}\nLayout:\n{record.layout}\n"
        f"Then give DATA=FOLDER to make, --data FOLDER to dscpp, or put it in "
        f"{default}. Without the data, `make demo` runs the same pipeline on phantoms"
        f"{simulated * (record.name in datasets.SIMULATED)}."
    )


def picture(folder: Path, stem: str, ending: str) -> Path:
    """The image file of a name, whatever its ending; with `ending` where none is."""
    likeliest = folder / f"{stem}{ending}"
    if likeliest.is_file():
        return likeliest
    paths = (folder / f"{stem}{other}" for other in ENDINGS)
    return next((path for path in paths if path.is_file()), likeliest)


def prepared(root: Path, case: str) -> dict[str, Path]:
    """The files of a case in the layout of the authors' copies: image and label map."""
    folder = Path(root) / case
    return {
        "image": picture(folder, IMAGE, ".png"),
        "observer1": picture(folder, LABEL, ".png"),
    }


def prepared_cases(root: Path) -> tuple[str, ...]:
    """The folders of cases in the layout of the authors' copies, in order."""
    folders = (path for path in Path(root).iterdir() if path.is_dir())
    return in_order(
        folder.name
        for folder in folders
        if any(path.is_file() for path in prepared(root, folder.name).values())
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names in order, numbers without leading zeros too: 2 before 10."""
    return tuple(sorted(names, key=lambda name: (len(name), name)))


def candidates(start: Path, name: str) -> Iterator[Path]:
    """The folders that may be the data set's own, likeliest first."""
    if start.is_dir():
        yield from (start, start / name)
        start = start / f"{name}.zip"
    if start.is_file() and start.suffix.lower() == ".zip":
        folder = unpack(start)
        inner = [child for child in sorted(folder.iterdir()) if child.is_dir()]
        for outer in (folder, *inner):
            yield from (outer, outer / name)


def contents_of(path: Path) -> str:
    """What is at a path, in a few words."""
    if path.is_file():
        is_zip = path.suffix.lower() == ".zip"
        return "a zip without it" if is_zip else "a file that is no zip"
    if not path.is_dir():
        return "no such folder"
    entries = sorted(entry.name for entry in path.iterdir())
    if not entries:
        return "an empty folder"
    more = f" and {len(entries) - 6} more" if len(entries) > 6 else ""
    return f"a folder with {', '.join(entries[:6])}{more}"


def unpack(archive: Path, into: Path | None = None) -> Path:
    """Unpack a zip once, below a folder; the same content again costs nothing.

    The folder is `<into>/<hash of names, sizes and checksums>`.

    Raises:
        InputError: not a zip, damaged, not safe (`data_io.files.archives`), or
            no place to unpack it in.
    """
    into = UNPACKED if into is None else into
    with archives.opened(archive, into) as content:
        members = archives.members(archive, content)
        target = into / key(members)
        if not target.is_dir():
            with folder_aside(target) as folder:
                archives.extract(content, members, folder)
    return target


def key(members: Iterable[zipfile.ZipInfo]) -> str:
    """Hash of what an archive holds, from its directory alone."""
    lines = sorted(f"{m.filename} {m.file_size} {m.CRC}" for m in members)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def described(root: Path, kind: Any, what: str) -> dict[str, Any]:
    """Read the description of a simulated set, JSON of a kind: once while unchanged.

    Raises:
        InputError: missing, damaged, or of another kind.
    """
    path = Path(root) / ABOUT
    try:
        return _loaded(path, kind)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected the description of {what}, found {error}. "
            "Delete the folder: it is simulated again."
        ) from error


@while_unchanged(8)
def _loaded(path: Path, kind: Any) -> dict[str, Any]:
    content: dict[str, Any] = schema.load(path, kind)
    return content


def missing(
    title: str, root: Path, expected: Iterable[Path], hints: Mapping[str, str]
) -> list[str]:
    """Say which files are not there: a folder that lacks several and all in one line.

    The hints say what to do where a whole folder is missing, by folder relative to
    `root`; "" for all others and for single files.
    """
    by_folder: dict[str, list[Path]] = {}
    for path in expected:
        by_folder.setdefault(path.parent.relative_to(root).as_posix(), []).append(path)
    problems = []
    for folder, paths in by_folder.items():
        absent = [path for path in paths if not path.exists()]
        if len(absent) == len(paths) > 2:
            names = f"{paths[0].name} to {paths[-1].name}"
            hint = hints.get(folder, hints[""])
            problems.append(
                f"{title}: expected {len(paths)} files in {folder} ({names}), "
                f"found 0. {hint}"
            )
            continue
        there = f"{len(paths) - len(absent)} of {len(paths)} files of this kind are"
        others = f" ({there} there)" if len(paths) > 2 else ""
        problems += [
            f"{path.relative_to(root)}: expected a file, found none{others}. "
            f"{hints['']}"
            for path in absent
        ]
    return problems


def ignored(title: str, names: Sequence[str]) -> list[str]:
    """A remark on files that do not belong to a data set; none where there are none."""
    more = f" and {len(names) - 5} more" * (len(names) > 5)
    line = f"not part of {title}, ignored: {', '.join(names[:5])}{more}"
    return [line] if names else []


def unexpected(root: Path, expected: Iterable[Path]) -> list[Path]:
    """Files below `root` that do not belong to the data set."""
    known = set(expected)
    return sorted(p for p in root.rglob("*") if p.is_file() and p not in known)
