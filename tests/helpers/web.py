"""A local web server for tests: with and without ranges, interrupted, changing, and as a small hub."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Asked(NamedTuple):
    """A request: its method, path and Range header."""

    method: str
    path: str
    range: str


@dataclass
class Page:
    """A page and how it is served.

    Attributes:
        data: the bytes.
        headers: sent with them, such as an ETag.
        status: 300 or more for a redirect or an error, with `data` as its body.
        ranges: whether range requests are answered with the range.
        cuts: number of bytes of the first, second … answer after which the connection is closed.
        wait: the second half of the answer is sent only after this is set.
        reset: whether a cut connection is reset instead of closed.
        failures: number of requests that are first answered with 503.
    """

    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    wait: threading.Event | None = None
    reset: bool = False
    failures: int = 0


class Web:
    """A running server: its URL, its pages and the requests so far."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def put(self, path: str, data: bytes, *, tag: str = "", **fields: object) -> str:
        """Put bytes at a path and return their URL."""
        self.pages[path] = Page(data, {"ETag": tag} if tag else {}, **fields)  # type: ignore[arg-type]
        return self.url + path

    def put_repo(self, repo: str, files: dict[str, bytes], revision: str = "main", commit: str = COMMIT) -> None:
        """Serve a repository as the hub does."""
        described = {"id": repo, "sha": commit, "siblings": [{"rfilename": f} for f in files]}
        listing = Page(json.dumps(described).encode(), {"Content-Type": "application/json"})
        self.pages[f"/api/models/{repo}/revision/{revision}"] = listing
        if revision == "main":
            self.pages[f"/api/models/{repo}"] = listing
        for file, data in files.items():
            headers = {"X-Repo-Commit": commit, "ETag": f'"{abs(hash(data)):040x}"', "X-Linked-Size": str(len(data))}
            self.pages[f"/{repo}/resolve/{revision}/{file}"] = Page(data, headers)

    def ranges(self, path: str) -> list[str]:
        """Return the Range headers of the GET requests for a path."""
        return [a.range for a in self.asked if a.path == path and a.method == "GET"]

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def web_server() -> Iterator[Web]:
    """Run a server for the duration of the block."""
    web = Web()
    try:
        yield web
    finally:
        web.close()


def use_as_hub(url: str, monkeypatch: pytest.MonkeyPatch, cache: Path | None = None) -> None:
    """Point the hub's client to a server and a cache, as HF_ENDPOINT and HF_HUB_CACHE do before it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    if cache:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked.append(Asked(self.command, self.path.partition("?")[0], self.headers.get("Range", "")))
            page = web.pages.get(self.path.partition("?")[0])
            if page is None:
                self._answer(404, b"no such page", {"X-Error-Code": "EntryNotFound"})
            elif page.failures:
                page.failures -= 1
                self._answer(503, b"busy", {})
            elif page.status >= 300:
                self._answer(page.status, page.data, page.headers)
            else:
                self._send(page)

        do_HEAD = do_GET  # noqa: N815

        def _send(self, page: Page) -> None:
            data, status, headers = page.data, page.status, dict(page.headers)
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if found and page.ranges:
                start, stop = int(found[1]), min(int(found[2] or len(data)) + 1, len(data))
                if start >= len(data):
                    return self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
                data, status = data[start:stop], 206
            cut = page.cuts.pop(0) if page.cuts and self.command == "GET" else len(data)
            self._answer(status, data, headers, cut, page.wait)
            if page.reset and cut < len(data):
                time.sleep(0.2)  # a reset throws away what the other end has not read yet
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        def _answer(
            self,
            status: int,
            data: bytes,
            headers: dict[str, str],
            cut: int | None = None,
            wait: threading.Event | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            data = data[:cut]
            half = len(data) // 2 if wait else len(data)
            try:
                self.wfile.write(data[:half])
                if wait:
                    self.wfile.flush()
                    wait.wait(60)
                    self.wfile.write(data[half:])
            except OSError:  # the other end was killed
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
