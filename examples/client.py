"""Ask a running service about a video, and follow its progress; it needs nothing but Python.

stresnet serve run/ &
python examples/client.py new.mp4 --timeline
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

PART_BYTES = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--token", type=Path, help="file with the token of the service")
    parser.add_argument("--timeline", action="store_true", help="also say when what happens")
    arguments = parser.parse_args()
    server = Server(arguments.server, arguments.token.read_text().strip() if arguments.token else "")
    job = server.submit(arguments.video, {"top": 3, "timeline": str(arguments.timeline).lower()})
    for state in server.states(job):
        if "progress" in state:
            print("{activity}: {done}/{total}".format(**state["progress"]), file=sys.stderr)
    if "problem" in state:
        print(state["problem"]["detail"], file=sys.stderr)
        return 1
    result = state["result"]
    print(", ".join(f"{one['label']} {one['probability']:.1%}" for one in result["top"]))
    for one in result.get("timeline", {}).get("segments", ()):
        print(f"{one['start']:.2f} to {one['end']:.2f} s: {one['label']} {one['score']:.1%}")
    return 0


class Server:
    """A service at an address."""

    def __init__(self, address: str, token: str) -> None:
        parts = urlsplit(address)
        self._connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._path = parts.netloc, parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def submit(self, video: Path, question: dict[str, Any]) -> str:
        """Upload a video and return the address of its job; wait and try again while the service is busy."""
        boundary = secrets.token_hex(16)
        while True:
            head = f'Content-Disposition: form-data; name="video"; filename="{quote(video.name)}"'
            before, after = f"--{boundary}\r\n{head}\r\n\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(before) + os.path.getsize(video) + len(after)),
                "Prefer": "respond-async",
            }
            with video.open("rb") as file:
                answer = self._ask("POST", f"/v1/predict?{urlencode(question)}", parts(before, file, after), headers)
            if answer.status != 429:
                return str(answer.headers["Location"])
            time.sleep(int(answer.headers["Retry-After"]))

    def states(self, job: str) -> Iterator[dict[str, Any]]:
        """Yield the states of a job as it changes, the last one with its result or a problem."""
        for line in self._ask("GET", f"{job}/events"):
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def _ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        connection = self._connection(self._host, timeout=300)
        connection.request(method, self._path + path, body, self._headers | (headers or {}))
        answer = connection.getresponse()
        if answer.status >= 400 and answer.status != 429:
            sys.exit(json.load(answer)["detail"])
        return answer


def parts(before: bytes, file: Any, after: bytes) -> Iterator[bytes]:
    """Yield a form, with the file in parts, so that it is never in memory as a whole."""
    yield before
    yield from iter(lambda: file.read(PART_BYTES), b"")
    yield after


if __name__ == "__main__":
    sys.exit(main())
