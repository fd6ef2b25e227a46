"""`dscpp fetch`: whole data sets from a server on this machine."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from filelock import FileLock
from web import Page, Web, ctrl_c, served

from data_io import datasets
from data_io.datasets.dsb2018 import dsb2018
from data_io.datasets.isic2018 import isic2018
from data_io.datasets.kits19 import kits19
from data_io.errors import InputError
from data_io.fetching import download, downloads, fetch
from data_io.fetching.downloads import Download
from data_io.files import archives
from pipelines import cli

FILES = {
    f"image{number}/{part}.png": f"{part} {number}".encode() * 500
    for number in range(3)
    for part in ("images/image", "masks/a", "masks/b")
}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ZIP = zipped(FILES)
SHA256 = digest(ZIP)


@pytest.fixture(scope="module")
def server() -> Iterator[Web]:
    with served() as site:
        yield site


@pytest.fixture
def web(server: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Web:
    """The server, with the zip of 2018DSB; commands run in an empty folder."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "sleep", lambda _: None)
    monkeypatch.chdir(tmp_path)
    server.pages, server.asked = {"/dsb.zip": Page(ZIP)}, []
    return server


def offer(monkeypatch: pytest.MonkeyPatch, module, *offered: Download) -> None:
    """Lets a data set be downloaded from here."""
    record = dataclasses.replace(module.RECORD, downloads=offered)
    monkeypatch.setattr(module, "RECORD", record)


