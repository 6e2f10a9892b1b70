"""Clips cut from prepared videos, and the data sets of clips for training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from helpers.videos_in_memory import in_memory
from stresnet.data import prepared_video
from stresnet.data.catalog import VideoRecord
from stresnet.data.clips import Clip, ClipSampling, cut
from stresnet.data.prepared_video import PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import Encode, PreparedVideoWriter, write_prepared_video
from stresnet.data.sampling import (
    Crop,
)
from stresnet.data.store import Entries, Store, StoreEntry, video_path
from stresnet.data.training_clips import CenteredClips, TrainingClips, recolor
from stresnet.flow import FlowSpec
from stresnet.model import Preprocessing
from stresnet.model.config import Architecture

Pictures = NDArray[np.uint8]
SPEC = StoreSpec(FlowSpec(short_side=32), jpeg_quality=100)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def encoder(rgb: Pictures, flow: Pictures) -> Encode:
    """Return a function that writes a prepared video of frames (T,H,W,3) and flow levels (T−1,2,H,W)."""
    frames, height, width = rgb.shape[:3]
    rgb_jpegs = [simplejpeg.encode_jpeg(frame, 100, "RGB", "444") for frame in rgb]
    stacked = np.ascontiguousarray(flow.reshape(frames - 1, 2 * height, width, 1))
    flow_jpegs = [simplejpeg.encode_jpeg(field, 100, "GRAY", "Gray") for field in stacked]
    meta = PreparedVideoMetadata(
        "v.avi", frames, height, width, 25.0, SPEC, 1, 1, 0.0, "", truncated=False, imported=False
    )

    def encode(sink: BinaryIO) -> PreparedVideoMetadata:
        writer = PreparedVideoWriter(sink, SPEC)
        for i, pictures in enumerate(zip(rgb_jpegs, [*flow_jpegs, None], strict=True)):
            writer.append(i / 25, *pictures)
        return writer.finish(meta)

    return encode


def encode_noise() -> Encode:
    rng = generator(7)
    rgb = rng.integers(0, 256, (20, 32, 40, 3), np.uint8)
    return encoder(rgb, rng.integers(0, 256, (19, 2, 32, 40), np.uint8))


def noisy_video() -> PreparedVideo:
    return in_memory(encode_noise())


def plain_video(frames: int = 20) -> PreparedVideo:
    """Return a video whose flow i is constant, 60 + i for u and 160 + i for v, which JPEG keeps exactly."""
    level = np.arange(frames - 1)[:, None, None, None] + np.array([60, 160])[:, None, None]
    flow = np.broadcast_to(level, (frames - 1, 2, 32, 40)).astype(np.uint8)
    return in_memory(encoder(np.full((frames, 32, 40, 3), 90, np.uint8), flow))


WHOLE = Crop(0, 0, 32, 40)
CENTERS = np.array([5, 7, 12])


def normalized(clip: Clip) -> tuple[Tensor | None, Tensor | None]:
    batch = {name: torch.from_numpy(value[None]) for name, value in clip.items()}
    return Preprocessing().normalize(batch.get("rgb"), batch.get("flow"), batch["flow_scale"])


def test_flow_stack_is_u_and_v_interleaved_in_time_order() -> None:
    sample = cut(plain_video(), CENTERS, WHOLE, (32, 40), flow_stack=10)
    assert sample["flow"].shape == (3, 20, 32, 40)
    for step, center in enumerate(CENTERS):
        expected = [base + flow for flow in range(center - 5, center + 5) for base in (60, 160)]
        assert sample["flow"][step, :, 3, 4].tolist() == expected
        assert (sample["flow"][step] == sample["flow"][step, :, :1, :1]).all()


def test_all_frames_and_both_streams_have_the_same_crop() -> None:
    video, crop = noisy_video(), Crop(3, 6, 20, 30)
    sample = cut(video, CENTERS, crop, (20, 30), flow_stack=10)
    window = np.s_[3:23, 6:36]
    for step, center in enumerate(CENTERS):
        assert np.array_equal(sample["rgb"][step], video.rgb([center])[0][window])
        fields = video.flow(range(center - 5, center + 5))[(..., *window)]  # (10,2,20,30)
        assert np.array_equal(sample["flow"][step], fields.reshape(20, 20, 30))
    assert sample["flow_scale"].tolist() == [1.0, 1.0]
    resized = cut(video, CENTERS, crop, (16, 16), flow_stack=10)
    assert resized["rgb"].shape == (3, 16, 16, 3)
    assert resized["flow"].shape == (3, 20, 16, 16)
    assert {value.dtype for name, value in resized.items() if name != "flow_scale"} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("size", [(20, 30), (16, 24), (40, 45)])
def test_mirror_flips_both_streams_and_negates_u_exactly(size: tuple[int, int]) -> None:
    video = noisy_video()
    plain, mirrored = (
        normalized(cut(video, CENTERS, Crop(3, 6, 20, 30, mirror), size, flow_stack=10)) for mirror in (False, True)
    )
    assert mirrored[0].equal(plain[0].flip(-1))
    assert mirrored[1][:, 0::2].equal(-plain[1][:, 0::2].flip(-1))
    assert mirrored[1][:, 1::2].equal(plain[1][:, 1::2].flip(-1))
    assert plain[1].abs().max() > 0


def test_resizing_scales_each_component_of_flow() -> None:
    crop = Crop(0, 0, 16, 40, mirror=True)  # twice as high, half as wide
    _, flow = normalized(cut(plain_video(), np.array([5]), crop, (32, 20), flow_stack=10))
    for i in range(10):
        assert torch.allclose(flow[0, 2 * i], torch.tensor(-0.5 * (60 + i - 128) / 57.63))
        assert torch.allclose(flow[0, 2 * i + 1], torch.tensor(2.0 * (160 + i - 128) / 57.63))


def test_each_clip_of_a_batch_has_a_flow_scale() -> None:
    levels = torch.full((2, 1, 4, 2, 2), 138, dtype=torch.uint8)
    _, flow = Preprocessing(flow_std=10.0).normalize(None, levels, torch.tensor([[1.0, 2.0], [-3.0, 4.0]]))
    assert flow.shape == (2, 4, 1, 2, 2)
    assert flow[:, :, 0, 0, 0].tolist() == [[1.0, 2.0, 1.0, 2.0], [-3.0, 4.0, -3.0, 4.0]]
    still = torch.full((1, 1, 2, 2, 4), 128, dtype=torch.uint8)
    assert not Preprocessing().normalize(None, still, torch.tensor([[-1.0, 1.0]]))[1].any()


def test_frames_are_normalised_by_channel() -> None:
    rgb = torch.tensor([255, 0, 100], dtype=torch.uint8).expand(1, 2, 4, 5, 3)
    found, none = Preprocessing().normalize(rgb, None, torch.ones(1, 2))
    assert none is None
    assert found.shape == (1, 3, 2, 4, 5)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (100 / 255 - 0.406) / 0.225])
    assert torch.allclose(found[0, :, 1, 2, 3], expected, atol=1e-4)


def test_each_stored_picture_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    video, decode, decoded = noisy_video(), simplejpeg.decode_jpeg, Counter[object]()

    def counting(jpeg: Pictures, colorspace: str, **rest: object) -> Pictures:
        decoded[colorspace, bytes(jpeg)] += 1
        return decode(jpeg, colorspace, **rest)

    monkeypatch.setattr(prepared_video.simplejpeg, "decode_jpeg", counting)
    cut(video, np.array([5, 7, 7, 12]), WHOLE, (32, 40), flow_stack=10)
    assert set(decoded.values()) == {1}
    assert Counter(colorspace for colorspace, _ in decoded) == {"RGB": 3, "GRAY": 17}  # flows 0 … 16
    decoded.clear()
    cut(video, CENTERS, WHOLE, (32, 40), flow_stack=10, streams=("appearance",))
    assert {colorspace for colorspace, _ in decoded} == {"RGB"}
    decoded.clear()
    cut(video, CENTERS, WHOLE, (32, 40), flow_stack=10, streams=("motion",))
    assert {colorspace for colorspace, _ in decoded} == {"GRAY"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    entries = []
    for n in range(3):
        record = VideoRecord(id=f"{n}.avi", path=f"/{n}.avi", label="ab"[n % 2])
        write_prepared_video(video_path(tmp_path, record.id), encode_noise())
        entries.append(StoreEntry(record, frames=20, height=32, width=40, fps=25.0))
    return Store(tmp_path, SPEC, ("b", "a"), "three", Entries.of(entries))


def sampling(**changes: object) -> ClipSampling:
    return ClipSampling(**{"steps": 2, "tau": (1, 3), "crop_px": 32, **changes})  # type: ignore[arg-type]


NETWORK = Architecture()


def test_training_clip_depends_on_seed_and_item_alone(store: Store) -> None:
    clips, again = (TrainingClips(store, store.entries, sampling(), NETWORK, seed=4) for _ in range(2))
    assert len(clips) == 3
    order = [7, 1, 4, 1000]
    first = {i: clips[i] for i in order}
    for i in reversed(order):
        assert all(value.equal(first[i][name]) for name, value in again[i].items())
    assert [int(clips[i]["label"]) for i in (0, 1, 2, 3, 4)] == [1, 0, 1, 1, 0]
    assert not clips[1]["rgb"].equal(clips[4]["rgb"])  # the same video in the next epoch
    assert not clips[1]["rgb"].equal(TrainingClips(store, store.entries, sampling(), NETWORK, seed=5)[1]["rgb"])


@pytest.mark.parametrize("crop", ["border", "corners"])
def test_training_clips_honour_mirror_and_streams(store: Store, crop: str) -> None:
    motion = Architecture(streams=("motion",), link=None)
    both, never = (
        TrainingClips(store, store.entries, sampling(crop=crop, mirror=mirror), motion, seed=0)
        for mirror in (True, False)
    )
    assert "rgb" not in both[0]
    assert both[0]["flow"].shape == (2, 20, 32, 32)
    assert {float(both[i]["flow_scale"][0]) < 0 for i in range(30)} == {True, False}
    assert all(float(never[i]["flow_scale"][0]) > 0 for i in range(30))


def test_centered_clip_is_the_central_square_without_mirror(store: Store) -> None:
    clips = CenteredClips(store, store.entries, sampling(steps=2, tau=(9, 9), crop_px=32), NETWORK)
    sample, video = clips[1], store.video("1.avi")
    assert int(sample["label"]) == 0
    assert np.array_equal(sample["rgb"], video.rgb([5, 14])[:, :, 4:36])
    assert sample["flow_scale"].tolist() == [1.0, 1.0]


def test_caffe_preprocessing_subtracts_the_mean_and_128() -> None:
    caffe = Preprocessing.of_layout("caffe", crop_px=224, mirror=True)
    rgb = torch.full((1, 1, 2, 2, 3), 200, dtype=torch.uint8)
    flow = torch.full((1, 1, 4, 2, 2), 130, dtype=torch.uint8)
    frames, stacks = caffe.normalize(rgb, flow, torch.ones(1, 2))
    assert frames is not None
    assert stacks is not None
    assert frames[0, :, 0, 0, 0].tolist() == pytest.approx([200 - m for m in caffe.rgb_mean], abs=1e-4)
    assert stacks.unique().tolist() == [2.0]
    assert Preprocessing.of_layout("torchvision", crop_px=224, mirror=True) == Preprocessing()


def test_recolor_changes_light_but_not_content(store: Store) -> None:
    frames = torch.from_numpy(store.video("1.avi").rgb([5, 9]))
    assert torch.equal(recolor(frames, 0.0, generator()), frames)
    other = recolor(frames, 0.4, generator(1))
    assert other.shape == frames.shape
    assert other.dtype == torch.uint8
    assert not torch.equal(other, frames)
    gray = torch.tensor([0.299, 0.587, 0.114])
    before, after = ((f.float() @ gray).flatten() for f in (frames, other))
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.98
    spread = [f.float().std(-1).mean() for f in (frames, other)]
    assert spread[1] < 1.5 * spread[0]  # saturation grows by no more than contrast
