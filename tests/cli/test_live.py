"""`stresnet live`: files, streams and standard input, and what is wrong with others."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.live_streams import MJPEG_TYPE, Page, Pages, http_pages, mjpeg, wandering
from helpers.tiny import Command, one_line, untrained
from helpers.video_files import encode
from stresnet.cli.live import _told_of_drops
from stresnet.inference.recognizer import Recognizer
from stresnet.model.checkpoint import save_checkpoint

COUNT = 40


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with http_pages() as pages:
        yield pages


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(path, untrained())
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("video") / "a.mkv", wandering(COUNT))


def test_a_file_gives_the_results_of_its_time_line(command: Command, model: Path, file: Path) -> None:
    recognizer = Recognizer(model)
    line = recognizer.timeline(file, window_sec=15 / 25, stride_sec=3 / 25)
    code, out, err = command("live", model, file, "--mode", "exact", "--protocol", recognizer.protocol, "--jsonl")
    found = {round(values["time"], 6): values for values in map(json.loads, out.splitlines())}
    assert (code, list(found)) == (0, [round(t / 25, 6) for t in range(5, COUNT - 5, 3)])
    windows = zip(line.windows_sec, line.to_dict()["windows"], strict=True)
    compared = [
        (found[last]["top"], window["top"][:3])
        for (start, _), window in windows
        if (last := round(start + 14 / 25, 6)) in found
    ]
    assert len(compared) == 7
    for ours, theirs in compared:
        assert [one["label"] for one in ours] == [one["label"] for one in theirs]
        assert [one["probability"] for one in ours] == pytest.approx([one["probability"] for one in theirs], rel=1e-4)
    assert re.fullmatch(r"note: 10 results from 40 frames, [\d.]+ frames/s, [\d.]+ × real time", one_line(err))


def test_standard_input(command: Command, model: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(file.read_bytes())))
    code, out, _ = command("live", model, "-", "--stride", "10", "--top", "1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["0.20", "0.60", "1.00"]
    assert re.fullmatch(r"0\.20 s: [abc] [\d.]+%", out.splitlines()[0])


def test_a_stream_until_it_ends(command: Command, model: Path, pages: Pages) -> None:
    pages["/camera"] = Page(MJPEG_TYPE, mjpeg(wandering(COUNT), 25))
    code, out, err = command("live", model, f"{pages.url}/camera", "--stride", "10", "--no-reconnect", "--jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 3
    assert {"latency", "dropped", "appearance", "motion", "step", "label"} <= lines[0].keys()
    assert code == 1
    first, summary, failure = err.splitlines()
    assert first == "note: a step every 10 frames; its result 5 frames (0.2 s) later"
    assert re.fullmatch(
        r"note: 3 results from \d+ frames, [\d.]+ frames/s, \d+ of 40 dropped; latency [\d.]+ s, "
        r"for 95 % at most [\d.]+ s",
        summary,
    )
    assert failure == f"stresnet: {pages.url}/camera: the stream ended"


def test_drops_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("stresnet.cli.live.SECONDS_BETWEEN_WARNINGS", 0)

    class Overrun:
        read = dropped = 0

        def __iter__(self) -> Iterator[int]:
            for self.read, self.dropped in ((10, 0), (20, 5), (30, 5)):
                yield 0

    assert len(list(_told_of_drops(Overrun()))) == 3  # type: ignore[arg-type]
    assert one_line(capsys.readouterr().err).startswith("note: too slow: 50% of the last frames were dropped")


@pytest.mark.parametrize(
    ("source", "options", "code", "expected"),
    [
        ("99", [], 1, "99: no such camera"),
        ("{url}/none", [], 1, "/none: the server has no such stream"),
        ("none.mp4", [], 1, "none.mp4: no such file"),
        ("none.mp4", ["--mode", "later"], 2, "--mode must be one of exact, immediate, not 'later'"),
        ("none.mp4", ["--protocol", "all"], 2, "not 'all'"),
        ("none.mp4", ["--stride", "0"], 2, "'--stride'"),
    ],
)
def test_what_is_wrong_is_one_line(
    source: str, options: list[str], code: int, expected: str, command: Command, model: Path, pages: Pages
) -> None:
    found, out, err = command("live", model, source.format(url=pages.url), *options)
    assert (found, out) == (code, "")
    assert expected in one_line(err)
