"""Videos of high dynamic range: an ordinary video that was made into one comes back."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from helpers.video_files import encode
from stresnet.media import FrameSpec, iter_frames, read_video
from stresnet.media.selected import select_frames

PQ, HLG = 16, 18
BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def pq(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signal of light on the screen (SMPTE ST 2084)."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signal of light on a screen of 1000 cd/m² (BT.2100): back to light of the scene, then its curve."""
    light = nits / 1000
    luma = np.maximum(light @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene = light * luma ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def master(count: int = 3) -> list[NDArray[np.uint8]]:
    """Return ordinary pictures, 64 x 96: ramps of gray and of colours, black to white."""
    x, y = np.meshgrid(np.linspace(0, 1, 96), np.linspace(0, 1, 64))
    picture = np.stack([x, np.where(y < 0.5, x, 1 - x), np.where(y < 0.5, x, y)], 2)
    return [np.uint8(255 * np.roll(picture, 8 * k, axis=1)) for k in range(count)]


def write_hdr(path: Path, pictures: list[NDArray[np.uint8]], curve: int, matrix: int = Colorspace.BT2020) -> Path:
    """Write ordinary pictures as a lossless HDR video of 10 bits, with white at 203 cd/m² (BT.2408)."""
    reformatter = VideoReformatter()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv444p10le"
        codec = stream.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace, codec.color_range = curve, 9, matrix, 1
        for picture in pictures:
            nits = 203 * (picture / 255) ** 2.4 @ BT709_TO_BT2020.T
            signal = np.uint16(np.rint(65535 * (pq if curve == PQ else hlg)(nits)))
            coded = reformatter.reformat(
                av.VideoFrame.from_ndarray(signal, format="rgb48le"),
                format="yuv444p10le",
                dst_colorspace=Colorspace.BT2020,
                dst_color_range=ColorRange.MPEG,
            )
            coded.color_trc, coded.color_primaries = curve, 9
            container.mux(stream.encode(coded))
        container.mux(stream.encode(None))
    return path


def contrast(frames: NDArray[np.uint8]) -> float:
    return float(frames.astype(float).std(axis=(1, 2)).mean())


@pytest.mark.parametrize(("curve", "name"), [(PQ, "PQ"), (HLG, "HLG")])
def test_the_contrast_is_that_of_the_ordinary_video(tmp_path: Path, curve: int, name: str) -> None:
    pictures = np.stack(master())
    path = write_hdr(tmp_path / "a.mkv", master(), curve)
    with iter_frames(path) as reader:
        found = np.stack([frame.rgb for frame in reader])
        assert reader.conversions == f"tone-mapped, from {name}"
    assert contrast(found) == pytest.approx(contrast(pictures), rel=0.1)
    darker = pictures.max(3) <= 225  # what is brighter makes room for highlights
    difference = np.abs(found.astype(int) - pictures)
    assert np.percentile(difference[darker], 99) <= 4  # PQ of 10 bits is coarse in dark colours
    assert np.percentile(difference, 99) <= 16
    as_coded = read_video(path, spec=FrameSpec(tone_map=False)).frames
    assert not 0.9 < contrast(as_coded) / contrast(pictures) < 1.1
    for reader in select_frames(path, None):
        np.testing.assert_array_equal([frame.rgb for frame in reader.read([0, 2])], found[[0, 2]])
        assert reader.conversions == f"tone-mapped, from {name}"


def test_highlights_stay_apart(tmp_path: Path) -> None:
    bright = np.linspace(0.5, 1, 96)[None, :, None] * np.full(
        (64, 1, 3), 494.0
    )  # up to 1000 cd/m² as 203 (x / 255)^2.4
    path = write_hdr(tmp_path / "a.mkv", [bright], PQ)
    row = read_video(path).frames[0, 0, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert row[-1] == 255
    assert len(set(row[row > 240])) > 8


def test_a_video_that_does_not_name_its_matrix_has_that_of_its_curve(tmp_path: Path) -> None:
    named = read_video(write_hdr(tmp_path / "a.mkv", master(), PQ)).frames
    unnamed = read_video(write_hdr(tmp_path / "b.mkv", master(), PQ, matrix=2)).frames
    np.testing.assert_array_equal(unnamed, named)


def test_ordinary_videos_of_ten_bits_are_left_alone(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", master(), codec="ffv1", pix_fmt="yuv444p10le")
    with iter_frames(path) as reader:
        found = [frame.rgb for frame in reader]
        assert reader.conversions == ""
    assert np.abs(np.stack(found).astype(int) - master()).max() <= 2
