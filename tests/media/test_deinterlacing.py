"""Interlaced videos: their combs are gone, and progressive frames stay as they are."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.video_files import encode, ramp
from stresnet.flow import FlowSpec, estimate_flow
from stresnet.media import FrameSpec, iter_frames, read_video
from stresnet.media.failures import IndexMismatchError
from stresnet.media.selected import CountedFrames, select_frames

KINDS = {
    "h264 ts": ("a.ts", "libx264", {"flags": "+ildct+ilme", "crf": "5"}),
    "mpeg2 mpg": ("a.mpg", "mpeg2video", {"flags": "+ildct+ilme", "b": "8M"}),
    "mpeg4 avi": ("a.avi", "mpeg4", {"flags": "+ildct+ilme", "b": "8M"}),
    "prores mov": ("a.mov", "prores_ks", {"flags": "+ildct"}),
}
AS_CODED = FrameSpec(deinterlace=False)


def moving(count: int) -> list[NDArray[np.uint8]]:
    """Return pictures of a texture that moves irregularly: regular motion is the same in even and in odd rows."""
    noise = np.random.default_rng(0).normal(size=(220, 320, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    texture = np.clip(128 + 45 * smooth / smooth.std(), 0, 255)
    at = np.cumsum(np.random.default_rng(1).uniform(-3, 3, (count, 2)), axis=0) - (80, 60)
    shift = [np.array([[1, 0, x], [0, 1, y]], np.float32) for x, y in at]
    return [cv2.warpAffine(texture, m, (160, 96)).astype(np.uint8) for m in shift]


def woven(pictures: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return interlaced pictures, the odd rows first: those of every other picture, and even rows of the one after."""
    frames = []
    for first, second in zip(pictures[::2], pictures[1::2], strict=True):
        frame = first.copy()
        frame[::2] = second[::2]
        frames.append(frame)
    return frames


def write(folder: Path, name: str, pictures: list[NDArray[np.uint8]]) -> Path:
    file, codec, options = KINDS[name]
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    return encode(folder / file, pictures, codec=codec, pix_fmt=pix_fmt, **options)


def comb_level(frames: NDArray[np.uint8]) -> float:
    """Return how much odd rows differ from the mean of their neighbours, in levels."""
    rows = frames[..., 1].astype(float)
    return float(np.abs(rows[:, 1:-1:2] - (rows[:, :-2:2] + rows[:, 2::2]) / 2).mean())


@pytest.mark.parametrize("name", KINDS)
def test_the_flow_is_that_of_the_progressive_video(tmp_path: Path, name: str) -> None:
    pictures = moving(20)
    path = write(tmp_path, name, woven(pictures))
    with iter_frames(path) as reader:
        found = np.stack([frame.rgb for frame in reader])
        assert reader.conversions == "deinterlaced"
    as_coded = read_video(path, spec=AS_CODED).frames
    assert found.shape == as_coded.shape == (10, 96, 160, 3)
    progressive = np.stack(pictures[::2])
    expected = estimate_flow(progressive, FlowSpec(short_side=96))

    def error_px(frames: NDArray[np.uint8]) -> float:
        flow = estimate_flow(frames, FlowSpec(short_side=96))
        return float(np.linalg.norm(flow - expected, axis=1)[:, 8:-8, 8:-8].mean())

    assert error_px(found) < 0.3
    assert error_px(as_coded) > 0.5
    assert comb_level(found) < 1.3 * comb_level(progressive)
    assert comb_level(as_coded) > 3 * comb_level(progressive)


@pytest.mark.parametrize("name", KINDS)
def test_every_way_to_read_gives_the_same_frames(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, woven(moving(24)))
    video = read_video(path)
    *indexed, counted = select_frames(path, None)
    for reader in indexed:
        with pytest.raises(IndexMismatchError):
            list(reader.read([0]))
    assert isinstance(counted, CountedFrames)
    found = list(counted.read([0, 4, 11]))
    np.testing.assert_array_equal([frame.rgb for frame in found], video.frames[[0, 4, 11]])
    assert counted.times_sec.tolist() == video.times_sec.tolist()
    np.testing.assert_allclose(video.times_sec, np.arange(12) / 25, atol=1e-4)
    assert counted.conversions == "deinterlaced"


def test_motion_vectors_belong_to_their_frames(tmp_path: Path) -> None:
    path = write(tmp_path, "mpeg2 mpg", woven(moving(24)))
    with iter_frames(path, motion_vectors=True) as reader:
        found = list(reader)
    with iter_frames(path, motion_vectors=True, spec=AS_CODED) as reader:
        coded = list(reader)
    np.testing.assert_array_equal([frame.rgb for frame in found], read_video(path).frames)
    for frame, other in zip(found, coded, strict=True):
        assert frame.motion_vectors is not None
        np.testing.assert_array_equal(frame.motion_vectors, other.motion_vectors)


def test_progressive_frames_between_interlaced_ones_keep_their_bits(tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.ts", moving(12), codec="mpeg2video", b="8M")
    combed = write(tmp_path, "mpeg2 mpg", woven(moving(24)))
    mixed = tmp_path / "mixed.m2v"
    with mixed.open("wb") as out:
        for path in (plain, combed, plain):
            with av.open(str(path)) as container:
                out.writelines(bytes(packet) for packet in container.demux(video=0) if packet.size)
    found, coded = read_video(mixed).frames, read_video(mixed, spec=AS_CODED).frames
    assert len(found) == len(coded) == 36
    changed = [i for i in range(36) if not np.array_equal(found[i], coded[i])]
    assert changed == list(range(12, 24))


def test_frames_may_change_their_size_midway(tmp_path: Path) -> None:
    small = write(tmp_path, "mpeg2 mpg", woven(moving(24))).read_bytes()
    large = encode(tmp_path / "b.mpg", ramp(12, 128, 192), codec="mpeg2video", flags="+ildct+ilme").read_bytes()
    (tmp_path / "both.mpg").write_bytes(small + large)
    found, coded = (read_video(tmp_path / "both.mpg", spec=spec).frames for spec in (FrameSpec(), AS_CODED))
    assert found.shape == coded.shape == (23, 96, 160, 3)  # FFmpeg loses the one between them
    np.testing.assert_allclose(found.mean((1, 2, 3)), coded.mean((1, 2, 3)), rtol=0, atol=1)
