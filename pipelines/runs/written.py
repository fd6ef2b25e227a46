"""What a command may replace: files that dscpp wrote and nobody changed since.

Into a folder that a user names, and where a user may correct what lies there, a list of
what was written is written too. `dscpp.sha256` has the lines of `sha256sum`:
`sha256sum --check dscpp.sha256` reads it. Tables, reports and figures, which are never
edited, are known by their form.
"""

import contextlib
import os
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_io import bars
from data_io.errors import InputError
from data_io.files import schema
from data_io.files.hashing import file_hash, read_json
from data_io.files.names import LIST as LIST
from data_io.files.writing import is_stream
from pipelines.runs import run as runs

_PDF = b"%PDF-1.4\n%\xac\xdc \xab\xba"  # as Matplotlib begins one
_SVG = b'id="figure_1"'
_FIGURE_NAMES = re.compile(r"(figure|table)\d.*|reliability|forest|compare")
_DOTS_A_METRE = (7874, 11811)  # of 200 and 300 dots an inch, as figures have them


def known(folder: Path) -> dict[str, list[str]]:
    """Return the SHA-256 of the files written into a folder, by name.

    A name has several, oldest first, where a command was stopped: its file is one of
    them.

    Raises:
        InputError: the list cannot be read.
    """
    path = Path(folder) / LIST
    hashes = defaultdict(list)
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(
            f"{path}: expected a list of SHA-256, found a file that cannot be read "
            f"({error.strerror}); fix its permissions or delete it"
        ) from error
    for line in text.split("\n"):
        sha256, _, name = line.partition("  ")
        if len(sha256) == 64 and name:
            hashes[name].append(sha256)
    return dict(hashes)


def seal(folder: Path, names: Iterable[str]) -> Path:
    """Write the list of files of a folder, and of no others."""
    return _write(folder, {name: [file_hash(folder / name)] for name in names})


def _write(folder: Path, hashes: Mapping[str, Iterable[str]]) -> Path:
    lines = [f"{sha256}  {name}\n" for name, all_ in hashes.items() for sha256 in all_]
    data = "".join(lines).encode("utf-8", "surrogateescape")
    return runs.write_atomically(folder / LIST, lambda path: path.write_bytes(data))


@contextlib.contextmanager
def anew(folder: Path, possible: Iterable[str] = ()) -> Iterator[None]:
    """Write files into a folder (`write`); then keep one line for each in its list.

    What an earlier call wrote of the `possible` names, and this one does not, is
    deleted; what was changed since stays, and is named.
    """
    before = known(folder)
    yield
    renewed = [
        n for n, all_ in known(folder).items() if len(all_) > len(before.get(n, ()))
    ]
    for name in discard(folder, [name for name in possible if name not in renewed]):
        bars.note(f"  note     {folder / name} was changed and stays as it was")
    left = known(folder).items()
    _write(
        folder, {name: all_[-1:] if name in renewed else all_ for name, all_ in left}
    )


def discard(folder: Path, only: Collection[str] | None = None) -> list[str]:
    """Delete the files that were written into a folder, and their lines in its list.

    Args:
        folder: that has a list; without one nothing is deleted.
        only: names of files to delete; None for all.

    Returns:
        Names of those that were changed since: they stay, listed as they were.
    """
    listed = known(folder)
    wanted = listed if only is None else [name for name in only if name in listed]
    present = [name for name in wanted if os.path.lexists(folder / name)]
    changed = [name for name in present if not _is_own(folder / name, listed)]
    for name in set(present) - set(changed):
        (folder / name).unlink()
    left = {n: h for n, h in listed.items() if n in changed or n not in wanted}
    if left:
        _write(folder, left)
    elif listed:
        (folder / LIST).unlink()
    return changed


def write(path: Path, writer: Callable[[Path], object]) -> Path:
    """Write a file as `run.write_atomically` does, and note it in its folder's list.

    The note is there before the file: a command that is killed knows it again.

    Raises:
        InputError: the file is there and is not one that was written so; or it cannot
            be written.
    """

    def noted(aside: Path) -> None:
        writer(aside)
        line = f"{file_hash(aside)}  {path.name}\n"
        with (path.parent / LIST).open("ab") as file:
            file.write(line.encode("utf-8", "surrogateescape"))

    require_own(path.parent, [path.name])
    return runs.write_atomically(path, noted)


