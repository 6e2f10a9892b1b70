"""Resampling by time: the nearest frame at each multiple of 1/fps, however a video is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.video_files import encode, ramp
from stresnet.errors import VideoError
from stresnet.media import FrameSpec, Limits, iter_frames, read_video
from stresnet.media.resampling import nearest, resampled
from stresnet.media.selected import select_frames

RATES = {
    "half": ([k / 60 for k in range(9)], 30, [0, 2, 4, 6, 8]),
    "the same": ([k / 29.97 for k in range(5)], 29.97, [0, 1, 2, 3, 4]),
    "a hair more": ([k / 25 for k in range(6)], 30, [0, 1, 2, 2, 3, 4, 5]),
    "twice": ([k / 10 for k in range(3)], 20, [0, 0, 1, 1, 2]),
    "midway, the earlier one": ([k / 50 for k in range(11)], 20, [0, 2, 5, 7, 10]),
    "irregular": ([0, 0.01, 0.02, 0.5, 0.9], 10, [0, 2, 2, 3, 3, 3, 3, 3, 4, 4]),
    "a gap": ([0, 1], 4, [0, 0, 0, 1, 1]),
    "one frame": ([0], 25, [0]),
}


@pytest.mark.parametrize("name", RATES)
def test_the_nearest_frame_is_shown(name: str) -> None:
    times_sec, fps, expected = RATES[name]
    assert nearest(np.array(times_sec, float), fps).tolist() == expected
    shown = [(i, sec) for i, secs in resampled([(i, float(t)) for i, t in enumerate(times_sec)], fps) for sec in secs]
    assert shown == [(i, k / fps) for k, i in enumerate(expected)]


def test_both_forms_choose_the_same_of_any_times() -> None:
    rng = np.random.default_rng(0)
    for fps in (7, 12.5, 24, 29.97, 50):
        times_sec = np.append(0, np.cumsum(rng.choice([1 / 90000, 1 / 60, 1 / 25, 0.3], 200)))
        streamed = [i for i, secs in resampled(list(enumerate(times_sec.tolist())), fps) for _ in secs]
        assert nearest(times_sec, fps).tolist() == streamed
        distances = np.abs(times_sec[:, None] - np.arange(len(streamed)) / fps)
        np.testing.assert_allclose(distances[streamed, np.arange(len(streamed))], distances.min(0), rtol=0, atol=1.3e-3)


def grays(pictures: Sequence[np.ndarray]) -> list[int]:
    """Return which pictures of a ramp of 20 they are."""
    return [round((float(p.mean()) - 20) / 10) for p in pictures]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi"])
def test_every_way_to_read_resamples(tmp_path: Path, name: str) -> None:
    path, spec = encode(tmp_path / name, ramp(20), fps=30), FrameSpec(fps=12)
    expected = [0, 2, 5, 7, 10, 12, 15, 17]
    video = read_video(path, spec=spec)
    assert (grays(video.frames), video.fps) == (expected, 12)
    assert video.times_sec.tolist() == [k / 12 for k in range(8)]
    for reader in select_frames(path, None, spec):
        assert reader.times_sec.tolist() == video.times_sec.tolist()
        found = list(reader.read([1, 2, 6]))
        assert grays([frame.rgb for frame in found]) == [2, 5, 15]
        assert [frame.time_sec for frame in found] == [1 / 12, 2 / 12, 6 / 12]
        assert (reader.info.fps, reader.conversions) == (12, "")


def test_frames_are_repeated_where_there_are_fewer(tmp_path: Path) -> None:
    ticks_ms = [40 * k if k < 10 else 400 + 200 * (k - 10) for k in range(20)]  # as when it gets dark
    path = encode(tmp_path / "a.mkv", ramp(20), ticks_ms=ticks_ms)
    expected = [*range(10), *np.repeat(np.arange(10, 20), 5)[2:-2].tolist()]
    with iter_frames(path, spec=FrameSpec(fps=25)) as reader:
        assert grays([frame.rgb for frame in reader]) == [*range(10), *[10] * 3, *expected[13:]]
    for selected in select_frames(path, None, FrameSpec(fps=25)):
        assert grays([frame.rgb for frame in selected.read(range(len(selected.times_sec)))])[10:13] == [10] * 3
    slow = encode(tmp_path / "slow.mkv", ramp(20), fps=10)
    with iter_frames(slow, spec=FrameSpec(fps=25)) as reader:
        assert len(list(reader)) == 48
        assert reader.conversions == "frames repeated, from 10 fps"


def test_a_time_at_random_does_not_become_endless_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", ramp(20), ticks_ms=[*range(0, 760, 40), 10**9])
    limits = Limits(seconds=1000)
    assert len(read_video(path, limits=limits).frames) == 20
    with pytest.raises(VideoError, match="longer than 1000 s"):
        read_video(path, spec=FrameSpec(fps=25), limits=limits)
    with pytest.raises(VideoError, match="longer than 1000 s"):
        next(select_frames(path, None, FrameSpec(fps=25), limits))


def test_motion_vectors_are_not_resampled(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ramp(20))
    with pytest.raises(VideoError, match="motion vectors are those between coded frames; choose another flow method"):
        iter_frames(path, motion_vectors=True, spec=FrameSpec(fps=12))


@pytest.mark.parametrize("fps", [0, -1, 1001, float("nan"), float("inf")])
def test_impossible_rates_are_refused(fps: float) -> None:
    with pytest.raises(VideoError, match="frames per second above 0"):
        FrameSpec(fps=fps)
