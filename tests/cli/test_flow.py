"""`stresnet flow`: output, rejected input and exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helpers.motion import SIZE, SPEC, film, shift, texture
from helpers.tiny import Command, one_line
from helpers.video_files import encode
from stresnet.errors import FlowFileError
from stresnet.flow.show.export import export_flow

QUICK = ["--short-side", "96"]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames, 0.2 s, that move right by 3 px per frame; read only."""
    return film(tmp_path_factory.mktemp("vidéos [1]") / "right.mp4", shift(3, 0))


def test_output(command: Command, right: Path, tmp_path: Path) -> None:
    code, out, err = command("flow", right, tmp_path / "a.png", *QUICK)
    assert code == 0
    assert "6 of 128x96 px, 25 fps" in out
    assert out.splitlines()[-1] == f"written: {tmp_path / 'a.png'}"
    assert {line.split(":")[0] for line in err.splitlines()} == {"computing flow"}
    code, out, err = command("flow", right, tmp_path / "a.flo", *QUICK, "--json", "--at", "0.1", "--bound", "4")
    assert (code, err) == (0, "")
    found = json.loads(out)
    speeds = [found.pop(name) for name in ("mean_px", "p99_px", "frames_per_sec")]
    assert speeds[0] == pytest.approx(3, abs=0.2)
    assert 3 < speeds[1] < 5
    assert speeds[2] > 1
    assert found.pop("largest_sec") == pytest.approx(0.08)
    assert found.pop("clipped_share") < 0.05
    assert found == {
        "video": str(right),
        "out": str(tmp_path / "a.flo"),
        "flow": {"method": "dis", "preset": "medium", "short_side": 96, "bound_px": 4.0},
        "frames": 2,
        "width": 128,
        "height": 96,
        "fps": 25.0,
        "unknown_share": 0.0,
        "truncated": False,
    }


