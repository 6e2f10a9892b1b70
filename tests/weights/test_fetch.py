"""Fetching: URLs that break off and change, checksums, the cache, two at once, and the hub; over real sockets."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

import stresnet.weights.checksum
import stresnet.weights.download
from helpers.web import COMMIT, Web, web_server
from stresnet.errors import DownloadError
from stresnet.weights.checksum import sha256_of
from stresnet.weights.download import RETRIES, UnreachableError
from stresnet.weights.fetch import cache_folder, cached, fetch, is_remote

DATA = random.Random(1).randbytes(3_000_000)
OTHER = random.Random(2).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _here_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, token, cache or endpoint of the machine's; and no waiting."""
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("STRESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("stresnet.weights.download.WAIT_SEC", 0.0)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture
def hub(web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    """The server as the hub, whose copies lie in a folder of the test's."""
    import huggingface_hub

    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    yield web
    huggingface_hub.close_session()


def refusal(source: str, **options: object) -> str:
    """The one line that fetching ends with."""
    with pytest.raises(DownloadError) as caught:
        fetch(source, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def part_of(url: str) -> Path:
    """Where what has arrived of a URL's file is kept."""
    from stresnet.weights.fetch import _place

    place = _place(url, None)
    return place.with_name(f"{place.name}.part")


# ---------------------------------------------------------------- what is remote


@pytest.mark.parametrize(
    ("source", "remote"),
    [
        ("https://x.org/a.pth", True),
        ("http://x.org/a", True),
        ("s3://bucket/key.mat", True),
        ("HF://owner/name", True),
        ("hf://owner/name/file.safetensors@v1", True),
        ("timm/resnet50.tv_in1k", True),
        ("timm/resnet50.tv_in1k@main", True),
        ("file:///tmp/a.pth", False),
        ("a.pth", False),
        ("runs/model.safetensors", False),
        ("owner/video.MP4", False),
        ("./owner/name", False),
        ("owner/name/more", False),
        ("/owner/name", False),
        ("here/is", False),
        ("here/gone", False),
        ("C:\\weights\\a.pth", False),
        ("Vidéos/à moi", False),
        ("", False),
    ],
)
def test_what_is_remote(source: str, remote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "is").mkdir(parents=True)
    assert is_remote(source) is remote


def test_a_path_comes_back_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(DATA)
    assert fetch(str(file)) == file
    assert fetch(file.as_uri()) == file
    assert fetch("no such/file.pth") == Path("no such/file.pth")
    assert fetch(str(file), sha256=SHA256[:12].upper()) == file
    assert refusal(str(file), sha256="0" * 8) == f"{file}: expected sha256 00000000, found {SHA256[:16]}"
    assert file.read_bytes() == DATA  # it is the user's: not removed
    assert refusal("no.pth", sha256="0" * 8) == "no.pth: expected a file with sha256 00000000, found none"


def test_loading_the_module_loads_no_library() -> None:
    heavy = "{'huggingface_hub', 'fsspec', 'filelock', 'urllib.request', 'pydantic', 'torch'} & set(sys.modules)"
    script = f"import sys; from stresnet.weights.fetch import is_remote; is_remote('https://x/y'); print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder(Path("x")) == Path("x")
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("STRESNET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "stresnet"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/stresnet")


# ---------------------------------------------------------------- a URL


def test_fetch_once_and_find_it_from_then_on(web: Web, tmp_path: Path) -> None:
    url = web.put("/a/weights.pth", DATA, tag='"1"')
    seen: list[tuple[int, int]] = []
    assert cached(url) is None
    path = fetch(url, progress=lambda done, total: seen.append((done, total)))
    assert (path.name, path.read_bytes()) == ("weights.pth", DATA)
    assert path.parent.parent == tmp_path / "cache"
    assert seen == sorted(seen)
    assert len(seen) > 5
    assert (seen[-1], {total for _, total in seen}) == ((len(DATA), len(DATA)), {len(DATA)})
    record = json.loads(path.with_name("weights.pth.fetched.json").read_text())
    assert (record["url"], record["size"], record["sha256"]) == (url, len(DATA), SHA256)
    assert time.strptime(record["time"], "%Y-%m-%dT%H:%M:%SZ")
    assert sorted(f.name for f in path.parent.iterdir() if f.suffix != ".lock") == [
        "weights.pth",
        "weights.pth.fetched.json",
    ]
    del web.pages["/a/weights.pth"]
    assert fetch(url) == fetch(url + "#fragment") == cached(url) == path
    assert fetch(url, cache=path.parent.parent) == path
    assert web.ranges("/a/weights.pth") == [""]
    assert web.put("/b/weights.pth", OTHER) != url
    assert fetch(web.url + "/b/weights.pth").read_bytes() == OTHER
    assert fetch(url).read_bytes() == DATA


def test_names_of_any_kind(web: Web) -> None:
    web.put("/Mod%C3%A8le%20%5B1%5D/ST-ResNet50-split=1.mat", b"1")
    assert fetch(f"{web.url}/Modèle [1]/ST-ResNet50-split=1.mat").name == "ST-ResNet50-split=1.mat"
    assert fetch(f"{web.url}/Mod%C3%A8le%20%5B1%5D/ST-ResNet50-split=1.mat").read_bytes() == b"1"
    web.put("/..%2F..%2Fevil", b"2")
    assert fetch(f"{web.url}/..%2F..%2Fevil").parent.parent == cache_folder()
    web.put("/get", b"3")
    first, second = fetch(f"{web.url}/get?file=a"), fetch(f"{web.url}/get?file=b")
    assert first != second
    web.put("/", b"4")
    assert fetch(web.url + "/").name == "file"
    web.put("/empty.bin", b"")
    assert fetch(web.url + "/empty.bin").read_bytes() == b""


def test_redirects_are_followed(web: Web) -> None:
    target = web.put("/there.bin", DATA)
    web.pages["/here.bin"] = type(web.pages["/there.bin"])(headers={"Location": target}, status=302)
    path = fetch(web.url + "/here.bin")
    assert (path.name, path.read_bytes()) == ("here.bin", DATA)


def test_a_server_that_does_not_say_how_long_the_file_is(web: Web) -> None:
    web.put("/a.bin", DATA)
    web.pages["/a.bin"].headers["Content-Length"] = ""
    seen: list[tuple[int, int]] = []
    assert fetch(web.url + "/a.bin", progress=lambda *now: seen.append(now)).read_bytes() == DATA
    assert seen[-1] == (len(DATA), 0)


# ---------------------------------------------------------------- broken off


def test_a_broken_connection_is_resumed(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='W/"weak"', cuts=[300_000] * 7)  # more often than without any progress
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin") == ["", *(f"bytes={n}00000-" for n in range(3, 24, 3))]


def test_a_connection_that_is_reset(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', cuts=[1_000_000] * (1 + RETRIES), reset=True, ranges=False)
    line = refusal(url)
    assert line.startswith(f"{url}: the connection broke (")
    assert " by peer); " in line
    assert 0 < part_of(url).stat().st_size <= 1_000_000
    web.pages["/a.bin"].ranges = True
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin")[-1].startswith("bytes=")


def test_a_part_that_does_not_say_which(web: Web) -> None:
    url = web.put("/a.bin", DATA, status=206)
    assert refusal(url) == f"{url}: the server sent a part without saying which"


def test_a_server_without_ranges_starts_over(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', ranges=False, cuts=[1_000_000, 2_000_000])
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin") == ["", "bytes=1000000-", "bytes=2000000-"]


@pytest.mark.parametrize(
    ("before", "after", "data"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}, OTHER),
        ({"ETag": '"1"'}, {}, OTHER),
        ({"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, {"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}, OTHER),
        ({"ETag": '"same"'}, {"ETag": '"same"'}, OTHER[:-1]),
        ({}, {}, OTHER),
    ],
    ids=["ETag", "ETag gone", "Last-Modified", "size", "nothing to tell by"],
)
def test_a_file_that_changed_in_between_starts_over(
    web: Web, before: dict[str, str], after: dict[str, str], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web.put("/a.bin", DATA, cuts=[1_000_000])
    web.pages["/a.bin"].headers = before

    def change(_: float) -> None:
        web.put("/a.bin", data)
        web.pages["/a.bin"].headers = after

    monkeypatch.setattr("stresnet.weights.download.time.sleep", change)
    assert fetch(url).read_bytes() == data
    assert web.ranges("/a.bin") == ["", "bytes=1000000-", ""]


def test_it_gives_up_and_the_next_call_goes_on(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', cuts=[1_000_000, *[0] * RETRIES])
    line = refusal(url)
    expected = "the connection ended after 1000000 of 3000000 bytes; 1000000 bytes are kept"
    assert line == f"{url}: {expected}, the same command goes on from them"
    assert len(web.asked) == 1 + RETRIES
    assert cached(url) is None
    seen: list[tuple[int, int]] = []
    assert fetch(url, progress=lambda *now: seen.append(now)).read_bytes() == DATA
    assert seen[0][0] > 1_000_000
    assert web.ranges("/a.bin")[-1] == "bytes=1000000-"


def test_resume_after_kill_9(web: Web, tmp_path: Path) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', wait=threading.Event())
    script = "import sys; from stresnet.weights.fetch import fetch; fetch(sys.argv[1])"
    child = subprocess.Popen([sys.executable, "-c", script, url])
    part = part_of(url)
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 1_000_000) and time.monotonic() < deadline:
        time.sleep(0.01)
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


def test_killed_between_the_last_byte_and_the_renaming(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert len(web.asked) == 1


@pytest.mark.parametrize("length", [3_000_001, 5_000_000])
def test_a_part_longer_than_the_file_starts_over(web: Web, length: int) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', cuts=[1_000_000, *[0] * RETRIES])
    refusal(url)
    with part_of(url).open("ab") as file:
        file.truncate(length)
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin")[-2:] == [f"bytes={length}-", ""]


def test_a_part_of_which_nothing_is_known_starts_over(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"')
    part = part_of(url)
    part.parent.mkdir(parents=True)
    part.write_bytes(OTHER[:1000])
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin") == [""]


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, "no such file on the server (404); check the address"),
        (410, "no such file on the server (410); check the address"),
        (401, "the server refuses access (401)"),
        (403, "the server refuses access (403)"),
        (418, "the server answers with status 418"),
        (503, "the server is busy (503); try again later"),
    ],
)
def test_what_the_server_refuses(web: Web, status: int, expected: str) -> None:
    url = web.put("/a.bin", b"no", status=status)
    assert refusal(url) == f"{url}: {expected}"
    assert len(web.asked) == (1 + RETRIES if status == 503 else 1)
    assert not part_of(url).exists()


def test_a_busy_server_is_asked_again(web: Web) -> None:
    url = web.put("/a.bin", DATA, failures=2)
    assert fetch(url).read_bytes() == DATA
    assert len(web.asked) == 3


def test_a_web_page_is_no_file(web: Web) -> None:
    url = web.put("/blob/main/a.mat", b"<html>")
    web.pages["/blob/main/a.mat"].headers["Content-Type"] = "text/html; charset=utf-8"
    assert refusal(url) == f"{url}: expected a file, found a web page; give the address of the file itself"


def test_no_server_there() -> None:
    with web_server() as server:
        url = server.url + "/a.bin"
    with pytest.raises(UnreachableError) as caught:
        fetch(url)
    line = str(caught.value)
    assert line == f"{url}: cannot reach 127.0.0.1 (Connection refused); check the network, or give another place"


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    line = refusal("http://nowhere.invalid/a.bin")
    assert "cannot reach nowhere.invalid (Name or service not known); check the network" in line


@pytest.mark.parametrize(
    "host",
    ["exa mple..com", "exa mple.com", "a" * 70 + ".org", "bü..de", "", "[::1", "x.org:many", "x.org:99999"],
)
def test_addresses_that_are_none(host: str) -> None:
    url = f"https://{host}/x.pth"
    assert refusal(url) == f"{url}: expected the name of a server after ://, found {host!r}; check the address"


def test_a_redirect_to_an_address_that_is_none(web: Web) -> None:
    url = web.put("/a.bin", DATA)
    web.pages["/a.bin"].status = 302
    web.pages["/a.bin"].headers["Location"] = "http://exam..ple/b.bin"
    assert refusal(url).startswith(f"{url}: cannot reach 127.0.0.1 (")


def test_a_server_that_goes_away_is_waited_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    from stresnet.weights import opening

    url = web.put("/a.bin", DATA, tag='"1"', cuts=[1_000_000])
    open_at, calls = opening._open_http, []

    def sometimes(url: str, start: int) -> object:
        calls.append(start)
        if len(calls) in (2, 3):
            raise opening.Unreached("cannot reach 127.0.0.1")
        return open_at(url, start)

    monkeypatch.setattr(opening, "_open_http", sometimes)
    assert fetch(url).read_bytes() == DATA
    assert calls == [0, 1_000_000, 1_000_000, 1_000_000]


def test_a_full_disk(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    url = web.put("/a.bin", DATA, tag='"1"')
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        line = refusal(url)
    assert line.startswith(f"{part_of(url).parent}: no space left on the disk, 3000000 more bytes are needed; free")
    assert "STRESNET_CACHE" in line
    with monkeypatch.context() as patched:
        patched.setattr("stresnet.weights.download._write", _full_after(1_000_000))
        line = refusal(url)
    assert "no space left on the disk, what has arrived is kept" in line
    there = part_of(url).stat().st_size
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin")[-1] == f"bytes={there}-"


def _full_after(size: int) -> Callable[..., None]:
    """Writing to a disk that has room for so many bytes."""
    write = stresnet.weights.download._write

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, chunk: bytes) -> int:
            if self.file.tell() > size:  # type: ignore[attr-defined]
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(chunk)  # type: ignore[attr-defined, no-any-return]

    return lambda file, chunk, part: write(Full(file), chunk, part)  # type: ignore[arg-type]


# ---------------------------------------------------------------- checksums


def test_a_digest_is_verified(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    url = web.put("/a.bin", DATA)
    path = fetch(url, sha256=SHA256)
    read: list[Path] = []
    digest = stresnet.weights.checksum._digest
    monkeypatch.setattr(stresnet.weights.checksum, "_digest", lambda p: read.append(p) or digest(p))
    assert fetch(url, sha256=SHA256.upper()) == fetch(url, sha256=SHA256[:8]) == path
    assert sha256_of(path) == SHA256
    assert read == []  # once, after the download
    os.utime(path, (0, 0))
    assert fetch(url, sha256=SHA256) == path
    assert read == [path]  # touched since
    assert len(web.asked) == 1


def test_a_wrong_digest_removes_the_file(web: Web) -> None:
    url = web.put("/a.bin", DATA)
    wrong = "f" * 64
    assert refusal(url, sha256=wrong) == f"{url}: expected sha256 {wrong}, found {SHA256}"
    assert cached(url) is None
    path = fetch(url)
    assert refusal(url, sha256="ffffffff") == f"{url}: expected sha256 ffffffff, found {SHA256[:16]}"
    assert not path.exists()
    assert len(web.asked) == 2
    assert fetch(url, sha256=SHA256).read_bytes() == DATA


@pytest.mark.parametrize("name", ["resnet50-{}.pth", "tsn_2x1_20220906-{}.pth.tar"])
def test_a_digest_in_the_name_is_verified(web: Web, name: str) -> None:
    good, bad = "/" + name.format(SHA256[:8]), "/" + name.format("0676ba61")
    web.put(good, DATA)
    url = web.put(bad, DATA)
    assert fetch(web.url + good).read_bytes() == DATA
    assert refusal(url) == f"{url}: expected sha256 0676ba61, found {SHA256[:16]}"
    assert fetch(url, sha256=SHA256).read_bytes() == DATA  # said aloud, it goes before the name


def test_a_digest_in_the_name_of_a_local_file_is_verified(tmp_path: Path) -> None:
    good, bad = tmp_path / f"resnet50-{SHA256[:8]}.pth", tmp_path / "resnet50-0676ba61.pth"
    for file in (good, bad):
        file.write_bytes(DATA)
    assert fetch(str(good)) == good
    assert refusal(str(bad)) == (
        f"{bad}: expected sha256 0676ba61, found {SHA256[:16]}: its name promises another file; get it again, or "
        "rename it if 0676ba61 is no digest"
    )
    assert fetch(str(bad), sha256=SHA256) == bad  # said aloud, it goes before the name
    assert fetch(str(bad.with_name("gone-0676ba61.pth"))).name == "gone-0676ba61.pth"  # whoever opens it says so


@pytest.mark.parametrize("name", ["net-20231231.pth", "net-abc1234.pth", "net-0676ba6x.pth", "0676ba61.pth"])
def test_names_that_carry_no_digest(web: Web, name: str) -> None:
    assert fetch(web.put(f"/{name}", DATA)).read_bytes() == DATA


@pytest.mark.parametrize("wrong", ["abc", "xyzxyzxyz", "0" * 65])
def test_what_is_no_digest(wrong: str) -> None:
    assert refusal("https://x.org/a", sha256=wrong) == f"sha256: expected 8 to 64 hex digits, found {wrong!r}"


def test_a_file_whose_record_is_lost_is_read_again(web: Web) -> None:
    url = web.put("/a.bin", DATA)
    path = fetch(url)
    path.with_name("a.bin.fetched.json").write_text("{")
    assert fetch(url, sha256=SHA256) == path
    assert json.loads(path.with_name("a.bin.fetched.json").read_text())["sha256"] == SHA256


# ---------------------------------------------------------------- several at once


def test_a_cache_that_may_only_be_read(web: Web) -> None:
    url = web.put("/a.bin", DATA)
    path = fetch(url)
    for lock in path.parent.glob("*.lock"):
        lock.unlink()
    before = sorted(path.parent.iterdir())
    assert fetch(url, sha256=SHA256) == path
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("below", ["", "a folder"])
def test_a_cache_that_cannot_be_written(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    (tmp_path / "file").write_text("precious")
    place = tmp_path / "file" / below
    monkeypatch.setenv("STRESNET_CACHE", str(place))
    assert refusal(web.put("/a.bin", DATA)) == (
        f"{place}: nothing can be kept in this cache (Not a directory); set STRESNET_CACHE to a "
        "folder that can be written"
    )
    assert not web.asked


def test_processes_that_fetch_at_once(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', wait=threading.Event())
    script = "import sys; from stresnet.weights.fetch import fetch; print(fetch(sys.argv[1], sha256=sys.argv[2]))"
    command = [sys.executable, "-c", script, url, SHA256]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    time.sleep(1)  # for all three to come to the door
    event = web.pages["/a.bin"].wait
    assert event
    event.set()
    paths = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert {Path(p).read_bytes() for p in paths} == {DATA}
    assert web.ranges("/a.bin") == [""]


# ---------------------------------------------------------------- what fsspec knows


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/a.mat", DATA)
    yield files
    files.store.clear()


def test_other_schemes(bucket: fsspec.AbstractFileSystem) -> None:
    path = fetch("memory://bucket/a.mat", sha256=SHA256)
    assert (path.name, path.read_bytes()) == ("a.mat", DATA)
    bucket.rm("/bucket/a.mat")
    assert fetch("memory://bucket/a.mat") == path
    assert refusal("memory://bucket/b.mat") == "memory://bucket/b.mat: no such file; check the address"


@pytest.mark.parametrize("changed", [False, True])
def test_other_schemes_are_resumed(
    bucket: fsspec.AbstractFileSystem, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stresnet.weights import opening

    read, starts = opening.Body.read, []

    def broken(body: opening.Body, size: int) -> bytes:
        if body.start == 0 and body.stream.tell() > 1_000_000 and not starts:
            starts.append(body.stream.tell())
            if changed:
                bucket.pipe("/bucket/a.mat", OTHER)
            raise opening.Interrupted("the connection broke")
        if starts and len(starts) == 1:
            starts.append(body.start)
        return read(body, size)

    monkeypatch.setattr(opening.Body, "read", broken)
    assert fetch("memory://bucket/a.mat").read_bytes() == (OTHER if changed else DATA)
    assert starts[1] == (0 if changed else starts[0])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rtsp://camera/1", "rtsp://camera/1: cannot be opened (Protocol not known: rtsp)"),
        ("ftp://127.0.0.1:9/a", "ftp://127.0.0.1:9/a: cannot reach 127.0.0.1 (Connection refused); check the network"),
    ],
)
def test_schemes_that_cannot_be_opened(source: str, expected: str) -> None:
    assert refusal(source).startswith(expected)


def test_a_bucket_that_may_not_be_read(bucket: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Forbidden")

    monkeypatch.setattr(type(bucket), "info", forbidden)
    assert refusal("memory://bucket/a.mat") == "memory://bucket/a.mat: access is refused (Forbidden)"


def test_a_scheme_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert refusal("s3://bucket/key") == "s3://bucket/key: Install s3fs to access S3"


# ---------------------------------------------------------------- the hub


def test_weights_of_a_repository(hub: Web, tmp_path: Path) -> None:
    hub.put_repo("timm/resnet50.tv_in1k", {"model.safetensors": DATA, "pytorch_model.bin": OTHER, "README.md": b"#"})
    seen: list[tuple[int, int]] = []
    path = fetch("timm/resnet50.tv_in1k", progress=lambda *now: seen.append(now))
    assert (path.name, path.read_bytes()) == ("model.safetensors", DATA)
    assert path.is_relative_to(tmp_path / "hub")
    assert seen[-1] == (len(DATA), len(DATA))
    assert fetch("hf://timm/resnet50.tv_in1k", sha256=SHA256) == path
    assert [a.path for a in hub.asked if a.method == "GET" and "resolve" in a.path] == [
        "/timm/resnet50.tv_in1k/resolve/main/model.safetensors"
    ]
    assert fetch("timm/resnet50.tv_in1k", cache=tmp_path / "own").is_relative_to(tmp_path / "own" / "hub")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["a.safetensors", "pytorch_model.bin", "other.bin"], "a.safetensors"),
        (["a.safetensors", "b.safetensors", "pytorch_model.bin"], "pytorch_model.bin"),
        (["pytorch_model.bin", "x.pth"], "pytorch_model.bin"),
        (["sub/net.mat", "config.json"], "sub/net.mat"),
    ],
)
def test_which_file_of_a_repository(hub: Web, files: list[str], chosen: str) -> None:
    hub.put_repo("me/net", {f: f.encode() for f in files})
    assert fetch("me/net").read_bytes() == chosen.encode()


def test_a_file_and_a_revision(hub: Web) -> None:
    hub.put_repo("me/net", {"sub/a.pth": b"new", "b.pth": b"b"})
    hub.put_repo("me/net", {"sub/a.pth": b"old"}, revision="v1", commit="f" * 40)
    assert fetch("hf://me/net/sub/a.pth").read_bytes() == b"new"
    assert fetch("hf://me/net/sub/a.pth@v1").read_bytes() == b"old"
    assert fetch("hf://me/net@v1/sub/a.pth").read_bytes() == b"old"
    assert fetch("me/net@v1").read_bytes() == b"old"


def test_what_the_hub_refuses(hub: Web) -> None:
    hub.put_repo("me/two", {"a.pth": b"a", "b.pth": b"b"})
    hub.put_repo("me/none", {"README.md": b"#"})
    one_of = "me/two: expected one file of weights, found a.pth, b.pth; name one: hf://me/two/a.pth"
    assert refusal("me/two") == one_of
    assert refusal("me/none") == "me/none: expected a file of weights in this repository, found none"
    assert refusal("hf://me/two/c.pth") == "me/two/c.pth: no such file in me/two; its weights: a.pth, b.pth"
    assert refusal("hf://me") == "hf://me: expected hf://owner/name[/file][@revision]"
    assert refusal("hf://me/t--o").startswith("me/t--o: no name on the hub (")

    def answer(path: str, status: int, code: str) -> None:
        hub.put(path, b"{}", status=status)
        hub.pages[path].headers = {"X-Error-Code": code}

    answer("/api/models/me/gone", 401, "RepoNotFound")
    line = refusal("me/gone")
    assert line.startswith("me/gone: no such repository on the hub, or a private one (401); check the name, or log in")
    answer("/api/models/me/two/revision/v9", 404, "RevisionNotFound")
    assert refusal("me/two@v9") == "me/two@v9: the repository has no revision v9"
    hub.put_repo("me/gated", {"model.safetensors": DATA})
    answer("/me/gated/resolve/main/model.safetensors", 403, "GatedRepo")
    line = refusal("me/gated")
    assert line.startswith(f"me/gated: the repository is gated; accept its terms at {hub.url}/me/gated, then log in")
    assert "hf auth login" in line
    answer("/api/models/me/secret", 403, "")
    assert refusal("me/secret").startswith("me/secret: the hub refuses access (403); log in with")
    answer("/api/models/me/odd", 418, "")
    assert refusal("me/odd").startswith("me/odd: the hub answers with status 418 for ")


def test_without_network_the_hubs_copy_is_taken(hub: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put_repo("me/net", {"only.safetensors": DATA})
    path = fetch("me/net")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.asked)
    assert fetch("me/net") == fetch("hf://me/net/only.safetensors") == fetch(f"me/net@{COMMIT}") == path
    assert refusal("me/other") == "me/other: HF_HUB_OFFLINE is set, and no copy of it is here"
    assert refusal("hf://me/net/b.pth") == "me/net/b.pth: HF_HUB_OFFLINE is set, and no copy of it is here"
    assert len(hub.asked) == asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.pages["/api/models/me/net"].status = 503
    assert fetch("me/net") == path
    hub.put("/api/models/me/other", b"", status=503)
    assert refusal("me/other") == f"me/other: {hub.url} answers with status 503, and no copy of it is here"
    with web_server() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    assert fetch("me/net") == path
    began = time.perf_counter()
    with pytest.raises(UnreachableError) as caught:
        fetch("me/other")
    assert time.perf_counter() - began < 10  # the hub's client alone would try for 23 s
    assert str(caught.value).startswith(f"me/other: cannot reach {gone.url} (")


def test_a_digest_on_the_hub(hub: Web) -> None:
    hub.put_repo("me/net", {"model.safetensors": DATA, "net-0676ba61.pth": DATA})
    path = fetch("me/net", sha256=SHA256[:16])
    blob = path.resolve()
    assert refusal("me/net", sha256="0" * 64) == f"me/net: expected sha256 {'0' * 64}, found {SHA256}"
    assert not path.exists()
    assert not blob.exists()
    assert refusal("hf://me/net/net-0676ba61.pth").endswith(f"expected sha256 0676ba61, found {SHA256[:16]}")
    assert fetch("me/net").read_bytes() == DATA


def test_a_full_disk_under_the_hubs_cache(hub: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.put_repo("me/net", {"model.safetensors": DATA})
    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    assert refusal("me/net") == "me/net: no space left on the disk; set HF_HOME to a folder with more"
