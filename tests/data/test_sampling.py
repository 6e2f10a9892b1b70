"""Time steps, crops and mirrors, and the clips cut by them, against the released code's rules written out."""

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
from stresnet.data.clips import CenteredClips, ClipSampling, TrainingClips, cut, recolor
from stresnet.data.prepared_video import PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import Encode, PreparedVideoWriter, write_prepared_video
from stresnet.data.sampling import (
    Crop,
    border_crop,
    corner_and_center_crops,
    corner_crop,
    middle_centers,
    sample_centers,
    spread_centers,
    stack_around,
    valid_centers,
    whole_frame,
)
from stresnet.data.store import Store, StoreEntry, video_path
from stresnet.flow import FlowSpec
from stresnet.model import Preprocessing
from stresnet.model.config import Architecture

Pictures = NDArray[np.uint8]
SPEC = StoreSpec(FlowSpec(short_side=32), jpeg_quality=100)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def evenly(counts: Counter[object], outcomes: int, draws: int) -> bool:
    """Whether all outcomes were drawn, each within five standard deviations of its share."""
    share = draws / outcomes
    return len(counts) == outcomes and all(abs(n - share) < 5 * share**0.5 for n in counts.values())


# Time


@pytest.mark.parametrize("frames", [11, 12, 29, 180])
def test_valid_centers_are_6_to_n_minus_5_counted_from_one(frames: int) -> None:
    assert [c + 1 for c in valid_centers(frames, 10)] == list(range(6, frames - 5 + 1))


def test_stack_is_the_five_flows_before_and_five_after_the_frame() -> None:
    one_based = stack_around(np.array([6, 30]) - 1, 10) + 1
    assert one_based.tolist() == [list(range(1, 11)), list(range(25, 35))]


@pytest.mark.parametrize("flow_stack", [1, 2, 5, 10])
def test_valid_centers_are_all_whose_stack_exists(flow_stack: int) -> None:
    frames = 17
    flows = set(range(frames - 1))
    fitting = [c for c in range(frames) if set(stack_around(np.array([c]), flow_stack)[0].tolist()) <= flows]
    assert list(valid_centers(frames, flow_stack)) == fitting


def test_too_short_a_video_is_refused_in_one_line() -> None:
    assert list(valid_centers(11, 10)) == [5]
    with pytest.raises(ValueError, match="at least 11 frames, but the video has 10"):
        valid_centers(10, 10)


def test_training_clip_is_a_random_run_of_candidates_from_the_first_valid_centre() -> None:
    rng, starts = generator(), Counter[object]()
    for _ in range(3000):  # valid: 5 … 34; candidates 5, 8, … 32
        centers = sample_centers(40, 10, 5, (3, 3), rng)
        assert np.diff(centers).tolist() == [3] * 4
        starts[int(centers[0])] += 1
    assert sorted(starts) == [5, 8, 11, 14, 17, 20]
    assert evenly(starts, 6, 3000)


def test_tau_is_drawn_from_all_of_its_range() -> None:
    rng, strides = generator(), Counter[object]()
    for _ in range(3000):
        centers = sample_centers(300, 10, 5, (5, 15), rng)
        stride = int(centers[1] - centers[0])
        assert np.diff(centers).tolist() == [stride] * 4
        assert (centers[0] - 5) % stride == 0
        assert centers[0] >= 5
        assert centers[-1] <= 300 - 6
        strides[stride] += 1
    assert sorted(strides) == list(range(5, 16))
    assert evenly(strides, 11, 3000)


def test_single_frames_are_drawn_from_every_valid_centre() -> None:
    rng = generator()
    seen = Counter(int(sample_centers(21, 10, 1, (1, 1), rng)[0]) for _ in range(2000))
    assert sorted(seen) == list(range(5, 16))
    assert evenly(seen, 11, 2000)


def test_too_few_candidates_are_spread_over_the_valid_range() -> None:
    # 50 frames, valid 5 … 44: with τ = 10 the candidates are 5, 15, 25, 35
    assert sample_centers(50, 10, 4, (10, 10), generator()).tolist() == [5, 15, 25, 35]
    assert sample_centers(50, 10, 5, (10, 10), generator()).tolist() == spread_centers(50, 10, 5).tolist()
    assert sample_centers(51, 10, 5, (10, 10), generator()).tolist() == [5, 15, 25, 35, 45]
    assert sample_centers(11, 10, 11, (1, 15), generator()).tolist() == [5] * 11