def require_own(folder: Path, names: Sequence[str]) -> None:
    """Refuse to replace files that dscpp did not write into a folder.

    Raises:
        InputError: a file is there that is not in the folder's list, was changed since,
            or is a link; the list is a link; or two files would have one name.
    """
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise InputError(
            f"{folder}: expected a name of its own for each file, found {twice[0]} for "
            "two of them; rename one of the images"
        )
    listed = known(folder)
    foreign = [name for name in names if not _is_own(folder / name, listed)]
    if (folder / LIST).is_symlink():
        foreign.append(LIST)
    if foreign:
        more = f", and {len(foreign) - 1} more such files" if len(foreign) > 1 else ""
        raise InputError(
            f"{folder / foreign[0]}: expected no file, or one that dscpp wrote and "
            f"nobody changed, found another{more}, which would be replaced; move it "
            "away or choose another folder"
        )


def _is_own(path: Path, listed: Mapping[str, Sequence[str]]) -> bool:
    if not os.path.lexists(path):
        return True
    if path.name not in listed or path.is_symlink() or not path.is_file():
        return False
    return file_hash(path) in listed[path.name]


def require_apart(option: str, output: Path, taken: Iterable[Path]) -> None:
    """Refuse to write into folders of images and label maps, or into a run.

    Folders are compared as the file system does: through links, and whatever their
    spelling where case does not count.

    Raises:
        InputError: the output is one of these folders, or within one or within a run.
    """
    whole = output.resolve()
    parents = [path for path in (whole, *whole.parents) if path.is_dir()]
    existing = [taken_folder for taken_folder in taken if taken_folder.exists()]
    inside = [p for p in existing if any(p.samefile(parent) for parent in parents)]
    inside += [parent for parent in parents if _is_run(parent)]
    if inside:
        raise InputError(
            f"{option} {output}: expected a folder apart from images, masks and runs, "
            f"received one in {inside[0]}; choose another"
        )


def _is_run(folder: Path) -> bool:
    """Return whether a folder holds a run, not another program's `run.json`."""
    record = read_json(folder / runs.RECORD)
    return runs.is_run(folder) and (record is None or "state" in record)


def require_report(path: Path, keys: Iterable[str]) -> None:
    """Refuse to replace a file that is no JSON report, or one that was changed.

    All reports have the `keys`; with `schema.SEAL` one without its hash is refused.

    Raises:
        InputError: a file is there that is no JSON object with these keys, or whose
            hash is another.
    """
    if not os.path.lexists(path) or is_stream(path):
        return
    try:
        report = schema.parse(schema.read(path), dict[str, Any])
    except (OSError, ValueError):
        report = {}
    missing, wrong = set(keys) - report.keys(), "another"
    if missing <= {schema.SEAL}:
        same = not missing and schema.is_unchanged(report)
        wrong = "" if same else "one that was changed since it was written"
    if wrong:
        raise InputError(
            f"{path}: expected no file, or an earlier report, found {wrong}, which "
            "would be replaced; move it away or name another file"
        )


def require_figures(results: Path) -> None:
    """Refuse to replace files with a figure's name that dscpp did not draw.

    Raises:
        InputError: see `require_figure`.
    """
    for folder in ("*/*/figures", "*/*/pictures", "figures", "pictures"):
        for path in sorted(results.glob(f"{folder}/*")):
            if _FIGURE_NAMES.fullmatch(path.stem):
                require_figure(path)


def require_figure(path: Path) -> None:
    """Refuse to replace a picture that dscpp did not draw.

    Raises:
        InputError: a file is there that Matplotlib did not write as here: PNG without
            a word in it at 200 or 300 dots an inch, SVG or PDF.
    """
    if not os.path.lexists(path) or path.suffix not in (".png", ".svg", ".pdf"):
        return
    data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    drawn = {
        ".png": _is_png(data),
        ".svg": _SVG in data[:4000],
        ".pdf": data.startswith(_PDF),
    }
    if not drawn[path.suffix]:
        raise InputError(
            f"{path}: expected no file, or a figure that dscpp drew, found another, "
            "which would be replaced; move it away or rename it"
        )


def _is_png(data: bytes) -> bool:
    kinds, dots, position = set(), 0, 8
    while len(data) >= position + 17:
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"pHYs":
            (dots,) = struct.unpack(">I", data[position + 8 : position + 12])
        kinds.add(kind)
        position += 12 + size
    return kinds <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"} and dots in _DOTS_A_METRE
