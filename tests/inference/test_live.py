"""Recognition of a stream: the same results as offline, when they come, and what may be pushed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.live_streams import wandering
from helpers.tiny import SPEC, untrained
from stresnet.errors import VideoError
from stresnet.flow import FlowSpec
from stresnet.inference.live import Live, LiveResult, Mode
from stresnet.inference.recognizer import Recognizer
from stresnet.inference.scorer import prepare_for
from stresnet.media import Video, video_in_memory
from stresnet.model import Checkpoint
from stresnet.model.layers import TemporalConv

FRAMES, FPS = 85, 20  # 25 steps, 3 frames apart


@pytest.fixture(scope="module")
def video() -> Video:
    """Return a video that is larger than it is prepared."""
    return video_in_memory(np.stack(wandering(FRAMES, 64, 80)), FPS)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """Return an ST-ResNet tested by a published protocol: its time line is unbroken."""
    return untrained()


def changed(checkpoint: Checkpoint, **fields: object) -> Checkpoint:
    """Return a checkpoint with the same weights in another architecture."""
    model = type(checkpoint.model)(checkpoint.model.config.replace(**fields)).eval()
    weights = checkpoint.model.state_dict()
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    return checkpoint.replace(model=model)


def pushed(live: Live, video: Video) -> tuple[list[LiveResult | None], list[LiveResult]]:
    """Return what each frame completes, and what the end does."""
    each = [live.push(frame, time) for frame, time in zip(video.frames, video.times_sec, strict=True)]
    return each, live.finish()


def results(live: Live, video: Video) -> list[LiveResult]:
    each, last = pushed(live, video)
    return [result for result in each if result] + last


def offline(recognizer: Recognizer, video: Video) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the times and logits of the steps of a time line."""
    prepared = prepare_for(recognizer.checkpoint, recognizer.store_spec, video, None)
    steps = recognizer._scorer.score_steps(prepared)
    return steps.times_sec, steps.fused


def assert_same(found: list[LiveResult], times: NDArray[np.float64], logits: NDArray[np.float32]) -> None:
    assert [result.time_sec for result in found] == times.tolist()
    steps = np.stack([result.step.fused for result in found])
    assert np.abs(steps - logits).max() <= 1e-5 * np.abs(logits).max()


@pytest.mark.parametrize("flow_stored", [True, False])
def test_exact_results_are_those_of_the_time_line(checkpoint: Checkpoint, video: Video, flow_stored: bool) -> None:
    recognizer = Recognizer(checkpoint)
    recognizer.store_spec = replace(recognizer.store_spec, flow_stored=flow_stored)
    assert_same(results(recognizer.live("exact", protocol=recognizer.protocol), video), *offline(recognizer, video))


