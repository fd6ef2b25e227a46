"""A whole data set from its hosts: room, downloads, unpacking, checks.

All is made in a hidden folder beside the data set's own and renamed at the end, so that
no half of a data set passes for one. A lock file beside it keeps the SHA-256 of what
came: by it the files are checked later, and a host that publishes no checksum must give
the same bytes again.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from typing_extensions import TypedDict

from data_io import bars
from data_io.datasets.dataset import Dataset
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.fetching import download
from data_io.fetching.downloads import Download
from data_io.files import archives, hashing, schema
from data_io.files.writing import write_json

SPARE = 100_000_000  # bytes of disk that are left alone


class _Got(TypedDict):
    url: str
    sha256: str
    vouched: bool
    files: dict[str, str]


class _Lock(TypedDict):
    format: Literal[1]
    downloads: dict[str, _Got]


@dataclass
class Fetched:
    """What `fetch` did: files checked, paths `new` of downloads.

    `untold` is how many of these no public checksum could vouch for.
    """

    title: str
    root: Path
    files: int = 0
    new: list[str] = field(default_factory=list)
    untold: int = 0
    lock: Path | None = None

    def __str__(self) -> str:
        if self.lock is None:
            return f"{self.title} is in {self.root}; there is nothing to fetch"
        done = f"{len(self.new)} downloaded" if self.new else "nothing to download"
        lines = [f"{self.title} in {self.root}: {self.files} files as expected, {done}"]
        if self.untold:
            lines.append(
                f"  no published checksum for {self.untold} of them: their SHA-256 is "
                f"recorded in {self.lock}, and later downloads must equal it"
            )
        return "\n".join(lines)


def plan(dataset: Dataset, output: Path | None = None) -> str:
    """What `fetch` would download, from where, and on which terms, in a few lines.

    "" where it can download nothing, or did before.
    """
    record = dataset.RECORD
    wanted = record.downloads
    if not wanted:
        return ""
    target = target_folder(dataset, output)
    if target.is_dir() and lock_of(target).exists():
        return ""
    hosts = dict.fromkeys(item.urls[0].split("/")[2] for item in wanted)
    checked = sum(item.sha256 is not None for item in wanted)
    lines = [
        f"{record.title}: {len(wanted)} file{'s' * (len(wanted) > 1)}, "
        f"{amount(expected(wanted))}, from "
        f"{', '.join(hosts)}, into {target}",
        f"  terms    {record.licence}",
        f"  cite     {record.citation}",
        f"  checked  {checked} of {len(wanted)} by a published SHA-256"
        + ", which the host does not confirm" * bool(checked),
    ]
    if checked < len(wanted):
        which = "the others have no" if checked else "no"
        lines.append(
            f"           {which} published checksum: the first download's SHA-256 is "
            f"recorded in {lock_of(target)}, and later ones must equal it"
        )
    lines += [f"           {text}" for text in dict.fromkeys(d.source for d in wanted)]
    return "\n".join(line for line in lines if line.strip())


def fetch(dataset: Dataset, output: Path | None = None) -> Fetched:
    """Download a data set; where it is there, check it and get what is damaged.

    `output` is its folder; None for where `locate` looks by default.

    Raises:
        InputError: an account is needed (says which page, files and folder); too little
            room; a download or an archive that is not as expected; files in the folder
            that no fetch wrote; another fetch at work there.
    """
    if not dataset.RECORD.downloads:
        return by_hand(dataset, output)
    target = target_folder(dataset, output)
    aside = target.with_name(f".{target.name}.fetching")
    try:
        aside.mkdir(parents=True, exist_ok=True)
        with FileLock(str(aside / "lock"), timeout=0):
            try:
                done = Work(dataset.RECORD, target, aside).run()
            finally:  # Parts and archives stay: the same command goes on from there.
                if not any(p.is_file() and p.name != "lock" for p in aside.rglob("*")):
                    shutil.rmtree(aside, ignore_errors=True)
    except Timeout as error:
        raise InputError(
            f"{target}: expected to be alone, found another fetch at work. Wait for it."
        ) from error
    except OSError as error:
        raise InputError(
            f"{target}: expected to write there, found {error}. Make room, or name "
            "another place with --output; what was downloaded is kept."
        ) from error
    done.root = dataset.locate(target)
    return done


def target_folder(dataset: Dataset, output: Path | None) -> Path:
    """The data set's folder; behind a link, so that renaming stays on one disk."""
    folder = Path(dataset.DEFAULT if output is None else output)
    return folder.resolve() if folder.is_symlink() else folder


def by_hand(dataset: Dataset, output: Path | None) -> Fetched:
    """What there is to say of a data set that can't be downloaded."""
    record = dataset.RECORD
    if record.simulated:
        raise InputError(
            f"{record.title}: expected a data set with files to download, found one "
            "that is simulated. It is made when it is needed."
        )
    target = target_folder(dataset, output)
    try:
        return Fetched(record.title, dataset.locate(target))
    except InputError:
        raise InputError(
            f"{record.title} can't be fetched for you: its page asks for an account or "
            f"for consent.\n  page    {record.source}\n  how     {record.access}\n"
            f"  terms   {record.licence}\n  into    {target}, so that it has\n"
            f"{record.layout}\nThen: dscpp verify --dataset {record.name} "
            f"--data {target}"
        ) from None


