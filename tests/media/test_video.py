"""Reading and writing videos: order, clocks, rotation, colours, and files that are not what they should be."""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
import tracemalloc
import wave
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import PictureType
from numpy.typing import NDArray

from helpers.video_files import CLOCKWISE, encode, ramp, with_matrix
from stresnet.errors import VideoError
from stresnet.media import VIDEO_EXTENSIONS, iter_frames, probe, read_video, write_video

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def brightness(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    return frames.reshape(len(frames), -1).mean(axis=1)


# ---------------------------------------------------------------- order and clock

X264_B = {"bf": "3", "b-adapt": "0", "crf": "10", "sc_threshold": "0"}
MPEG_B = {"bf": "2", "sc_threshold": "1000000000", "qmax": "2"}


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
def test_b_frames_come_in_the_order_shown(tmp_path: Path, name: str, codec: str, b_frames: dict[str, str]) -> None:
    path = encode(tmp_path / name, ramp(24), codec=codec, **b_frames)
    with av.open(str(path)) as container:
        kinds = {PictureType(frame.pict_type).name for frame in container.decode(video=0)}
    assert "B" in kinds, "the test needs a file with B frames"
    video = read_video(path)
    assert len(video.frames) == 24
    assert (np.diff(brightness(video.frames)) > 0).all()
    np.testing.assert_allclose(video.times_sec, np.arange(24) / 25, atol=1e-4)
    assert not video.truncated


def test_variable_frame_rate_keeps_each_frames_own_time(tmp_path: Path) -> None:
    ticks = [0, 40, 50, 200, 1000, 1001]
    video = read_video(encode(tmp_path / "vfr.mkv", ramp(6), ticks_ms=ticks))
    np.testing.assert_allclose(video.times_sec, np.array(ticks) / 1000, atol=1e-9)


def test_time_counts_from_the_first_frame(tmp_path: Path) -> None:
    video = read_video(encode(tmp_path / "late.mkv", ramp(3), ticks_ms=[5000, 5100, 5200]))
    np.testing.assert_allclose(video.times_sec, [0, 0.1, 0.2], atol=1e-9)


def test_missing_timestamps_fall_back_on_the_frame_rate(tmp_path: Path) -> None:
    path = encode(tmp_path / "raw.h264", ramp(10), format="h264", bf="0")
    with av.open(str(path)) as container:
        assert all(frame.pts is None for frame in container.decode(video=0))
    video = read_video(path)
    assert len(video.frames) == 10
    np.testing.assert_allclose(video.times_sec, np.arange(10) / video.fps)


def test_a_clock_that_jumps_back_never_makes_time_run_backwards(tmp_path: Path) -> None:
    once = encode(tmp_path / "once.ts", ramp(8), bf="0").read_bytes()
    (tmp_path / "twice.ts").write_bytes(once + once)
    video = read_video(tmp_path / "twice.ts")
    assert len(video.frames) == 16
    assert (np.diff(video.times_sec) > 0).all()


def test_headers_that_lie_about_the_frame_count_are_not_believed(tmp_path: Path) -> None:
    path = encode(tmp_path / "lie.avi", ramp(7), codec="mpeg4")
    data = bytearray(path.read_bytes())
    length_at = data.index(b"strh") + 8 + 32  # dwLength of the stream header
    data[length_at : length_at + 4] = struct.pack("<I", 999)
    path.write_bytes(data)
    assert probe(path).header_frames == 999
    assert len(read_video(path).frames) == 7


def test_reading_holds_a_few_frames_only(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.mp4", ramp(200, 128, 128), preset="ultrafast")
    list(iter_frames(path))  # first-use allocations
    tracemalloc.start()
    count = sum(1 for _ in iter_frames(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200
    assert peak < 10 * 128 * 128 * 3


def test_max_frames_stops_early(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ramp(9))
    video = read_video(path, max_frames=4)
    assert video.frames.shape == (4, 32, 48, 3)
    assert video.times_sec.shape == (4,)


# ---------------------------------------------------------------- geometry


def four_corners(height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = WHITE
    return picture


def corners(picture: NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """The nearest of the four colours at top left, top right, bottom left, bottom right."""
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
    ours = read_video(path, short_side=64).frames[0].astype(float)
    theirs = cv2.resize(smooth, (96, 64), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(ours - theirs).mean() < 1.0  # a shift of half a pixel makes it 2 and more
    assert abs((ours - theirs).mean()) < 0.2


# ---------------------------------------------------------------- colours

MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593), 2: (0.299, 0.114)}  # 2: not told


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
def test_any_pixel_format_becomes_rgb(tmp_path: Path, pix_fmt: str, codec: str) -> None:
    picture = np.repeat(np.linspace(0, 255, 48).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    path = encode(tmp_path / "a.nut", [picture], codec=codec, pix_fmt=pix_fmt)
    assert np.abs(read_video(path).frames[0].astype(int) - picture).max() <= 3


# ---------------------------------------------------------------- names and broken files


@pytest.mark.parametrize("name", ["tür auf.mp4", "視頻 1.mp4", "a:b 50%03d#?.mp4", "-dash.mp4"])
def test_any_file_name_can_be_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)  # a bare name: a colon in it must not be read as a protocol
    write_video(name, ramp(3), fps=10)
    assert len(read_video(name).frames) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_metadata_that_is_not_utf8_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "title.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"T\xefT\xffE"))
    assert len(read_video(path).frames) == 1


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    video = read_video(encode(tmp_path / "one.mp4", ramp(1)))
    assert video.frames.shape == (1, 32, 48, 3)
    assert video.times_sec.tolist() == [0.0]


def one_line(error: pytest.ExceptionInfo[VideoError], path: Path) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_is_no_video_is_named_in_one_line(tmp_path: Path) -> None:
    empty, text, sound = tmp_path / "zero.mp4", tmp_path / "text.mp4", tmp_path / "sound.wav"
    empty.touch()
    text.write_text("not a video at all\n" * 40)
    with wave.open(str(sound), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(16000))
    cases = [
        (tmp_path / "none.mp4", "no such file"),
        (tmp_path, "folder"),
        (empty, "0 bytes"),
        (text, "not a video"),
        (sound, "no video stream (found: audio)"),
    ]
    for path, words in cases:
        for read in (probe, read_video, iter_frames):
            with pytest.raises(VideoError) as error:
                read(path)
            assert words in one_line(error, path)


def test_the_cover_picture_of_a_song_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("flac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 48, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        heard = sound.encode(samples) + sound.encode(None)
        seen = cover.encode(av.VideoFrame.from_ndarray(ramp(1)[0], format="rgb24")) + cover.encode(None)
        container.mux(seen + heard)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1, "the test needs a song with a cover"
    with pytest.raises(VideoError, match="no video stream"):
        probe(path)


def test_a_file_cut_off_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    whole = encode(tmp_path / "whole.mp4", list(noisy), mux={"movflags": "faststart"}).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    video = read_video(cut)
    assert 15 <= len(video.frames) <= 30
    assert video.truncated
    assert not read_video(tmp_path / "whole.mp4").truncated


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx")])
def test_a_matroska_file_cut_off_says_so(tmp_path: Path, name: str, codec: str) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    path = encode(tmp_path / name, list(noisy), codec=codec)
    assert not read_video(path).truncated
    assert probe(path).header_frames == 40  # by its duration: this container counts none
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    video = read_video(path)
    assert 15 <= len(video.frames) <= 30
    assert video.truncated


def test_a_live_recording_does_not_say_how_long_it_was_to_be(tmp_path: Path) -> None:
    path = encode(tmp_path / "live.mkv", ramp(20), mux={"live": "1"})
    video = read_video(path)
    assert (len(video.frames), video.truncated) == (20, False)


def test_a_file_without_its_index_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "slow.mp4", ramp(30))  # the index comes last
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(VideoError) as error:
        read_video(path)
    assert "its end is missing" in one_line(error, path)


def test_one_damaged_packet_costs_a_frame_not_the_rest(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (30, 32, 48, 3), dtype=np.uint8)
    path = encode(tmp_path / "a.mp4", list(noisy), bf="0")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[10]
    data = bytearray(path.read_bytes())
    data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    video = read_video(path)
    assert len(video.frames) == 29
    assert video.truncated
    assert np.diff(video.times_sec)[9] == pytest.approx(2 / 25)  # the gap shows in the clock


def test_a_video_with_no_decodable_frame_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ramp(5))
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in packets:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(VideoError) as error:
        iter_frames(path)
    assert "no frame" in one_line(error, path)


def test_nothing_reaches_stderr_and_torch_is_not_imported(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (20, 32, 48, 3), dtype=np.uint8)
    path = encode(tmp_path / "a.mp4", list(noisy), mux={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-1500])
    program = (
        "import sys; from stresnet.media import read_video, write_video; import stresnet.flow\n"
        "video = read_video(sys.argv[1]); assert video.truncated\n"
        "write_video(sys.argv[1] + '.mp4', video.frames, fps=5); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_nonsense_arguments_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ramp(2))
    with pytest.raises(VideoError, match="short_side"):
        iter_frames(path, short_side=0)
    with pytest.raises(VideoError, match="max_frames"):
        read_video(path, max_frames=0)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("size", [(33, 47), (32, 47), (33, 48), (1, 1)])
def test_odd_sizes_are_padded_to_even_by_their_edge(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    picture[:, -1] = picture[-1] = 255
    write_video(tmp_path / "odd.mp4", [picture] * 2, fps=25, quality_crf=0)
    found = read_video(tmp_path / "odd.mp4").frames[0]
    assert found.shape[:2] == tuple(side + side % 2 for side in size)
    assert np.abs(found[: size[0], : size[1]].astype(int) - picture).mean() < 16
    assert found[:, size[1] - 1 :].min() > 240
    assert found[size[0] - 1 :].min() > 240


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 7.5])
def test_what_is_written_is_read_back(tmp_path: Path, fps: float) -> None:
    pictures = np.stack(ramp(12))
    pictures[:, :16, :16] = RED
    write_video(tmp_path / "a.mp4", pictures, fps=fps)
    video = read_video(tmp_path / "a.mp4")
    assert video.fps == pytest.approx(fps)
    np.testing.assert_allclose(video.times_sec, np.arange(12) / fps, atol=1e-3)
    assert np.abs(video.frames.astype(int) - pictures).mean() < 3
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is whole
    assert probe(tmp_path / "a.mp4").codec == "h264"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    small, large = ramp(1)[0], ramp(1, 64, 64)[0]
    bad: list[tuple[list[NDArray[np.uint8]], str]] = [
        ([], "no frames"),
        ([small, large], "one size"),
        ([small.astype(np.float32)], "uint8"),
        ([small[..., 0]], "(H,W,3)"),
    ]
    for pictures, words in bad:
        with pytest.raises(VideoError) as error:
            write_video(path, pictures, fps=25)
        assert words in one_line(error, path)
    with pytest.raises(VideoError, match="fps"):
        write_video(path, [small], fps=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_bytes() == b"old"
    with pytest.raises(VideoError, match="cannot be written"):
        write_video(tmp_path / "no" / "folder.mp4", [small], fps=25)


# ---------------------------------------------------------------- real files


def test_decoded_frame_counts_of_real_clips(shared: Path) -> None:
    with open(shared / "clips" / "index.csv", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if not row["path"].startswith("jhmdb/")][::6]  # which drop frames
    assert len(rows) > 10
    for row in rows:
        path = shared / "clips" / row["path"]
        info = probe(path)
        found = (info.width, info.height, info.header_frames, info.codec, round(info.fps, 2))
        wanted = (row["width"], row["height"], row["header_frames"], row["codec"], row["fps"])
        assert found == (*map(int, wanted[:3]), wanted[3], round(float(wanted[4]), 2)), row["path"]
        times = [frame.time_sec for frame in iter_frames(path, short_side=32)]
        assert len(times) == int(row["decoded_frames"]), row["path"]
        # These are AVI files with and without B frames, all of constant rate.
        np.testing.assert_allclose(np.diff(times), 1 / info.fps, rtol=1e-3, err_msg=row["path"])
        assert path.suffix in VIDEO_EXTENSIONS


def test_frames_of_a_real_clip_with_b_frames_move_smoothly(shared: Path) -> None:
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
def test_real_telephone_videos_stand_upright(shared: Path, name: str, size: tuple[int, int], degrees: int) -> None:
    path = shared / "clips" / "odd" / name
    info = probe(path)
    assert (info.height, info.width, info.rotation_deg) == (*size, degrees)
    video = read_video(path)
    assert video.frames.shape == (3, *size, 3)
    assert not video.truncated


def test_real_damaged_and_reordered_files(shared: Path) -> None:
    damaged = read_video(shared / "clips" / "odd" / "corrupted.mp4", short_side=32)
    assert len(damaged.frames) == 49  # of 50
    assert damaged.truncated
    reordered = read_video(shared / "clips" / "odd" / "unordered.mov")
    np.testing.assert_allclose(reordered.times_sec, np.arange(4) / 32)
    assert not reordered.truncated


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (24, 64, 80, 3), dtype=np.uint8)
    for number in range(4):
        write_video(tmp_path / f"{number}.mp4", frames, fps=25)
    assert len({(tmp_path / f"{number}.mp4").read_bytes() for number in range(4)}) == 1