def test_results_are_averaged_as_windows_of_the_time_line(checkpoint: Checkpoint, video: Video) -> None:
    recognizer = Recognizer(checkpoint)
    live = recognizer.live("exact", protocol=recognizer.protocol)
    assert (live.stride_frames, live.window_frames) == (3, 15)
    line = recognizer.timeline(video, stride_sec=3 / FPS)
    last_steps = {round(result.time_sec, 6): result for result in results(live, video)}
    compared = 0
    for (start, _), logits in zip(line.windows_sec, line.logits, strict=True):
        # the steps are at 5/20 s, 8/20 s …; a window from 3k/20 s has those up to (3k + 14)/20 s
        result = last_steps.get(round(start + 14 / FPS, 6))
        if result is not None:
            np.testing.assert_allclose(result.scores.fused, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
            compared += 1
    assert compared > 15


def test_immediate_results_are_those_of_the_network_without_future_taps(checkpoint: Checkpoint, video: Video) -> None:
    past = changed(checkpoint)
    for module in past.model.modules():
        if isinstance(module, TemporalConv):
            with torch.no_grad():
                module.weight[:, :, 2] = 0
    live = Recognizer(checkpoint).live("immediate", protocol="dense25")
    assert_same(results(live, video), *offline(Recognizer(past), video))


@pytest.mark.parametrize("mode", ["exact", "immediate"])
@pytest.mark.parametrize("pool", [None, (5, 2)])
def test_a_result_comes_with_the_last_frame_that_it_sees(
    checkpoint: Checkpoint, video: Video, mode: Mode, pool: tuple[int, int] | None
) -> None:
    recognizer = Recognizer(changed(checkpoint, temporal_pool=pool))
    live = recognizer.live(mode)
    assert live.delay_frames == 5 + 3 * ((8 if mode == "exact" else 0) + (2 if pool else 0))
    each, last = pushed(live, video)
    for frame, result in enumerate(each):
        if result is not None:
            assert result.time_sec == video.times_sec[frame - live.delay_frames]
    found = [result for result in each if result] + last
    assert len(last) == (0 if mode == "immediate" else 4 if pool else 8)
    expected = np.arange(5, FRAMES - 5, 3)[2:-2:2] if pool else np.arange(5, FRAMES - 5, 3)
    assert [result.time_sec for result in found] == video.times_sec[expected].tolist()
    if pool and mode == "exact":  # the time line of these 25 steps is one clip
        assert_same(results(recognizer.live("exact", protocol="dense25"), video), *offline(recognizer, video))


def test_a_single_stream_needs_no_flow_and_no_later_frame(checkpoint: Checkpoint, video: Video) -> None:
    alone = changed(checkpoint, streams=("appearance",), link=None)
    live = Recognizer(alone).live("immediate")
    assert live.delay_frames == 0
    found = results(live, video)
    assert [round(result.time_sec * FPS) for result in found[:3]] == [5, 8, 11]
    assert found[0].scores.motion is None
    assert found[0].to_dict().keys() == {"time", "label", "probability", "top", "step", "appearance"}


def test_the_end_begins_a_new_stream_and_so_does_another_size(checkpoint: Checkpoint, video: Video) -> None:
    live = Recognizer(checkpoint).live("exact")
    first = results(live, video)
    again = results(live, video)
    assert [r.to_dict() for r in first] == [r.to_dict() for r in again]
    for frame in video.frames[:30, :, :64]:  # of another shape
        live.push(frame, 0.0)
    assert [r.to_dict() for r in results(live, video)] == [r.to_dict() for r in first]
    live.push(video.frames[0], 0.0)
    assert live.finish() == []


def test_a_stride_may_be_given(checkpoint: Checkpoint, video: Video) -> None:
    live = Recognizer(checkpoint).live("immediate", stride_frames=10, top=2)
    assert (live.stride_frames, live.window_frames, live.delay_frames) == (10, 50, 5)
    found = results(live, video)
    assert [round(result.time_sec * FPS) for result in found] == list(range(5, 80, 10))
    assert len(found[0].top) == 2
    mean = np.mean([result.step.fused for result in found[2:7]], 0)
    np.testing.assert_allclose(found[6].scores.fused, mean, rtol=1e-5)
    assert repr(found[6]) == f"LiveResult(3.25 s, {found[6].label!r}, {found[6].probability:.1%})"


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (np.zeros((64, 80), np.uint8), r"\(64, 80\) uint8"),
        (np.zeros((64, 80, 3)), r"\(64, 80, 3\) float64"),
        (np.zeros((0, 80, 3), np.uint8), r"\(0, 80, 3\) uint8"),
        ("frame.png", "str"),
    ],
)
def test_frames_of_another_type_are_refused(checkpoint: Checkpoint, frame: object, found: str) -> None:
    with pytest.raises(VideoError, match=rf"expected a frame \(H,W,3\) uint8, found {found}"):
        Recognizer(checkpoint).live().push(frame, 0.0)  # type: ignore[arg-type]


def test_what_cannot_be_recognised_live(checkpoint: Checkpoint) -> None:
    recognizer = Recognizer(checkpoint)
    with pytest.raises(ValueError, match="unknown mode 'fast': expected one of exact, immediate"):
        recognizer.live("fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown protocol 'all'"):
        recognizer.live(protocol="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stride_frames must be at least 1, not 0"):
        recognizer.live(stride_frames=0)
    with pytest.raises(VideoError, match="become 1280000×256 px"):
        Recognizer(checkpoint.replace(store_spec=replace(SPEC, flow=FlowSpec()).to_dict())).live().push(
            np.zeros((1, 5000, 3), np.uint8), 0.0
        )
    coded = checkpoint.replace(store_spec=replace(SPEC, flow=FlowSpec("mv", short_side=32)).to_dict())
    with pytest.raises(VideoError, match="flow by mv/default is read from coded videos"):
        Recognizer(coded).live()
