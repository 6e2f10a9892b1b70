"""Frames read by an index of packets, or by counting, are those of the whole video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.video_kinds import FRAMES, VIDEO_KINDS, encode_kind
from stresnet.media import Video, read_video
from stresnet.media.packets import PacketIndex
from stresnet.media.selected import IndexedFrames, SelectedFrames, select_frames

SELECTIONS: list[Sequence[int]] = [
    [0],
    [FRAMES - 1],
    [30],
    [11, 12, 13],
    [12],
    [23, 24],
    [5, 29, 30, 31, 58, 59],
    range(20, 30),
    range(FRAMES),
]


def readers(path: Path, short_side: int | None = None) -> dict[type, SelectedFrames]:
    """Return all readers of a video by their class."""
    return {type(reader): reader for reader in select_frames(path, short_side)}


def index_of(path: Path) -> PacketIndex | None:
    reader = readers(path).get(IndexedFrames)
    return None if reader is None else reader._index  # type: ignore[attr-defined]


def assert_same(reader: SelectedFrames, whole: Video, selection: Sequence[int]) -> None:
    """Assert that a reader gives frames, times and header of the whole video."""
    np.testing.assert_array_equal(reader.times_sec, whole.times_sec)
    frames = list(reader.read(selection))
    assert [frame.time_sec for frame in frames] == whole.times_sec[list(selection)].tolist()
    assert all(np.array_equal(f.rgb, whole.frames[i]) for f, i in zip(frames, selection, strict=True))
    assert (reader.info.fps, reader.truncated) == (whole.fps, whole.truncated)


@pytest.mark.parametrize("name", VIDEO_KINDS)
def test_selected_frames_are_those_of_the_whole_video(tmp_path: Path, name: str) -> None:
    path = encode_kind(tmp_path, name)
    whole = read_video(path, short_side=48)
    assert len(whole.frames) == FRAMES
    index = index_of(path)
    assert (None if index is None else len(index.starts)) == VIDEO_KINDS[name].starts
    for selection in SELECTIONS:
        for reader in select_frames(path, 48):
            assert_same(reader, whole, selection)
