"""Writing videos: sizes, times, reproducibility, failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.video_files import one_line, ramp
from stresnet.errors import VideoError
from stresnet.media import probe, read_video, write_video

RED = (255, 0, 0)


@pytest.mark.parametrize("name", ["tür auf.mp4", "視頻 1.mp4", "a:b 50%03d#?.mp4", "-dash.mp4"])
def test_any_file_name_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)  # a bare name with a colon must not be taken for a URL
    write_video(name, ramp(3), fps=10)
    assert len(read_video(name).frames) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("size", [(33, 47), (32, 47), (33, 48), (1, 1)])
def test_odd_sizes_are_padded_by_their_last_row_and_column(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    picture[:, -1] = picture[-1] = 255
    write_video(tmp_path / "odd.mp4", [picture] * 2, fps=25, quality_crf=0)
    found = read_video(tmp_path / "odd.mp4").frames[0]
    assert found.shape[:2] == tuple(side + side % 2 for side in size)
    assert np.abs(found[: size[0], : size[1]].astype(int) - picture).mean() < 16
    assert found[:, size[1] - 1 :].min() > 240
    assert found[size[0] - 1 :].min() > 240


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 7.5])
def test_written_frames_and_times_are_read_back(tmp_path: Path, fps: float) -> None:
    pictures = np.stack(ramp(12))
    pictures[:, :16, :16] = RED
    write_video(tmp_path / "a.mp4", pictures, fps=fps)
    video = read_video(tmp_path / "a.mp4")
    assert video.fps == pytest.approx(fps)
    np.testing.assert_allclose(video.times_sec, np.arange(12) / fps, atol=1e-3)
    assert np.abs(video.frames.astype(int) - pictures).mean() < 3
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before the download is complete
    assert probe(tmp_path / "a.mp4").codec == "h264"


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (24, 64, 80, 3), dtype=np.uint8)
    for number in range(4):
        write_video(tmp_path / f"{number}.mp4", frames, fps=25)
    assert len({(tmp_path / f"{number}.mp4").read_bytes() for number in range(4)}) == 1


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
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