def test_subtract_median(command: Command, right: Path, tmp_path: Path) -> None:
    code, out, _ = command("flow", right, tmp_path / "a.png", *QUICK, "--subtract-median", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["flow"]["subtract_median"] is True
    assert found["mean_px"] < 0.3


@pytest.mark.parametrize(("bound", "noted"), [("2.5", True), ("20", False)])
def test_clipping_is_noted_in_one_line(command: Command, right: Path, tmp_path: Path, bound: str, noted: bool) -> None:
    code, _, err = command("flow", right, tmp_path / "a.flo", *QUICK, "--at", "0", "--bound", bound)
    assert code == 0
    if noted:
        line = one_line(err)
        assert line.startswith(f"note: {right}: ")
        assert line.endswith("clipped at ±2.5 px/frame; use a larger --bound or a smaller --short-side")
    else:
        assert err == ""


def test_static_and_damaged_videos(command: Command, tmp_path: Path) -> None:
    still = film(tmp_path / "still.mp4", shift(0, 0), count=3)
    code, out, _ = command("flow", still, tmp_path / "a.png", *QUICK, "--json")
    assert code == 0
    assert json.loads(out)["largest_sec"] == 0
    whole = film(tmp_path / "whole.mp4", shift(2, 1), count=20, mux={"movflags": "faststart"}).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    code, out, err = command("flow", cut, tmp_path / "b.png", *QUICK, "--json")
    assert code == 0
    frames = json.loads(out)["frames"]
    assert 2 < frames < 20
    assert err.splitlines()[-1] == f"note: {cut}: damaged; only the {frames} frames that could be decoded are used"


@pytest.mark.parametrize(
    ("out", "options", "words"),
    [
        ("a.gif", [], "the ending selects the format: .mp4, .png, .npz, .flo, or / for a folder of .flo files"),
        ("a", [], "found none"),
        ("folder", [], "found none"),
        ("folder.png", [], "is a folder; choose another name"),
        ("full/", [], "expected a new or an empty folder"),
        ("file/", [], "expected a new or an empty folder"),
        ("no/a.png", [], "there is no folder"),
        ("no/a/", [], "there is no folder"),
        ("file/a.mp4", [], "there is no folder"),
        ("a.png", ["--at", "7"], "expected a moment before the last frame, which is at 0.200 s, found 7 s"),
        ("a.flo", ["--at", "0.2"], "found 0.2 s"),
        ("a.mp4", ["--from", "9"], "flow needs at least two frames, found 0 from 9 s on"),
        ("a.npz", ["--from", "0.2"], "flow needs at least two frames, found 1 from 0.2 s on"),
        ("a.png", ["--from", "0.1", "--to", "0.15"], "found 1 from 0.1 s on before 0.15 s"),
        ("a/", ["--to", "0.01"], "found 1 before 0.01 s"),
        ("a.png", ["--flow", "brox"], "unknown flow method 'brox'"),
        ("a.png", ["--preset", "best"], "unknown flow preset 'best' of dis"),
        ("a.png", ["--bound", "0"], "bound_px must be a number of pixels above 0"),
    ],
)
def test_failures_are_one_line_and_code_1(
    command: Command, right: Path, tmp_path: Path, out: str, options: list[str], words: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "000000.flo").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    code, stdout, err = command("flow", right, f"{tmp_path}/{out}", *QUICK, *options)
    assert (code, stdout) == (1, "")
    line = err.splitlines()[-1]
    assert line.startswith("stresnet: ")
    assert words in line
    assert all(line.partition(":")[0] in ("computing flow", "counting frames") for line in err.splitlines()[:-1])
    assert sorted(tmp_path.rglob("*")) == before


def test_invalid_videos(command: Command, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    one = encode(tmp_path / "one.mp4", [texture(*SIZE)])
    for video, words in {
        tmp_path / "no.mp4": "no such file",
        tmp_path: "found a folder",
        tmp_path / "text.mp4": "not a video",
        tmp_path / "empty.mp4": "the file is empty",
        one: "flow needs at least two frames, found 1",
    }.items():
        code, out, err = command("flow", video, tmp_path / "out.png", *QUICK)
        assert (code, out) == (1, "")
        assert err.splitlines()[-1].startswith(f"stresnet: {video}: ")
        assert words in err.splitlines()[-1]
    assert not (tmp_path / "out.png").exists()


def test_the_input_is_not_overwritten(right: Path, tmp_path: Path) -> None:
    before = right.read_bytes()
    with pytest.raises(FlowFileError, match="is the input video"):
        export_flow(right, right, SPEC)
    os.symlink(right, tmp_path / "link.mp4")
    with pytest.raises(FlowFileError, match="is the input video"):
        export_flow(right, tmp_path / "link.mp4", SPEC)
    assert right.read_bytes() == before


def test_full_disk(right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is reported before the work if the size is known, and in one line otherwise."""
    from stresnet.flow.show import export

    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(FlowFileError, match=r"0\.0 GB are needed, 0\.0 GB are free; use a smaller --short-side"):
        export_flow(right, tmp_path / "a.npz", SPEC)
    monkeypatch.setattr(Path, "write_bytes", no_space)
    for out in ("a.png", "a.flo", "a/"):
        with pytest.raises(FlowFileError, match=r"cannot be written \(No space left on device\)"):
            export_flow(right, f"{tmp_path}/{out}", SPEC)
    assert os.listdir(tmp_path) == []


def no_space(path: Path, data: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_read_only_folder(right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(FlowFileError, match="is read-only"):
        export_flow(right, tmp_path / "a.png", SPEC)


@pytest.mark.parametrize(
    ("out", "options"),
    [
        ("a.mp4", ["--at", "1"]),
        ("a.npz", ["--at", "1"]),
        ("a/", ["--at", "1"]),
        ("a.png", ["--at", "nan"]),
        ("a.png", ["--at", "-1"]),
        ("a.png", ["--at", "0", "--from", "0"]),
        ("a.png", ["--at", "0", "--max-frames", "5"]),
        ("a.png", ["--from", "2", "--to", "2"]),
        ("a.png", ["--to", "inf"]),
        ("a.png", ["--max-frames", "1"]),
        ("a.png", ["--short-side", "31"]),
        ("a.png", ["--scale", "0"]),
        ("a.mp4", ["--scale", "nan"]),
        ("a.npz", ["--arrows"]),
        ("a.flo", ["--scale", "3"]),
        ("a.png", ["--colour"]),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    command: Command, right: Path, tmp_path: Path, out: str, options: list[str]
) -> None:
    code, stdout, err = command("flow", right, f"{tmp_path}/{out}", *options)
    assert (code, stdout) == (2, "")
    assert one_line(err).endswith("; see stresnet flow --help") or "see " in one_line(err)
    assert os.listdir(tmp_path) == []
