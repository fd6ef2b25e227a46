"""Zips from outside: what may be unpacked, and nothing of it by halves."""

import contextlib
import hashlib
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from data_io.errors import InputError

CHUNK = 1 << 20
BLOCK = 4096  # a file takes whole blocks of a disk
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


def room(members: Iterable[zipfile.ZipInfo]) -> int:
    """Bytes of disk that the unpacked files take, as the archive declares them."""
    return sum(-(-member.file_size // BLOCK) * BLOCK for member in members)


def members(archive: Path, content: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The entries to unpack of a zip that is open, without litter.

    Raises:
        Distrusted: names the first entry that is encrypted, would be written outside,
            is a link or device, or falls together with another; or the archive, where
            it declares far more than it can hold.
    """
    entries = [m for m in content.infolist() if not is_litter(m.filename)]
    refuse_unsafe(archive, entries)
    return entries


def refuse_unsafe(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse what no data set holds and an attacker may."""
    taken: dict[str, str] = {}
    for member in members:
        problem = unsafe(member) or collision(member, taken)
        if problem:
            raise Distrusted(
                f"{archive}: expected {problem}, found {member.filename!r}. Do not "
                "trust this file: download it again from the data set's own page."
            )
    size = archive.stat().st_size
    packed = sum(member.compress_size for member in members)
    declared = sum(member.file_size for member in members)
    if packed > size or declared > max(HARMLESS, MOST_GROWTH * size):
        raise Distrusted(
            f"{archive}: expected an archive of images, found {size} bytes that claim "
            f"to hold {declared}. Do not trust this file: download it again from the "
            "data set's own page."
        )


def unsafe(member: zipfile.ZipInfo) -> str:
    """What was expected of an entry that is not safe by itself; "" for a safe one."""
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or ":" in name or ".." in name.split("/"):
        return "entries inside the archive's own folder"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "entries inside the archive's own folder, files and folders alone"
    return "entries without a password" if member.flag_bits & 1 else ""


def collision(member: zipfile.ZipInfo, taken: dict[str, str]) -> str:
    """What was expected of an entry in another's place; adds it to those `taken`."""
    # Names that differ in case or accents alone are one file on some systems.
    path = PurePosixPath(unicodedata.normalize("NFC", str(inside(member))).casefold())
    kind = "folder" if member.is_dir() else "file"
    for parent in path.parents:
        if taken.setdefault(str(parent), "folder") != "folder":
            return "no file where another entry has a folder"
    if taken.get(str(path), "folder") != "folder" or (
        kind == "file" and str(path) in taken
    ):
        return "every file once"
    taken[str(path)] = kind
    return ""


def inside(member: zipfile.ZipInfo) -> PurePosixPath:
    """The path of an entry within the archive, whichever way its slashes lean."""
    return PurePosixPath(member.filename.replace("\\", "/"))


def extract(
    content: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path
) -> dict[str, str]:
    """Write what `members` gave into an empty folder.

    Returns:
        SHA-256 of each file by its path within `folder`, with forward slashes.

    Raises:
        zipfile.BadZipFile: an entry is not what the archive declares.
    """
    written = {}
    for member in members:
        path = folder / inside(member)
        (path if member.is_dir() else path.parent).mkdir(parents=True, exist_ok=True)
        if not member.is_dir():
            written[inside(member).as_posix()] = extract_file(content, member, path)
    return written


def extract_file(content: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
    """Write one file, never more of it than was declared; return its SHA-256."""
    digest, size = hashlib.sha256(), 0
    with content.open(member) as source, path.open("xb") as target:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            digest.update(chunk)
            target.write(chunk)
    if size != member.file_size:
        raise zipfile.BadZipFile(
            f"{member.filename} with {size} bytes, {member.file_size} declared"
        )
    return digest.hexdigest()
