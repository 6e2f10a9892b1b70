"""Reading videos: order, times, rotation, sizes, colours."""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.video_files import CLOCKWISE, encode, picture_types, ramp, with_matrix
from stresnet.errors import VideoError
from stresnet.media import VIDEO_EXTENSIONS, iter_frames, probe, read_video

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
X264_B = {"bf": "3", "b-adapt": "0", "crf": "10", "sc_threshold": "0"}
MPEG_B = {"bf": "2", "sc_threshold": "1000000000", "qmax": "2"}
MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593), 2: (0.299, 0.114)}  # 2: unspecified


def brightness(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    return frames.reshape(len(frames), -1).mean(axis=1)


@pytest.mark.parametrize(
    ("name", "codec", "b_frames"),
    [
        ("a.mp4", "libx264", X264_B),
        ("a.mkv", "libx264", X264_B),
        ("a.ts", "libx264", X264_B),
        ("a.avi", "mpeg4", MPEG_B),  # an AVI stores no presentation times
        ("a.mpg", "mpeg2video", MPEG_B),
    ],
)
def test_b_frames_are_read_in_display_order(tmp_path: Path, name: str, codec: str, b_frames: dict[str, str]) -> None:
    path = encode(tmp_path / name, ramp(24), codec=codec, **b_frames)
    assert "B" in picture_types(path), "the test needs a file with B frames"
    video = read_video(path)
    assert len(video.frames) == 24
    assert (np.diff(brightness(video.frames)) > 0).all()
    np.testing.assert_allclose(video.times_sec, np.arange(24) / 25, atol=1e-4)
    assert not video.truncated


def test_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    ticks = [0, 40, 50, 200, 1000, 1001]
    video = read_video(encode(tmp_path / "vfr.mkv", ramp(6), ticks_ms=ticks))
    np.testing.assert_allclose(video.times_sec, np.array(ticks) / 1000, atol=1e-9)


def test_time_starts_at_the_first_frame(tmp_path: Path) -> None:
    video = read_video(encode(tmp_path / "late.mkv", ramp(3), ticks_ms=[5000, 5100, 5200]))
    np.testing.assert_allclose(video.times_sec, [0, 0.1, 0.2], atol=1e-9)


def test_missing_timestamps_follow_the_frame_rate(tmp_path: Path) -> None:
    path = encode(tmp_path / "raw.h264", ramp(10), format="h264", bf="0")
    with av.open(str(path)) as container:
        assert all(frame.pts is None for frame in container.decode(video=0))
    video = read_video(path)
    assert len(video.frames) == 10
    np.testing.assert_allclose(video.times_sec, np.arange(10) / video.fps)


def test_times_increase_when_timestamps_jump_back(tmp_path: Path) -> None:
    once = encode(tmp_path / "once.ts", ramp(8), bf="0").read_bytes()
    (tmp_path / "twice.ts").write_bytes(once + once)
    video = read_video(tmp_path / "twice.ts")
    assert len(video.frames) == 16
    assert (np.diff(video.times_sec) > 0).all()


def test_wrong_frame_counts_in_headers_are_ignored(tmp_path: Path) -> None:
    path = encode(tmp_path / "wrong.avi", ramp(7), codec="mpeg4")
    data = bytearray(path.read_bytes())
    length_at = data.index(b"strh") + 8 + 32  # dwLength of the stream header
    data[length_at : length_at + 4] = struct.pack("<I", 999)
    path.write_bytes(data)
    assert probe(path).header_frames == 999
    assert len(read_video(path).frames) == 7


def test_memory_is_bounded_by_a_few_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.mp4", ramp(200, 128, 128), preset="ultrafast")
    list(iter_frames(path))  # warm up: allocations on first use
    tracemalloc.start()
    count = sum(1 for _ in iter_frames(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200
    assert peak < 10 * 128 * 128 * 3


def test_max_frames_limits_reading(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ramp(9))
    video = read_video(path, max_frames=4)
    assert video.frames.shape == (4, 32, 48, 3)
    assert video.times_sec.shape == (4,)


def four_corners(height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = WHITE
    return picture


def corners(picture: NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """Return the nearest of the four colours at top left, top right, bottom left, bottom right."""
    height, width = picture.shape[:2]
    found = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            distances = [int(np.abs(picture[y, x].astype(int) - c).sum()) for c in (RED, GREEN, BLUE, WHITE)]
            assert min(distances) < 60
            found.append((RED, GREEN, BLUE, WHITE)[int(np.argmin(distances))])
    return found


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (0, [RED, GREEN, BLUE, WHITE]),
        (90, [BLUE, RED, WHITE, GREEN]),
        (180, [WHITE, BLUE, GREEN, RED]),
        (270, [GREEN, WHITE, RED, BLUE]),
    ],
)
def test_rotation_of_the_display_matrix_is_applied(
    tmp_path: Path, degrees: int, expected: list[tuple[int, int, int]]
) -> None:
    path = with_matrix(encode(tmp_path / "turned.mp4", [four_corners()] * 3), CLOCKWISE[degrees])
    info = probe(path)
    turned = degrees in (90, 270)
    assert info.rotation_deg == degrees
    assert (info.width, info.height) == ((64, 96) if turned else (96, 64))
    for short_side, size in ((None, (64, 96)), (32, (32, 48))):
        picture = read_video(path, short_side=short_side).frames[0]
        assert picture.shape[:2] == (size[::-1] if turned else size)
        assert corners(picture) == expected


def test_a_mirroring_display_matrix_is_applied(tmp_path: Path) -> None:
    path = with_matrix(encode(tmp_path / "selfie.mp4", [four_corners()] * 2), (-1, 0, 0, 1))
    assert corners(read_video(path).frames[0]) == [GREEN, RED, WHITE, BLUE]


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((240, 320), 256, (256, 341)),
        ((320, 240), 256, (341, 256)),
        ((61, 83), 40, (40, 54)),
        ((61, 83), None, (61, 83)),
        ((1, 1), 8, (8, 8)),
    ],
)
def test_short_side_keeps_the_aspect_for_any_size(
    tmp_path: Path, size: tuple[int, int], short_side: int | None, expected: tuple[int, int]
) -> None:
    path = encode(tmp_path / "odd.mkv", [np.zeros((*size, 3), np.uint8)] * 2, codec="ffv1", pix_fmt="bgra")
    frame = next(iter_frames(path, short_side=short_side))
    assert frame.rgb.shape == (*expected, 3)
    assert frame.rgb.dtype == np.uint8
    assert frame.rgb.flags.c_contiguous


def test_resizing_agrees_with_an_independent_antialiased_one(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((128, 192, 3))
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    path = encode(tmp_path / "a.mkv", [smooth], codec="ffv1", pix_fmt="bgra")
    found = read_video(path, short_side=64).frames[0].astype(float)
    expected = cv2.resize(smooth, (96, 64), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(found - expected).mean() < 1.0  # a shift by half a pixel makes it 2 and more
    assert abs((found - expected).mean()) < 0.2


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", sorted(MATRICES))
def test_colours_follow_the_matrix_and_range_of_the_file(tmp_path: Path, matrix: int, full_range: bool) -> None:
    colours = np.array([RED, GREEN, BLUE, WHITE, (0, 0, 0), (128, 128, 128), (200, 60, 120)], float)
    kr, kb = MATRICES[matrix]
    red, green, blue = colours.T / 255
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    y, chroma = (255 * luma, 255) if full_range else (16 + 219 * luma, 224)
    cb = 128 + chroma * (blue - luma) / (2 * (1 - kb))
    cr = 128 + chroma * (red - luma) / (2 * (1 - kr))
    levels = np.rint([y, cb, cr]).clip(0, 255).astype(np.uint8)
    planes = np.repeat(np.repeat(levels[:, None], 32, axis=1), 16, axis=2)
    path = tmp_path / "colours.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.options = (*planes.shape[1:], "yuv444p", {"qp": "0"})
        frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
        for carrier in (stream.codec_context, frame):
            carrier.colorspace, carrier.color_range = matrix, 2 if full_range else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for short_side in (None, 16):
        picture = read_video(path, short_side=short_side).frames[0]
        step = picture.shape[1] // len(colours)
        found = picture[picture.shape[0] // 2, step // 2 :: step]
        assert np.abs(found - colours).max() <= 2


@pytest.mark.parametrize(
    ("pix_fmt", "codec"),
    [
        ("yuv420p10le", "ffv1"),
        ("yuv422p", "ffv1"),
        ("gray", "ffv1"),
        ("rgb48le", "ffv1"),
        ("yuva420p", "ffv1"),
        ("nv12", "rawvideo"),
    ],
)
def test_pixel_formats_are_converted_to_rgb(tmp_path: Path, pix_fmt: str, codec: str) -> None:
    picture = np.repeat(np.linspace(0, 255, 48).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    path = encode(tmp_path / "a.nut", [picture], codec=codec, pix_fmt=pix_fmt)
    assert np.abs(read_video(path).frames[0].astype(int) - picture).max() <= 3


def test_a_single_frame_is_read(tmp_path: Path) -> None:
    video = read_video(encode(tmp_path / "one.mp4", ramp(1)))
    assert video.frames.shape == (1, 32, 48, 3)
    assert video.times_sec.tolist() == [0.0]


def test_metadata_that_is_not_utf8_is_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "title.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"T\xefT\xffE"))
    assert len(read_video(path).frames) == 1


def test_invalid_arguments_raise(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ramp(2))
    with pytest.raises(VideoError, match="short_side"):
        iter_frames(path, short_side=0)
    with pytest.raises(VideoError, match="max_frames"):
        read_video(path, max_frames=0)


def test_a_damaged_file_leaves_stderr_empty(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (20, 32, 48, 3), dtype=np.uint8)
    path = encode(tmp_path / "a.mp4", list(noisy), mux={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-1500])
    program = (
        "import sys; from stresnet.media import read_video, write_video\n"
        "video = read_video(sys.argv[1]); assert video.truncated\n"
        "write_video(sys.argv[1] + '.mp4', video.frames, fps=5)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_real_videos_have_the_recorded_frame_counts(shared: Path) -> None:
    with open(shared / "clips" / "index.csv", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if not row["path"].startswith("jhmdb/")][::6]  # those drop frames
    assert len(rows) > 10
    for row in rows:
        path = shared / "clips" / row["path"]
        info = probe(path)
        found = (info.width, info.height, info.header_frames, info.codec, round(info.fps, 2))
        wanted = (row["width"], row["height"], row["header_frames"], row["codec"], row["fps"])
        assert found == (*map(int, wanted[:3]), wanted[3], round(float(wanted[4]), 2)), row["path"]
        times = [frame.time_sec for frame in iter_frames(path, short_side=32)]
        assert len(times) == int(row["decoded_frames"]), row["path"]
        # These are AVI files of constant rate, with and without B frames.
        np.testing.assert_allclose(np.diff(times), 1 / info.fps, rtol=1e-3, err_msg=row["path"])
        assert path.suffix in VIDEO_EXTENSIONS


def test_real_b_frames_are_in_smooth_order(shared: Path) -> None:
    frames = read_video(shared / "clips/ucf101/Hammering/v_Hammering_g17_c05.avi", short_side=64).frames
    pictures = frames.astype(np.float32)
    step = np.abs(pictures[1:] - pictures[:-1]).mean()
    shuffled = pictures.copy()
    shuffled[1:-1:2], shuffled[2::2] = pictures[2::2], pictures[1:-1:2]
    assert step < 0.85 * np.abs(shuffled[1:] - shuffled[:-1]).mean()


@pytest.mark.parametrize(
    ("name", "size", "degrees"),
    [
        ("video_0.mov", (320, 568), 0),
        ("video_90.mov", (568, 320), 90),
        ("video_180.mov", (320, 568), 180),
        ("video_270.mov", (568, 320), 270),
    ],
)
def test_real_phone_videos_are_upright(shared: Path, name: str, size: tuple[int, int], degrees: int) -> None:
    path = shared / "clips" / "odd" / name
    info = probe(path)
    assert (info.height, info.width, info.rotation_deg) == (*size, degrees)
    video = read_video(path)
    assert video.frames.shape == (3, *size, 3)
    assert not video.truncated
