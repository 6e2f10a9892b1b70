"""Uploads that would make FFmpeg read other files or addresses read nothing, and none harms the service."""

from __future__ import annotations

import base64
import ctypes
import os
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import av
import pytest

from helpers.serving import Service, decoders, service
from helpers.video_files import encode, ramp
from stresnet.inference.recognizer import Recognizer

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet><Representation id="0" '
    'mimeType="video/mp4" bandwidth="1000"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
VOBSUB = "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n"
SMIL = '<smil><body><video src="{target}"/></body></smil>'

DISGUISES = {
    "script": "ffconcat version 1.0\nfile '{target}'\n",
    "script with options": "ffconcat version 1.0\nfile '{target}'\noption safe 0\n",
    "playlist": HLS,
    "playlist with a key": HLS.replace("#EXTINF", '#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF'),
    "manifest": DASH,
    "session": SDP,
    "subtitles": VOBSUB,
    "smil": SMIL,
    "address": "{target}\n",
    "pattern of names": "{target}%d.jpg\n",
}


@pytest.fixture(scope="module")
def running(recognizer: Recognizer) -> Iterator[Service]:
    with service({"m": recognizer}) as started:
        yield started


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return encode(tmp_path / "canary.mp4", ramp(12))


class Watch:
    """Tells whether a file was opened."""

    def __init__(self, file: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._queue = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self._queue, os.fsencode(file), 0x20)  # IN_OPEN

    def opened(self) -> bool:
        with suppress(BlockingIOError):
            return bool(os.read(self._queue, 1 << 16))
        return False

    def close(self) -> None:
        os.close(self._queue)


@pytest.mark.parametrize("kind", DISGUISES)
@pytest.mark.parametrize("name", ["x.mp4", "frame%d.jpg"])
def test_a_disguise_reads_no_file_and_no_address(running: Service, canary: Path, kind: str, name: str) -> None:
    with closing(Watch(canary)) as watch, closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        for target in (str(canary), f"file:{canary}", f"http://127.0.0.1:{port}/canary.ts"):
            reply = running.predict(DISGUISES[kind].format(target=target, port=port).encode(), name=name)
            assert (reply.status, reply.json()["type"]) == (422, "urn:stresnet:unusable-video")
            assert str(canary) not in reply.body.decode()
        assert not watch.opened()
        with pytest.raises(BlockingIOError):
            listener.accept()
        canary.read_bytes()
        assert watch.opened(), "the watch must notice a reader"


def test_a_video_in_a_data_url_is_no_video(running: Service, canary: Path) -> None:
    text = b"data:video/mp4;base64," + base64.b64encode(canary.read_bytes())
    assert running.predict(text).status == 422
    assert running.predict(HLS.format(target=text.decode()).encode()).status == 422


def test_a_movie_that_refers_to_another_file_does_not_open_it(running: Service, canary: Path) -> None:
    movie = canary.with_name("reference.mov")
    movie.write_bytes(referring(encode(canary.with_name("a.mov"), ramp(12)).read_bytes(), canary.name))
    with closing(Watch(canary)) as watch:
        running.predict(movie)
        running.predict(movie, name=canary.name)
        assert not watch.opened()
        with av.open(str(movie), container_options={"enable_drefs": "1"}):
            pass
        assert watch.opened(), "the file must refer to the other one"


def referring(movie: bytes, name: str) -> bytes:
    """Return a movie whose data reference is an alias of a file beside it."""
    alias = bytearray(150)
    alias[130:134] = struct.pack(">HH", 1, 1)
    path = f"/{name}".encode()
    path += b"\0" * (len(path) % 2)
    alias += struct.pack(">HH", 2, len(path)) + path + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    data = bytearray(movie)
    at = data.index(b"dref") - 4
    (old,) = struct.unpack_from(">I", data, at)
    data[at : at + old] = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    grown = 16 + len(entry) - old
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        start = data.index(box) - 4
        struct.pack_into(">I", data, start, struct.unpack_from(">I", data, start)[0] + grown)
    return bytes(data)


def test_damaged_videos_get_an_answer_and_the_service_goes_on(running: Service, canary: Path, video: Path) -> None:
    chance = random.Random(0)
    whole = canary.read_bytes()
    for _ in range(12):
        data = bytearray(whole)
        for _ in range(8):
            data[chance.randrange(len(data))] = chance.randrange(256)
        assert running.predict(bytes(data[: chance.randrange(300, len(data))])).status in (200, 422)
    assert running.predict(video).status == 200
    assert decoders() == []


def test_names_and_labels_stay_text(running: Service, video: Path) -> None:
    reply = running.predict(video, "?top=3", name="<script>alert(1)</script>.mp4")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    page = running.get("/docs").body + running.get("/").body
    assert b"alert(1)" not in page
