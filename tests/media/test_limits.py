"""A small file cannot ask for much memory or time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest

from helpers.video_files import counted_frames, encode, one_line, ramp
from stresnet.errors import VideoError
from stresnet.media import Limits, iter_frames, read_video
from stresnet.media.selected import select_frames

KINDS = [
    ("a.mov", "png", "rgb24"),
    ("a.gif", "gif", "rgb8"),
    ("a.mkv", "libx264", "yuv420p"),
    ("a.ts", "libx264", "yuv420p"),
    ("a.ts", "mpeg2video", "yuv420p"),
    ("a.avi", "mjpeg", "yuvj420p"),
    ("a.webm", "libvpx", "yuv420p"),
]


def refused(path: Path, limits: Limits) -> str:
    with pytest.raises(VideoError) as error:
        list(iter_frames(path, limits=limits))
    return one_line(error, path)


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), KINDS)
def test_frames_of_too_many_pixels_are_refused(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = encode(tmp_path / name, ramp(4, 64, 96), codec=codec, pix_fmt=pix_fmt)
    message = refused(path, Limits(frame_pixels=64 * 96 - 1))
    assert "6143 px" in message
    assert "scale" in message
    assert len(read_video(path, limits=Limits(frame_pixels=96 * 128)).frames) == 4  # decoders may pad


def test_scaled_frames_of_too_many_pixels_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", ramp(4, 32, 48))
    assert read_video(path, short_side=64, limits=Limits(frame_pixels=64 * 96)).frames.shape[1:3] == (64, 96)
    with pytest.raises(VideoError, match="become 99×66"):
        read_video(path, short_side=66, limits=Limits(frame_pixels=64 * 96))


def test_frames_that_grow_midway_are_left_out(tmp_path: Path) -> None:
    small = encode(tmp_path / "small.mjpeg", ramp(6, 32, 48), codec="mjpeg", pix_fmt="yuvj420p").read_bytes()
    large = encode(tmp_path / "large.mjpeg", ramp(5, 320, 480), codec="mjpeg", pix_fmt="yuvj420p").read_bytes()
    path = tmp_path / "both.mjpeg"
    path.write_bytes(small + large)
    assert len(read_video(path).frames) == 11
    video = read_video(path, limits=Limits(frame_pixels=100 * 100))
    assert (len(video.frames), video.truncated) == (6, True)


def test_an_enormous_picture_takes_little_memory(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="measures memory as Unix does")
    path = encode(tmp_path / "a.gif", ramp(3), codec="gif", pix_fmt="rgb8")
    data = bytearray(path.read_bytes())
    data[6:10] = (16000).to_bytes(2, "little") * 2
    path.write_bytes(data)
    program = (
        "import resource, sys; from stresnet.media import read_video; from stresnet.errors import VideoError\n"
        "unit = 20 if sys.platform == 'darwin' else 10\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> unit\n"
        "before = peak()\n"
        "try: read_video(sys.argv[1], short_side=32)\n"
        "except VideoError as error: print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200  # MB; without a limit more than 1000


def test_too_many_frames_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", ramp(20))
    assert len(read_video(path, limits=Limits(frames=20)).frames) == 20
    assert "more than 19 frames; split the video" in refused(path, Limits(frames=19))


def test_frames_that_do_not_fit_into_memory_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", ramp(20))
    nbytes = 20 * 32 * 48 * 3
    assert len(read_video(path, limits=Limits(held_bytes=nbytes)).frames) == 20
    with pytest.raises(VideoError, match="use iter_frames"):
        read_video(path, limits=Limits(held_bytes=nbytes - 1))
    assert len(read_video(path, max_frames=19, limits=Limits(held_bytes=nbytes - 1)).frames) == 19
    assert sum(1 for _ in iter_frames(path, limits=Limits(held_bytes=1))) == 20


@pytest.mark.parametrize("mux", [{}, {"live": "1"}])
def test_large_attachments_are_refused(tmp_path: Path, mux: dict[str, str]) -> None:
    path = tmp_path / "fonts.mkv"
    with av.open(str(path), "w", options=mux) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        container.add_attachment("a.ttf", "application/x-truetype-font", bytes(3 << 20))
        for picture in ramp(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert len(read_video(path).frames) == 12
    assert "3 MiB are attached to it, more than 2; remove them" in refused(path, Limits(attachment_bytes=2 << 20))


def test_too_many_streams_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(9)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for stream in streams:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(1)[0], format="rgb24")))
            container.mux(stream.encode(None))
    assert len(read_video(path, limits=Limits(streams=9)).frames) == 1
    assert "more streams than allowed" in refused(path, Limits(streams=8))


LIMITED = {
    "more than 19 frames": Limits(frames=19),
    "longer than 0.75 s; split the video": Limits(seconds=0.75),
    "frames of more than 40000 bytes; split the video": Limits(decoded_bytes=40_000),
}


@pytest.mark.parametrize("message", LIMITED)
def test_every_way_to_read_obeys_the_limits(tmp_path: Path, message: str) -> None:
    path, limits = encode(tmp_path / "a.mkv", ramp(20)), LIMITED[message]

    def selected() -> None:
        for reader in select_frames(path, None, limits=limits):
            list(reader.read([0]))

    for read in (lambda: read_video(path, limits=limits), selected, lambda: counted_frames(path, limits=limits)):
        with pytest.raises(VideoError, match=message):
            read()
    assert len(counted_frames(path, limits=Limits(frames=20, seconds=0.8, decoded_bytes=160_000)).times_sec) == 20
