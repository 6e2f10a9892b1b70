"""What PyAV cannot handle costs one video at most, and the message fits the cause."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from helpers.video_files import counted_frames, encode, one_line, ramp, with_exif
from stresnet.errors import VideoError
from stresnet.media import Limits, decode, iter_frames, probe, read_video
from stresnet.media.failures import explain, reading
from stresnet.media.selected import select_frames

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def read_in_every_way(path: Path) -> list[tuple[int, bool]]:
    """Return how many frames each reader finds, and whether it notes damage."""
    whole = read_video(path, short_side=32)
    found = [(len(whole.frames), whole.truncated)]
    for reader in select_frames(path, 32):
        frames = list(reader.read(range(len(reader.times_sec))))
        assert all(np.array_equal(frame.rgb, rgb) for frame, rgb in zip(frames, whole.frames, strict=True))
        found.append((len(frames), reader.truncated))
    return found


def test_side_data_without_a_name_in_pyav(cases: Path) -> None:
    exif, plain = (read_video(cases / "exif_mjpeg" / name) for name in ("exif.avi", "plain.avi"))
    assert np.array_equal(exif.frames, plain.frames)
    assert len(exif.frames) == 24
    assert not exif.truncated


@pytest.mark.parametrize(
    ("orientation", "corners"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
    ],
)
def test_pictures_with_exif_are_upright(tmp_path: Path, orientation: int, corners: list[tuple[int, int, int]]) -> None:
    picture = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8).repeat(32, axis=0).repeat(48, axis=1)
    path = with_exif(tmp_path / "camera.avi", picture, orientation)
    video = read_video(path)
    height, width = video.frames.shape[1:3]
    found = video.frames[-1][height // 4 :: height // 2, width // 4 :: width // 2].reshape(4, 3)
    assert np.abs(found.astype(int) - corners).max() < 10
    assert set(read_in_every_way(path)) == {(12, False)}


def test_a_stream_without_a_decoder(cases: Path, tmp_path: Path) -> None:
    made = encode(tmp_path / "made.avi", ramp(5), codec="mpeg4")
    made.write_bytes(made.read_bytes().replace(b"FMP4", b"ZZZZ"))
    for path in (made, cases / "unknown_codec" / "unknown.avi"):
        for read in (probe, read_video, iter_frames, lambda path: next(select_frames(path, None))):
            with pytest.raises(VideoError) as error:
                read(path)
            assert "no decoder for its codec; convert it" in one_line(error, path)
    assert len(read_video(cases / "unknown_codec" / "known.avi").frames) == 50


def test_a_stream_that_appears_midway(cases: Path, tmp_path: Path) -> None:
    assert set(read_in_every_way(cases / "new_stream_midway" / "base.ts")) == {(100, False)}
    assert set(read_in_every_way(cases / "new_stream_midway" / "one_byte.ts")) == {(99, True)}
    # A second programme that begins after the first: all of its streams are new.
    long = encode(tmp_path / "long.ts", ramp(300), mux={"mpegts_start_pid": "256"})
    other = encode(tmp_path / "other.ts", ramp(5), mux={"mpegts_start_pid": "300", "mpegts_pmt_start_pid": "4200"})
    path = tmp_path / "both.ts"
    path.write_bytes(long.read_bytes() + other.read_bytes())
    assert {frames for frames, _ in read_in_every_way(path)} == {300}


def test_reading_goes_on_after_a_packet_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mkv", ramp(20), codec="ffv1", pix_fmt="bgra")

    class Failing:
        """A container whose demuxer fails some times after five packets, each time at the cost of a packet."""

        def __init__(self, container: Any, times: int) -> None:
            self._container, self._failures, self._packets = container, times, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def demux(self, stream: Any) -> Any:
            for packet in self._container.demux(stream):
                self._packets += 1
                if self._packets > 5 and self._failures:
                    self._failures -= 1
                    raise IndexError("list index out of range")
                yield packet

    real = decode.open_video
    for times, frames in ((1, 19), (3, 17), (10**9, 5)):

        def failing(path: Path, limits: Limits, number: None, times: int = times) -> tuple[Failing, Any]:
            container, stream = real(path, limits, number)
            return Failing(container, times), stream

        monkeypatch.setattr(decode, "open_video", failing)
        video = read_video(path)
        assert (len(video.frames), video.truncated) == (frames, True)


def element(name: str, *content: bytes) -> bytes:
    """Return an element of Matroska."""
    data = b"".join(content)
    return bytes.fromhex(name) + (len(data) | 1 << 56).to_bytes(8) + data


def encrypted_webm(path: Path) -> Path:
    """Write a WebM file whose one track says that it is encrypted."""
    encryption = element("5035", element("47E1", b"\5"), element("47E2", bytes(16)))
    encodings = element("6D80", element("6240", element("5032", b"\1"), element("5033", b"\1"), encryption))
    video = element("E0", element("B0", b"\x30"), element("BA", b"\x20"))
    numbers = element("D7", b"\1") + element("73C5", b"\1") + element("83", b"\1")
    track = element("AE", numbers, element("86", b"V_VP8"), video, encodings)
    blocks = [element("A3", b"\x81", n.to_bytes(2), b"\x80", bytes(range(1, 99))) for n in range(20)]
    segment = element("1549A966") + element("1654AE6B", track) + element("1F43B675", element("E7", b"\0"), *blocks)
    path.write_bytes(element("1A45DFA3", element("4282", b"webm")) + element("18538067", segment))
    return path


def encrypted_mp4(path: Path) -> Path:
    key = {"encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    return encode(path, ramp(20), mux={"encryption_scheme": "cenc-aes-ctr"} | key)


def encrypted_ts(path: Path) -> Path:
    """Write a transport stream whose video packets are scrambled."""
    data = bytearray(encode(path, ramp(20)).read_bytes())
    for at in range(0, len(data), 188):
        if data[at + 1] & 0x1F == 1:  # the video
            data[at + 3] |= 0x80
            data[at + 4 : at + 188] = bytes(byte ^ 0x5A for byte in data[at + 4 : at + 188])
    path.write_bytes(data)
    return path


def encrypted_wmv(path: Path) -> Path:
    """Write a WMV file whose header has an object that describes protected content."""
    data = bytearray(encode(path, ramp(20), codec="wmv2").read_bytes())
    protection = bytes.fromhex("FBB3112223BDD211B4B700A0C955FC6E") + (40).to_bytes(8, "little") + bytes(16)
    data[16:24] = (int.from_bytes(data[16:24], "little") + len(protection)).to_bytes(8, "little")
    data[24] += 1
    data[30:30] = protection
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("write", [encrypted_mp4, encrypted_webm, encrypted_ts, encrypted_wmv])
def test_encrypted_videos_are_called_encrypted(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / f"a.{write.__name__.split('_')[1]}")
    for read in (probe, read_video, counted_frames, lambda path: list(select_frames(path, 8))):
        with pytest.raises(VideoError) as error:
            read(path)
        assert "encrypted; decrypt it" in one_line(error, path)


@pytest.mark.parametrize("size", [(1, 65535), (65535, 1), (2, 16000), (8, 4000)])
def test_extreme_sizes_fail_before_they_are_scaled(tmp_path: Path, size: tuple[int, int]) -> None:
    path = encode(tmp_path / "thin.mov", [np.zeros((*size, 3), np.uint8)] * 2, codec="png", pix_fmt="rgb24")
    for read in (lambda: read_video(path, short_side=128), lambda: counted_frames(path, 128)):
        with pytest.raises(VideoError) as error:
            read()
        assert "at most 32750 px and 67108864 px in all; crop the video" in one_line(error, path)


@pytest.mark.parametrize("error", [IndexError("list index out of range"), ValueError("31 is not a\nvalid Type")])
def test_any_exception_is_the_failure_of_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = encode(tmp_path / "a.mkv", ramp(20))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(decode.Converter, "rgb", fail)
    with pytest.raises(VideoError) as raised:
        read_video(path)
    assert f"damaged ({type(error).__name__}: " in one_line(raised, path)
    *_, counted = select_frames(path, None)
    with pytest.raises(VideoError) as raised:
        list(counted.read([3]))
    assert f"damaged ({type(error).__name__}: " in one_line(raised, path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (av.error.PatchWelcomeError(1, "Not yet implemented in FFmpeg"), "does not support (Not yet implemented"),
        (av.error.DecoderNotFoundError(1, "Decoder not found"), "convert it"),
        (av.error.InvalidDataError(1, "Invalid data found"), "damaged (Invalid data found); copy or download"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "(Too many open files); raise the limit",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), "(Permission denied); check its permissions"),
        (MemoryError(), "more memory"),
    ],
)
def test_the_advice_fits_the_cause(error: Exception, words: str) -> None:
    assert words in explain(error)
    with pytest.raises(VideoError, match=r"^dir/a\.mp4: "), reading("dir/a.mp4"):
        raise error


def test_interruptions_are_no_failures_of_a_video() -> None:
    with pytest.raises(KeyboardInterrupt), reading("a.mp4"):
        raise KeyboardInterrupt