def test_spread_centers_reach_both_ends_evenly() -> None:
    centers = spread_centers(150, 10, 25)
    assert (centers[0], centers[-1]) == (5, 144)
    assert set(np.diff(centers).tolist()) == {5, 6}  # 139 / 24 = 5.8
    assert set(spread_centers(12, 10, 25).tolist()) == {5, 6}
    assert spread_centers(21, 10, 1).tolist() == [10]
    assert spread_centers(15, 10, 5).tolist() == [5, 6, 7, 8, 9]


# Crops


def border_crops(draws: int, height: int, width: int, mirror: bool = True) -> list[Crop]:
    rng = generator()
    return [border_crop(height, width, 224, 0.25, mirror, rng) for _ in range(draws)]


def test_border_crop_sides_are_independent_and_clipped_to_the_frame() -> None:
    crops = border_crops(4000, 256, 340)
    heights, widths = np.array([(c.height, c.width) for c in crops]).T
    assert (heights.min(), heights.max()) == (168, 256)
    assert (widths.min(), widths.max()) == (168, 280)
    assert abs(widths.mean() - 224) < 2
    assert 0.15 < (heights == 256).mean() < 0.29  # 25 of 113 draws are clipped
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.08


def test_border_crop_lies_in_the_same_outer_quarter_on_both_axes() -> None:
    sides, firsts = Counter[object](), set()
    for c in border_crops(3000, 400, 500):
        free_h, free_w = 400 - c.height, 500 - c.width
        first = (0 <= c.top <= free_h / 4, 0 <= c.left <= free_w / 4)
        last = (free_h * 3 / 4 <= c.top <= free_h, free_w * 3 / 4 <= c.left <= free_w)
        assert first == (True, True) or last == (True, True)
        sides[first == (True, True)] += 1
        firsts.add((c.top == 0, c.left == 0))
    assert evenly(sides, 2, 3000)
    assert {(False, True), (True, False)} <= firsts  # within the quarter, the two axes are drawn apart


def test_border_crop_of_a_small_frame_is_the_frame() -> None:
    for c in border_crops(50, 100, 120):
        assert (c.top, c.left, c.height, c.width) == (0, 0, 100, 120)


