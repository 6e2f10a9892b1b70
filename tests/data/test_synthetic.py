"""Generated videos: their classes are determined by colour and motion together, and by nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from stresnet.data import synthetic
from stresnet.data.synthetic import CLASSES, MEMORY_FRAMES, SyntheticSpec, render_video, video_seed, write_dataset
from stresnet.errors import StoreError
from stresnet.flow import FlowSpec, estimate_flow
from stresnet.media import read_video, write_video

STILL_CAMERA = SyntheticSpec(frames=12, shake_px=0.0, noise_std=0.0)
SMALL_SET = SyntheticSpec(width=40, height=24, frames=4, window_px=12, train_per_class=2, test_per_class=1)
RED_DRIFT = {"red_down_blue_up": (0, 1), "red_left_blue_right": (-1, 0)}
RED_DRIFT |= {"red_right_blue_left": (1, 0), "red_up_blue_down": (0, -1)}
GRAY = np.array([0.299, 0.587, 0.114])


def color_masks(frames):
    """Return the masks of the red and of the blue window, (T,H,W) each."""
    red_minus_blue = frames[..., 0].astype(int) - frames[..., 2]
    return red_minus_blue > 80, red_minus_blue < -80


def windows(frames):
    """Return the red and the blue window of a video with a still camera, (T,side,side,3) each."""
    contents = []
    for mask in color_masks(frames):
        assert np.array_equal(mask[0], mask.any(axis=0))
        y, x = np.nonzero(mask[0])
        contents.append(frames[:, y.min() : y.max() + 1, x.min() : x.max() + 1])
        assert contents[-1].shape[1:3] == (STILL_CAMERA.window_px, STILL_CAMERA.window_px)
        assert mask[0].sum() == STILL_CAMERA.window_px**2
    return contents


def correlation(earlier, later, shift):
    """Return the mean correlation of two stacks (N,h,w) after shifting the earlier one by (x,y) px."""
    (x, y), (h, w) = shift, earlier.shape[1:]
    a = earlier[:, max(0, -y) : h - max(0, y), max(0, -x) : w - max(0, x)]
    b = later[:, max(0, y) : h + min(0, y), max(0, x) : w + min(0, x)]
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


def test_classes_are_in_the_order_of_class_folders():
    assert list(CLASSES) == sorted(CLASSES)
    assert set(CLASSES) == set(RED_DRIFT)


def test_rendering_is_determined_by_its_arguments():
    spec = SyntheticSpec(frames=3)
    video = render_video(1, 7, spec, split="train")
    assert video.shape == (3, spec.height, spec.width, 3)
    assert video.dtype == np.uint8
    assert np.array_equal(video, render_video(1, 7, spec, split="train"))
    assert not np.array_equal(video, render_video(1, 8, spec, split="train"))
    assert not np.array_equal(video, render_video(1, 7, spec, split="test"))


def test_the_class_turns_the_textures_and_changes_nothing_else():
    rendered = [render_video(label, 3, STILL_CAMERA, split="train") for label in range(4)]
    reference = rendered[CLASSES.index("red_right_blue_left")]
    red, blue = windows(reference)
    outside = ~np.any([mask.any(axis=0) for mask in color_masks(reference)], axis=0)
    turns = {"red_down_blue_up": 3, "red_left_blue_right": 2, "red_right_blue_left": 0, "red_up_blue_down": 1}
    for name, video in zip(CLASSES, rendered, strict=True):
        assert np.array_equal(video[:, outside], reference[:, outside])
        for mask, expected in zip(color_masks(video), color_masks(reference), strict=True):
            assert np.array_equal(mask, expected)
        turned_red, turned_blue = windows(video)
        assert np.array_equal(turned_red, np.rot90(red, turns[name], axes=(1, 2)))
        assert np.array_equal(turned_blue, np.rot90(blue, turns[name], axes=(1, 2)))


def test_camera_and_noise_do_not_depend_on_the_class():
    spec = SyntheticSpec(frames=8)
    reference = render_video(0, 3, spec, split="test")
    red, blue = color_masks(reference)
    near_windows = cv2.dilate((red | blue).any(axis=0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert near_windows.mean() < 0.6
    for label in (1, 2, 3):
        video = render_video(label, 3, spec, split="test")
        assert np.array_equal(video[:, ~near_windows], reference[:, ~near_windows])
        for mask, expected in zip(color_masks(video), (red, blue), strict=True):
            assert np.mean(mask != expected) < 0.02


@pytest.mark.parametrize("label", range(4))
def test_textures_drift_as_the_class_says_and_correlate_as_derived(label):
    step = np.array(RED_DRIFT[CLASSES[label]]) * STILL_CAMERA.drift_px
    stacks = [windows(render_video(label, seed, STILL_CAMERA, split="test")) for seed in range(4)]
    for contents, drift in zip(zip(*stacks, strict=True), (step, -step), strict=True):
        gray = np.stack(contents) @ GRAY - 96.0
        ahead = [correlation(g[:-1], g[1:], drift) for g in gray]
        back = [correlation(g[:-1], g[1:], -drift) for g in gray]
        assert np.mean(ahead) == pytest.approx(np.cos(np.pi / 6), abs=0.03)
        assert max(back) < 0.3


def test_frames_beyond_the_memory_are_uncorrelated_at_any_shift():
    rng = np.random.default_rng(0)
    spec = SyntheticSpec(frames=3000, window_px=24)
    texture = synthetic._drifting_texture(rng, spec) - 96.0

    def best(lag):
        shifts = range(0, 16, spec.drift_px)
        return max(abs(correlation(texture[:-lag], texture[lag:], (x, 0))) for x in shifts)

    assert best(MEMORY_FRAMES - 1) == pytest.approx(1 / 12, abs=0.03)  # sin²(30°) / 3, the last shared field
    for lag in (MEMORY_FRAMES, MEMORY_FRAMES + 2, 3 * MEMORY_FRAMES):
        assert best(lag) < 0.03


def test_a_single_frame_of_texture_is_isotropic():
    texture = np.concatenate(
        [synthetic._drifting_texture(np.random.default_rng(s), SyntheticSpec(frames=200)) for s in range(4)]
    )
    texture -= 96.0
    across, along = np.diff(texture, axis=2), np.diff(texture, axis=1)
    assert np.mean(across**2) == pytest.approx(np.mean(along**2), rel=0.02)
    assert abs(np.mean(across**3)) / np.mean(across**2) ** 1.5 < 0.02
    ends = [texture[:, :, :4], texture[:, :, -4:], texture[:, :4], texture[:, -4:]]
    assert [np.var(end) for end in ends] == pytest.approx([np.var(texture)] * 4, rel=0.05)


def test_tints_do_not_change_gray_and_do_not_saturate():
    reds, blues = [], []
    for seed in range(12):
        spec = replace(STILL_CAMERA, frames=6)
        for content, levels in zip(windows(render_video(0, seed, spec, split="train")), (reds, blues), strict=True):
            assert content.min() > 5
            assert content.max() < 250
            levels.append(content @ GRAY)
    low, high = np.min([reds, blues], axis=(1, 2, 3, 4)), np.max([reds, blues], axis=(1, 2, 3, 4))
    assert low == pytest.approx([48.0, 48.0], abs=0.6)  # 96 ± 48 for both colours
    assert high == pytest.approx([144.0, 144.0], abs=0.6)
    assert np.mean(reds) == pytest.approx(np.mean(blues), abs=2.0)
    assert np.std(reds) == pytest.approx(np.std(blues), rel=0.05)


def test_both_colors_have_the_same_distribution_of_positions():
    spec = SyntheticSpec(frames=1)
    corners = np.array([synthetic._window_corners(np.random.default_rng(seed), spec) for seed in range(2000)])
    red_is_first = corners[:, 0] < corners[:, 1]
    assert red_is_first.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.05)
    assert corners[:, 0].mean(axis=0) == pytest.approx(corners[:, 1].mean(axis=0), abs=1.5)
    apart = np.abs(corners[:, 0] - corners[:, 1]).max(axis=1)
    assert apart.min() > spec.window_px


def test_a_linear_probe_on_single_frames_stays_at_chance():
    spec = SyntheticSpec(frames=1)

    def frames(split, count):
        labels = np.arange(count) % 4
        rendered = [
            render_video(int(label), video_seed(0, int(label), i), spec, split=split) for i, label in enumerate(labels)
        ]
        return np.concatenate(rendered), labels

    def accuracy(planted):
        sets = []
        for split, count in (("train", 600), ("test", 400)):
            pixels, labels = frames(split, count)
            small = pixels.reshape(count, 16, 4, 16, 5, 3).mean(axis=(2, 4)).reshape(count, -1) / 64.0
            small[np.arange(count), labels] += planted
            sets.append((np.c_[small, np.ones(count)], labels))
        (x, y), (x_test, y_test) = sets
        weights = np.linalg.solve(x.T @ x + 30.0 * np.eye(x.shape[1]), x.T @ np.eye(4)[y])
        return float(np.mean((x_test @ weights).argmax(axis=1) == y_test))

    assert accuracy(planted=0.0) < 0.32  # chance 0.25, three standard errors 0.065
    assert accuracy(planted=8.0) > 0.6  # the probe finds a planted signal


def test_color_with_flow_determines_the_class_and_flow_alone_the_axis(tmp_path):
    spec = SyntheticSpec(frames=16)
    for number in range(4):
        for label, name in enumerate(CLASSES):
            video = render_video(label, video_seed(1, label, number), spec, split="test")
            write_video(tmp_path / "video.mp4", video, fps=spec.fps, quality_crf=spec.quality_crf)
            frames = read_video(tmp_path / "video.mp4", short_side=64).frames
            assert frames.shape == video.shape
            flow = estimate_flow(frames, FlowSpec(short_side=64)).transpose(0, 2, 3, 1)
            red, blue = (flow[mask[:-1]].mean(axis=0) for mask in color_masks(frames))
            along = np.array(RED_DRIFT[name])
            assert red @ along > 0.3 * spec.drift_px
            assert blue @ along < -0.3 * spec.drift_px
            assert np.argmax(np.abs(red - blue)) == np.argmax(np.abs(along))
            spread = flow.var(axis=(0, 1, 2))
            assert np.argmax(spread) == np.argmax(np.abs(along))


@pytest.mark.parametrize(("split", "others"), [("train", ("_waves", "_planks")), ("test", ("_clouds", "_cells"))])
def test_train_and_test_have_backgrounds_of_different_families(split, others, monkeypatch):
    used = []
    for name in others:
        original = getattr(synthetic, name)
        monkeypatch.setattr(synthetic, name, lambda *a, of=original, name=name: used.append(name) or of(*a))
    for seed in range(20):
        render_video(0, seed, SyntheticSpec(frames=1), split=split)
    assert not used
    render_video(0, 0, SyntheticSpec(frames=1), split="test" if split == "train" else "train")
    assert used


def test_no_scene_occurs_twice():
    seeds = [video_seed(0, label, number) for label in range(4) for number in range(200)]
    assert len(set(seeds)) == len(seeds)


def test_dataset_has_split_and_class_folders_and_reports_progress(tmp_path):
    reports = []
    folder = write_dataset(tmp_path / "set", SMALL_SET, seed=5, progress=lambda *report: reports.append(report))
    assert folder == tmp_path / "set"
    videos = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.mp4"))
    expected = [f"train/{name}/{name}_{i:04d}.mp4" for name in CLASSES for i in (1, 2)]
    expected += [f"test/{name}/{name}_0001.mp4" for name in CLASSES]
    assert videos == sorted(expected)
    assert reports == [("generating videos", done, 12) for done in range(1, 13)]
    assert read_video(folder / videos[0]).frames.shape == (4, 24, 40, 3)


def contents_of(folder):
    """Return the frames of every video in a folder, by relative path."""
    return {str(path.relative_to(folder)): read_video(path).frames for path in folder.rglob("*.mp4")}


def test_an_interrupted_dataset_can_be_resumed(tmp_path, monkeypatch):
    written = []

    def failing(path, frames, *, fps, quality_crf):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write_video(path, frames, fps=fps, quality_crf=quality_crf)

    monkeypatch.setattr(synthetic, "write_video", failing)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", SMALL_SET, seed=5)
    monkeypatch.setattr(synthetic, "write_video", write_video)
    before = {path: path.stat().st_mtime_ns for path in written}
    write_dataset(tmp_path / "set", SMALL_SET, seed=5)
    assert {path: path.stat().st_mtime_ns for path in written} == before
    write_dataset(tmp_path / "whole", SMALL_SET, seed=5)
    resumed, whole = contents_of(tmp_path / "set"), contents_of(tmp_path / "whole")
    assert resumed.keys() == whole.keys()
    for name, frames in whole.items():  # the encoder is not deterministic; another scene differs by 20
        assert np.mean(np.abs(frames.astype(int) - resumed[name])) < 3, name


def test_a_folder_with_something_else_in_it_is_rejected_and_left_alone(tmp_path):
    write_dataset(tmp_path / "set", SMALL_SET, seed=5)
    with pytest.raises(StoreError, match="other settings"):
        write_dataset(tmp_path / "set", SMALL_SET, seed=6)
    with pytest.raises(StoreError, match="other settings"):
        write_dataset(tmp_path / "set", replace(SMALL_SET, drift_px=2), seed=5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(StoreError, match="not empty"):
        write_dataset(tmp_path / "mine", SMALL_SET, seed=5)
    assert [path.name for path in Path(tmp_path / "mine").iterdir()] == ["holiday.txt"]


@pytest.mark.parametrize(
    ("change", "found"), [({"window_px": 40}, "80 x 64"), ({"width": 81}, "even"), ({"frames": 0}, "at least 1")]
)
def test_an_impossible_spec_is_rejected(change, found):
    with pytest.raises(StoreError, match=found):
        SyntheticSpec(**change)