@dataclass
class Work:
    """One fetch at work; all is made in `aside`, where this process is alone."""

    record: Record
    target: Path
    aside: Path

    def run(self) -> Fetched:
        """Get what is not there, and put it where it belongs."""
        kept = self.recall()
        missing = self.missing(kept)
        self.require_room(missing)
        quiet = len(missing) < 2  # each file has a bar of its own
        for item in bars.bar(missing, self.record.title, unit="file", disable=quiet):
            kept[item.path] = self.obtain(item, kept.get(item.path))
            value = {"format": 1, "dataset": self.record.name, "downloads": kept}
            write_json(lock_of(self.target), value)
            (self.aside / "archives" / item.path).unlink(missing_ok=True)
        if self.folder != self.target:
            if self.target.is_dir():  # and empty: renaming on some systems minds it
                self.target.rmdir()
            self.folder.rename(self.target)
        files = sum(len(entry["files"]) for entry in kept.values())
        new = [item.path for item in missing]
        untold = sum(not kept[path]["vouched"] for path in new)
        return Fetched(
            self.record.title, self.target, files, new, untold, lock_of(self.target)
        )

    @property
    def folder(self) -> Path:
        """Where files go: the data set's folder once it is whole, aside before that."""
        whole = self.target.is_dir() and any(self.target.iterdir())
        return self.target if whole else self.aside / "whole"

    def recall(self) -> dict[str, dict[str, Any]]:
        """What the lock file says of earlier downloads, by their paths."""
        lock = lock_of(self.target)
        recorded = schema.recall(lock, _Lock)
        if lock.exists() and recorded is None:
            raise InputError(
                f"{lock}: expected what an earlier fetch recorded, found something "
                "else. Move it away to trust what is downloaded now."
            )
        if not lock.exists() and self.folder == self.target:
            raise InputError(
                f"{self.target}: expected no files there, or those of an earlier "
                f"fetch, found others. To check them: dscpp verify --dataset "
                f"{self.record.name} --data {self.target}. To fetch, name another "
                "place with --output, or move them away."
            )
        return dict(recorded["downloads"]) if recorded else {}

    def missing(self, kept: dict[str, dict[str, Any]]) -> list[Download]:
        """Downloads of which a file is not there, or not as it was."""
        files = [
            (item, name, sha256)
            for item in self.record.downloads
            for name, sha256 in kept.get(item.path, {}).get("files", {}).items()
        ]
        # Those that the lock file has, with the checksum that is published now.
        good = {
            item.path
            for item in self.record.downloads
            if item.path in kept and item.sha256 in (None, kept[item.path]["sha256"])
        }
        folder = self.folder
        for item, name, sha256 in bars.bar(
            files, "check", unit="file", delay=1, leave=False
        ):
            file = folder / name
            if not file.is_file() or hashing.file_hash(file) != sha256:
                good.discard(item.path)
        return [item for item in self.record.downloads if item.path not in good]

    def require_room(self, missing: Sequence[Download]) -> None:
        """Raise InputError where downloads, and what is unpacked, would not fit."""
        unpacked = sum(item.expected for item in missing if item.is_archive)
        kept = [*self.aside.glob("parts/*.part"), *self.aside.glob("archives/*")]
        downloaded = sum(path.stat().st_size for path in kept)
        self.require(max(0, expected(missing) - downloaded) + unpacked)

    def require(self, wanted: int) -> None:
        """Raise InputError where the disk has not so many bytes left."""
        free = shutil.disk_usage(self.aside).free
        if wanted and free < wanted + SPARE:
            raise InputError(
                f"{self.target}: expected room for {amount(wanted + SPARE)}, found "
                f"{amount(free)} free. Make room, or name another place with --output."
            )

    def obtain(self, item: Download, entry: dict[str, Any] | None) -> dict[str, Any]:
        """Downloads, checks and unpacks one file; returns what the lock file keeps."""
        known = None
        if item.sha256:
            known = item.sha256, f"published: {item.source}"
        elif entry:
            known = entry["sha256"], f"of the first download, in {lock_of(self.target)}"
        folder = self.aside / "archives" if item.is_archive else self.folder
        path, url = download.retrieve(item, folder, self.aside / "parts", known)
        sha256 = known[0] if known else hashing.file_hash(path)
        files = self.unpack(path) if item.is_archive else {item.path: sha256}
        return {
            "url": url or (entry or {}).get("url", ""),
            "sha256": sha256,
            "vouched": item.sha256 is not None,
            "files": files,
        }

    def unpack(self, archive: Path) -> dict[str, str]:
        """Move the files of an archive into the folder; return their SHA-256."""
        fresh = self.aside / "unpacking"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            with archives.opened(archive, fresh) as opened:
                members = archives.members(archive, opened)
                self.require(archives.room(members))
                names = archives.extract(opened, members, fresh)
        except archives.Distrusted:
            archive.unlink()
            raise
        folder = self.folder
        files = {name: hashing.file_hash(fresh / name) for name in names}
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).replace(folder / name)
        return files


def lock_of(target: Path) -> Path:
    """The lock file of a data set's folder."""
    return target.with_name(f"{target.name}.lock.json")


def expected(downloads: Iterable[Download]) -> int:
    """Bytes to download, as far as known."""
    return sum(item.expected for item in downloads)


def amount(size: int) -> str:
    """Bytes in words."""
    power = min(3, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"
