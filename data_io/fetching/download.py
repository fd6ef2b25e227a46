"""One file over HTTP: resumed where it was cut, checked by pooch."""

import re
from pathlib import Path
from time import monotonic, sleep

import requests
import urllib3
from pooch.hashes import hash_matches
from requests.adapters import HTTPAdapter

from data_io import bars
from data_io.errors import InputError
from data_io.fetching.downloads import Download
from data_io.files import schema

ATTEMPTS = 5  # in a row that bring nothing new
TIMEOUT_S = 30.0
CHUNK = 1 << 18
SLOWEST, GRACE_S = 1000, 60.0  # bytes a second, over all but the first seconds
FIRST_BYTES = {".gz": b"\x1f\x8b", ".zip": b"PK"}
# For no answer and for a busy server; urllib3 also waits as long as the server asks.
RETRY = urllib3.Retry(
    total=ATTEMPTS - 1,
    status_forcelist=(408, 425, 429, 500, 502, 503, 504),
    raise_on_status=False,
    backoff_factor=1,
    retry_after_max=120,
)


class Failure(ValueError):
    """An address does not give the file; another one may."""


def retrieve(download: Download, path: Path, parts: Path) -> None:
    """Download a file to `path`, unless it is there.

    It gets its name once all of it is there and checked. Until then it lies in `parts`,
    and is resumed there.

    Raises:
        InputError: no address gave it; one line for each.
    """
    if path.exists():
        return
    for folder in (path.parent, parts):
        folder.mkdir(parents=True, exist_ok=True)
    problems = ""
    for url in download.urls:
        try:
            Resuming(download, url, parts).whole().replace(path)
            return
        except ValueError as error:  # `Failure`, or pooch's for another SHA-256
            problems += f"  {url}: {error}\n"
    if download.sha256:
        problems += f"The SHA-256 is that of {download.source}.\n"
    raise InputError(
        f"{download.path}: expected to download it, found\n{problems}"
        "The same command goes on from here."
    )


class Resuming:
    """One file from one address; goes on where an earlier process stopped.

    What was received lies in a file that is named after the address, the version
    (`ETag`) and the size of the whole: only the same version is resumed.
    """

    def __init__(self, download: Download, url: str, parts: Path):
        self.download, self.url, self.parts = download, url, parts
        self.part, self.size, self.stated = parts, 0, ""

    def whole(self) -> Path:
        """Return the file once it is whole and checked, or raise `Failure`."""
        idle = most = 0
        while not self.attempt():
            idle = 0 if self.received() > most else idle + 1
            most = max(most, self.received())
            if idle == ATTEMPTS:
                raise Failure(f"cut {ATTEMPTS} times in a row, at {most} bytes at most")
            sleep(2**idle)
        try:
            self.check()
        except ValueError:
            self.part.unlink()
            raise
        return self.part

    def attempt(self) -> bool:
        """Ask for what is missing, and write what comes; return whether all is here."""
        try:
            with ask(self.url) as whole:
                etag = self.begin(whole)
                start = self.received()
                if not start:
                    self.write(whole)
            if 0 < start < self.size:
                self.resume(start, etag)
        except urllib3.exceptions.HTTPError:
            return False  # cut in the middle of the file
        return self.received() == self.size

    def resume(self, start: int, etag: str) -> None:
        """Write the rest of the file, or remove what is here of another version."""
        with ask(self.url, {"Range": f"bytes={start}-", "If-Range": etag}) as rest:
            content_range = f"bytes {start}-{self.size - 1}/{self.size}"
            found = [rest.headers.get(name) for name in ("Content-Range", "ETag")]
            if found == [content_range, etag]:
                self.write(rest)
            else:
                self.part.unlink()

    def begin(self, response: requests.Response) -> str:
        """Find what was received of this version; return the server's mark of it."""
        size, wanted = response.headers.get("Content-Length", ""), self.download
        if not size.isdecimal():
            raise Failure("the server does not say how large the file is")
        if wanted.sha256 and int(size) != wanted.size:
            raise Failure(f"expected {wanted.size} bytes, found {size} on the server")
        etag = response.headers.get("ETag", "")
        self.part = self.parts / f"{schema.digest([self.url, etag, size])[:16]}.part"
        self.size, self.stated = int(size), stated_hash(response)
        if not etag or etag.startswith("W/"):  # may be another version
            self.part.unlink(missing_ok=True)
        return etag

    def write(self, response: requests.Response) -> None:
        """Append what comes, up to the size that the server said."""
        missing = self.size - self.received()
        bar = bars.bar(
            desc=self.download.path[-40:], initial=self.received(), total=self.size,
            unit="B", unit_scale=True, delay=1, leave=False,
        )  # fmt: skip
        with self.part.open("ab") as file, bar:
            began, came = monotonic(), 0
            # As sent: a server may call a .gz file's own gzip an encoding.
            while chunk := response.raw.read1(min(CHUNK, missing - came), False):
                came += len(chunk)
                if came < SLOWEST * (monotonic() - began - GRACE_S):
                    raise Failure(f"fewer than {SLOWEST} bytes a second come")
                file.write(chunk)
                bar.update(len(chunk))

    def check(self) -> None:
        """Raise `Failure`, or pooch's ValueError, where what came is not the file."""
        kind = Path(self.download.path).suffix
        with self.part.open("rb") as file:
            start = file.read(40)
        if not start.startswith(FIRST_BYTES.get(kind, b"")):
            raise Failure(
                f"expected a {kind} file, found one that begins with {start!r}"
            )
        sha256 = self.download.sha256 or self.stated or None
        hash_matches(self.part, sha256, strict=True, source=self.download.path)

    def received(self) -> int:
        """Bytes that are here."""
        return self.part.stat().st_size if self.part.is_file() else 0


def ask(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    """Ask for a file, again as `RETRY` says; raise `Failure` for another answer."""
    # Encoded by the way, parts would not fit together.
    headers = {"Accept-Encoding": "identity", "User-Agent": "dscpp", **(headers or {})}
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=RETRY))
        try:
            response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise Failure(f"the connection failed: {error}") from error
    if url.startswith("https:") and response.url.startswith("http:"):
        raise Failure(f"redirected without encryption to {response.url}")
    if response.status_code not in (200, 206):
        raise Failure(f"HTTP {response.status_code} {response.reason}")
    return response


def stated_hash(response: requests.Response) -> str:
    """Return the SHA-256 in `X-Linked-Etag`, as Hugging Face has it; "" for none."""
    answers = (*response.history, response)
    stated = (a.headers.get("X-Linked-Etag", "").strip('"') for a in answers)
    return next((mark for mark in stated if re.fullmatch("[0-9a-f]{64}", mark)), "")
