"""Interrupted downloads, and files that change on the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.fetching import DATA, OTHER, fetch_error
from helpers.web import Web
from stresnet.weights.fetch import RETRIES, cache_folder, cached, fetch

pytestmark = pytest.mark.usefixtures("isolated")


def part_of(url: str) -> Path:
    """Return the file that holds what has arrived of a URL's file."""
    from stresnet.weights.fetch import _place

    (part,) = _place(url).parent.glob("*.part")
    return part


def test_broken_connection_is_resumed(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='W/"weak"', cuts=[1_000_000] * 3)
    assert fetch(url).read_bytes() == DATA
    starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in web.ranges("/a.bin")[1:]]
    assert starts[0] > 0
    assert starts == sorted(set(starts))


def test_reset_connection(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', cuts=[1_000_000] * (1 + RETRIES), reset=True, ranges=False)
    line = fetch_error(url)
    assert line.startswith(f"{url}: the connection broke (")
    assert line.endswith("): run it again to resume")
    assert 0 < part_of(url).stat().st_size <= 1_000_000
    web.pages["/a.bin"].ranges = True
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin")[-1].startswith("bytes=")


def test_server_without_ranges_starts_over(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', ranges=False, cuts=[1_000_000, 2_000_000])
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin")[0] == ""
    assert len(web.ranges("/a.bin")) == 3


@pytest.mark.parametrize(
    ("before", "after", "data"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}, OTHER),
        ({"ETag": '"1"'}, {}, OTHER),
        ({"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, {"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}, OTHER),
        ({"ETag": '"same"'}, {"ETag": '"same"'}, OTHER[:-1]),
        ({}, {}, OTHER),
    ],
    ids=["ETag", "ETag gone", "Last-Modified", "size", "unversioned"],
)
def test_file_that_changed_on_the_server_starts_over(
    web: Web, before: dict[str, str], after: dict[str, str], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web.put("/a.bin", DATA, cuts=[1_000_000])
    web.pages["/a.bin"].headers = before

    def change(_: float) -> None:
        web.put("/a.bin", data)
        web.pages["/a.bin"].headers = after

    monkeypatch.setattr("stresnet.weights.fetch.time.sleep", change)
    assert fetch(url).read_bytes() == data
    assert web.ranges("/a.bin") == ["", ""]


def test_next_call_resumes(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', cuts=[1_000_000, *[0] * RETRIES])
    line = fetch_error(url)
    assert line.startswith(f"{url}: the connection broke (")
    assert len(web.ranges("/a.bin")) == 1 + RETRIES
    assert cached(url) is None
    there = part_of(url).stat().st_size
    assert DATA.startswith(part_of(url).read_bytes())
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin")[-1] == f"bytes={there}-"


def test_resume_after_kill_9(web: Web, tmp_path: Path) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', wait=threading.Event())
    script = "import sys; from stresnet.weights.fetch import fetch; fetch(sys.argv[1])"
    child = subprocess.Popen([sys.executable, "-c", script, url])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        parts = list(cache_folder().rglob("*.part"))
        if parts and parts[0].stat().st_size > 1_000_000:
            break
        time.sleep(0.01)
    part = part_of(url)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    event = web.pages["/a.bin"].wait
    assert event
    event.set()
    there = part.stat().st_size
    assert 1_000_000 < there <= 1_500_000
    assert DATA.startswith(part.read_bytes())
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin") == ["", f"bytes={there}-"]
    assert not part.exists()


def test_kill_before_the_rename(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if source.suffix == ".part":
            raise KeyboardInterrupt
        replace(source, target)

    url = web.put("/a.bin", DATA, tag='"1"')
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(url)
    assert part_of(url).read_bytes() == DATA
    assert fetch(url).read_bytes() == DATA
    assert len(web.ranges("/a.bin")) == 1
