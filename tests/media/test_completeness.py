"""Files of every container that are cut off, or of which a part was never written, are marked; whole ones never."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.video_files import encode
from helpers.video_kinds import textured
from stresnet.errors import VideoError
from stresnet.media import Limits, read_video
from stresnet.media.completeness import ends_within_picture, is_whole
from stresnet.media.opening import open_video
from stresnet.media.selected import select_frames

FRAMES = 40
TS_PACKET = 188


@dataclass(frozen=True)
class Container:
    """A container, and how to write it.

    Attributes:
        file: its ending chooses the container.
        codec: name of the encoder.
        mux: options of the container.
        tells_cuts: whether a file says where it ends.
    """

    file: str
    codec: str
    pix_fmt: str = "yuv420p"
    mux: dict[str, str] = field(default_factory=dict)
    tells_cuts: bool = True


CONTAINERS = {
    "mp4": Container("a.mp4", "libx264"),
    "mp4 index first": Container("a.mp4", "libx264", mux={"movflags": "faststart"}),
    "mp4 fragments": Container("a.mp4", "libx264", mux={"movflags": "frag_every_frame+empty_moov"}),
    "mov": Container("a.mov", "mjpeg", "yuvj420p", {"movflags": "faststart"}),
    "3gp": Container("a.3gp", "h263", mux={"movflags": "faststart"}),
    "matroska": Container("a.mkv", "libx264"),
    "matroska one cluster": Container("a.mkv", "ffv1", mux={"cluster_size_limit": "100000000"}),
    "matroska live": Container("a.mkv", "mpeg4", mux={"live": "1"}),
    "matroska cues first": Container("a.mkv", "libx264", mux={"cues_to_front": "1"}),
    "webm": Container("a.webm", "libvpx"),
    "avi": Container("a.avi", "mpeg4"),
    "avi h264": Container("a.avi", "libx264"),
    "avi mjpeg": Container("a.avi", "mjpeg", "yuvj420p"),
    "avi msmpeg4": Container("a.avi", "msmpeg4"),
    "avi raw": Container("a.avi", "rawvideo"),
    "asf": Container("a.asf", "wmv1"),
    "wmv": Container("a.wmv", "wmv2"),
    "flv": Container("a.flv", "flv"),
    "flv h264": Container("a.flv", "libx264"),
    "gif": Container("a.gif", "gif", "rgb8"),
    "ogv": Container("a.ogv", "libvpx"),
    "ts": Container("a.ts", "libx264"),
    "ts hevc": Container("a.ts", "libx265"),
    "m2ts": Container("a.m2ts", "mpeg2video", mux={"mpegts_m2ts_mode": "1"}),
    "mpg": Container("a.mpg", "mpeg1video"),
    "vob": Container("a.vob", "mpeg2video"),
    "mxf": Container("a.mxf", "mpeg2video"),
    "nut": Container("a.nut", "mpeg4"),
    "ivf": Container("a.ivf", "libvpx"),
    "apng": Container("a.apng", "apng", "rgb24"),
    "y4m": Container("a.y4m", "rawvideo"),
    "mjpeg stream": Container("a.mjpeg", "mjpeg", "yuvj420p"),
    "h264 stream": Container("a.h264", "libx264", tells_cuts=False),
    "hevc stream": Container("a.hevc", "libx265", tells_cuts=False),
}


def cut(percent: int) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        length = len(data) * percent // 100
        return data[: length - (length % TS_PACKET == 0)]  # see the tests of transport streams below

    return damage


def zero_second_half(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


DAMAGES = {"cut at 10 %": cut(10), "cut at 50 %": cut(50), "cut at 99 %": cut(99), "half zeroed": zero_second_half}


def write(folder: Path, name: str) -> Path:
    one = CONTAINERS[name]
    if one.codec not in av.codecs_available:
        pytest.skip(f"FFmpeg was built without {one.codec}")
    options = {"x265-params": "log-level=none"} if one.codec == "libx265" else {"g": "12"}
    return encode(folder / one.file, textured(FRAMES), codec=one.codec, pix_fmt=one.pix_fmt, mux=one.mux, **options)


def found(path: Path) -> set[tuple[int, bool]]:
    """Return the number of frames and the mark that each way of reading gives."""
    video = read_video(path, short_side=32)
    *_, counted = select_frames(path, 32)
    return {(len(video.frames), video.truncated), (len(list(counted.read(range(FRAMES)))), counted.truncated)}


@pytest.mark.parametrize("name", CONTAINERS)
def test_whole_files_are_whole_and_damaged_ones_marked(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    assert found(path) == {(FRAMES, False)}
    whole = path.read_bytes()
    for what, damage in DAMAGES.items():
        if "cut" in what and not CONTAINERS[name].tells_cuts:
            continue
        path.write_bytes(damage(whole))
        try:
            marks = found(path)
        except VideoError:
            continue  # that something is missing is said louder still
        assert len(marks) == 1
        frames, truncated = marks.pop()
        assert truncated, what
        assert 1 <= frames <= FRAMES
        assert frames < 0.75 * FRAMES or "99" in what


@pytest.mark.parametrize("name", ["matroska", "webm", "avi", "wmv", "flv", "gif", "ogv", "ts", "mpg", "mxf", "ivf"])
def test_a_hole_in_the_middle_is_marked(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    data = bytearray(path.read_bytes())
    at = slice(len(data) * 2 // 5, len(data) * 3 // 5)
    data[at] = bytes(at.stop - at.start)
    path.write_bytes(data)
    assert {truncated for _, truncated in found(path)} == {True}


@pytest.mark.parametrize("name", CONTAINERS)
def test_any_file_can_be_checked(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    container, _ = open_video(path, Limits())
    format = container.format.name
    container.close()
    whole, rng = path.read_bytes(), random.Random(0)
    assert is_whole(path, format)
    for _ in range(60):
        data = bytearray(whole[: rng.randrange(1, len(whole))])
        for _ in range(rng.randrange(8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        is_whole(path, format)  # returns, whatever it reads


@pytest.mark.parametrize("name", ["matroska live", "gif", "avi"])
def test_a_file_of_too_many_elements_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-9])
    format = name.split()[0]
    assert not is_whole(path, format)
    monkeypatch.setattr("stresnet.media.matroska.MAX_READS", 10)
    assert is_whole(path, format)  # nothing was found missing


def test_data_after_the_end_are_no_damage(tmp_path: Path) -> None:
    for name, after in (
        ("mp4 index first", b"SEFT" * 9),
        ("avi", b"junk" * 99),
        ("matroska", bytes(50)),
        ("gif", b"\0\r\n"),
    ):
        path = write(tmp_path, name)
        path.write_bytes(path.read_bytes() + after)
        assert found(path) == {(FRAMES, False)}, name


def test_videos_with_sound_are_whole(tmp_path: Path) -> None:
    for file, codec, sound in (
        ("a.mp4", "libx264", "aac"),
        ("a.mkv", "libx264", "aac"),
        ("a.webm", "libvpx", "libopus"),
        ("a.avi", "mpeg4", "mp2"),
        ("a.ts", "mpeg2video", "mp2"),
        ("a.mpg", "mpeg1video", "mp2"),
        ("a.flv", "libx264", "aac"),
        ("a.ogv", "libvpx", "flac"),
        ("a.wmv", "wmv2", "mp2"),
    ):
        path = tmp_path / file
        with av.open(str(path), "w") as container:
            seen = container.add_stream(codec, rate=25)
            seen.height, seen.width, seen.pix_fmt = 96, 128, "yuv420p"
            heard = container.add_stream(sound, rate=48000, layout="stereo")
            for index, picture in enumerate(textured(FRAMES)):
                container.mux(seen.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1920), np.int16), format="s16", layout="stereo")
                samples.sample_rate, samples.pts = 48000, 1920 * index
                container.mux(heard.encode(samples))
            container.mux(seen.encode(None))
            container.mux(heard.encode(None))
        assert found(path) == {(FRAMES, False)}, file
        path.write_bytes(zero_second_half(path.read_bytes()))
        try:
            assert {truncated for _, truncated in found(path)} == {True}, file
        except VideoError:
            assert file == "a.mp4"  # its index is at the end


def test_cases_that_were_halved_in_silence(cases: Path) -> None:
    frames = {"cut_half_w.gif": 24, "zero_half_w.webm": 22, "zero_half_w_mjpeg.avi": 24}
    assert {n: found(cases / "silent_truncation" / n) for n in frames} == {n: {(c, True)} for n, c in frames.items()}


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_transport_stream_cut_between_packets(tmp_path: Path, codec: str) -> None:
    big = [picture.repeat(3, axis=0).repeat(3, axis=1) for picture in textured(FRAMES)]
    whole = encode(tmp_path / "whole.ts", big, codec=codec).read_bytes()
    path = tmp_path / "cut.ts"
    marked = within_picture = 0
    for share in range(20, 100, 5):
        path.write_bytes(whole[: len(whole) // TS_PACKET * share // 100 * TS_PACKET])
        marked += read_video(path, short_side=32).truncated
        within_picture += ends_within_picture(path, 256)
    assert within_picture >= 6, "the test needs large pictures"
    assert within_picture - 2 <= marked <= within_picture  # decoders conceal some


def test_a_transport_stream_that_ends_with_a_full_packet_is_whole(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.ts", textured(FRAMES))
    data = bytearray(path.read_bytes())
    last = next(
        at for at in range(len(data) - TS_PACKET, 0, -TS_PACKET) if data[at + 1] & 0x1F == 1 and data[at + 3] & 0x20
    )
    payload = data[last + 5 + data[last + 4] : last + TS_PACKET]
    data[last + 3] &= ~0x20  # no padding, but zeros after the picture
    data[last + 4 : last + TS_PACKET] = payload + bytes(TS_PACKET - 4 - len(payload))
    path.write_bytes(data)
    assert ends_within_picture(path, 256)
    assert found(path) == {(FRAMES, False)}


def test_a_transport_stream_cut_between_pictures_cannot_be_told(cases: Path) -> None:
    """It consists of packets, says nothing of its end, and here ends with a picture and the padding that closes it."""
    path = cases / "silent_truncation" / "cut_half_w.ts"
    data = path.read_bytes()
    assert len(data) % TS_PACKET == 0
    assert not ends_within_picture(path, 256)
    assert found(path) == {(22, False)}


def test_whole_real_videos_are_whole(shared: Path) -> None:
    videos = [*(shared / "clips").rglob("*.avi"), *(shared / "clips" / "odd").glob("video*.mov")]
    assert len(videos) > 700
    assert [v for v in videos if not is_whole(v, "avi" if v.suffix == ".avi" else "mov")] == []
