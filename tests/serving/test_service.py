"""Answers over HTTP are those of `Recognizer`; every failure is a problem that says what to do."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.serving import CLASSES, FORM, Reply, Service, checkpoint, decoders, descriptors, form, service, until
from helpers.video_files import encode, ramp
from stresnet.errors import VideoError
from stresnet.inference.recognizer import Recognizer
from stresnet.inference.timeline_files import timeline_text
from stresnet.media import Limits


@pytest.fixture(scope="module")
def running(recognizer: Recognizer) -> Iterator[Service]:
    single = Recognizer(checkpoint(streams=("appearance",), link=None, temporal=None), device="cpu", precision="fp32")
    with service({"fused": recognizer, "single": single}) as started:
        yield started


def problem(reply: Reply, status: int, kind: str) -> str:
    """Return the sentence of a problem."""
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json"), reply
    values = reply.json()
    assert (values["status"], values["type"]) == (status, f"urn:stresnet:{kind}")
    assert values["request_id"] == reply.headers["x-request-id"]
    assert "\n" not in values["detail"]
    return str(values["detail"])


# Results


def test_a_prediction_is_that_of_the_recognizer(running: Service, recognizer: Recognizer, video: Path) -> None:
    reply = running.predict(video, "?top=2&timeline=true&protocol=dense")
    assert reply.status == 200
    values, found = reply.json(), recognizer.predict(video, protocol="dense", top=2).to_dict()
    del found["scores"]
    assert {name: values[name] for name in found} == found
    assert values["timeline"] == recognizer.timeline(video).to_dict(top=2)
    assert (values["video"], values["model"]) == ("short.mp4", "fused")
    assert [len(values["streams"][name]) for name in ("appearance", "motion")] == [2, 2]


def test_a_segment_is_cut_by_time(running: Service, recognizer: Recognizer, video: Path) -> None:
    values = running.predict(video, "?from=0.4&to=1").json()
    found = recognizer.predict(f"{video}#t=0.4,1")
    assert (values["frames"], values["probability"]) == (15, found.probability)


def test_another_model_is_chosen_by_its_name(running: Service, video: Path) -> None:
    values = running.predict(video, "?model=single").json()
    assert (values["model"], values["flow"], values["streams"]["motion"]) == ("single", None, None)
    described = running.get("/v1/models").json()
    assert [(one["name"], one["classes"]) for one in described] == [("fused", [*CLASSES]), ("single", [*CLASSES])]


def test_a_job_tells_its_progress_and_its_result(running: Service, long_video: Path) -> None:
    job = running.begin(long_video, "?top=1")
    events = running.get(f"{job}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(line[6:]) for line in events.body.decode().splitlines() if line.startswith("data: ")]
    assert told[-1]["state"] == "done"
    assert told[-1] == running.get(job).json()
    assert any(one.get("progress", {}).get("activity") == "computing flow" for one in told)


def test_the_time_line_of_a_job_comes_as_a_file(running: Service, recognizer: Recognizer, video: Path) -> None:
    job = running.begin(video, "?timeline=true&protocol=center")
    assert running.ended(job)["state"] == "done"
    timeline = recognizer.timeline(video)
    for ending in ("json", "csv", "vtt", "srt"):
        file = running.get(f"{job}/timeline.{ending}")
        assert file.body.decode() == timeline_text(f".{ending}", timeline, title="short.mp4")
        assert file.headers["content-disposition"] == f'attachment; filename="timeline.{ending}"'


# Wrong requests


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?protocol=best", "no protocol 'best'; expected one of dense25"),
        ("?model=other", "no model 'other'; expected one of fused, single"),
        ("?top=0", "top: Input should be greater than or equal to 1"),
        ("?from=3&to=2", "from and to: expected a start before the end, found 3 and 2"),
    ],
)
def test_a_wrong_question_is_explained(running: Service, video: Path, query: str, sentence: str) -> None:
    assert sentence in problem(running.predict(video, query), 422, "invalid-request")


def test_what_is_no_form_or_no_route_is_explained(running: Service) -> None:
    assert "file named 'video'" in problem(running.ask("POST", "/v1/predict", b"xyz"), 422, "invalid-request")
    other = running.ask("POST", "/v1/predict", form(b"xyz", "a", "picture"), **FORM)
    assert "file named 'video'" in problem(other, 422, "invalid-request")
    assert problem(running.ask("POST", "/v1/predict", b"xyz", **FORM), 400, "invalid-request")
    problem(running.get("/v1/nothing"), 404, "not-found")
    problem(running.get("/v1/predict"), 405, "invalid-request")
    assert "no such job" in problem(running.get("/v1/jobs/abc"), 404, "not-found")


def test_a_job_without_a_time_line_says_so(running: Service, video: Path) -> None:
    job = running.begin(video)
    assert running.ended(job)["state"] == "done"
    assert "timeline=true" in problem(running.get(f"{job}/timeline.vtt"), 404, "not-found")


def test_a_file_that_is_no_video_gets_the_sentence_of_predict(
    running: Service, recognizer: Recognizer, tmp_path: Path
) -> None:
    for name, data in {
        "text.mp4": b"hello " * 100,
        "cut.mp4": encode(tmp_path / "a.mp4", ramp(12)).read_bytes()[:400],
        "short.avi": encode(tmp_path / "a.avi", ramp(5)).read_bytes(),
        "empty.mp4": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(VideoError) as error:
            recognizer.predict(tmp_path / name)
        said = problem(running.predict(tmp_path / name), 422, "unusable-video")
        assert said == str(error.value).replace(str(tmp_path / name), name)


@pytest.mark.parametrize("name", ["../../../etc/passwd.mp4", "C:\\x\\passwd.mp4", "\x1b[31m\u202epasswd.mp4"])
def test_a_name_is_shown_without_folders_and_controls(running: Service, video: Path, name: str) -> None:
    shown = running.predict(video, name=name).json()["video"]
    assert shown.replace("\ufffd", "").replace("[31m", "") == "passwd.mp4"
    assert "passwd.mp4: not a video" in running.predict(b"x" * 500, name=name).json()["detail"]


# Limits


def test_uploads_beyond_the_limit_are_refused(recognizer: Recognizer, video: Path) -> None:
    with service({"m": recognizer}, max_upload_bytes=100_000) as running:
        data = form(bytes(200_000), "x.mp4")
        parts = (data[at : at + 10_000] for at in range(0, len(data), 10_000))
        for body in (data, parts, form(bytes(110_000), "x.mp4")):
            said = problem(running.ask("POST", "/v1/predict", body, **FORM), 413, "too-large")
            assert "larger than 0.09537 MiB; cut the video" in said
        assert running.predict(video).status == 200


def test_a_decoder_that_takes_too_much_memory_or_time_is_ended(recognizer: Recognizer, tmp_path: Path) -> None:
    large = encode(tmp_path / "large.mp4", ramp(12, 1080, 1920), preset="ultrafast")
    with service({"m": recognizer}, decoder_bytes=8 << 20) as running:
        assert running.predict(large).status == 422  # most decoders take memory that is not there for damage
    with service({"m": recognizer}, max_seconds=0.01) as running:
        assert "takes longer than 0.01 s" in problem(running.predict(large), 422, "limit-exceeded")
    with service({"m": recognizer}, decoded_bytes=1 << 10) as running:
        problem(running.predict(large), 500, "internal-error")
    assert decoders() == []


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Limits(frame_pixels=32 * 48 - 1), "frames of 48×32 px; expected at most 1535 px"),
        (Limits(frames=39), "more than 39 frames"),
        (Limits(seconds=1.5), "longer than 1.5 s"),
    ],
)
def test_videos_beyond_the_limits_are_refused(
    recognizer: Recognizer, video: Path, limits: Limits, sentence: str
) -> None:
    with service({"m": recognizer}, limits=limits) as running:
        said = problem(running.predict(video), 422, "unusable-video")
        assert said.startswith("short.mp4: ")
        assert sentence in said


def test_more_requests_than_may_wait_are_told_to_come_back(recognizer: Recognizer, long_video: Path) -> None:
    with service({"m": recognizer}, workers=1, waiting=1) as running:
        jobs = [running.begin(long_video, "?protocol=center") for _ in range(2)]
        (decoder,) = until(decoders)
        os.kill(decoder, signal.SIGSTOP)
        reply = running.predict(long_video)
        assert "2 videos are waiting already" in problem(reply, 429, "busy")
        assert int(reply.headers["retry-after"]) >= 1
        assert running.get("/healthz").status == 200
        os.kill(decoder, signal.SIGCONT)
        assert [running.ended(job)["state"] for job in jobs] == ["done", "done"]


def test_a_killed_decoder_fails_its_job_only(recognizer: Recognizer, long_video: Path, video: Path) -> None:
    with service({"m": recognizer}, workers=1) as running:
        first = running.begin(long_video)
        second = running.begin(video)
        (decoder,) = until(decoders)
        os.kill(decoder, signal.SIGKILL)
        state = running.ended(first)
        assert (state["state"], state["problem"]["type"]) == ("failed", "urn:stresnet:decoder-ended")
        assert "signal 9" in state["problem"]["detail"]
        assert running.ended(second)["state"] == "done"


def test_jobs_are_cancelled(recognizer: Recognizer, long_video: Path) -> None:
    with service({"m": recognizer}, workers=1) as running:
        jobs = [running.begin(long_video) for _ in range(2)]
        until(decoders)
        for job in reversed(jobs):  # one that waits, one that is decoded
            state = running.ask("DELETE", job).json()
            assert (state["state"], state["problem"]["detail"]) == ("cancelled", "the job was cancelled")
        assert decoders() == []
        assert running.measure('stresnet_jobs_total{outcome="cancelled"}') == 2


def test_a_client_that_goes_away_cancels_its_job(recognizer: Recognizer, long_video: Path) -> None:
    with service({"m": recognizer}, workers=1) as running:
        body = form(long_video.read_bytes(), "x.mp4")
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM['Content_Type']}\r\n"
        with socket.create_connection((running.host, running.port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            (decoder,) = until(decoders)
            os.kill(decoder, signal.SIGSTOP)
        until(lambda: running.measure('stresnet_jobs_total{outcome="cancelled"}') == 1)
        assert decoders() == []


def test_the_end_of_a_service_finishes_its_jobs(recognizer: Recognizer, long_video: Path) -> None:
    with service({"m": recognizer}) as running:
        connection = socket.create_connection((running.host, running.port))
        job = running.begin(long_video, "?protocol=center")
        connection.sendall(f"GET {job}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = connection.recv(1000)
    with connection:
        while part := connection.recv(1 << 16):
            received += part
    assert b'"state": "done"' in received


def test_nothing_is_left_behind(
    recognizer: Recognizer, long_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with service({"m": recognizer}) as running:
        running.predict(long_video, "?protocol=center")
        before = descriptors()
        job = running.begin(long_video)
        (decoder,) = until(decoders)
        assert list(tmp_path.iterdir()) == []  # uploads and prepared videos have no names
        os.kill(decoder, signal.SIGKILL)
        running.ended(job)
        running.predict(b"x" * 3_000_000)
        running.predict(b"x" * 30_000)
        assert decoders() == []
        until(lambda: descriptors() <= before)


# Access


def test_a_token_is_asked_for(recognizer: Recognizer, video: Path) -> None:
    with service({"m": recognizer}, token="a-secret-of-the-service") as running:
        for wrong in ({}, {"Authorization": "Bearer a-secret-of-the-servicf"}, {"Authorization": "Basic abc"}):
            for reply in (running.predict(video, **wrong), running.get("/metrics", **wrong)):
                problem(reply, 401, "unauthorized")
                assert reply.headers["www-authenticate"] == "Bearer"
        given = {"Authorization": "Bearer a-secret-of-the-service"}
        assert running.predict(video, **given).status == 200
        assert {running.get(path).status for path in ("/", "/healthz", "/readyz", "/docs")} == {200}


def test_pages_of_other_origins_are_refused(running: Service, video: Path) -> None:
    reply = running.predict(video, Origin="http://evil.example")
    problem(reply, 403, "forbidden")
    assert "access-control-allow-origin" not in reply.headers
    assert running.predict(video, Origin=running.url).status == 200


def test_requests_are_known_by_an_id(running: Service) -> None:
    assert running.get("/healthz", X_Request_Id="abc-1").headers["x-request-id"] == "abc-1"
    made = running.get("/healthz", X_Request_Id="a b;c").headers["x-request-id"]
    assert len(made) == 16
    assert made != running.get("/healthz").headers["x-request-id"]


def test_the_log_tells_routes_but_no_contents(running: Service, video: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stresnet.serving.access"):
        running.predict(video, "?from=0.1&to=1.3", X_Request_Id="r1")
        running.get("/secret/%1b[31m")
        until(lambda: len(caplog.messages) >= 2)  # written after the answer
    first, second = caplog.messages[-2:]
    assert first.startswith("id=r1 method=POST route=/v1/predict status=200 ms=")
    assert "route=(none) status=404" in second
    assert all(text not in caplog.text for text in ("short.mp4", "1.3", "secret", "\x1b"))


def test_measures_are_for_prometheus(running: Service, video: Path) -> None:
    def taken() -> list[float]:
        names = ('stresnet_jobs_total{outcome="done"}', "stresnet_score_seconds_count", "stresnet_upload_bytes_total")
        return [running.measure(name) for name in names]

    before = taken()
    running.predict(video)
    running.predict(b"x" * 1000)
    after = taken()
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, video.stat().st_size + 1000]
    assert running.measure("stresnet_jobs_admitted") == 0


def test_the_description_names_every_route(running: Service) -> None:
    described: dict[str, Any] = running.get("/openapi.json").json()
    page = running.get("/docs").body.decode()
    for path in described["paths"]:
        assert path in page
    assert {"/v1/predict", "/v1/jobs/{job_id}", "/v1/models", "/healthz", "/readyz", "/metrics"} <= {
        *described["paths"]
    }
    form_schema = described["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form_schema["required"] == ["video"]


def test_pages_may_load_from_this_origin_only(running: Service) -> None:
    for path in ("/", "/docs"):
        reply = running.get(path)
        assert "default-src 'none'; script-src 'self'" in reply.headers["content-security-policy"]
        assert b"http://" not in reply.body
        assert b"https://" not in reply.body
