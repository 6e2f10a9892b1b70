"""Streams on the loopback interface: HTTP, RTSP, standard input; and what is wrong with others."""

from __future__ import annotations

import base64
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.live_streams import MJPEG_TYPE, Page, Pages, http_pages, mjpeg, mpegts, rtsp_server, wandering
from helpers.video_files import encode
from stresnet.errors import VideoError
from stresnet.media import Frame, iter_frames
from stresnet.media.frame_spec import FrameSpec
from stresnet.media.stream import StreamReader, is_stream

COUNT, FPS = 20, 50
PICTURES = wandering(COUNT)


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with http_pages() as pages:
        yield pages


@pytest.fixture
def url(pages: Pages, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of the pictures as the kind of stream that the test names."""
    if request.param == "rtsp":
        with rtsp_server(mpegts(PICTURES, FPS)) as address:
            yield address
        return
    pages["/camera"] = {
        "mjpeg": Page(MJPEG_TYPE, mjpeg(PICTURES, FPS)),
        "mpegts": Page("video/mp2t", mpegts(PICTURES, FPS)),
    }[request.param]
    yield f"{pages.url}/camera"


def failure(source: str, **options: float) -> str:
    """Return why a stream cannot be read from its start to its end: one line."""
    with pytest.raises(VideoError) as error, StreamReader(source, **options) as reader:  # type: ignore[arg-type]
        list(reader)
    assert "\n" not in str(error.value)
    return str(error.value)


def nearest(frame: Frame) -> int:
    """Return which picture a frame shows."""
    return int(np.argmin([np.abs(frame.rgb.astype(int) - picture).mean() for picture in PICTURES]))


@pytest.mark.parametrize("url", ["mjpeg", "mpegts", "rtsp"], indirect=True)
def test_all_frames_come_in_order(url: str) -> None:
    with StreamReader(url) as reader:
        frames = list(reader)
    assert len(frames) >= COUNT - 1  # the next packet would tell that the last one by RTSP is whole
    assert [nearest(frame) for frame in frames] == list(range(len(frames)))
    times = [frame.time_sec for frame in frames]
    assert times[0] == pytest.approx(0, abs=0.01)
    assert times[-1] == pytest.approx((len(frames) - 1) / FPS, rel=0.9)  # by arrival
    assert all(np.diff(times) > 0)
    assert (reader.size, reader.ends) == ((64, 48), False)


def test_frames_are_scaled_and_their_size_may_change(pages: Pages) -> None:
    pages["/zoom"] = Page(MJPEG_TYPE, mjpeg([*wandering(3), *wandering(4, 64, 96)], 100))
    with StreamReader(f"{pages.url}/zoom", short_side=32) as reader:
        shapes = [(reader.size, frame.rgb.shape) for frame in reader]
    assert shapes == [((64, 48), (32, 43, 3))] * 3 + [((96, 64), (32, 48, 3))] * 4


def test_a_key_frame_may_come_late(pages: Pages) -> None:
    pieces = mpegts(PICTURES, FPS, key_every=8)
    pages["/late"] = Page("video/mp2t", pieces[3:])
    with StreamReader(f"{pages.url}/late") as reader:
        frames = list(reader)
    assert [nearest(frame) for frame in frames] == list(range(8, COUNT))


def test_a_stream_without_key_frames_is_given_up(pages: Pages) -> None:
    pages["/never"] = Page("video/mp2t", mpegts(wandering(60), FPS, key_every=1000)[1:])
    text = failure(f"{pages.url}/never", no_picture_sec=0.2)
    assert "no picture can be decoded for 0.2 s" in text


def test_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", PICTURES)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    with StreamReader("-") as reader:
        assert len(list(reader)) == COUNT
        assert reader.ends
    assert "-: not a video that can be read as it comes" in failure("-")  # it is empty now


def test_a_password_is_sent_but_not_shown(pages: Pages) -> None:
    header = "Basic " + base64.b64encode(b"me:se cret").decode()
    pages["/private"] = Page(MJPEG_TYPE, mjpeg(PICTURES, 200), authorization=header)
    with StreamReader(pages.url.replace("//", "//me:se%20cret@") + "/private") as reader:
        assert len(list(reader)) == COUNT
        assert reader.name == f"{pages.url}/private"
    for user in ("", "me:wrong@"):
        text = failure(pages.url.replace("//", f"//{user}") + "/private")
        assert text.startswith(f"{pages.url}/private: it asks for another user name and password")


def test_a_list_of_other_addresses_is_no_stream(pages: Pages) -> None:
    pages["/secret.ts"] = Page("video/mp2t", mpegts(PICTURES, 1000))
    for path, text in (
        ("/list.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{pages.url}/secret.ts\n#EXT-X-ENDLIST\n"),
        ("/concat", f"ffconcat version 1.0\nfile {pages.url}/secret.ts\n"),
    ):
        pages[path] = Page("application/octet-stream", [(0, text.encode())])
        assert "not a video that can be read as it comes" in failure(pages.url + path)
    pages["/moved"] = Page("text/plain", [], redirect=f"{pages.url.replace('127.0.0.1', 'localhost')}/secret.ts")
    assert "give that URL itself" in failure(f"{pages.url}/moved")
    assert "/secret.ts" not in pages.asked


def test_silence(pages: Pages) -> None:
    pages["/silent"] = Page("video/mp2t", [], hangs=True)
    pages["/stalls"] = Page(MJPEG_TYPE, mjpeg(PICTURES, 100), hangs=True)
    for path in ("/silent", "/stalls"):
        assert "nothing came for 0.5 s" in failure(pages.url + path, silence_sec=0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"rtsp://127.0.0.1:{deaf.getsockname()[1]}/camera"
        assert failure(address, silence_sec=0.5) == f"{address}: nothing came for 0.5 s; check that it is on"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{url}/none", "the server has no such stream"),
        ("http://127.0.0.1:9/camera", "nothing listens there"),
        ("rtsp://127.0.0.1:9/camera", "nothing listens there"),
        ("http://[half/camera", "the URL is invalid (Invalid IPv6 URL)"),
        ("99", "no such camera; found: "),
        ("/dev/null", "not a camera that can be read"),
    ],
)
def test_wrong_sources_are_named_in_one_line(source: str, expected: str, pages: Pages) -> None:
    assert expected in failure(source.format(url=pages.url))


def test_which_sources_go_on_in_real_time() -> None:
    streams = ["0", "/dev/video2", "rtsp://host/a", "RTSPS://host/a", "http://host/a.ts", "https://host/"]
    assert all(map(is_stream, streams))
    assert not any(map(is_stream, ["-", "a.mp4", "dir/http.mp4", "2.mp4", "s3://bucket/a.mp4"]))


def test_frames_are_resampled_as_those_of_files_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", PICTURES)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    spec = FrameSpec(fps=10)
    with StreamReader("-", short_side=32, spec=spec) as found, iter_frames(path, short_side=32, spec=spec) as expected:
        assert found.fps == 10
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.time_sec == theirs.time_sec
            np.testing.assert_array_equal(ours.rgb, theirs.rgb)
