"""A web server on this machine whose files and faults a test decides."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """What is behind an address.

    Attributes:
        content: the file.
        marks: headers that tell the version.
        ranges: False where the server always sends all.
        heeds: False where it sends parts of whatever it has now, `If-Range` or not.
        length: "told", "chunked", or "untold": the end of the connection is the end.
        headers: more headers.
        faults: what happens instead, one a request, in order: a number of bytes after
            which the connection is cut, an HTTP status with headers, or a function
            that gets the page before it answers. None answers as usual.
    """

    content: bytes
    marks: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    ranges: bool = True
    heeds: bool = True
    length: str = "told"
    headers: dict[str, str] = field(default_factory=dict)
    faults: list[Any] = field(default_factory=list)


def ctrl_c(_: Page) -> None:
    """A fault: Ctrl-C is pressed while the main thread waits for the answer."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    threading.Event().wait(0.2)


class Handler(BaseHTTPRequestHandler):
    """Answers as the pages say."""

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has enough
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        site: Web = self.server.site  # type: ignore[attr-defined]
        site.asked.append((self.path, dict(self.headers)))
        page = site.pages.get(self.path)
        if page is None:
            self.head(404, {"Content-Length": "0"})
            return
        fault = page.faults.pop(0) if page.faults else None
        if isinstance(fault, tuple):
            self.head(fault[0], {"Content-Length": "0", **fault[1]})
            return
        if callable(fault):
            fault(page)
        self.answer(page, fault if isinstance(fault, int) else None)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, page: Page, cut: int | None) -> None:
        body, status, more = self.wanted(page)
        headers = {**page.marks, **page.headers, **more}
        if page.length == "told":
            headers["Content-Length"] = str(len(body))
        elif page.length == "chunked":
            headers["Transfer-Encoding"] = "chunked"
            sent, ends = body[:cut], b"0\r\n\r\n" if cut is None else b""
            body = b"%x\r\n%s\r\n%s" % (len(sent), sent, ends)
            self.close_connection, cut = cut is not None, None
        if cut is not None or page.length == "untold":
            self.close_connection = True
        self.head(status, headers)
        with contextlib.suppress(OSError):
            self.wfile.write(body[:cut])

    def wanted(self, page: Page) -> tuple[bytes, int, dict[str, str]]:
        """The part that is asked for, or all of it."""
        byte_range, marks = self.headers.get("Range"), list(page.marks.values())
        condition = self.headers.get("If-Range")
        stale = page.heeds and condition is not None and condition not in marks
        if not byte_range or not page.ranges or stale:
            return page.content, 200, {}
        start, size = (
            int(byte_range.removeprefix("bytes=").rstrip("-")),
            len(page.content),
        )
        if start >= size:
            return b"", 416, {"Content-Range": f"bytes */{size}"}
        headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return page.content[start:], 206, headers


@dataclass
class Web:
    """The server: pages by path, and what was asked of it, paths with headers."""

    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ranges(self) -> list[str | None]:
        """The `Range` of each request."""
        return [headers.get("Range") for _, headers in self.asked]


@contextlib.contextmanager
def served() -> Iterator[Web]:
    """Runs a server while the context lasts."""
    site = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = site  # type: ignore[attr-defined]
    server.daemon_threads = True
    site.port = server.server_address[1]
    run: Callable[[], None] = lambda: server.serve_forever(poll_interval=0.01)  # noqa: E731
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
