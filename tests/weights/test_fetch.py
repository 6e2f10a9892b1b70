"""Fetching over real sockets: names, digests, errors, the cache, concurrent processes and other schemes."""

from __future__ import annotations

import asyncio
import errno
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from helpers.fetching import DATA, OTHER, SHA256, fetch_error
from helpers.web import Page, Web, web_server
from stresnet.errors import UnreachableError
from stresnet.weights.digest import sha256_of
from stresnet.weights.fetch import cache_folder, cached, fetch
from stresnet.weights.names import is_remote

pytestmark = pytest.mark.usefixtures("isolated")


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
def test_is_remote(source: str, remote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "is").mkdir(parents=True)
    assert is_remote(source) is remote


def test_paths_are_returned_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(DATA)
    assert fetch(str(file)) == file
    assert fetch(file.as_uri()) == file
    assert fetch("no such/file.pth") == Path("no such/file.pth")
    assert fetch(str(file), sha256=SHA256[:12].upper()) == file
    assert fetch_error(str(file), sha256="0" * 8) == f"{file}: expected sha256 00000000, found {SHA256[:16]}"
    assert file.read_bytes() == DATA  # the user's file is not removed
    assert fetch_error("no.pth", sha256="0" * 8) == "no.pth: expected a file with sha256 00000000, found none"


def test_importing_the_module_is_cheap() -> None:
    heavy = "{'huggingface_hub', 'fsspec', 'filelock', 'urllib.request', 'pydantic', 'torch'} & set(sys.modules)"
    script = f"import sys; from stresnet.weights.fetch import is_remote; is_remote('https://x/y'); print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("STRESNET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "stresnet"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/stresnet")


# ---------------------------------------------------------------- a URL


def test_files_are_downloaded_once(web: Web, tmp_path: Path) -> None:
    url = web.put("/a/weights.pth", DATA, tag='"1"')
    seen: list[tuple[str, int, int]] = []
    assert cached(url) is None
    path = fetch(url, progress=lambda activity, done, total, detail="": seen.append((activity, done, total)))
    assert (path.name, path.read_bytes()) == ("weights.pth", DATA)
    assert path.parent.parent == tmp_path / "cache"
    assert seen == sorted(seen)
    assert seen[-1] == ("downloading weights.pth (MB)", 3, 3)
    assert [f.name for f in path.parent.iterdir() if f.suffix != ".lock"] == ["weights.pth"]
    del web.pages["/a/weights.pth"]
    assert fetch(url) == fetch(url + "#fragment") == cached(url) == path
    assert web.ranges("/a/weights.pth") == [""]
    assert web.put("/b/weights.pth", OTHER) != url
    assert fetch(web.url + "/b/weights.pth").read_bytes() == OTHER
    assert fetch(url).read_bytes() == DATA


def test_unusual_file_names(web: Web) -> None:
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
    web.pages["/here.bin"] = Page(headers={"Location": target}, status=302)
    path = fetch(web.url + "/here.bin")
    assert (path.name, path.read_bytes()) == ("here.bin", DATA)


def test_unknown_size(web: Web) -> None:
    web.put("/a.bin", DATA)
    web.pages["/a.bin"].headers["Content-Length"] = ""
    seen: list[tuple[str, int, int]] = []
    assert fetch(web.url + "/a.bin", progress=lambda *now: seen.append(now)).read_bytes() == DATA
    assert seen[-1][1:] == (3, 0)


def test_a_private_server_may_redirect_within_its_network(web: Web) -> None:
    with web_server() as other:
        target = other.put("/there.bin", DATA)
        web.pages["/here.bin"] = Page(headers={"Location": target}, status=302)
        assert fetch(web.url + "/here.bin").read_bytes() == DATA


