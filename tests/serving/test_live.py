"""A stream over a WebSocket gets the results of `Recognizer.live`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import simplejpeg
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from helpers.serving import Service, service, until
from stresnet.inference.recognizer import Recognizer


@pytest.fixture(scope="module")
def running(recognizer: Recognizer) -> Iterator[Service]:
    with service({"m": recognizer}, streams=2) as started:
        yield started


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (32, 100, 3), np.uint8)
    return [simplejpeg.encode_jpeg(np.ascontiguousarray(noise[:, t : t + 48]), 95) for t in range(30)]


def stream(running: Service, **options: Any) -> Any:
    return connect(f"ws://{running.host}:{running.port}/v1/live", open_timeout=60, **options)


@contextmanager
def begun(running: Service, **opening: Any) -> Iterator[Any]:
    with stream(running) as socket:
        socket.send(json.dumps(opening))
        assert set(json.loads(socket.recv())) == {"stride_frames", "delay_frames"}
        yield socket


@pytest.mark.parametrize("mode", ["exact", "immediate"])
def test_results_are_those_of_the_recognizer(
    running: Service, recognizer: Recognizer, pictures: list[bytes], mode: Any
) -> None:
    live = recognizer.live(mode, top=2)
    expected = [live.push(simplejpeg.decode_jpeg(picture, "RGB"), 0.0) for picture in pictures]
    expected += live.finish()
    with begun(running, model="m", mode=mode, top=2) as socket:
        found = []
        for number, picture in enumerate(pictures, 1):
            socket.send(picture)
            found.append(json.loads(socket.recv()))
            assert found[-1]["frames"] == number
        socket.send("end")
        found += [json.loads(message) for message in socket]
    assert any(expected)
    assert [one.get("result", {}).get("top") for one in found] == [one and one.to_dict()["top"] for one in expected]
    assert running.measure("stresnet_stream_frames_total") >= 30


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("{}", ""),
        ('{"model": "other"}', "no model 'other'"),
        ('{"top": 0}', "greater than or equal to 1"),
        ("hello", "Invalid JSON"),
        (b"\xff\xd8", "expected text"),
    ],
)
def test_a_wrong_message_is_explained(running: Service, message: Any, sentence: str) -> None:
    with stream(running) as socket:
        socket.send(message)
        said = json.loads(socket.recv())
        if not sentence:
            socket.send(b"no jpeg")
            said, sentence = json.loads(socket.recv()), "expected a JPEG"
        assert sentence in said["problem"]["detail"]
        with pytest.raises(ConnectionClosed):
            socket.recv()


def test_a_huge_picture_is_not_decoded(running: Service) -> None:
    picture = bytearray(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8)))
    at = picture.index(b"\xff\xc0") + 5
    picture[at : at + 4] = b"\xff\x00\xff\x00"
    with begun(running) as socket:
        socket.send(bytes(picture))
        assert "65280×65280 px; expected at most" in json.loads(socket.recv())["problem"]["detail"]


def test_streams_are_limited_and_those_of_other_origins_refused(running: Service) -> None:
    until(lambda: running.measure("stresnet_streams") == 0)
    with begun(running), begun(running), stream(running) as third:
        third.send("{}")
        assert "2 streams are open already" in json.loads(third.recv())["problem"]["detail"]
    with pytest.raises(InvalidStatus, match="403"), stream(running, origin="http://evil.example"):
        pass
    until(lambda: running.measure("stresnet_streams") == 0)
    with begun(running):
        pass


def test_a_token_is_asked_for(recognizer: Recognizer) -> None:
    with service({"m": recognizer}, token="a-secret-of-the-service") as guarded:
        with begun(guarded, token="a-secret-of-the-service"):
            pass
        with stream(guarded) as socket:
            socket.send("{}")
            assert json.loads(socket.recv())["problem"]["status"] == 401
