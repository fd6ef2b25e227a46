"""One file over HTTP, from a server on this machine that fails in every way."""

from __future__ import annotations

import gzip
import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web import Page, Web, ctrl_c, served

from data_io.errors import InputError
from data_io.fetching import download
from data_io.fetching.downloads import Download

FILE = bytes(range(256)) * 40
SHA256 = hashlib.sha256(FILE).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[Web]:
    with served() as site:
        yield site


@pytest.fixture
def web(server: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The server without pages; waits between attempts are only noted."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "CHUNK", 1000)
    server.pages, server.asked = {}, []
    return server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between attempts, ours and urllib3's, noted instead of waited for."""
    noted: list[float] = []
    monkeypatch.setattr(download, "sleep", noted.append)
    clock = SimpleNamespace(sleep=noted.append, time=time.time)
    monkeypatch.setattr(urllib3.util.retry, "time", clock)
    return noted


def get(
    web: Web,
    folder: Path,
    *paths: str,
    sha256: str | None = None,
    size: int = len(FILE),
    name: str = "a/file.bin",
) -> Path:
    urls = tuple(web.url(path) for path in paths or ("/file",))
    one = Download(urls, name, size, sha256, "a paper")
    path = folder / "data" / name
    download.retrieve(one, path, folder / "parts")
    return path


def refused(web: Web, folder: Path, *paths: str, **options) -> str:
    """The message of a download that fails; nothing of it may lie in its place."""
    with pytest.raises(InputError) as caught:
        get(web, folder, *paths, **options)
    assert not [path for path in (folder / "data").rglob("*") if path.is_file()]
    return str(caught.value)


def left(folder: Path) -> list[str]:
    """What is left of downloads that are not whole."""
    return sorted(path.suffix for path in (folder / "parts").iterdir())


def test_a_file_with_its_published_checksum(web: Web, tmp_path: Path) -> None:
    web.pages["/file"] = Page(FILE)
    path = get(web, tmp_path, sha256=SHA256)
    assert path == tmp_path / "data" / "a" / "file.bin"
    assert path.read_bytes() == FILE
    assert left(tmp_path) == []
    assert get(web, tmp_path, sha256=SHA256) == path
    assert len(web.asked) == 1


def test_interrupted_download_resumes_to_the_same_bytes(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    web.pages["/file"] = Page(FILE, faults=[3000, None, 2500, None, 0])
    path = get(web, tmp_path)
    assert path.read_bytes() == FILE
    # What arrived before each cut, in whole blocks of a socket, is not sent again.
    ranges = ["bytes=3000-", "bytes=5500-", "bytes=5500-"]
    assert web.ranges() == [None, None, ranges[0], None, ranges[1], None, ranges[2]]
    marks = [headers.get("If-Range") for _, headers in web.asked]
    assert marks == [None, None, '"1"', None, '"1"', None, '"1"']
    assert waits == [1, 1, 2]


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    cuts=st.lists(st.integers(0, len(FILE)), max_size=4),
    ranges=st.booleans(),
    marked=st.booleans(),
)
def test_download_interrupted_anywhere_gives_the_same_bytes(
    web: Web,
    tmp_path_factory: pytest.TempPathFactory,
    waits: list[float],
    cuts: list[int],
    ranges: bool,
    marked: bool,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    marks = {"ETag": '"1"'} if marked else {}
    web.pages["/file"] = Page(FILE, marks, ranges, faults=list(cuts))
    path = get(web, folder)
    assert path.read_bytes() == FILE
    assert left(folder) == []


def test_server_without_ranges_restarts_the_download(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    web.pages["/file"] = Page(FILE, ranges=False, faults=[3000])
    assert get(web, tmp_path).read_bytes() == FILE
    assert web.ranges() == [None, None, "bytes=3000-", None]


@pytest.mark.parametrize(
    "marks", [{}, {"ETag": 'W/"1"'}], ids=["no mark", "a weak mark"]
)
def test_download_without_etag_or_date_restarts(
    web: Web, tmp_path: Path, waits: list[float], marks: dict[str, str]
) -> None:
    web.pages["/file"] = Page(FILE, marks, faults=[3000])
    assert get(web, tmp_path).read_bytes() == FILE
    assert web.ranges() == [None, None]


@pytest.mark.parametrize("heeds", [True, False], ids=["If-Range", "no If-Range"])
@pytest.mark.parametrize("size", [len(FILE), len(FILE) + 5])
@pytest.mark.parametrize("between", [[], [None]], ids=["before", "while resuming"])
def test_changed_file_is_downloaded_again(
    web: Web,
    tmp_path: Path,
    waits: list[float],
    heeds: bool,
    size: int,
    between: list[None],
) -> None:
    other = b"x" * size

    def change(page: Page) -> None:
        page.content, page.marks = other, {"ETag": '"2"'}

    faults = [3000, *between, change]
    web.pages["/file"] = Page(FILE, heeds=heeds, faults=faults)
    assert get(web, tmp_path).read_bytes() == other


@pytest.mark.parametrize("between", [[], [None]], ids=["before", "while resuming"])
def test_changed_file_with_the_same_etag_is_downloaded_again(
    web: Web, tmp_path: Path, waits: list[float], between: list[None]
) -> None:
    other = b"x" * (len(FILE) + 5)

    def change(page: Page) -> None:
        page.content = other

    web.pages["/file"] = Page(FILE, faults=[3000, *between, change])
    assert get(web, tmp_path).read_bytes() == other


def test_file_shorter_than_the_partial_download(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    def change(page: Page) -> None:
        page.content = FILE[:100]

    web.pages["/file"] = Page(FILE, faults=[3000, change])
    assert get(web, tmp_path).read_bytes() == FILE[:100]


def test_wrong_bytes_are_deleted(web: Web, tmp_path: Path) -> None:
    wrong = b"x" + FILE[1:]
    web.pages["/file"] = Page(wrong)
    message = refused(web, tmp_path, sha256=SHA256)
    received = hashlib.sha256(wrong).hexdigest()
    assert f"expected {SHA256} but got {received}" in message
    assert "The SHA-256 is that of a paper." in message
    assert web.url("/file") in message
    assert left(tmp_path) == []


def test_mirror_is_used_after_wrong_bytes_or_no_answer(
    web: Web, tmp_path: Path
) -> None:
    web.pages["/wrong"] = Page(FILE[::-1])
    web.pages["/file"] = Page(FILE)
    path = get(web, tmp_path, "/none", "/wrong", "/file", sha256=SHA256)
    assert path.read_bytes() == FILE
    assert [path for path, _ in web.asked] == ["/none", "/wrong", "/file"]


def test_parts_of_two_mirrors_are_not_joined(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    web.pages["/one"] = Page(b"y" * len(FILE), faults=[3000] + [0] * 10)
    web.pages["/two"] = Page(FILE)
    assert get(web, tmp_path, "/one", "/two").read_bytes() == FILE
    assert web.asked[-1][1].get("Range") is None


def test_failure_of_all_addresses_is_reported(web: Web, tmp_path: Path) -> None:
    message = refused(web, tmp_path, "/one", "/two")
    assert f"{web.url('/one')}: HTTP 404 Not Found" in message
    assert f"{web.url('/two')}: HTTP 404 Not Found" in message
    assert "a/file.bin" in message


def test_retry_after_header_is_obeyed(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    faults = [(503, {}), (429, {"Retry-After": "7"}), (503, {"Retry-After": "9000"})]
    web.pages["/file"] = Page(FILE, faults=faults)
    assert get(web, tmp_path).read_bytes() == FILE
    assert waits == [7, 120]  # the first time at once


def test_download_stops_after_five_attempts_without_progress(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    web.pages["/file"] = Page(FILE, faults=[3000] + [(500, {})] * 20)
    assert "HTTP 500" in refused(web, tmp_path)
    assert len(web.asked) == 6  # the first brought something
    assert waits == [1, 2, 4, 8]
    assert left(tmp_path) == [".part"]  # the same command goes on from here
    web.pages["/file"].faults = []
    assert get(web, tmp_path).read_bytes() == FILE
    assert web.ranges()[-1] == "bytes=3000-"


def test_download_continues_while_attempts_make_progress(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    web.pages["/file"] = Page(FILE, faults=[1000, None] * 9)
    assert get(web, tmp_path).read_bytes() == FILE
    assert waits == [1] * 9


def test_server_that_does_not_answer(tmp_path: Path, waits: list[float]) -> None:
    with served() as site:
        nobody = Web(port=site.port)
    assert "the connection failed" in refused(nobody, tmp_path)
    assert waits == [2, 4, 8]


def test_redirects_are_followed_also_when_resuming(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    web.pages["/old"] = Page(b"", faults=[(302, {"Location": "/file"})] * 3)
    web.pages["/file"] = Page(FILE, faults=[3000])
    assert get(web, tmp_path, "/old").read_bytes() == FILE
    assert web.ranges() == [None] * 4 + ["bytes=3000-"] * 2


def test_a_redirect_to_an_address_without_encryption_is_refused(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.pages["/file"] = Page(FILE)
    plain = requests.Session.get
    monkeypatch.setattr(
        requests.Session,
        "get",
        lambda session, url, **more: plain(session, f"http{url[5:]}", **more),
    )
    one = Download((f"https{web.url('/file')[4:]}",), "file.bin", 1)
    with pytest.raises(InputError, match="without encryption"):
        download.retrieve(one, tmp_path / "data" / "file", tmp_path / "parts")
    assert not list((tmp_path / "data").glob("*"))


@pytest.mark.parametrize("right", [True, False])
def test_a_checksum_that_the_host_states_is_checked(
    web: Web, tmp_path: Path, right: bool
) -> None:
    stated = {"Location": "/file", "X-Linked-Etag": f'"{SHA256}"'}
    web.pages["/resolve"] = Page(b"", faults=[(302, stated)])
    web.pages["/file"] = Page(FILE if right else FILE[::-1])
    if right:
        assert get(web, tmp_path, "/resolve").read_bytes() == FILE
    else:
        assert SHA256 in refused(web, tmp_path, "/resolve")
        assert left(tmp_path) == []


@pytest.mark.parametrize(("name", "kind"), [("a.nii.gz", ".gz"), ("a.zip", ".zip")])
def test_login_page_is_refused(web: Web, tmp_path: Path, name: str, kind: str) -> None:
    web.pages["/file"] = Page(b"<!DOCTYPE html><title>Log in</title>")
    message = refused(web, tmp_path, name=name)
    assert f"expected a {kind} file" in message
    assert "<!DOCTYPE html>" in message
    assert left(tmp_path) == []


def test_file_of_another_size_is_not_downloaded(web: Web, tmp_path: Path) -> None:
    web.pages["/file"] = Page(FILE)
    message = refused(web, tmp_path, sha256=SHA256, size=4)
    assert f"expected 4 bytes, found {len(FILE)} on the server" in message


def test_very_slow_server_is_abandoned(
    web: Web, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the file had to come at a rate that no server has."""
    monkeypatch.setattr(download, "SLOWEST", 10**15)
    monkeypatch.setattr(download, "GRACE_S", 0.0)
    web.pages["/file"] = Page(FILE)
    message = refused(web, tmp_path)
    assert "bytes a second come" in message
    assert len(web.asked) == 1
    monkeypatch.undo()
    assert get(web, tmp_path).read_bytes() == FILE


@pytest.mark.parametrize("length", ["untold", "chunked"])
def test_file_of_unknown_length_is_refused(
    web: Web, tmp_path: Path, length: str
) -> None:
    web.pages["/file"] = Page(FILE, length=length)
    assert "does not say how large the file is" in refused(web, tmp_path)


def test_gzip_file_is_not_decoded(web: Web, tmp_path: Path) -> None:
    packed = gzip.compress(FILE)
    web.pages["/file"] = Page(packed, headers={"Content-Encoding": "gzip"})
    assert get(web, tmp_path, name="a.nii.gz").read_bytes() == packed


def test_download_resumes_after_ctrl_c(
    web: Web, tmp_path: Path, waits: list[float]
) -> None:
    web.pages["/file"] = Page(FILE, faults=[3000, ctrl_c])
    with pytest.raises(KeyboardInterrupt):
        # The first connection is cut; Ctrl-C comes while the second is waited for.
        get(web, tmp_path)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert left(tmp_path) == [".part"]
    assert get(web, tmp_path).read_bytes() == FILE
    assert web.ranges()[-1] == "bytes=3000-"


def test_complete_partial_file_is_not_downloaded_again(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    web.pages["/file"] = Page(FILE)
    with monkeypatch.context() as patch:
        patch.setattr(download, "hash_matches", stopped)
        with pytest.raises(KeyboardInterrupt):
            get(web, tmp_path)
    web.pages["/file"].faults = [0]  # what the server has is not needed any more
    assert get(web, tmp_path).read_bytes() == FILE
    assert web.ranges() == [None, None]


def test_no_test_reaches_the_network() -> None:
    for host in ("192.0.2.1", "example.org"):
        with pytest.raises(pytest.fail.Exception, match=host):
            requests.get(f"http://{host}/", timeout=1)
        with pytest.raises(pytest.fail.Exception, match=host):
            socket.create_connection((host, 80), timeout=1)
