"""Videos written with times and with the sound of another."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from stresnet.errors import VideoError
from stresnet.media import Frame, read_video, write_frames, write_video

RATE = 8000
FRAMES = np.zeros((20, 32, 48, 3), np.uint8)


def write_with_tone(path: Path, tone_from_sec: float, *, video_from_sec: float = 0.0) -> None:
    """Write 2 s of video with silence, then a tone from a time on, counted from the first picture."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        times = np.arange(round((2 + video_from_sec) * RATE)) / RATE
        wave = np.float32(0.5 * np.sin(2 * np.pi * 440 * times) * (times >= tone_from_sec + video_from_sec))
        heard = AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        heard.rate, heard.pts = RATE, 0
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
        for index in range(20):
            picture = VideoFrame.from_ndarray(FRAMES[index], format="rgb24")
            picture.pts, picture.time_base = index + round(10 * video_from_sec), Fraction(1, 10)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))


def tone_start_sec(path: Path) -> float:
    """Return when the tone begins, by the file's clock."""
    with av.open(str(path)) as container:
        loud = [
            frame.time + int(np.argmax(samples)) / frame.rate
            for frame in container.decode(audio=0)
            if (samples := np.abs(frame.to_ndarray()[0]) > 0.1).any()
        ]
    return loud[0]


def frames(count: int, first: int = 0) -> list[Frame]:
    return [Frame(FRAMES[index], (index - first) / 10) for index in range(first, count)]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("video_from_sec", [0.0, 0.5])
def test_sound_is_kept_in_time(tmp_path: Path, ending: str, video_from_sec: float) -> None:
    source, out = tmp_path / f"a.{ending}", tmp_path / "out.mp4"
    write_with_tone(source, 1.2, video_from_sec=video_from_sec)
    write_frames(out, frames(20), fps=10, sound_of=source)
    assert tone_start_sec(out) == pytest.approx(1.2, abs=0.05)
    write_frames(out, frames(15, first=5), fps=10, sound_of=source, sound_from_sec=0.5)
    assert tone_start_sec(out) == pytest.approx(0.7, abs=0.05)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].duration * container.streams.audio[0].time_base < 1.3


def test_a_video_without_sound_stays_silent(tmp_path: Path) -> None:
    source, out = tmp_path / "a.mp4", tmp_path / "out.mp4"
    write_video(source, FRAMES, fps=10)
    write_frames(out, frames(20), fps=10, sound_of=source)
    with av.open(str(out)) as container:
        assert not container.streams.audio
    with pytest.raises(VideoError, match=r"no\.mp4: no such file"):
        write_frames(out, frames(20), fps=10, sound_of=tmp_path / "no.mp4")


def test_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.2, 0.24, 1.0]
    out = tmp_path / "out.mp4"
    write_frames(out, [Frame(FRAMES[k], time) for k, time in enumerate(times)], fps=5)
    assert read_video(out).times_sec == pytest.approx(times, abs=1e-3)
