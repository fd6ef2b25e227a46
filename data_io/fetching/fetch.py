"""A whole data set from its hosts: room, downloads, unpacking, checks.

All is made in a hidden folder beside the data set's own and renamed at the end, so that
no half of a data set passes for one. A lock file beside it keeps the SHA-256 of what
came: by it the files are checked later, and a host that publishes no checksum must give
the same bytes again.
"""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from tqdm import tqdm
from typing_extensions import TypedDict

from data_io import bars
from data_io.datasets import layout
from data_io.datasets.dataset import Dataset
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.fetching import download
from data_io.fetching.downloads import Download
from data_io.files import archives, hashing, schema
from data_io.files.writing import write_json, writing

SPARE = 100_000_000  # bytes of disk that are left alone
words = partial(tqdm.format_sizeof, suffix="B")


class _Got(TypedDict):
    sha256: str
    files: dict[str, str]


class _Lock(TypedDict):
    format: Literal[1]
    downloads: dict[str, _Got]


def fetch(dataset: Dataset, output: Path | None = None) -> tuple[Path, str]:
    """Download a data set; where it is there, check it and get what is damaged.

    Args:
        dataset: what to get.
        output: its folder; None for where `locate` looks by default.

    Returns:
        The folder that `locate` finds, and what was done, in one line.

    Raises:
        InputError: an account is needed (says which page, files and folder); too little
            room; a download or an archive that is not as expected; files in the folder
            that no fetch wrote; another fetch at work there.
    """
    target = Path(output or dataset.DEFAULT)
    if target.is_symlink():  # so that renaming stays on one disk
        target = target.resolve()
    if not dataset.RECORD.downloads:
        return by_hand(dataset, target)
    aside = target.with_name(f".{target.name}.fetching")
    with writing(target):
        aside.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(aside / "lock", timeout=0):
                try:
                    done = Work(dataset.RECORD, target, aside).run()
                finally:  # What was downloaded stays: the same command goes on from it.
                    if not any(
                        p.is_file() and p.name != "lock" for p in aside.rglob("*")
                    ):
                        shutil.rmtree(aside, ignore_errors=True)
        except Timeout:
            raise InputError(
                f"{target}: another fetch is at work; wait for it"
            ) from None
    return dataset.locate(target), done


def by_hand(dataset: Dataset, target: Path) -> tuple[Path, str]:
    """Find a data set that cannot be downloaded, or say how to get it."""
    record = dataset.RECORD
    if record.simulated:
        raise InputError(
            f"{record.title}: expected a data set with files to download, found one "
            "that is simulated. It is made when it is needed."
        )
    try:
        root = dataset.locate(target)
    except InputError as error:
        raise InputError(
            f"{record.title} has to be downloaded by hand; terms: {record.licence}\n"
            f"{error}"
        ) from None
    return root, f"{record.title} is in {root}; there is nothing to fetch"


