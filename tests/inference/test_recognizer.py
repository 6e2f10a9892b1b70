"""Recognition: each protocol against a plain loop that follows the paper; all entry points give the same scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.tiny import SPEC, tiny_recipe
from helpers.videos_in_memory import encoded
from stresnet.data.encode_video import frames_around
from stresnet.data.prepared_video import PreparedVideo
from stresnet.data.sampling import Protocol
from stresnet.data.store import Store
from stresnet.errors import CheckpointError, FlowSpecError, StoreError, StresnetError, VideoError
from stresnet.flow import FlowSpec
from stresnet.inference.prediction import Prediction, VideoScores, ranked
from stresnet.inference.protocols import stride_note
from stresnet.inference.recognizer import Recognizer
from stresnet.media import read_video, video_in_memory, write_video
from stresnet.model import Checkpoint, Preprocessing, STResNet
from stresnet.training import Run

CLASSES = ("climb", "dive", "jump")
MEAN, STD, FLOW_STD = (10.0, 120.0, 90.0), (50.0, 60.0, 70.0), 40.0


def checkpoint(crop_px: int = 32, mirror: bool = True, **config: object) -> Checkpoint:
    """Return a network with random weights and normalisation that fits its features."""
    recipe = tiny_recipe({"st-resnet": {"starts_from": [], "network": {"dropout": 0.0}}}, clips={"crop_px": crop_px})
    torch.manual_seed(0)
    model = STResNet(recipe.stages[0].network.with_classes(3).replace(**config))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.bias)
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 5, 32, 48), torch.randn(2, 20, 5, 32, 48))
    return Checkpoint(
        model=model.eval(),
        classes=CLASSES,
        preprocessing=Preprocessing(rgb_mean=MEAN, rgb_std=STD, flow_std=FLOW_STD, crop_px=crop_px, mirror=mirror),
        store_spec=SPEC.to_dict(),
        stage="st-resnet",
        recipe=recipe.to_dict(),
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedVideo:
    """Return a video of 31 frames of 32 x 96: wider than two crops of 32, lower than a crop of 40, and asymmetric."""
    path = tmp_path_factory.mktemp("prepared") / "wide.mp4"
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 255, (12, 60, 3), np.uint8), (300, 32), interpolation=cv2.INTER_CUBIC)
    write_video(path, np.stack([texture[:, 3 * t : 3 * t + 96] for t in range(31)]), fps=25)
    found = encoded("wide", path, SPEC)
    assert (found.meta.frames, found.meta.height, found.meta.width) == (31, 32, 96)
    return found


# A window: top, left, height, width, and the (height, width) it is resized to.
Window = tuple[int, int, int, int, int, int]


def resized(picture: NDArray[np.uint8], window: Window) -> NDArray[np.float32]:
    top, left, height, width, to_height, to_width = window
    part = np.ascontiguousarray(picture[top : top + height, left : left + width])
    if (height, width) != (to_height, to_width):
        part = cv2.resize(part, (to_width, to_height), interpolation=cv2.INTER_LINEAR)
    return part.astype(np.float32)


def by_hand(
    found: Checkpoint,
    prepared: PreparedVideo,
    centers: Sequence[int],
    windows: Sequence[Window],
    mirrors: Sequence[bool],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean logits of both streams over windows, mirrors and temporal outputs, one picture at a time."""
    appearance, motion = [], []
    for window in windows:
        for mirror in mirrors:
            rgb, flow = [], []
            for t in centers:
                picture = (resized(prepared.rgb([t])[0], window) - np.float32(MEAN)) / np.float32(STD)
                rgb.append(picture[:, ::-1] if mirror else picture)
                stack = []
                for k in range(t - 5, t + 5):
                    levels = prepared.flow([k])[0]
                    for channel, stretch in ((0, window[5] / window[3]), (1, window[4] / window[2])):
                        field = (resized(levels[channel], window) - 128) * np.float32(stretch) / np.float32(FLOW_STD)
                        if mirror:
                            field = -field[:, ::-1] if channel == 0 else field[:, ::-1]
                        stack.append(field)
                flow.append(np.stack(stack))
            rgb_bcthw = torch.from_numpy(np.stack(rgb).transpose(3, 0, 1, 2)[None].copy())
            flow_bcthw = torch.from_numpy(np.stack(flow).transpose(1, 0, 2, 3)[None].copy())
            with torch.no_grad():
                logits = found.model(rgb_bcthw, flow_bcthw)
            appearance += list(logits.appearance[0].numpy())
            motion += list(logits.motion[0].numpy())
    return np.mean(appearance, axis=0), np.mean(motion, axis=0)


