"""One file over HTTP: resumed where it was cut, tried again, checked by pooch."""

import json
import re
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pooch
import requests
import urllib3

from data_io import bars
from data_io.errors import InputError
from data_io.fetching.downloads import Download
from data_io.files import hashing, schema

ATTEMPTS = 5  # in a row that bring nothing
WAIT_S, LONGEST_WAIT_S = 1.0, 120.0  # first, then doubled; whatever a server asks for
TIMEOUT_S = 30.0
CHUNK = 1 << 18
SLOWEST, GRACE_S = 1000, 60.0  # bytes a second, over all but the first seconds
BUSY = {408, 416, 425, 429, 500, 502, 503, 504}
MAGIC = {".gz": (b"\x1f\x8b", "a gzip file"), ".zip": (b"PK", "a zip")}


class Failure(Exception):
    """An address does not give the file; another one may."""


class Cut(Failure):
    """The connection failed or the server is busy; the same again may help."""

    wait_s = 0.0


def retrieve(
    download: Download,
    folder: Path,
    parts: Path,
    known: tuple[str, str] | None,
) -> tuple[Path, str]:
    """Download a file, unless it is there as it should be.

    Args:
        download: what to get.
        folder: where its `path` is; nothing is there under that name before all of it
            is there and checked.
        parts: folder for what is not whole yet; what lies there is resumed.
        known: SHA-256 it must have, and who says so; None to take what comes.

    Returns:
        The file, and the address it came from, "" where it was there.

    Raises:
        InputError: no address gave it; one line for each.
    """
    pooch.get_logger().setLevel("WARNING")
    parts.mkdir(parents=True, exist_ok=True)
    problems = []
    for url in download.urls:
        part = parts / f"{schema.digest(url)[:16]}.part"
        resuming = Resuming(part, download)
        try:
            path = pooch.retrieve(
                url, known and known[0], download.path, folder, downloader=resuming
            )
            return Path(path), url if resuming.called else ""
        except Failure as error:
            problems.append(f"{url}: {error}")
        except ValueError as error:  # pooch's, for another hash
            whose = f" Expected by: {known[1]}" if known else ""
            problems.append(f"{url}: {error}{whose}")
    raise InputError(
        f"{download.path}: expected to download it, found\n"
        + "\n".join(f"  {problem}" for problem in problems)
        + "\nThe same command goes on from here."
    )


