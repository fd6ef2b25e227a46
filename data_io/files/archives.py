"""Zips from outside: what may be unpacked, and nothing of it by halves."""

import contextlib
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from data_io.errors import InputError

CHUNK = 1 << 20
# A zip bomb declares more than a disk holds, and a hundred times its own size: images
# are compressed already, and hardly grow.
HARMLESS = 1 << 30
MOST_GROWTH = 100
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,  # encrypted, or of an unknown compression
    EOFError,
)


class Distrusted(InputError):
    """An archive that is damaged or not safe."""


@contextlib.contextmanager
def opened(archive: Path, into: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip to read it, and to unpack it into a folder.

    Raises:
        Distrusted: not a zip, damaged, encrypted.
        InputError: no place to unpack it in.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            yield content
    except DAMAGED as error:
        raise Distrusted(
            f"{archive}: expected a whole, unencrypted zip, found {error}. "
            "Download it again, or unpack it yourself and name the folder."
        ) from error
    except OSError as error:
        raise InputError(
            f"{archive}: expected to unpack it in {into}, found {error}. "
            "Make room there, or unpack it yourself and name the folder."
        ) from error


def is_litter(name: str) -> bool:
    """True for what operating systems add to archives and folders."""
    parts = name.split("/")
    known = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"}
    return any(part in known or part.startswith("._") for part in parts)


def members(archive: Path, content: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The entries to unpack of a zip that is open, without litter.

    Raises:
        Distrusted: names the first entry that is encrypted, would be written outside,
            is a link or device, or falls together with another; or the archive, where
            it declares far more than it can hold.
    """
    entries = [m for m in content.infolist() if not is_litter(m.filename)]
    problems = [
        f"{problem}, found {member.filename!r}"
        for member in entries
        if (problem := unsafe(member))
    ]
    if name := collision(entries):
        problems.append(f"every file once, found {name!r} again")
    size = archive.stat().st_size
    packed = sum(member.compress_size for member in entries)
    declared = sum(member.file_size for member in entries)
    if packed > size or declared > max(HARMLESS, MOST_GROWTH * size):
        problems.append(
            f"an archive of images, found {size} bytes that claim to hold {declared}"
        )
    if problems:
        raise Distrusted(
            f"{archive}: expected {problems[0]}. Do not trust this file: download it "
            "again from the data set's own page."
        )
    return entries


def unsafe(member: zipfile.ZipInfo) -> str:
    """What was expected of an entry that is not safe by itself; "" for a safe one."""
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or ":" in name or ".." in name.split("/"):
        return "entries inside the archive's own folder"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "entries inside the archive's own folder, files and folders alone"
    return "entries without a password" if member.flag_bits & 1 else ""


def collision(entries: Iterable[zipfile.ZipInfo]) -> str:
    """A file that another file or folder takes the place of; "" for none."""
    # Names that differ in case or accents alone are one file on some systems.
    paths = [
        (PurePosixPath(unicodedata.normalize("NFC", str(inside(m))).casefold()), m)
        for m in entries
    ]
    files = [(path, member) for path, member in paths if not member.is_dir()]
    folders = {folder for path, _ in paths for folder in path.parents}
    taken = folders | {path for path, member in paths if member.is_dir()}
    for path, member in files:
        if path in taken:
            return member.filename
        taken.add(path)
    return ""


def inside(member: zipfile.ZipInfo) -> PurePosixPath:
    """The path of an entry within the archive, whichever way its slashes lean."""
    return PurePosixPath(member.filename.replace("\\", "/"))


def extract(
    content: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path
) -> list[str]:
    """Write what `members` gave into an empty folder.

    Returns:
        The path of each file within `folder`, with forward slashes.

    Raises:
        zipfile.BadZipFile: an entry is not what the archive declares.
    """
    written = []
    for member in members:
        path = folder / inside(member)
        (path if member.is_dir() else path.parent).mkdir(parents=True, exist_ok=True)
        if member.is_dir():
            continue
        with content.open(member) as source, path.open("xb") as target:
            shutil.copyfileobj(source, target, CHUNK)  # no more than is declared
        if path.stat().st_size != member.file_size:
            raise zipfile.BadZipFile(f"{member.filename}, which is shorter than stated")
        written.append(inside(member).as_posix())
    return written
