"""Arguments and helpers shared by the tests of the commands."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

TINY = ["--short-side", "32", "--workers", "1"]
ONE_STEP = ["--set", "*.optimisation.schedule=[{lr: 0.01, iterations: 1}]", "--workers", "0"]


def unfinished(folder: Path) -> list[Path]:
    """Return files and folders that still have a temporary name."""
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def write_audio_only(path: Path) -> None:
    """Write a video file with an audio stream only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples) + stream.encode(None))
