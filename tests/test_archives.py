"""What may be unpacked: hostile zips of each kind, and what is merely unusual."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from data_io.errors import InputError
from data_io.files import archives


def zipped(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def unpack(archive: Path, folder: Path) -> list[str]:
    folder.mkdir()
    with archives.opened(archive, folder) as content:
        members = archives.members(archive, content)
        return archives.extract(content, members, folder)


def special(name: str, mode: int) -> zipfile.ZipInfo:
    """An entry that is no ordinary file."""
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (mode | 0o777) << 16
    return info


def test_files_and_their_contents(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "a.zip",
        ("set/", b""),
        ("set/images/1.png", b"one"),
        ("set\\masks\\1.png", b"two"),
        ("__MACOSX/set/._1.png", b"litter"),
        ("set/empty/", b""),
    )
    written = unpack(archive, tmp_path / "out")
    assert written == ["set/images/1.png", "set/masks/1.png"]
    contents = [(tmp_path / "out" / name).read_bytes() for name in written]
    assert contents == [b"one", b"two"]
    found = {p.relative_to(tmp_path / "out").as_posix() for p in out(tmp_path)}
    assert found == set(written)
    assert (tmp_path / "out" / "set" / "empty").is_dir()


def out(folder: Path) -> list[Path]:
    return [path for path in (folder / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "entries",
    [
        [("../outside", b"")],
        [("set/../../outside", b"")],
        [("..\\outside", b"")],
        [("/etc/outside", b"")],
        [("\\\\host\\outside", b"")],
        [("C:/outside", b"")],
        [("set/1.png:stream", b"")],
        [(special("lnk", stat.S_IFLNK), b"/etc")],
        [(special("set", stat.S_IFIFO), b"")],
        [(special("chr", stat.S_IFCHR), b"")],
        [("set/1.png", b"a"), ("set/1.png", b"b")],
        [("set/1.png", b"a"), ("set/./1.png", b"b")],
        [("set/1.png", b"a"), ("SET/1.PNG", b"b")],
        [("set/\u00e9.png", b"a"), ("set/e\u0301.png", b"b")],
        [("set", b"a"), ("set/1.png", b"b")],
        [("set/1.png", b"b"), ("set", b"a")],
        [("set/x", b"a"), ("set/x/", b"")],
        [("set/X/", b""), ("set/x", b"a")],
    ],
    ids=lambda entries: " ".join(repr(str(getattr(n, "mode", n))) for n, _ in entries)[
        :40
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip_is_refused_whole(tmp_path: Path, entries) -> None:
    archive = zipped(tmp_path / "a.zip", ("set/good.png", b"good"), *entries)
    with pytest.raises(InputError, match=r"a\.zip: expected .* Do not trust"):
        unpack(archive, tmp_path / "out")
    assert out(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "out"}


def test_a_collision_is_reported_by_the_name_in_the_archive(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("Set/A.png", b"a"), ("set/a.PNG", b"b"))
    with pytest.raises(archives.Distrusted, match=r"found 'set/a\.PNG' again"):
        unpack(archive, tmp_path / "out")


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("1.png", b"one"))
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # of the entry itself
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and of the directory at the end
    archive.write_bytes(data)
    with pytest.raises(InputError, match="without a password"):
        unpack(archive, tmp_path / "out")


def test_zip_bomb_is_refused_by_its_declared_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(tmp_path / "a.zip", ("1.png", bytes(200_000)))
    assert unpack(archive, tmp_path / "small")  # on this scale nobody minds
    monkeypatch.setattr(archives, "HARMLESS", 100_000)
    with pytest.raises(InputError, match=r"claim to hold 200000\. Do not trust"):
        unpack(archive, tmp_path / "out")
    assert out(tmp_path) == []


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """The better zip bomb: many entries in the directory, one in the file."""
    archive = zipped(tmp_path / "a.zip", ("0.png", bytes(range(256)) * 8))
    data = archive.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[start:end]
    entries = [entry.replace(b"0.png", b"%d.png" % number) for number in range(9)]
    size = sum(map(len, entries))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, size, start, 0)
    archive.write_bytes(data[:start] + b"".join(entries) + tail)
    with pytest.raises(InputError, match="claim to hold 18432"):
        unpack(archive, tmp_path / "out")
    assert out(tmp_path) == []


@pytest.mark.parametrize("declared", [10, 5000], ids=["less", "more"])
def test_sizes_other_than_declared_are_refused(tmp_path: Path, declared: int) -> None:
    archive = zipped(tmp_path / "a.zip", ("1.png", b"x" * 3000))
    data = bytearray(archive.read_bytes())
    struct.pack_into("<L", data, 22, declared)
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, declared)
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip: expected a whole, unencrypted zip"):
        unpack(archive, tmp_path / "out")
    assert sum(path.stat().st_size for path in out(tmp_path)) <= 3000


def test_a_damaged_entry_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("1.png", bytes(range(256)) * 20))
    data = bytearray(archive.read_bytes())
    data[40:60] = b"\xff" * 20
    archive.write_bytes(data)
    with pytest.raises(InputError, match="expected a whole") as caught:
        unpack(archive, tmp_path / "out")
    assert isinstance(caught.value.__cause__, (zlib.error, zipfile.BadZipFile))