class Resuming:
    """Downloader for pooch that goes on where an earlier one stopped.

    What was received lies in a file of its own, with the server's mark of the version
    (`ETag`, or the time of change) beside it: only the same version is resumed.
    """

    def __init__(self, part: Path, download: Download):
        self.part, self.download = part, download
        self.mark = part.with_suffix(".json")
        self.stated = ""  # the file's SHA-256, by the server
        self.called = False

    def __call__(self, url: str, output_file: str, _: Any = None) -> None:
        """Write the file behind `url` to `output_file`, or raises `Failure`."""
        self.called = True
        failures, best = 0, 0
        while True:
            try:
                self.attempt(url)
                break
            except Cut as cut:
                failures = 1 if self.received() > best else failures + 1
                best = max(best, self.received())
                if failures >= ATTEMPTS:
                    raise Failure(f"{cut} ({ATTEMPTS} times)") from cut
                sleep(max(WAIT_S * 2 ** (failures - 1), cut.wait_s))
        self.check()
        self.part.replace(output_file)
        self.mark.unlink()

    def attempt(self, url: str) -> None:
        """Ask for what is missing, once, and write what comes."""
        mark = hashing.read_json(self.mark) or {}
        start = self.received() if mark.get("version") else 0
        if start and start == mark["total"]:
            return  # All but the renaming was done.
        # Encoded by the way, parts would not fit together.
        headers = {"Accept-Encoding": "identity", "User-Agent": "dscpp"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": mark["version"]}
        try:
            with requests.get(
                url, headers=headers, stream=True, timeout=TIMEOUT_S
            ) as response:
                self.refuse(response, url)
                self.stated = _stated_hash(response)
                self.write(response, *self.begin(response, start, mark))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Cut(f"the connection failed: {error}") from error

    def refuse(self, response: requests.Response, url: str) -> None:
        """Raise what an answer means that is neither all nor the rest of the file."""
        status = response.status_code
        if url.startswith("https:") and response.url.startswith("http:"):
            raise Failure(f"redirected without encryption to {response.url}")
        if status == 416:  # asked for more than there is
            self.forget()
        if status in BUSY:
            cut = Cut(f"HTTP {status} {response.reason}")
            wait = response.headers.get("Retry-After", "")
            cut.wait_s = min(float(wait), LONGEST_WAIT_S) if wait.isdecimal() else 0
            raise cut
        if status not in (200, 206):
            raise Failure(f"HTTP {status} {response.reason}")

    def begin(
        self, response: requests.Response, start: int, mark: dict[str, Any]
    ) -> tuple[int, int | None]:
        """Where to write what comes, and the size of the whole file."""
        if response.status_code == 206:
            content_range = response.headers.get("Content-Range", "")
            match = re.fullmatch(rf"bytes {start}-\d+/(\d+|\*)", content_range)
            total = int(match[1]) if match and match[1] != "*" else None
            same = mark.get("total") in (None, total)
            if start and match and same and _version(response) in ("", mark["version"]):
                return start, total
            self.forget()
            raise Cut(
                f"another part, or of another file, than asked for: {content_range!r}"
            )
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if total is None and "Transfer-Encoding" not in response.headers:
            raise Failure("the server does not say where the file ends")
        expected = self.download.size
        if expected and total is not None and total != expected:
            raise Failure(f"expected {expected} bytes, found {total} on the server")
        self.forget()
        known = {"version": _version(response), "total": total}
        self.mark.write_text(json.dumps(known))
        return 0, total

    def write(self, response: requests.Response, start: int, total: int | None) -> None:
        """Append what comes; raise `Cut` where it ends early."""
        stated = self.download.size if total is None else total
        bar = bars.bar(
            desc=self.download.path[-40:], initial=start, total=total, unit="B",
            unit_scale=True, delay=1, leave=False,
        )  # fmt: skip
        with self.part.open("ab" if start else "wb") as file, bar:
            began, came = monotonic(), 0
            # The bytes as sent: a server may call a .gz file's own gzip an encoding.
            while chunk := response.raw.read1(CHUNK, decode_content=False):
                came += len(chunk)
                if stated is not None and start + came > stated:
                    self.forget()
                    raise Failure(f"expected {stated} bytes, received more")
                if came < SLOWEST * (monotonic() - began - GRACE_S):
                    raise Failure(f"fewer than {SLOWEST} bytes a second come")
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and self.received() != total:
            raise Cut(f"the connection ended after {self.received()} of {total} bytes")

    def check(self) -> None:
        """Raise Failure, and forget all, where what came can't be the file."""
        expected = self.download.size
        begin, kind = MAGIC.get(Path(self.download.path).suffix, (b"", "a file"))
        with self.part.open("rb") as file:
            start = file.read(40)
        problem = ""
        if expected and self.received() != expected:
            problem = f"expected {expected} bytes, received {self.received()}"
        elif not start.startswith(begin):
            problem = f"expected {kind}, received one that begins with {start!r}"
        elif self.stated and hashing.file_hash(self.part) != self.stated:
            problem = f"received other bytes than the server's SHA-256, {self.stated}"
        if problem:
            self.forget()
            raise Failure(problem)

    def received(self) -> int:
        """Bytes that are here."""
        return self.part.stat().st_size if self.part.exists() else 0

    def forget(self) -> None:
        """Remove what was received."""
        self.part.unlink(missing_ok=True)
        self.mark.unlink(missing_ok=True)


def _version(response: requests.Response) -> str:
    """The server's mark of this very content; "" where it gives none."""
    etag = str(response.headers.get("ETag", ""))
    weak = not etag or etag.startswith("W/")
    return str(response.headers.get("Last-Modified", "")) if weak else etag


def _stated_hash(response: requests.Response) -> str:
    """The SHA-256 in `X-Linked-Etag`, where Hugging Face redirects; "" for none."""
    for answer in (*response.history, response):
        sha256 = str(answer.headers.get("X-Linked-Etag", "")).strip('"')
        if re.fullmatch("[0-9a-f]{64}", sha256):
            return sha256
    return ""