def assert_scores(found: VideoScores, expected: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    assert found.appearance is not None
    assert found.motion is not None
    np.testing.assert_allclose(found.appearance, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.motion, expected[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.fused, (expected[0] + expected[1]) / 2, rtol=1e-4, atol=1e-5)


# Valid centres of 31 frames: 5 ... 25, and 25 of them evenly spaced.
DENSE = [round(5 + i * 20 / 24) for i in range(25)]


@pytest.mark.parametrize("temporal_pool", [None, (5, 2)])
def test_dense25(prepared: PreparedVideo, temporal_pool: tuple[int, int] | None) -> None:
    found = checkpoint(temporal_pool=temporal_pool)
    whole_frame = (0, 16, 32, 64, 32, 64)  # 96 px of width are more than twice 32
    expected = by_hand(found, prepared, DENSE, [whole_frame], [False, True])
    assert_scores(Recognizer(found, device="cpu").score(prepared), expected)
    unmirrored = by_hand(found, prepared, DENSE, [whole_frame], [False])
    assert np.abs(unmirrored[1] - expected[1]).max() > 1e-3, "this video does not detect mirroring"


def test_dense25_enlarges_frames_smaller_than_a_crop(prepared: PreparedVideo) -> None:
    found = checkpoint(crop_px=40)
    whole_frame = (0, 8, 32, 80, 40, 80)
    assert_scores(Recognizer(found).score(prepared), by_hand(found, prepared, DENSE, [whole_frame], [False, True]))


def test_views_are_not_mirrored_if_training_was_not(prepared: PreparedVideo) -> None:
    found = checkpoint(mirror=False)
    whole_frame = (0, 16, 32, 64, 32, 64)
    recognizer = Recognizer(found)
    assert_scores(recognizer.score(prepared), by_hand(found, prepared, DENSE, [whole_frame], [False]))
    corners = [(0, left, 32, 32, 32, 32) for left in (0, 64, 0, 64, 32)]
    assert_scores(recognizer.score(prepared, "crop10x25"), by_hand(found, prepared, DENSE, corners, [False]))


def test_crop10x25(prepared: PreparedVideo) -> None:
    found = checkpoint()
    corners = [(0, left, 32, 32, 32, 32) for left in (0, 64, 0, 64, 32)]
    expected = by_hand(found, prepared, DENSE, corners, [False, True])
    assert_scores(Recognizer(found).score(prepared, "crop10x25"), expected)


def test_center(prepared: PreparedVideo) -> None:
    found = checkpoint()  # five steps, 2 to 4 frames apart: 12 of the 20 frames between the first and last centre
    expected = by_hand(found, prepared, [9, 12, 15, 18, 21], [(0, 32, 32, 32, 32, 32)], [False])
    assert_scores(Recognizer(found).score(prepared, "center"), expected)


def dense_by_hand(
    found: Checkpoint, video: PreparedVideo, clips: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean logits of clips in the whole frame and its mirror."""
    whole_frame = (0, 16, 32, 64, 32, 64)
    appearance, motion = zip(
        *(by_hand(found, video, clip, [whole_frame], [False, True]) for clip in clips), strict=True
    )
    return np.mean(appearance, axis=0), np.mean(motion, axis=0)


@pytest.mark.parametrize("temporal_pool", [None, (3, 1)])
def test_dense(prepared: PreparedVideo, temporal_pool: tuple[int, int] | None) -> None:
    found = checkpoint(temporal_pool=temporal_pool)  # five steps, 2 to 4 frames apart; valid centres 5 … 25
    clips = [[start, start + 3, start + 6, start + 9, start + 12] for start in (5, 7, 9, 11, 13)]
    assert_scores(Recognizer(found).score(prepared, "dense"), dense_by_hand(found, prepared, clips))


def test_dense_takes_the_length_of_clips_from_the_stage(prepared: PreparedVideo) -> None:
    long = tiny_recipe({"st-resnet": {"starts_from": [], "clips": {"steps": 11, "tau": [1, 1]}}})
    found = checkpoint().replace(recipe=long.to_dict())
    clips = [range(5, 16), range(10, 21), range(15, 26)]  # three clips make at least 25 steps
    assert_scores(Recognizer(found).score(prepared, "dense"), dense_by_hand(found, prepared, clips))


def test_fast(prepared: PreparedVideo) -> None:
    found = checkpoint()  # two clips of five steps: valid centres 5 … 25
    center_crop = (0, 32, 32, 32, 32, 32)
    clips = [by_hand(found, prepared, clip, [center_crop], [False]) for clip in (range(5, 18, 3), range(13, 26, 3))]
    appearance, motion = zip(*clips, strict=True)
    assert_scores(Recognizer(found).score(prepared, "fast"), (np.mean(appearance, axis=0), np.mean(motion, axis=0)))


def test_the_default_protocol_is_that_of_the_recipe(prepared: PreparedVideo, tmp_path: Path) -> None:
    published = checkpoint()
    ours = published.replace(recipe=published.recipe | {"protocol": "dense"})
    video = noise_video(tmp_path)
    for found, protocol in ((published, "dense25"), (ours, "dense"), (published.replace(recipe={}), "dense25")):
        recognizer = Recognizer(found)
        assert recognizer.protocol == protocol
        expected = recognizer.score(prepared, protocol).to_dict()
        assert recognizer.score(prepared).to_dict() == expected
        assert [scores.to_dict() for scores in recognizer.score_all([lambda: prepared])] == [expected]
        prediction = recognizer.predict(video)
        assert prediction.protocol == prediction.to_dict()["protocol"] == protocol
        assert prediction.to_dict() == recognizer.predict(video, protocol=protocol).to_dict()
        assert [one.to_dict() for one in recognizer.predict_all([video])] == [prediction.to_dict()]


def test_stride_note_counts_videos_outside_the_strides_of_training() -> None:
    found = checkpoint()  # 2 to 4 frames: 49 to 97 valid centres, 59 to 107 frames
    frames = [58, 59, 107, 108, 11]
    expected = "in 3 of 5 videos the 25 steps of dense25 are closer together or farther apart than in training (2 to 4 "
    assert stride_note("dense25", found, frames).startswith(expected)
    assert "steps of crop10x25 are" in stride_note("crop10x25", found, frames)
    assert stride_note("dense25", found, [59, 107]) == ""
    assert stride_note("dense", found, frames) == stride_note("fast", found, frames) == ""
    assert stride_note("dense25", found.replace(recipe={}), frames) == ""
    assert stride_note("dense25", checkpoint(temporal=None), frames) == ""


def test_center_of_a_video_too_short_for_a_clip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_video(tmp_path / "short.mp4", rng.integers(0, 255, (14, 32, 48, 3), np.uint8), fps=25)
    short = encoded("short", tmp_path / "short.mp4", SPEC)
    found = checkpoint()
    expected = by_hand(found, short, [5, 6, 6, 7, 8], [(0, 8, 32, 32, 32, 32)], [False])
    assert_scores(Recognizer(found).score(short, "center"), expected)


def test_one_stream_alone(prepared: PreparedVideo) -> None:
    both = checkpoint(link=None)
    expected = Recognizer(both).score(prepared)
    for stream, other in (("appearance", "motion"), ("motion", "appearance")):
        model = STResNet(both.model.config.replace(streams=(stream,)))
        model.load_state_dict({k: v for k, v in both.model.state_dict().items() if k.startswith(stream)})
        scores = Recognizer(both.replace(model=model.eval())).score(prepared)
        np.testing.assert_allclose(getattr(scores, stream), getattr(expected, stream), rtol=1e-5)
        assert np.array_equal(scores.fused, getattr(scores, stream))
        assert getattr(scores, other) is None


@pytest.mark.parametrize("protocol", ["dense25", "dense", "fast", "center"])
def test_file_and_prepared_video_give_identical_scores(
    run: Run, store: Store, tmp_path: Path, protocol: Protocol
) -> None:
    record = store.select("test")[1].record
    video = tmp_path / "Ünï çødé 影片 [1] 100%.mp4"
    shutil.copyfile(record.path, video)
    recognizer = Recognizer(run.folder / "model.safetensors")
    expected = recognizer.score(store.video(record.id), protocol)
    found = recognizer.predict(video, protocol=protocol)
    for name in ("appearance", "motion", "fused"):
        assert np.array_equal(getattr(found.scores, name), getattr(expected, name))


def noise_video(folder: Path) -> Path:
    """Write a video of 40 frames of noise."""
    path = folder / "noise.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), np.uint8), fps=25)
    return path


def test_prediction(tmp_path: Path) -> None:
    found = Recognizer(checkpoint()).predict(noise_video(tmp_path), top=2)
    logits = found.scores.fused.astype(np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum()
    best, second = np.argsort(-logits)[:2]
    assert found.label == CLASSES[best]
    assert found.probability == pytest.approx(softmax[best])
    assert [name for name, _ in found.top] == [CLASSES[best], CLASSES[second]]
    assert found.top[1][1] == pytest.approx(softmax[second])


def test_another_preset_of_the_flow_method(prepared: PreparedVideo, tmp_path: Path) -> None:
    slow = replace(SPEC, flow=FlowSpec("tvl1", short_side=32))
    found = checkpoint().replace(store_spec=slow.to_dict())
    video = noise_video(tmp_path)
    recognizer = Recognizer(found, flow_preset="fast")
    fast = replace(SPEC, flow=FlowSpec("tvl1", "fast", short_side=32))
    assert recognizer.store_spec == fast
    prediction = recognizer.predict(video, protocol="center")
    assert prediction.flow == prediction.to_dict()["flow"] == "tvl1/fast"
    scores = recognizer.score(encoded("noise", video, fast), "center")
    assert prediction.scores.to_dict() == scores.to_dict()
    published = Recognizer(found).predict(video, protocol="center")
    assert published.flow == "tvl1/default"
    assert published.to_dict()["scores"]["motion"] != scores.to_dict()["motion"]
    with pytest.raises(FlowSpecError, match="flow differs"):
        recognizer.score(prepared)


def test_presets_that_the_network_cannot_use_raise() -> None:
    with pytest.raises(FlowSpecError, match="unknown flow preset 'slow' of dis: expected one of ultrafast, fast"):
        Recognizer(checkpoint(), flow_preset="slow")
    blind = checkpoint(streams=("appearance",), link=None)
    with pytest.raises(FlowSpecError, match="flow preset 'fast' cannot be used: the network has no motion stream"):
        Recognizer(blind, flow_preset="fast")


def test_predict_reports_progress_and_truncation(tmp_path: Path) -> None:
    video = noise_video(tmp_path)
    reported: list[tuple[str, int, int]] = []
    recognizer = Recognizer(checkpoint())
    found = recognizer.predict(video, protocol="crop10x25", progress=lambda *now: reported.append(now))
    assert reported == [
        *(("computing flow", n, 40) for n in range(1, 41)),
        *(("scoring", n, 5) for n in range(5)),
    ]
    assert (found.frames, found.truncated) == (40, False)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 6 // 10])
    found = recognizer.predict(video, protocol="center")
    assert 15 <= found.frames <= 30
    assert found.truncated


def test_predicting_many_videos_gives_the_same_in_order_and_names_failures(tmp_path: Path) -> None:
    recognizer = Recognizer(checkpoint())
    good = noise_video(tmp_path)
    write_video(tmp_path / "dark.mp4", np.zeros((30, 32, 48, 3), np.uint8), fps=25)
    (tmp_path / "text.mp4").write_text("no video")
    files = [good, tmp_path / "text.mp4", tmp_path / "dark.mp4", "http://127.0.0.1:9/a.mp4", good]
    found = list(recognizer.predict_all(files, protocol="crop10x25", top=2))
    expected = [recognizer.predict(file, protocol="crop10x25", top=2) for file in (good, tmp_path / "dark.mp4")]
    values = [None if isinstance(result, StresnetError) else result.to_dict() for result in found]
    assert values == [expected[0].to_dict(), None, expected[1].to_dict(), None, expected[0].to_dict()]
    assert "text.mp4" in str(found[1])
    assert str(found[3]).startswith("http://127.0.0.1:9/a.mp4: cannot be reached")


def test_scoring_many_prepared_videos_gives_the_same_and_stops_at_no_error(prepared: PreparedVideo) -> None:
    recognizer = Recognizer(checkpoint())

    def broken() -> PreparedVideo:
        raise StoreError("damaged")

    first, second, third = recognizer.score_all([lambda: prepared, broken, lambda: prepared], "crop10x25")
    assert isinstance(second, StoreError)
    for scores in (first, third):
        assert isinstance(scores, VideoScores)
        assert scores.to_dict() == recognizer.score(prepared, "crop10x25").to_dict()


def test_numerics_name_precision_and_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda net, **_: net)
    assert Recognizer(checkpoint(), precision="fp32").numerics == "fp32"
    assert Recognizer(checkpoint(), precision="bf16", compiled=True).numerics == "bf16 compiled"


def test_ranking_breaks_ties_by_class_order_and_survives_large_logits() -> None:
    assert ranked(("a", "b", "c"), np.float32([0, 3e38, 3e38]), 9) == (("b", 0.5), ("c", 0.5), ("a", 0.0))


def test_unusable_videos_raise(run: Run, tmp_path: Path) -> None:
    recognizer = Recognizer(run.folder / "model.safetensors")
    frames = np.zeros((10, 48, 64, 3), np.uint8)
    write_video(tmp_path / "short.mp4", frames, fps=25)
    with pytest.raises(VideoError, match=r"short.mp4: 10 frames decoded; at least 11 needed$"):
        recognizer.predict(tmp_path / "short.mp4")
    with pytest.raises(VideoError, match=r"no\.mp4: no such file"):
        recognizer.predict(tmp_path / "no.mp4")
    write_video(tmp_path / "long.mp4", np.concatenate([frames, frames]), fps=25)
    other = replace(SPEC, flow=FlowSpec(short_side=40))
    with pytest.raises(FlowSpecError) as error:
        recognizer.score(encoded("long", tmp_path / "long.mp4", other))
    assert str(SPEC.flow) in str(error.value)
    assert str(other.flow) in str(error.value)
    with pytest.raises(
        ValueError, match="unknown protocol 'dence': expected one of dense25, crop10x25, dense, fast, center"
    ):
        recognizer.predict(tmp_path / "long.mp4", protocol="dence")
    for protocol in ("center", "dense", "fast"):
        with pytest.raises(CheckpointError, match="has no recipe"):
            Recognizer(recognizer.checkpoint.replace(recipe={})).predict(tmp_path / "long.mp4", protocol=protocol)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu"])
def test_unavailable_device_raises(device: str) -> None:
    with pytest.raises(StresnetError, match=f"device '{device}' cannot be used") as error:
        Recognizer(checkpoint(), device=device)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 120


def test_files_that_are_not_models_raise(tmp_path: Path, run: Run) -> None:
    whole = (run.folder / "model.safetensors").read_bytes()
    for name, content in {"cut": whole[:-100], "empty": b"", "text": b"not a model"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name} is not a model, or is truncated") as error:
            Recognizer(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"nowhere.* does not exist"):
        Recognizer(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no model.safetensors: expected a checkpoint, or the folder of a"):
        Recognizer(tmp_path)


def test_run_folder_is_accepted(run: Run) -> None:
    assert Recognizer(run.folder).checkpoint.stage == Recognizer(run.folder / "model.safetensors").checkpoint.stage


def test_reprs_are_short(tmp_path: Path) -> None:
    recognizer = Recognizer(checkpoint(), device="cpu")
    assert repr(recognizer) == "Recognizer(ST-ResNet-26, 3 classes, cpu)"
    found = recognizer.predict(noise_video(tmp_path))
    assert repr(found) == f"Prediction({found.label!r}, {found.probability:.1%}, 40 frames)"
    assert repr(found.scores) == "VideoScores(appearance + motion, 3 classes)"
    assert repr(VideoScores(None, found.scores.motion)) == "VideoScores(motion, 3 classes)"


def test_prediction_as_json_values() -> None:
    scores = VideoScores(None, np.float32([0.5, -1]))
    found = Prediction(
        "a", 0.75, (("a", 0.75), ("b", 0.25)), scores, "dense", "tvl1/fast", frames=31, truncated=True
    ).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "label": "a",
        "probability": 0.75,
        "top": [{"label": "a", "probability": 0.75}, {"label": "b", "probability": 0.25}],
        "protocol": "dense",
        "flow": "tvl1/fast",
        "frames": 31,
        "truncated": True,
        "scores": {"appearance": None, "motion": [0.5, -1.0], "fused": [0.5, -1.0]},
    }


# Frames in memory


def test_frames_in_memory_give_the_scores_of_their_file(store: Store, run: Run) -> None:
    path = store.select("test")[0].record.path  # as small as the model wants it: nothing is scaled
    recognizer, video = Recognizer(run.folder), read_video(path)
    expected = recognizer.predict(path)
    in_memory = [video, video.frames, torch.from_numpy(video.frames), list(video.frames)]
    for found in recognizer.predict_all([Path(path), *in_memory], fps=video.fps):
        assert isinstance(found, Prediction)
        assert (found.label, found.frames, found.truncated) == (expected.label, expected.frames, expected.truncated)
        np.testing.assert_array_equal(found.scores.fused, expected.scores.fused)
    line = recognizer.timeline(video.frames, fps=2 * video.fps)
    assert line.duration_sec == pytest.approx(len(video.frames) / video.fps / 2)


def test_frames_in_memory_are_scaled_like_those_of_files(run: Run) -> None:
    """Enlarged by repeating pixels and scaled down again, frames are nearly the same."""
    rng = np.random.default_rng(0)
    small = np.repeat(np.repeat(rng.integers(0, 255, (1, 4, 6, 3)), 8, 1), 8, 2).astype(np.uint8)
    frames = np.concatenate([np.roll(small, k, 2) for k in range(20)])  # 32 × 48 px
    large = np.repeat(np.repeat(frames, 2, 1), 2, 2)
    spec = Recognizer(run.folder).store_spec
    a, b = (frames_around("x", video_in_memory(f, 25), spec, np.arange, 0).rgb(np.arange(20)) for f in (frames, large))
    assert a.shape == b.shape == (20, 32, 48, 3)
    assert np.abs(a.astype(int) - b).mean() < 4


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (np.zeros((20, 32, 48), np.uint8), r"expected frames \(T,H,W,3\) uint8, found \(20, 32, 48\) uint8"),
        (np.zeros((20, 32, 48, 3)), r"found \(20, 32, 48, 3\) float64"),
        (torch.zeros((20, 3, 32, 48), dtype=torch.uint8), r"found \(20, 3, 32, 48\) uint8"),
        (np.zeros((3, 32, 48, 3), np.uint8), "the frames: 3 frames"),
        (object(), r"found \(\) object"),
        ([[1], [2, 3]], "found what is not an array"),
    ],
)
def test_what_is_not_a_video_is_named(run: Run, frames: Any, expected: str) -> None:
    with pytest.raises(VideoError, match=expected):
        Recognizer(run.folder).predict(frames)
    with pytest.raises(VideoError, match="expected a positive number of frames per second, found 0"):
        Recognizer(run.folder).predict(np.zeros((20, 32, 48, 3), np.uint8), fps=0)