@pytest.fixture
def dsb(web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """2018DSB with a published checksum."""
    one = Download(
        (web.url("/dsb.zip"),), "stage1_train.zip", len(ZIP), SHA256, "a paper"
    )
    offer(monkeypatch, dsb2018, one)
    return web


@pytest.fixture
def untold(web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """2018DSB without one."""
    one = Download((web.url("/dsb.zip"),), "stage1_train.zip", 1000)
    offer(monkeypatch, dsb2018, one)
    return web


@pytest.fixture
def kits(web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """Two cases of KiTS19, files that are kept as they are."""
    names = [
        f"data/case_0000{number}/{kind}.nii.gz"
        for number in range(2)
        for kind in ("imaging", "segmentation")
    ]
    for name in names:
        web.pages[f"/{name}"] = Page(gzip.compress(name.encode() * 100, mtime=0))
    offer(
        monkeypatch,
        kits19,
        *(Download((web.url(f"/{n}"),), n, 99) for n in names),
    )
    return web


def run(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert cli.main(["fetch", *command]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert cli.main(["fetch", *command]) == 2
    return capsys.readouterr().err


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_fetch_writes_to_the_default_folder(dsb: Web, capsys) -> None:
    output = run(capsys, "dsb2018")
    assert files(Path("data/stage1_train")) == FILES
    assert names("data") == {"stage1_train"}
    assert dsb2018.locate(None) == Path("data/stage1_train")
    assert "127.0.0.1" in output
    assert "CC0 1.0" in output
    assert "2018DSB: files to download: 1 (" in output
    assert "checked  by the SHA-256 of a paper; the host does not confirm" in output
    end = "2018DSB is in data/stage1_train\nnext: dscpp verify --dataset dsb2018\n"
    assert output.endswith(end)


def test_second_fetch_changes_nothing(dsb: Web, capsys) -> None:
    run(capsys, "dsb2018")
    before = {p: p.stat().st_mtime_ns for p in Path("data").rglob("*")}
    assert run(capsys, "DSB2018").startswith(
        "2018DSB is here; there is nothing to fetch\n2018DSB is in data/stage1_train\n"
    )
    assert len(dsb.asked) == 1
    assert before == {p: p.stat().st_mtime_ns for p in Path("data").rglob("*")}


def test_files_that_are_no_archives(kits: Web, capsys) -> None:
    output = run(capsys, "kits19")
    assert "files to download: 4 (396B), from 127.0.0.1" in output
    assert "checked  only by what each host states" in output
    assert kits19.locate(None) == Path("data/kits19/data")
    case = Path("data/kits19/data/case_00001")
    assert gzip.decompress((case / "imaging.nii.gz").read_bytes()) == (
        b"data/case_00001/imaging.nii.gz" * 100
    )
    assert len(files(Path("data/kits19"))) == len(kits.asked) == 4


def test_output_option(dsb: Web, capsys) -> None:
    output = run(capsys, "dsb2018", "--output", "else/where")
    assert files(Path("else/where")) == FILES
    assert output.endswith("dscpp verify --dataset dsb2018 --data else/where\n")
    assert not Path("data").exists()


def test_wrong_bytes_leave_nothing_under_the_final_name(dsb: Web, capsys) -> None:
    dsb.pages["/dsb.zip"].content = ZIP[:-1] + b"?"
    message = refused(capsys, "dsb2018")
    assert SHA256 in message
    assert "a paper" in message
    assert not Path("data/stage1_train").exists()
    assert not [p for p in Path("data").rglob("*.zip") if p.is_file()]
    dsb.pages["/dsb.zip"].content = ZIP
    run(capsys, "dsb2018")


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        ("outside", {"../../outside.png": b"x"}),
        ("absolute", {"/tmp/outside.png": b"x"}),
        ("twice", {"image0/images/IMAGE.png": b"x"}),
    ],
)
def test_hostile_archive_leaves_no_files(
    untold: Web, capsys, kind: str, entries: dict[str, bytes]
) -> None:
    untold.pages["/dsb.zip"].content = zipped({**FILES, **entries})
    assert "Do not trust this file" in refused(capsys, "dsb2018")
    assert names(".") == {"data"}
    assert names("data") == {".stage1_train.fetching"}
    assert not any(path.suffix == ".png" for path in Path().rglob("*"))
    untold.pages["/dsb.zip"].content = ZIP
    run(capsys, "dsb2018")
    assert files(Path("data/stage1_train")) == FILES


def test_archive_of_another_content_is_refused(untold: Web, capsys) -> None:
    untold.pages["/dsb.zip"].content = zipped({"readme.txt": b"moved"})
    assert "expected the data set in data/stage1_train" in refused(capsys, "dsb2018")


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    usage = SimpleNamespace(total=10**12, used=0, free=size + fetch.SPARE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_too_little_disk_space_is_reported_before_the_download(
    dsb: Web, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 2 * len(ZIP) - 1)  # the archive, and as much unpacked
    message = refused(capsys, "dsb2018")
    assert "expected room for" in message
    assert "--output" in message
    assert dsb.asked == []
    free(monkeypatch, 2 * len(ZIP))
    run(capsys, "dsb2018")


def test_full_disk_while_unpacking_keeps_the_archive(
    untold: Web, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "copyfileobj", full)
        assert "No space left on device. Make room there" in refused(capsys, "dsb2018")
    assert not Path("data/stage1_train").exists()
    run(capsys, "dsb2018")
    assert len(untold.asked) == 1


def test_needed_disk_space_excludes_the_partial_file(
    dsb: Web, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsb.pages["/dsb.zip"].faults = [10_000, (404, {})]
    assert "HTTP 404" in refused(capsys, "dsb2018")
    free(monkeypatch, 2 * len(ZIP) - 10_001)
    assert "expected room" in refused(capsys, "dsb2018")
    free(monkeypatch, 2 * len(ZIP) - 10_000)
    run(capsys, "dsb2018")
    assert dsb.ranges()[-1] == "bytes=10000-"


def test_fetch_resumes_between_two_files(kits: Web, capsys) -> None:
    kits.pages["/data/case_00001/imaging.nii.gz"].faults = [ctrl_c]
    assert cli.main(["fetch", "kits19"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert not Path("data/kits19").exists()  # half of a data set is none
    run(capsys, "kits19")
    assert len(files(Path("data/kits19"))) == 4
    paths = [path for path, _ in kits.asked]
    assert paths.count("/data/case_00000/imaging.nii.gz") == 1


def test_fetch_resumes_unpacking_without_a_download(
    untold: Web, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, done = shutil.copyfileobj, []

    def stopped(*given) -> None:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(given)
        whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "copyfileobj", stopped)
        assert cli.main(["fetch", "dsb2018"]) == 130
    assert not Path("data/stage1_train").exists()
    run(capsys, "dsb2018")
    assert files(Path("data/stage1_train")) == FILES
    assert len(untold.asked) == 1


def test_files_that_no_fetch_wrote_are_left_alone(dsb: Web, capsys) -> None:
    own = Path("data/stage1_train/mine.txt")
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    message = refused(capsys, "dsb2018")
    assert "To fetch, move these files away, or name another place" in message
    assert files(Path("data")) == {"stage1_train/mine.txt": b"mine"}
    own.unlink()
    run(capsys, "dsb2018")  # an empty folder is none


def test_folder_may_be_a_link(dsb: Web, capsys, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    Path("data").mkdir()
    Path("data/stage1_train").symlink_to(tmp_path / "disk" / "dsb")
    run(capsys, "dsb2018")
    assert files(tmp_path / "disk" / "dsb") == FILES
    assert dsb2018.locate(None) == Path("data/stage1_train")


def test_second_fetch_at_the_same_time_is_refused(dsb: Web, capsys) -> None:
    aside = Path("data/.stage1_train.fetching")
    aside.mkdir(parents=True)
    with FileLock(str(aside / "lock")):
        assert "another fetch is at work" in refused(capsys, "dsb2018")
    run(capsys, "dsb2018")


def test_unwritable_output_is_refused(dsb: Web, capsys) -> None:
    Path("data").write_text("a file")
    assert "expected a place that can be written" in refused(capsys, "dsb2018")


def test_two_archives_of_one_data_set(
    web: Web, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {"ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg": b"image" * 99}
    masks = {
        "ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png": b"mask",
        "__MACOSX/._ISIC2018_Task1_Training_GroundTruth": b"litter",
    }
    archives = {"images.zip": zipped(images), "masks.zip": zipped(masks)}
    web.pages = {f"/{name}": Page(data) for name, data in archives.items()}
    offered = [
        Download((web.url(f"/{name}"),), name, len(data), digest(data), "a paper")
        for name, data in archives.items()
    ]
    offer(monkeypatch, isic2018, *offered)
    run(capsys, "isic2018")
    assert len(files(Path("data/ISIC2018"))) == 2
    assert isic2018.cases(isic2018.locate(None)) == ("ISIC_0000000",)


@pytest.mark.parametrize(
    ("name", "folder", "page", "file"),
    [
        ("drive", "data/DRIVE", "drive.grand-challenge.org", "1st_manual/01_manual1"),
        ("bus2017", "data/BUS", "helward.mmu.ac.uk/STAFF/M.Yap", "000001.png"),
        ("cvc-clinicdb", "data/CVC-ClinicDB", "polyp.grand-challenge.org", "1.tif"),
        ("cvc-clinicdb-sequence", "data/CVC-ClinicDB", "polyp.grand-chall", "1.tif"),
    ],
)
def test_data_set_that_needs_an_account_says_how(
    web: Web, capsys, name: str, folder: str, page: str, file: str
) -> None:
    message = refused(capsys, name)
    assert "has to be downloaded by hand; terms: " in message
    assert f"https://{page}" in message
    assert f"expected the data set in {folder}, found" in message
    assert file in message
    assert f"or put it in {folder}" in message
    elsewhere = refused(capsys, name, "--output", "elsewhere")
    assert "expected the data set in elsewhere, found" in elsewhere
    assert list(Path().iterdir()) == []
    assert web.asked == []


def test_manually_downloaded_data_are_found(web: Web, capsys) -> None:
    Path("data/DRIVE/training").mkdir(parents=True)
    assert "DRIVE is here; there is nothing to fetch" in run(capsys, "drive")


def test_simulated_and_unknown_names_are_refused(web: Web, capsys) -> None:
    assert "it is made when it is needed" in refused(capsys, "phantom")
    assert "expected drive, bus2017" in refused(capsys, "nothing")
    assert "received own" in refused(capsys, "own")


PUBLISHED = (downloads.DSB2018, downloads.ISIC2018, downloads.KITS19)


@pytest.mark.parametrize("offered", PUBLISHED)
def test_list_of_downloads_is_consistent(offered: tuple[Download, ...]) -> None:
    assert len({one.path for one in offered}) == len(offered)
    assert len({url for one in offered for url in one.urls}) == sum(
        len(one.urls) for one in offered
    )
    for one in offered:
        assert all(urlsplit(url).scheme == "https" for url in one.urls)
        assert one.size > 0
        assert (one.sha256 is None) == (one.source == "")
        assert one.sha256 is None or re.fullmatch("[0-9a-f]{64}", one.sha256)


def test_kits19_is_the_210_labelled_cases() -> None:
    cases = [one.path for one in downloads.KITS19]
    assert len(cases) == 2 * kits19.LABELLED
    assert cases[-1] == "data/case_00209/imaging.nii.gz"
    assert downloads.KITS19[-1].urls[0].endswith("/images/case_00209.nii.gz")
    assert sum(one.size for one in downloads.KITS19) == pytest.approx(20e9, rel=0.01)


@pytest.mark.parametrize("name", datasets.NAMES)
def test_every_data_set_has_a_download_or_instructions(name: str) -> None:
    record = datasets.by_name(name).RECORD
    assert record.downloads or record.simulated or record.source in record.access


def test_messages_are_input_errors(dsb: Web) -> None:
    with pytest.raises(InputError):
        fetch.fetch(dsb2018, Path(__file__) / "below a file")