@pytest.mark.parametrize("host", ["localhost", "[::1]", "169.254.1.1", "10.0.0.1"])
@pytest.mark.parametrize("status", [302, 308])
def test_a_public_server_may_not_redirect_into_a_private_network(
    web: Web, host: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = asyncio.BaseEventLoop.getaddrinfo

    async def public(self: Any, name: str, *args: Any, **options: Any) -> Any:
        # The test server stands for a public one: to connect to a literal address, nothing is resolved.
        return await resolve(self, "8.8.8.8" if name == "127.0.0.1" else name, *args, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", public)
    port = web.url.rpartition(":")[2]
    web.put("/secret.bin", DATA)
    web.pages["/here.bin"] = Page(headers={"Location": f"http://{host}:{port}/secret.bin"}, status=status)
    message = fetch_error(web.url + "/here.bin")
    assert f"redirects to {host.strip('[]')}, an address of a private network" in message
    assert not [asked for asked in web.asked if asked.path == "/secret.bin"]
    assert not list(cache_folder().rglob("*.part"))


@pytest.mark.parametrize("source", ["local:///etc/hostname", "zip://a::/x.zip", "dir://a::file:///etc"])
def test_urls_do_not_read_local_files(source: str) -> None:
    assert "expected the URL of a remote file: give the path of a local one" in fetch_error(source)


# ---------------------------------------------------------------- limits


def test_a_file_of_unstated_size_has_a_limit(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stresnet.weights.fetch.MOST_UNSTATED_BYTES", 2 * 10**6)
    web.put("/a.bin", DATA)
    web.pages["/a.bin"].headers["Content-Length"] = ""
    assert "sent more than 0.002 GB without saying how much there is" in fetch_error(web.url + "/a.bin")
    assert not list(cache_folder().rglob("*.part"))


def test_a_download_has_a_time_limit_and_can_be_resumed(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    url = web.put("/a.bin", DATA, tag="1")
    with monkeypatch.context() as patch:
        patch.setattr("stresnet.weights.fetch.MOST_SEC", 0.0)
        assert "arrived in 0 hours: run it again to resume" in fetch_error(url)
    assert fetch(url).read_bytes() == DATA
    assert web.ranges("/a.bin")[-1].startswith("bytes=")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, "no such file on the server: check the address"),
        (410, "no such file on the server: check the address"),
        (401, "access is denied (401)"),
        (403, "access is denied (403)"),
        (418, "cannot be opened (418, message="),
        (503, "the server is busy (503): run it again to resume"),
    ],
)
def test_http_errors(web: Web, status: int, expected: str) -> None:
    url = web.put("/a.bin", b"no", status=status)
    assert fetch_error(url).startswith(f"{url}: {expected}")
    assert not list(cache_folder().rglob("*.part"))


def test_busy_server_is_retried(web: Web) -> None:
    url = web.put("/a.bin", DATA, failures=4)
    assert fetch(url).read_bytes() == DATA
    assert web.pages["/a.bin"].failures == 0


def test_web_page_raises(web: Web) -> None:
    url = web.put("/blob/main/a.mat", b"<html>")
    web.pages["/blob/main/a.mat"].headers["Content-Type"] = "text/html; charset=utf-8"
    assert fetch_error(url) == f"{url}: expected a file, found a web page: give the URL of the file itself"


def test_unreachable_server() -> None:
    with web_server() as server:
        url = server.url + "/a.bin"
    with pytest.raises(UnreachableError) as caught:
        fetch(url)
    assert str(caught.value).startswith(f"{url}: cannot be reached (")
    assert "127.0.0.1" in str(caught.value)


def test_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    line = fetch_error("http://nowhere.invalid/a.bin")
    assert "cannot be reached (Cannot connect to host nowhere.invalid" in line


@pytest.mark.parametrize(
    "host",
    ["exa mple..com", "exa mple.com", "a" * 70 + ".org", "bü..de", "", "[::1", "x.org:many", "x.org:99999"],
)
def test_invalid_urls(host: str) -> None:
    url = f"https://{host}/x.pth"
    assert fetch_error(url).startswith(f"{url}: cannot be ")


def test_redirect_to_an_invalid_url(web: Web) -> None:
    url = web.put("/a.bin", DATA)
    web.pages["/a.bin"].status = 302
    web.pages["/a.bin"].headers["Location"] = "http://exam..ple/b.bin"
    assert fetch_error(url).startswith(f"{url}: cannot be ")


def test_full_disk(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    url = web.put("/a.bin", DATA, tag='"1"')
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        line = fetch_error(url)
    assert ": the download cannot be stored (no space left on the disk): set STRESNET_CACHE" in line
    assert not web.ranges("/a.bin")


# ---------------------------------------------------------------- checksums


def test_digest_is_verified(web: Web) -> None:
    url = web.put("/a.bin", DATA)
    path = fetch(url, sha256=SHA256)
    assert fetch(url, sha256=SHA256.upper()) == fetch(url, sha256=SHA256[:8]) == path
    assert sha256_of(path) == SHA256
    assert len(web.ranges("/a.bin")) == 1


def test_file_with_a_wrong_digest_is_removed(web: Web) -> None:
    url = web.put("/a.bin", DATA)
    wrong = "f" * 64
    assert fetch_error(url, sha256=wrong) == f"{url}: expected sha256 {wrong}, found {SHA256}"
    assert cached(url) is None
    path = fetch(url)
    assert fetch_error(url, sha256="ffffffff") == f"{url}: expected sha256 ffffffff, found {SHA256[:16]}"
    assert not path.exists()
    assert len(web.ranges("/a.bin")) == 2
    assert fetch(url, sha256=SHA256).read_bytes() == DATA


@pytest.mark.parametrize("name", ["resnet50-{}.pth", "tsn_2x1_20220906-{}.pth.tar"])
def test_digest_in_a_url_is_verified(web: Web, name: str) -> None:
    good, bad = "/" + name.format(SHA256[:8]), "/" + name.format("0676ba61")
    web.put(good, DATA)
    url = web.put(bad, DATA)
    assert fetch(web.url + good).read_bytes() == DATA
    hint = "(from its name): download it again, or give its digest"
    assert fetch_error(url) == f"{url}: expected sha256 0676ba61, found {SHA256[:16]} {hint}"
    assert fetch(url, sha256=SHA256).read_bytes() == DATA  # an explicit digest takes precedence


def test_digest_in_the_name_of_a_local_file_is_verified(tmp_path: Path) -> None:
    good, bad = tmp_path / f"resnet50-{SHA256[:8]}.pth", tmp_path / "resnet50-0676ba61.pth"
    for file in (good, bad):
        file.write_bytes(DATA)
    assert fetch(str(good)) == good
    assert fetch_error(str(bad)) == (
        f"{bad}: expected sha256 0676ba61, found {SHA256[:16]} (from its name): download it again, or give its digest"
    )
    assert fetch(str(bad), sha256=SHA256) == bad  # an explicit digest takes precedence
    assert fetch(str(bad.with_name("gone-0676ba61.pth"))).name == "gone-0676ba61.pth"  # opening it will raise


@pytest.mark.parametrize("name", ["net-20231231.pth", "net-abc1234.pth", "net-0676ba6x.pth", "0676ba61.pth"])
def test_names_without_a_digest(web: Web, name: str) -> None:
    assert fetch(web.put(f"/{name}", DATA)).read_bytes() == DATA


@pytest.mark.parametrize("wrong", ["abc", "xyzxyzxyz", "0" * 65])
def test_invalid_digests(wrong: str) -> None:
    assert fetch_error("https://x.org/a", sha256=wrong) == f"sha256: expected 8 to 64 hex digits, found {wrong!r}"


# ---------------------------------------------------------------- the cache and concurrent processes


def test_read_only_cache(web: Web) -> None:
    url = web.put("/a.bin", DATA)
    path = fetch(url)
    for lock in path.parent.glob("*.lock"):
        lock.unlink()
    before = sorted(path.parent.iterdir())
    assert fetch(url, sha256=SHA256) == path
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("below", ["", "a folder"])
def test_unwritable_cache(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    (tmp_path / "file").write_text("precious")
    place = tmp_path / "file" / below
    monkeypatch.setenv("STRESNET_CACHE", str(place))
    line = fetch_error(web.put("/a.bin", DATA))
    assert line.startswith(str(place))
    assert line.endswith(
        "the download cannot be stored (Not a directory): set STRESNET_CACHE to a writable folder with enough space"
    )
    assert not web.asked


def test_concurrent_processes_download_once(web: Web) -> None:
    url = web.put("/a.bin", DATA, tag='"1"', wait=threading.Event())
    script = "import sys; from stresnet.weights.fetch import fetch; print(fetch(sys.argv[1], sha256=sys.argv[2]))"
    command = [sys.executable, "-c", script, url, SHA256]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    time.sleep(1)  # until all three wait for the download or its lock
    event = web.pages["/a.bin"].wait
    assert event
    event.set()
    paths = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert {Path(p).read_bytes() for p in paths} == {DATA}
    assert web.ranges("/a.bin") == [""]


# ---------------------------------------------------------------- other schemes


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
    assert (
        fetch_error("memory://bucket/b.mat") == "memory://bucket/b.mat: no such file on the server: check the address"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rtsp://camera/1", "rtsp://camera/1: cannot be opened (Protocol not known: rtsp)"),
        (
            "ftp://127.0.0.1:9/a",
            "ftp://127.0.0.1:9/a: cannot be reached ([Errno 111] Connection refused): check the network",
        ),
    ],
)
def test_schemes_that_cannot_be_opened(source: str, expected: str) -> None:
    assert fetch_error(source).startswith(expected)


def test_unreadable_bucket(bucket: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Forbidden")

    monkeypatch.setattr(type(bucket), "info", forbidden)
    assert fetch_error("memory://bucket/a.mat") == "memory://bucket/a.mat: access is denied ([Errno 13] Forbidden)"


def test_scheme_with_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert fetch_error("s3://bucket/key") == "s3://bucket/key: Install s3fs to access S3"
