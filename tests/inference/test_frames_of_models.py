"""A model reads videos as it was trained: the rate is its own, the stream is chosen for each prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.tiny import SPEC, Command
from helpers.video_files import encode
from helpers.video_kinds import textured
from helpers.videos_in_memory import encoded
from stresnet import Recognizer, StoreError, VideoError
from stresnet.data.prepared_video import StoreSpec
from stresnet.media import FrameSpec, Limits, read_video
from stresnet.model import Checkpoint, load_checkpoint, save_checkpoint
from stresnet.training import Run

AT_20 = StoreSpec(SPEC.flow, frames=FrameSpec(stream=1, fps=20))


@pytest.fixture(scope="module")
def checkpoint(run: Run) -> Checkpoint:
    """A network as if it was trained on stream 1 at 20 frames per second."""
    return load_checkpoint(run.model_file("st-resnet")).replace(store_spec=AT_20.to_dict())


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 60 frames at 50 per second."""
    return encode(tmp_path_factory.mktemp("video") / "a.mkv", textured(60), fps=50)


def test_predictions_are_at_the_rate_of_the_model(checkpoint: Checkpoint, video: Path) -> None:
    recognizer = Recognizer(checkpoint)
    assert recognizer.store_spec.frames == FrameSpec(fps=20)
    found = recognizer.predict(video)
    prepared = encoded("x", video, recognizer.store_spec)
    assert found.frames == prepared.meta.frames == 24
    np.testing.assert_array_equal(found.scores.fused, recognizer.score(prepared).fused)
    of_frames = recognizer.predict(read_video(video, short_side=32).frames, fps=50)
    np.testing.assert_array_equal(of_frames.scores.fused, found.scores.fused)
    with pytest.raises(StoreError, match="expected fps 20, found None"):
        recognizer.score(encoded("x", video, SPEC))
    line = recognizer.timeline(video, window_sec=0.5)
    assert (line.frames, line.duration_sec) == (24, pytest.approx(1.2))


def test_streams_and_limits_are_those_of_the_prediction(checkpoint: Checkpoint, video: Path) -> None:
    with pytest.raises(VideoError, match="expected video stream 1, found 1 video stream"):
        Recognizer(checkpoint, stream=1).predict(video)
    limited = Recognizer(checkpoint, limits=Limits(frames=59))
    with pytest.raises(VideoError, match="more than 59 frames"):
        limited.predict(video)
    (failed,) = limited.predict_all([video])
    assert isinstance(failed, VideoError)
    with pytest.raises(VideoError, match="more than 59 frames"):
        limited.timeline(video)


def test_the_command_chooses_a_stream(checkpoint: Checkpoint, video: Path, tmp_path: Path, command: Command) -> None:
    save_checkpoint(tmp_path / "model.safetensors", checkpoint)
    code, _, err = command("predict", tmp_path / "model.safetensors", video, "--stream", 3)
    assert (code, "expected video stream 3" in " ".join(err.split())) == (1, True)
    assert command("predict", tmp_path / "model.safetensors", video, "--stream", 0)[0] == 0