@pytest.mark.parametrize(("crop_px", "sizes"), [(224, (168, 192, 224, 256)), (56, (42, 48, 56, 64))])
def test_corner_crop_takes_four_sizes_a_side_at_five_places(crop_px: int, sizes: tuple[int, ...]) -> None:
    rng, shapes, places = generator(), Counter[object](), Counter[object]()
    height, width = sizes[-1] + 44, sizes[-1] + 84
    for _ in range(4000):
        c = corner_crop(height, width, crop_px, True, rng)
        free_h, free_w = height - c.height, width - c.width
        corners = {(0, 0): "nw", (0, free_w): "ne", (free_h, 0): "sw", (free_h, free_w): "se"}
        places[corners.get((c.top, c.left), "centre")] += 1
        if (c.top, c.left) not in corners:
            assert (c.top, c.left) == (free_h // 2, free_w // 2)
        shapes[c.height, c.width] += 1
    assert set(shapes) == {(h, w) for h in sizes for w in sizes}
    assert evenly(shapes, 16, 4000)
    assert evenly(places, 5, 4000)


def test_corner_crop_is_clipped_to_the_frame() -> None:
    rng = generator()
    for _ in range(200):
        c = corner_crop(200, 180, 224, False, rng)
        assert c.height in (168, 192, 200)
        assert c.width in (168, 180)
        assert 0 <= c.top <= 200 - c.height
        assert 0 <= c.left <= 180 - c.width


def test_half_of_all_crops_are_mirrored_and_none_where_mirrors_are_off() -> None:
    rng = generator()
    for draw in (lambda on: border_crop(256, 340, 224, 0.25, on, rng), lambda on: corner_crop(256, 340, 224, on, rng)):
        assert evenly(Counter(draw(True).mirror for _ in range(2000)), 2, 2000)
        assert not any(draw(False).mirror for _ in range(200))


def test_crops_follow_their_generator() -> None:
    for rule in (
        lambda rng: border_crop(256, 340, 224, 0.25, True, rng),
        lambda rng: corner_crop(256, 340, 224, True, rng),
    ):
        one, again, other = ([rule(rng) for _ in range(20)] for rng in (generator(1), generator(1), generator(2)))
        assert one == again != other


def test_test_windows() -> None:
    assert whole_frame(256, 340, 224) == Crop(0, 0, 256, 340)
    assert whole_frame(256, 500, 224) == Crop(0, 26, 256, 448)
    assert whole_frame(600, 449, 224) == Crop(76, 0, 448, 448)
    assert whole_frame(100, 120, 224) == Crop(0, 0, 100, 120)
    crops = corner_and_center_crops(256, 340, 224)
    assert [(c.top, c.left) for c in crops] == [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]
    assert {(c.height, c.width, c.mirror) for c in crops} == {(224, 224, False)}


# Clips


def encoder(rgb: Pictures, flow: Pictures) -> Encode:
    """What writes a clip of frames (T,H,W,3) and flow levels (T−1,2,H,W)."""
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


def noise() -> Encode:
    rng = generator(7)
    rgb = rng.integers(0, 256, (20, 32, 40, 3), np.uint8)
    return encoder(rgb, rng.integers(0, 256, (19, 2, 32, 40), np.uint8))


def noisy_clip() -> PreparedVideo:
    return in_memory(noise())


def plain_clip(frames: int = 20) -> PreparedVideo:
    """Flow i has the level 60 + i for u and 160 + i for v all over, which JPEG keeps exactly."""
    level = np.arange(frames - 1)[:, None, None, None] + np.array([60, 160])[:, None, None]
    flow = np.broadcast_to(level, (frames - 1, 2, 32, 40)).astype(np.uint8)
    return in_memory(encoder(np.full((frames, 32, 40, 3), 90, np.uint8), flow))


WHOLE = Crop(0, 0, 32, 40)
CENTERS = np.array([5, 7, 12])


def normalized(sample: dict[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
    batch = {name: value[None] for name, value in sample.items()}
    return Preprocessing().normalize(batch.get("rgb"), batch.get("flow"), batch["flow_scale"])


def test_flow_stack_is_u_and_v_interleaved_in_time_order() -> None:
    sample = cut(plain_clip(), CENTERS, WHOLE, (32, 40), flow_stack=10)
    assert sample["flow"].shape == (3, 20, 32, 40)
    for step, center in enumerate(CENTERS):
        expected = [base + flow for flow in range(center - 5, center + 5) for base in (60, 160)]
        assert sample["flow"][step, :, 3, 4].tolist() == expected
        assert (sample["flow"][step] == sample["flow"][step, :, :1, :1]).all()


def test_one_crop_holds_for_all_frames_and_both_streams() -> None:
    clip, crop = noisy_clip(), Crop(3, 6, 20, 30)
    sample = cut(clip, CENTERS, crop, (20, 30), flow_stack=10)
    window = np.s_[3:23, 6:36]
    for step, center in enumerate(CENTERS):
        assert np.array_equal(sample["rgb"][step], clip.rgb([center])[0][window])
        fields = clip.flow(range(center - 5, center + 5))[(..., *window)]  # (10,2,20,30)
        assert np.array_equal(sample["flow"][step], fields.reshape(20, 20, 30))
    assert sample["flow_scale"].tolist() == [1.0, 1.0]
    resized = cut(clip, CENTERS, crop, (16, 16), flow_stack=10)
    assert resized["rgb"].shape == (3, 16, 16, 3)
    assert resized["flow"].shape == (3, 20, 16, 16)
    assert {value.dtype for name, value in resized.items() if name != "flow_scale"} == {torch.uint8}


@pytest.mark.parametrize("size", [(20, 30), (16, 24), (40, 45)])
def test_mirror_flips_both_streams_and_negates_u_to_the_last_bit(size: tuple[int, int]) -> None:
    clip = noisy_clip()
    plain, mirrored = (
        normalized(cut(clip, CENTERS, Crop(3, 6, 20, 30, mirror), size, flow_stack=10)) for mirror in (False, True)
    )
    assert mirrored[0].equal(plain[0].flip(-1))
    assert mirrored[1][:, 0::2].equal(-plain[1][:, 0::2].flip(-1))
    assert mirrored[1][:, 1::2].equal(plain[1][:, 1::2].flip(-1))
    assert plain[1].abs().max() > 0


def test_resizing_scales_flow_by_axis() -> None:
    crop = Crop(0, 0, 16, 40, mirror=True)  # twice as high, half as wide
    _, flow = normalized(cut(plain_clip(), np.array([5]), crop, (32, 20), flow_stack=10))
    for i in range(10):
        assert torch.allclose(flow[0, 2 * i], torch.tensor(-0.5 * (60 + i - 128) / 57.63))
        assert torch.allclose(flow[0, 2 * i + 1], torch.tensor(2.0 * (160 + i - 128) / 57.63))


def test_each_clip_of_a_batch_has_its_own_scale() -> None:
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
    clip, decode, decoded = noisy_clip(), simplejpeg.decode_jpeg, Counter[object]()

    def counting(jpeg: Pictures, colorspace: str, **rest: object) -> Pictures:
        decoded[colorspace, bytes(jpeg)] += 1
        return decode(jpeg, colorspace, **rest)

    monkeypatch.setattr(prepared_video.simplejpeg, "decode_jpeg", counting)
    cut(clip, np.array([5, 7, 7, 12]), WHOLE, (32, 40), flow_stack=10)
    assert set(decoded.values()) == {1}
    assert Counter(colorspace for colorspace, _ in decoded) == {"RGB": 3, "GRAY": 17}  # flows 0 … 16
    decoded.clear()
    cut(clip, CENTERS, WHOLE, (32, 40), flow_stack=10, streams=("appearance",))
    assert {colorspace for colorspace, _ in decoded} == {"RGB"}
    decoded.clear()
    cut(clip, CENTERS, WHOLE, (32, 40), flow_stack=10, streams=("motion",))
    assert {colorspace for colorspace, _ in decoded} == {"GRAY"}


# The training set


@pytest.fixture
def store(tmp_path: Path) -> Store:
    entries = []
    for n in range(3):
        record = VideoRecord(id=f"{n}.avi", path=f"/{n}.avi", label="ab"[n % 2])
        write_prepared_video(video_path(tmp_path, record.id), noise())
        entries.append(StoreEntry(record, frames=20, height=32, width=40, fps=25.0))
    return Store(tmp_path, SPEC, ("b", "a"), "three", tuple(entries))


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
    assert not clips[1]["rgb"].equal(clips[4]["rgb"])  # the same video in the next pass
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


def test_centered_clip_is_the_middle_square_unmirrored(store: Store) -> None:
    clips = CenteredClips(store, store.entries, sampling(steps=2, tau=(9, 9), crop_px=32), NETWORK)
    sample, clip = clips[1], store.video("1.avi")
    assert int(sample["label"]) == 0
    assert np.array_equal(sample["rgb"], clip.rgb([5, 14])[:, :, 4:36])
    assert sample["flow_scale"].tolist() == [1.0, 1.0]


def test_the_middle_clip_lies_in_the_middle_at_the_middle_stride() -> None:
    centers = middle_centers(101, 10, 5, (5, 15))
    assert np.diff(centers).tolist() == [10, 10, 10, 10]
    valid = valid_centers(101, 10)
    assert abs((centers[0] - valid[0]) - (valid[-1] - centers[-1])) <= 1
    assert middle_centers(101, 10, 1, (1, 1)).tolist() == spread_centers(101, 10, 1).tolist()
    assert middle_centers(30, 10, 5, (5, 15)).tolist() == spread_centers(30, 10, 5).tolist()


def test_caffe_weights_see_levels_less_a_mean_and_flow_less_128() -> None:
    caffe = Preprocessing.of_layout("caffe", crop_px=224, mirror=True)
    rgb = torch.full((1, 1, 2, 2, 3), 200, dtype=torch.uint8)
    flow = torch.full((1, 1, 4, 2, 2), 130, dtype=torch.uint8)
    frames, stacks = caffe.normalize(rgb, flow, torch.ones(1, 2))
    assert frames is not None
    assert stacks is not None
    assert frames[0, :, 0, 0, 0].tolist() == pytest.approx([200 - m for m in caffe.rgb_mean], abs=1e-4)
    assert stacks.unique().tolist() == [2.0]
    assert Preprocessing.of_layout("torchvision", crop_px=224, mirror=True) == Preprocessing()


def test_recolouring_keeps_the_picture_and_changes_its_light(store: Store) -> None:
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
    assert spread[1] < 1.5 * spread[0]  # colours fade, or gain no more than contrast does
