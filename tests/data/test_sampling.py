"""Time steps, crops and mirrors against the rules of the released code."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stresnet.data.sampling import (
    Crop,
    border_crop,
    corner_and_center_crops,
    corner_crop,
    middle_centers,
    sample_centers,
    spread_centers,
    spread_clips,
    stack_around,
    valid_centers,
    whole_frame,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def is_uniform(counts: Counter[object], outcomes: int, draws: int) -> bool:
    """Return whether all outcomes were drawn, each within five standard deviations of its expected count."""
    share = draws / outcomes
    return len(counts) == outcomes and all(abs(n - share) < 5 * share**0.5 for n in counts.values())


@pytest.mark.parametrize("frames", [11, 12, 29, 180])
def test_valid_centers_are_6_to_n_minus_5_in_one_based_indices(frames: int) -> None:
    assert [c + 1 for c in valid_centers(frames, 10)] == list(range(6, frames - 5 + 1))


def test_stack_is_five_flows_before_the_frame_and_five_after() -> None:
    one_based = stack_around(np.array([6, 30]) - 1, 10) + 1
    assert one_based.tolist() == [list(range(1, 11)), list(range(25, 35))]


@pytest.mark.parametrize("flow_stack", [1, 2, 5, 10])
def test_valid_centers_are_those_whose_stack_exists(flow_stack: int) -> None:
    frames = 17
    flows = set(range(frames - 1))
    fitting = [c for c in range(frames) if set(stack_around(np.array([c]), flow_stack)[0].tolist()) <= flows]
    assert list(valid_centers(frames, flow_stack)) == fitting


def test_a_video_that_is_too_short() -> None:
    assert list(valid_centers(11, 10)) == [5]
    with pytest.raises(ValueError, match="at least 11 frames, but the video has 10"):
        valid_centers(10, 10)


def test_training_clips_are_random_runs_of_candidates() -> None:
    rng, starts = generator(), Counter[object]()
    for _ in range(3000):  # valid: 5 … 34; candidates 5, 8, … 32
        centers = sample_centers(40, 10, 5, (3, 3), rng)
        assert np.diff(centers).tolist() == [3] * 4
        starts[int(centers[0])] += 1
    assert sorted(starts) == [5, 8, 11, 14, 17, 20]
    assert is_uniform(starts, 6, 3000)


def test_tau_is_drawn_uniformly() -> None:
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
    assert is_uniform(strides, 11, 3000)


def test_single_frames_are_drawn_from_every_valid_centre() -> None:
    rng = generator()
    seen = Counter(int(sample_centers(21, 10, 1, (1, 1), rng)[0]) for _ in range(2000))
    assert sorted(seen) == list(range(5, 16))
    assert is_uniform(seen, 11, 2000)


def test_too_few_candidates_are_spread_over_the_valid_range() -> None:
    # 50 frames, valid 5 … 44: with τ = 10 the candidates are 5, 15, 25, 35
    assert sample_centers(50, 10, 4, (10, 10), generator()).tolist() == [5, 15, 25, 35]
    assert sample_centers(50, 10, 5, (10, 10), generator()).tolist() == spread_centers(50, 10, 5).tolist()
    assert sample_centers(51, 10, 5, (10, 10), generator()).tolist() == [5, 15, 25, 35, 45]
    assert sample_centers(11, 10, 11, (1, 15), generator()).tolist() == [5] * 11


def test_spread_centers_are_even_and_include_both_ends() -> None:
    centers = spread_centers(150, 10, 25)
    assert (centers[0], centers[-1]) == (5, 144)
    assert set(np.diff(centers).tolist()) == {5, 6}  # 139 / 24 = 5.8
    assert set(spread_centers(12, 10, 25).tolist()) == {5, 6}
    assert spread_centers(21, 10, 1).tolist() == [10]
    assert spread_centers(15, 10, 5).tolist() == [5, 6, 7, 8, 9]


def test_middle_centers_are_in_the_middle_at_the_middle_stride() -> None:
    centers = middle_centers(101, 10, 5, (5, 15))
    assert np.diff(centers).tolist() == [10, 10, 10, 10]
    valid = valid_centers(101, 10)
    assert abs((centers[0] - valid[0]) - (valid[-1] - centers[-1])) <= 1
    assert middle_centers(101, 10, 1, (1, 1)).tolist() == spread_centers(101, 10, 1).tolist()
    assert middle_centers(30, 10, 5, (5, 15)).tolist() == spread_centers(30, 10, 5).tolist()


@pytest.mark.parametrize(
    ("frames", "clips"),
    [  # five steps, 2 to 6 frames apart in training, and the centres 5 … N−6
        (60, [[start, start + 4, start + 8, start + 12, start + 16] for start in (5, 13, 22, 30, 38)]),
        (30, [[5, 9, 13, 17, 21], [6, 10, 14, 18, 22], [7, 11, 15, 19, 23], [8, 12, 16, 20, 24]]),
        (27, [[5, 9, 13, 17, 21]]),  # a stride of 4 just fits
        (26, [[5, 8, 11, 14, 17], [6, 9, 12, 15, 18], [7, 10, 13, 16, 19], [8, 11, 14, 17, 20]]),
        (20, [[5, 7, 9, 11, 13], [6, 8, 10, 12, 14]]),
        (19, [[5, 7, 9, 11, 13]]),
        (18, [[5, 7, 8, 10, 12]]),  # not even a stride of 2 fits: as training spreads a clip
        (11, [[5, 5, 5, 5, 5]]),
    ],
)
def test_spread_clips_keep_to_the_strides_of_training(frames: int, clips: list[list[int]]) -> None:
    assert spread_clips(frames, 10, 5, (2, 6), 5).tolist() == clips


def test_spread_clips_of_one_step_are_spread_centers() -> None:
    for frames in (11, 20, 35, 60, 300):
        expected = np.unique(spread_centers(frames, 10, 25))
        assert spread_clips(frames, 10, 1, (1, 1), 25).tolist() == expected[:, None].tolist()
    assert spread_clips(14, 10, 1, (5, 15), 3).tolist() == [[5], [6], [8]]  # a single step has no stride


def test_a_single_spread_clip_is_in_the_middle() -> None:
    assert spread_clips(41, 10, 5, (2, 6), 1).tolist() == [[12, 16, 20, 24, 28]]  # 7 centres before it and 7 after


def test_spread_clips_of_a_video_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="at least 11 frames, but the video has 10"):
        spread_clips(10, 10, 5, (2, 6), 5)


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
    assert is_uniform(sides, 2, 3000)
    assert {(False, True), (True, False)} <= firsts  # within the quarter, the axes are independent


def test_border_crop_of_a_small_frame_is_the_frame() -> None:
    for c in border_crops(50, 100, 120):
        assert (c.top, c.left, c.height, c.width) == (0, 0, 100, 120)


@pytest.mark.parametrize(("crop_px", "sizes"), [(224, (168, 192, 224, 256)), (56, (42, 48, 56, 64))])
def test_corner_crop_has_four_sizes_per_side_and_five_positions(crop_px: int, sizes: tuple[int, ...]) -> None:
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
    assert is_uniform(shapes, 16, 4000)
    assert is_uniform(places, 5, 4000)


def test_corner_crop_is_clipped_to_the_frame() -> None:
    rng = generator()
    for _ in range(200):
        c = corner_crop(200, 180, 224, False, rng)
        assert c.height in (168, 192, 200)
        assert c.width in (168, 180)
        assert 0 <= c.top <= 200 - c.height
        assert 0 <= c.left <= 180 - c.width


def test_half_of_the_crops_are_mirrored_or_none() -> None:
    rng = generator()
    for draw in (lambda on: border_crop(256, 340, 224, 0.25, on, rng), lambda on: corner_crop(256, 340, 224, on, rng)):
        assert is_uniform(Counter(draw(True).mirror for _ in range(2000)), 2, 2000)
        assert not any(draw(False).mirror for _ in range(200))


def test_crops_are_determined_by_the_generator() -> None:
    for rule in (
        lambda rng: border_crop(256, 340, 224, 0.25, True, rng),
        lambda rng: corner_crop(256, 340, 224, True, rng),
    ):
        one, again, other = ([rule(rng) for _ in range(20)] for rng in (generator(1), generator(1), generator(2)))
        assert one == again != other


def test_crops_for_testing() -> None:
    assert whole_frame(256, 340, 224) == Crop(0, 0, 256, 340)
    assert whole_frame(256, 500, 224) == Crop(0, 26, 256, 448)
    assert whole_frame(600, 449, 224) == Crop(76, 0, 448, 448)
    assert whole_frame(100, 120, 224) == Crop(0, 0, 100, 120)
    crops = corner_and_center_crops(256, 340, 224)
    assert [(c.top, c.left) for c in crops] == [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]
    assert {(c.height, c.width, c.mirror) for c in crops} == {(224, 224, False)}