@dataclasses.dataclass
class Work:
    """One fetch at work; all is made in `aside`, where this process is alone."""

    record: Record
    target: Path
    aside: Path

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.target.with_name(f"{self.target.name}.lock.json")

    @property
    def folder(self) -> Path:
        """Where files go: the data set's folder once it is whole, aside before that."""
        whole = self.target.is_dir() and any(self.target.iterdir())
        return self.target if whole else self.aside / "whole"

    def run(self) -> str:
        """Get what is not there, put it where it belongs, and say what was done."""
        kept, title = self.recall(), self.record.title
        downloads = bars.bar(self.record.downloads, "check", delay=1, leave=False)
        missing = [d for d in downloads if not self.is_here(d, kept.get(d.path))]
        if missing:
            bars.note(self.plan(missing))
            self.require_room(missing)
        quiet = len(missing) < 2  # each file has a bar of its own
        for item in bars.bar(missing, title, unit="file", disable=quiet):
            kept[item.path] = self.obtain(item, kept.get(item.path))
            write_json(self.lock, {"format": 1, "downloads": kept})
            (self.aside / "archives" / item.path).unlink(missing_ok=True)
        if self.folder != self.target:
            if self.target.is_dir():  # and empty: renaming on some systems minds it
                self.target.rmdir()
            self.folder.rename(self.target)
        shutil.rmtree(self.aside / "parts", ignore_errors=True)  # of older versions
        files = sum(len(got["files"]) for got in kept.values())
        done = f"{len(missing)} downloaded" if missing else "nothing to download"
        return f"{title} in {self.target}: {files} files as expected, {done}"

    def recall(self) -> dict[str, _Got]:
        """Return what the lock file says of earlier downloads, by their paths."""
        recorded: _Lock | None = schema.recall(self.lock, _Lock)
        if recorded:
            return recorded["downloads"]
        if self.lock.exists() or self.folder == self.target:
            raise InputError(
                f"{self.target}: expected no files there, or those of an earlier fetch "
                f"with its record, {self.lock}, found others. To check them: dscpp "
                f"verify --dataset {self.record.name} --data {self.target}. To fetch, "
                "name another place with --output, or move files and record away."
            )
        return {}

    def is_here(self, item: Download, got: _Got | None) -> bool:
        """Whether all files of a download have the bytes that the lock file says."""
        if got is None or item.sha256 not in (None, got["sha256"]):
            return False
        files = [(self.folder / name, sha256) for name, sha256 in got["files"].items()]
        return all(
            f.is_file() and hashing.file_hash(f) == sha256 for f, sha256 in files
        )

    def plan(self, missing: Sequence[Download]) -> str:
        """Say what is downloaded, from where, on which terms and how it is checked."""
        count, size = len(missing), sum(item.expected for item in missing)
        hosts = dict.fromkeys(item.urls[0].split("/")[2] for item in missing)
        ways = dict.fromkeys(
            f"by the SHA-256 of {item.source}; the host does not confirm it"
            if item.sha256
            else "no published checksum: the SHA-256 of the first download is recorded "
            f"in {self.lock}, and later downloads must equal it"
            for item in missing
        )
        return (
            f"{self.record.title}: {count} of {len(self.record.downloads)} downloads, "
            f"{words(size)}, from {', '.join(hosts)}, into {self.target}\n"
            f"  terms    {self.record.licence}\n  cite     {self.record.citation}\n"
            f"  checked  {', '.join(ways)}"
        )

    def require_room(self, missing: Sequence[Download]) -> None:
        """Raise InputError where downloads, and what is unpacked, would not fit."""
        here = [*self.aside.glob("parts/*.part"), *self.aside.glob("archives/*")]
        wanted = sum(item.expected * (1 + item.is_archive) for item in missing) + SPARE
        wanted -= sum(path.stat().st_size for path in here)
        free = shutil.disk_usage(self.aside).free
        if free < wanted:
            raise InputError(
                f"{self.target}: expected room for {words(wanted)}, found only "
                f"{words(free)}. Make room, or name another place with --output."
            )

    def obtain(self, item: Download, got: _Got | None) -> _Got:
        """Download, check and unpack one file; return what the lock file keeps."""
        if got and not item.sha256:
            source = f"the first download, in {self.lock}"
            item = dataclasses.replace(item, sha256=got["sha256"], source=source)
        folder = self.aside / "archives" if item.is_archive else self.folder
        path = download.retrieve(item, folder, self.aside / "parts")
        sha256 = item.sha256 or hashing.file_hash(path)
        files = self.unpack(path) if item.is_archive else {item.path: sha256}
        return {"sha256": sha256, "files": files}

    def unpack(self, archive: Path) -> dict[str, str]:
        """Move the files of an archive into the folder; return their SHA-256."""
        into = self.aside / "unpacked"
        shutil.rmtree(into, ignore_errors=True)
        try:
            fresh = layout.unpack(archive, into)
        except archives.Distrusted:
            archive.unlink()
            raise
        paths = [path for path in sorted(fresh.rglob("*")) if path.is_file()]
        files = {p.relative_to(fresh).as_posix(): hashing.file_hash(p) for p in paths}
        shutil.copytree(
            fresh, self.folder, copy_function=os.replace, dirs_exist_ok=True
        )
        return files
