"""Only the named file is read, whatever it holds, and of its streams the one that players show."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from helpers.video_files import encode, one_line, ramp
from stresnet.errors import VideoError
from stresnet.media import FrameSpec, iter_frames, probe, read_video
from stresnet.media.selected import select_frames

CONCAT = "ffconcat version 1.0\nfile canary{ending}\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet><Representation id="0" '
    'mimeType="video/mp4" bandwidth="1000"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
VOBSUB = "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n"
DISGUISES = {  # text, and whether FFmpeg by itself opens the canary
    "script.mp4": (CONCAT, True),
    "script.avi": ("ffconcat version 1.0\nfile 'file:{path}'\n", False),  # not safe, by FFmpeg's own standards
    "playlist.m3u8": (HLS, True),
    "playlist.ts": (HLS, False),
    "manifest.mpd": (DASH, False),  # this FFmpeg may lack libxml2
    "manifest.mp4": (DASH, False),
    "session.mp4": (SDP, False),
    "canary.idx": (VOBSUB, False),
}


@contextmanager
def watched(*files: Path) -> Iterator[list[str]]:
    """Fill the yielded list, at the end of the block, with the names of those files that were opened in it."""
    if sys.platform != "linux":
        pytest.skip("watches files with inotify")
    libc = ctypes.CDLL(None, use_errno=True)
    opened: list[str] = []
    watch = libc.inotify_init1(os.O_NONBLOCK)
    names = {libc.inotify_add_watch(watch, os.fsencode(file), 0x20): file.name for file in files}  # IN_OPEN
    try:
        yield opened
        with suppress(BlockingIOError):
            events = os.read(watch, 1 << 16)
            opened += [names[int.from_bytes(events[at : at + 4], sys.byteorder)] for at in range(0, len(events), 16)]
    finally:
        os.close(watch)


def refuse(path: Path) -> str:
    """Return the message with which every way of reading refuses a file."""
    messages = set()
    for read in (probe, read_video, iter_frames, lambda path: next(select_frames(path, None))):
        with pytest.raises(VideoError) as error:
            read(path)
        messages.add(one_line(error, path))
    assert len(messages) == 1
    return messages.pop()


@pytest.mark.parametrize("name", DISGUISES)
def test_a_script_or_playlist_reads_no_other_file(tmp_path: Path, name: str) -> None:
    text, opens = DISGUISES[name]
    ending = ".ts" if "playlist" in name else ".sub" if name.endswith("idx") else ".mp4"
    canary = encode(tmp_path / f"canary{ending}", ramp(12), format=None if ending != ".sub" else "mpeg")
    path = tmp_path / name
    path.write_text(text.format(ending=ending, path=canary, target=canary))
    with watched(canary) as opened:
        refuse(path)
    assert opened == []
    if opens:
        with watched(canary) as opened, av.open(str(path)):
            pass
        assert opened, "the test needs a file that would be opened"


@pytest.mark.parametrize("name", ["frame%d.jpg", "frame%02d.png", "frame*.jpg"])
def test_a_name_with_a_pattern_reads_no_other_file(tmp_path: Path, name: str) -> None:
    jpeg = simplejpeg.encode_jpeg(ramp(1)[0], 95)
    numbered = [tmp_path / name.replace("%d", str(n)).replace("%02d", f"{n:02}").replace("*", str(n)) for n in (1, 2)]
    for file in (tmp_path / name, *numbered):
        file.write_bytes(jpeg)
    with watched(*numbered) as opened:
        refuse(tmp_path / name)
    assert opened == []


def test_a_video_whose_name_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    for name in ("take%d.mp4", "a:b.mp4", "100%.mp4", "http:x.mkv"):
        assert len(read_video(encode(tmp_path / "plain.mkv", ramp(4)).rename(tmp_path / name)).frames) == 4


def test_a_script_that_names_itself_uses_no_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "loop.mp4"
    path.write_text("ffconcat version 1.0\nfile loop.mp4\n")
    with pytest.raises(OSError, match="Too many open files"):
        av.open(str(path))
    assert "expected a video, found" in refuse(path)


@pytest.mark.parametrize("name", ["script.mp4", "script.avi", "playlist.m3u8", "manifest.mpd"])
def test_no_disguise_connects_to_an_address(tmp_path: Path, name: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        target = f"http://127.0.0.1:{listener.getsockname()[1]}/canary.ts"
        text = DISGUISES[name][0].format(target=target, path=target, ending=".mp4")
        path = tmp_path / name
        path.write_text(text.replace("file:http", "http").replace("canary.mp4", target))
        assert target in path.read_text()
        refuse(path)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "/dev/zero", "pipe:0"])
def test_addresses_and_devices_are_no_files(url: str) -> None:
    with pytest.raises(VideoError, match=r"no such file|found a folder or a device"):
        read_video(url)


def test_pictures_are_no_videos(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(simplejpeg.encode_jpeg(ramp(1)[0], 95))
    assert "found a picture" in refuse(path)


def two_streams(path: Path, first: dict[str, object], second: dict[str, object]) -> Path:
    """Write a file with two video streams, each of ``pictures`` of a ``height``, of a codec, with a disposition."""
    with av.open(str(path), "w") as container:
        streams = []
        for one in (first, second):
            stream = container.add_stream(str(one.get("codec", "libx264")), rate=25)
            stream.height = stream.width = one["height"]
            stream.pix_fmt = "yuvj420p" if one.get("codec") == "mjpeg" else "yuv420p"
            stream.disposition = one.get("disposition", 0)
            streams.append(stream)
        for stream, one in zip(streams, (first, second), strict=True):
            for picture in ramp(int(str(one["pictures"])), stream.height, stream.width):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return path


DEFAULT = av.stream.Disposition.default


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("a.mkv", {"height": 32, "pictures": 12}, {"height": 64, "pictures": 12, "disposition": DEFAULT}),
        ("a.mp4", {"height": 32, "pictures": 1, "codec": "mjpeg"}, {"height": 64, "pictures": 12}),
        ("a.mp4", {"height": 32, "pictures": 1, "disposition": DEFAULT}, {"height": 64, "pictures": 12}),
        ("a.mkv", {"height": 32, "pictures": 1}, {"height": 64, "pictures": 12}),
    ],
)
@pytest.mark.parametrize("exchanged", [False, True])
def test_the_stream_that_players_show_is_read(
    tmp_path: Path, name: str, first: dict[str, object], second: dict[str, object], exchanged: bool
) -> None:
    path = two_streams(tmp_path / name, *((second, first) if exchanged else (first, second)))
    video = read_video(path)
    assert video.frames.shape[:2] == (12, 64)
    assert all(len(reader.times_sec) == 12 for reader in select_frames(path, None))


def test_a_stream_can_be_chosen(tmp_path: Path) -> None:
    path = two_streams(tmp_path / "a.mkv", {"height": 32, "pictures": 12}, {"height": 64, "pictures": 14})
    for stream, shape in ((None, (12, 32)), (0, (12, 32)), (1, (14, 64))):
        spec = FrameSpec(stream=stream)
        assert read_video(path, spec=spec).frames.shape[:2] == shape
        assert all(len(reader.times_sec) == shape[0] for reader in select_frames(path, None, spec))
    with pytest.raises(VideoError, match="expected video stream 2, found streams 0 to 1; choose one of them"):
        read_video(path, spec=FrameSpec(stream=2))
    with pytest.raises(VideoError, match="number of a video stream, from 0 on, found -1"):
        FrameSpec(stream=-1)


def test_cases_of_several_streams(cases: Path) -> None:
    for name in ("small_first_default_second.mkv", "thumb_first.mp4"):
        path = cases / "first_stream" / name
        assert read_video(path).frames.shape == (50, 72, 96, 3)
        for reader in select_frames(path, None):
            assert np.array_equal([frame.rgb.shape for frame in reader.read([0, 49])], [(72, 96, 3)] * 2)
