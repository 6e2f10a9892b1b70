"""Files that are not videos, truncated, or damaged."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.video_files import encode, one_line, ramp
from stresnet.errors import VideoError
from stresnet.media import iter_frames, probe, read_video


def test_files_that_are_not_videos_raise_one_line(tmp_path: Path) -> None:
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


def test_the_cover_picture_of_a_song_is_not_a_video(tmp_path: Path) -> None:
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


def test_a_truncated_file_yields_its_frames_and_is_marked(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    whole = encode(tmp_path / "whole.mp4", list(noisy), mux={"movflags": "faststart"}).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    video = read_video(cut)
    assert 15 <= len(video.frames) <= 30
    assert video.truncated
    assert not read_video(tmp_path / "whole.mp4").truncated


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx")])
def test_a_truncated_matroska_file_is_marked(tmp_path: Path, name: str, codec: str) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    path = encode(tmp_path / name, list(noisy), codec=codec)
    assert not read_video(path).truncated
    assert probe(path).header_frames == 40  # by its duration: this container has no count
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    video = read_video(path)
    assert 15 <= len(video.frames) <= 30
    assert video.truncated


def test_a_live_recording_without_a_length_is_complete(tmp_path: Path) -> None:
    path = encode(tmp_path / "live.mkv", ramp(20), mux={"live": "1"})
    video = read_video(path)
    assert (len(video.frames), video.truncated) == (20, False)


def test_a_file_without_its_index_raises(tmp_path: Path) -> None:
    path = encode(tmp_path / "slow.mp4", ramp(30))  # the index comes last
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(VideoError) as error:
        read_video(path)
    assert "its end is missing" in one_line(error, path)


def test_a_damaged_packet_costs_one_frame(tmp_path: Path) -> None:
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


def test_a_video_without_a_decodable_frame_raises(tmp_path: Path) -> None:
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


def test_real_damaged_and_reordered_files_are_read(shared: Path) -> None:
    damaged = read_video(shared / "clips" / "odd" / "corrupted.mp4", short_side=32)
    assert len(damaged.frames) == 49  # of 50
    assert damaged.truncated
    reordered = read_video(shared / "clips" / "odd" / "unordered.mov")
    np.testing.assert_allclose(reordered.times_sec, np.arange(4) / 32)
    assert not reordered.truncated
