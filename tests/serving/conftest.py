"""Networks and videos for services."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("serve needs Linux", allow_module_level=True)

from helpers.serving import checkpoint
from helpers.video_files import encode
from stresnet.inference.recognizer import Recognizer


@pytest.fixture(scope="session")
def recognizer() -> Recognizer:
    return Recognizer(checkpoint(), device="cpu", precision="fp32")


def moving(frames: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Return frames of noise that moves to the left."""
    noise = np.random.default_rng(0).integers(0, 255, (height, width + 64, 3), np.uint8)
    return [np.ascontiguousarray(noise[:, t % 64 : t % 64 + width]) for t in range(frames)]


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("videos") / "short.mp4", moving(40))


@pytest.fixture(scope="session")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video that takes long enough to be stopped midway."""
    return encode(tmp_path_factory.mktemp("videos") / "long.mp4", moving(1200), preset="ultrafast")
