"""Overlays: the panel below the picture, and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.tiny import Command, one_line
from stresnet.flow import FlowSpec
from stresnet.inference.overlay import write_overlay
from stresnet.inference.timeline import Timeline
from stresnet.media import read_video, write_video
from stresnet.training import Run

PANEL, SCALE = 56, 1


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Return a video of 4 s, 10 frames a second, 240×60 px."""
    path = tmp_path / "a [1].mp4"
    write_video(path, np.full((40, 60, 240, 3), 200, np.uint8), fps=10)
    return path


def timeline() -> Timeline:
    """Return `run` for two seconds, then `<Fahrräder>` for two, by windows of a second."""
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.3, 0.7]], np.float32))
    windows = np.array([[k, k + 1.0] for k in range(4)])
    return Timeline(("run", "<Fahrräder>"), windows, logits, 4.0, 40, truncated=False)


def test_the_running_label_and_the_time_line_are_below_the_picture(tmp_path: Path, video: Path) -> None:
    out = tmp_path / "out.mp4"
    write_overlay(out, video, timeline())
    drawn = read_video(out)
    assert drawn.frames.shape == (40, 2 * 60 + PANEL, 480, 3)
    assert drawn.times_sec == pytest.approx(np.arange(40) / 10, abs=1e-3)
    assert np.abs(drawn.frames[:, :110].astype(int) - 200).max() < 8  # the picture, but for what compression does
    line = drawn.frames[:, -4].astype(int)
    blue, red = np.array([0x44, 0x77, 0xAA]), np.array([0xEE, 0x66, 0x77])
    assert np.abs(line[5, 200] - blue).max() < 20
    assert np.abs(line[5, 300] - red).max() < 20
    white = (line[:, :, :].min(2) > 200).argmax(1)  # the cursor
    assert white[[10, 20, 39]] == pytest.approx([120, 240, 468], abs=2)
    bars = (np.abs(drawn.frames[:, 121].astype(int) - 24).max(2) > 40).sum(1)  # as long as the class is probable
    assert bars[[5, 15, 30]] == pytest.approx([0.9 * 480, 0.8 * 480, 0.7 * 480], abs=4)
    words = drawn.frames[:, 128:160, :300].astype(int).max(3) > 150
    assert words[30].sum() > 1.5 * words[5].sum() > 0  # a longer word
    write_overlay(out, video, timeline(), min_score=0.95)
    assert (read_video(out).frames[:, 128:154].max() - 24) < 20  # no segment, no word


def test_an_overlay_of_a_segment(tmp_path: Path, video: Path) -> None:
    line = timeline()
    out = tmp_path / "out.mp4"
    write_overlay(out, f"{video}#t=1,3", line)
    drawn = read_video(out)
    assert (len(drawn.frames), drawn.times_sec[0]) == (20, 0)


def test_the_flow_is_drawn_on_request(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (16, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    video, out = tmp_path / "a.mp4", tmp_path / "out.mp4"
    write_video(video, [texture[:, 2 * k : 2 * k + 480] for k in range(40)], fps=10)  # all moves left
    write_overlay(out, video, timeline(), flow=FlowSpec(preset="ultrafast", short_side=64))
    inset = read_video(out).frames[:, 4:28, -110:-10].astype(int)
    red, green, blue = inset.mean((0, 1, 2))
    assert min(green, blue) > red + 5  # cyan and blue are to the left
    assert len(inset) == 40


def test_predict_draws(command: Command, run: Run, video: Path, tmp_path: Path) -> None:
    out, picture = tmp_path / "out.mp4", tmp_path / "out.png"
    model = run.model_file("appearance")
    code, printed, err = command("predict", model, video, "--overlay", out, "--timeline", picture, "--overlay-flow")
    assert code == 0, err
    assert printed
    assert len(read_video(out).frames) == 40
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = command("predict", model, video, video, "--overlay", out)
    assert (code, "--timeline and --overlay are for one video: found 2" in one_line(err)) == (2, True)


def test_without_matplotlib(
    command: Command, run: Run, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("overlay", "timeline_plot"):
        monkeypatch.setattr(f"stresnet.inference.{module}.find_spec", lambda name: None)
    for option in ("--overlay=a.mp4", f"--timeline={tmp_path / 'a.png'}"):
        code, _, err = command("predict", run.model_file("appearance"), video, option)
        assert (code, "need matplotlib: pip install 'stresnet[plot]'" in one_line(err)) == (1, True)
