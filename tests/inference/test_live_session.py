"""A stream from its source to its results."""

from __future__ import annotations

import time

from helpers.live_streams import wandering
from helpers.tiny import untrained
from stresnet.inference.live_session import Pace, recognized
from stresnet.inference.recognizer import Recognizer
from stresnet.media import Frame
from stresnet.media.feed import Arrival


def test_an_interruption_completes_the_results_before_it() -> None:
    arrived = time.monotonic()
    frames = [Frame(picture, t / 25) for t, picture in enumerate(wandering(32, 32, 48))]
    cut = [Arrival(frame, arrived, begins=t == 16) for t, frame in enumerate(frames)]
    pace, live = Pace(), Recognizer(untrained()).live("exact")
    found = [round(judged.result.time_sec * 25) for judged in recognized(live, cut, pace)]
    assert found == [5, 8, 21, 24]  # of frames 0 … 15, and 16 … 31
    assert (pace.frames, pace.results, pace.video_sec) == (32, 4, 31 / 25)
    assert 0 < pace.latency_sec(50) <= pace.latency_sec(95) <= pace.elapsed_sec()
