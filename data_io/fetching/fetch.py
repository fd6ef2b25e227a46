"""A whole data set from its hosts: room, downloads, unpacking.

All is made in a hidden folder beside the data set's own and renamed at the end, so that
no half of a data set passes for one.
"""

import os
import shutil
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from data_io import bars
from data_io.datasets import layout
from data_io.datasets.dataset import Dataset
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.fetching import download
from data_io.files import archives
from data_io.files.writing import writing

SPARE = 100_000_000  # bytes of disk that are left alone
words = partial(tqdm.format_sizeof, suffix="B")


def fetch(dataset: Dataset, output: Path | None = None) -> Path:
    """Download a data set, unless it is there; return the folder that `locate` finds.

    `output` is its folder; None for where `locate` looks by default.

    Raises:
        InputError: an account is needed (says which page, files and folder); too little
            room; a download or an archive that is not as expected; other files in the
            folder; another fetch at work there.
    """
    target = Path(output or dataset.DEFAULT)
    if target.is_symlink():  # so that renaming stays on one disk
        target = target.resolve()
    if not dataset.RECORD.downloads or (target.is_dir() and any(target.iterdir())):
        return find(dataset, target)
    aside = target.with_name(f".{target.name}.fetching")
    with writing(target):
        aside.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(aside / "lock", timeout=0):
                make(dataset.RECORD, target, aside)
                shutil.rmtree(aside, ignore_errors=True)
        except Timeout:
            raise InputError(
                f"{target}: another fetch is at work; wait for it"
            ) from None
    return dataset.locate(target)


def find(dataset: Dataset, target: Path) -> Path:
    """Find a data set that is there; for one that is not, say how to get it."""
    record = dataset.RECORD
    advice = f"{record.title} has to be downloaded by hand; terms: {record.licence}"
    if record.simulated:
        advice = f"{record.title} is simulated: it is made when it is needed"
    if record.downloads:
        advice = "To fetch, move these files away, or name another place with --output."
    try:
        root = dataset.locate(target)
    except InputError as error:
        raise InputError(f"{advice}\n{error}") from None
    bars.note(f"{record.title} is here; there is nothing to fetch")
    return root


def make(record: Record, target: Path, aside: Path) -> None:
    """Download and unpack all of a data set in `aside`, then rename it to `target`."""
    bars.note(plan(record, target))
    require_room(record, target, aside)
    whole, zips = aside / "whole", aside / "zips"
    quiet = len(record.downloads) < 2  # each file has a bar of its own
    for item in bars.bar(record.downloads, record.title, unit="file", disable=quiet):
        folder = zips if item.is_archive else whole
        download.retrieve(item, folder / item.path, aside / "parts")
    for archive in sorted(zips.glob("*")):
        try:
            unpacked = layout.unpack(archive, aside / "unpacked")
        except archives.Distrusted:
            archive.unlink()
            raise
        shutil.copytree(unpacked, whole, copy_function=os.replace, dirs_exist_ok=True)
    if target.is_dir():  # and empty: renaming on some systems minds it
        target.rmdir()
    whole.rename(target)


def require_room(record: Record, target: Path, aside: Path) -> None:
    """Raise InputError where downloads, and what is unpacked, would not fit."""
    wanted = sum(d.size * (1 + d.is_archive) for d in record.downloads) + SPARE
    wanted -= sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
    free = shutil.disk_usage(aside).free
    if free < wanted:
        raise InputError(
            f"{target}: expected room for {words(wanted)}, found only {words(free)}. "
            "Make room, or name another place with --output."
        )


def plan(record: Record, target: Path) -> str:
    """Say what is downloaded, from where, on which terms and how it is checked."""
    count, size = len(record.downloads), sum(d.size for d in record.downloads)
    hosts = dict.fromkeys(item.urls[0].split("/")[2] for item in record.downloads)
    sources = dict.fromkeys(item.source for item in record.downloads)
    checked = " and ".join(
        f"by the SHA-256 of {source}; the host does not confirm it"
        if source
        else "only by what each host states: nobody publishes checksums"
        for source in sources
    )
    return (
        f"{record.title}: files to download: {count} ({words(size)}), from "
        f"{', '.join(hosts)}, into {target}\n  terms    {record.licence}\n"
        f"  cite     {record.citation}\n  checked  {checked}"
    )
