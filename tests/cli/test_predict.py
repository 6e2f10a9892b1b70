"""`stresnet predict`: results, notes and progress."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from helpers.tiny import Command, one_line
from helpers.video_files import encode
from helpers.video_kinds import write_unreadable
from helpers.web import Web, web_server
from stresnet.cli.display import Bar
from stresnet.data.store import Store
from stresnet.training import Run


def test_predict(command: Command, store: Store, run: Run, tmp_path: Path) -> None:
    model = run.folder / "model.safetensors"
    good, short = store.select("test")[0].record.path, tmp_path / "Fahrräder [2] :smile: 影片.mp4"
    shutil.copyfile(good, short)
    code, out, err = command("predict", model, good, short, "--top", "2", "--json")
    assert code == 0
    first, second = json.loads(out)
    assert (first["video"], second["video"]) == (str(good), str(short))
    assert first["top"] == second["top"]
    assert [set(t) for t in first["top"]] == [{"label", "probability"}] * 2
    assert [(one["frames"], one["truncated"]) for one in (first, second)] == [(26, False)] * 2
    strides = "the 25 steps of dense25 are closer together or farther apart than in training (2 to 4 frames)"
    assert err.splitlines() == [
        "recognising: 0/2",
        "recognising: 1/2",
        f"note: in 2 of 2 videos {strides}, which may cost accuracy; use --protocol dense",
    ]
    code, out, _ = command("predict", run.folder, good, "--top", "2", "--json")  # the folder holds the same model
    assert (code, json.loads(out)) == (0, [first])
    code, out, _ = command("predict", model, tmp_path / "no.mp4", short, "--json")
    assert code == 1
    failed, found = json.loads(out)
    assert failed == {"video": str(tmp_path / "no.mp4"), "error": failed["error"]}
    assert "no such file" in failed["error"]
    assert found["video"] == str(short)
    code, out, err = command("predict", model, tmp_path / "no.mp4", short, "--protocol", "center")
    assert code == 1
    assert one_line(out).startswith(f"{short}: red_")
    assert out.count("%") == 4
    assert err.splitlines()[-1] == f"failed: {tmp_path / 'no.mp4'}: no such file; check its name"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("STRESNET_CACHE", str(tmp_path / "cache"))
    with web_server() as server:
        yield server


def test_predict_a_folder_a_list_and_a_url(command: Command, store: Store, run: Run, tmp_path: Path, web: Web) -> None:
    good = Path(store.select("test")[0].record.path)
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    for name in ("b.mp4", "deep/a.mp4"):
        shutil.copyfile(good, tmp_path / "videos" / name)
    (tmp_path / "videos" / "readme.md").touch()
    (tmp_path / "list.txt").write_text(f"videos/b.mp4\nvideos/gone.mp4\n{web.url}/gone.mp4\n")
    url = web.put("/c.mp4", good.read_bytes())
    sources = [tmp_path / "videos", tmp_path / "list.txt", url, tmp_path / "*.avi"]
    code, out, err = command("predict", run.folder, *sources, "--protocol", "center", "--jsonl")
    assert code == 1
    found = [json.loads(line) for line in out.splitlines()]
    videos = [tmp_path / "videos" / name for name in ("b.mp4", "deep/a.mp4")]
    assert [one["video"] for one in found] == [
        *map(str, videos),
        *(str(videos[0]), "videos/gone.mp4", f"{web.url}/gone.mp4"),
        *(url, str(tmp_path / "*.avi")),
    ]
    assert len({one["label"] for one in found if "label" in one}) == 1
    assert [one["video"] for one in found if "label" not in one] == [found[k]["video"] for k in (3, 4, 6)]
    assert f"{tmp_path / 'list.txt'}, line 2: no such file" in found[3]["error"]
    assert "no such file on the server" in found[4]["error"]
    assert err.splitlines()[0].startswith(f"note: {tmp_path / 'videos'}: 1 file(s) that are not videos are left out")
    assert [line.partition(": ")[0] for line in err.splitlines()[-3:]] == ["failed"] * 3


def test_predict_a_part_of_a_video(command: Command, store: Store, run: Run) -> None:
    good = store.select("test")[0].record.path
    predict = ["predict", run.folder, "--protocol", "center", "--json"]
    code, out, _ = command(*predict, good, f"{good}#t=0.2,1", "--from", "0:00.2", "--to", "1")
    first, second = json.loads(out)
    assert (code, first) == (0, second)
    assert first["video"] == f"{good}#t=0.2,1"
    assert first["frames"] < 26
    code, _, err = command(*predict, good, "--from", "2", "--to", "1")
    assert (code, one_line(err).startswith("stresnet: Invalid value: --from and --to: expected a start")) == (2, True)


def test_predict_with_another_preset_of_the_flow_method(
    command: Command, store: Store, run: Run, tmp_path: Path
) -> None:
    predict = ["predict", run.folder, store.select("test")[0].record.path, "--protocol", "center", "--flow-preset"]
    code, out, err = command(*predict, "fast", "--json")
    assert (code, json.loads(out)[0]["flow"]) == (0, "dis/fast")
    note = "note: flow by dis/fast instead of dis/ultrafast, which the model was trained with"
    assert err.splitlines()[0] == note
    code, out, err = command(*predict, "ultrafast")  # that of training
    assert code == 0
    assert "note: " not in err
    code, out, err = command(*predict, "quick")
    assert (code, out) == (1, "")
    assert one_line(err) == "stresnet: unknown flow preset 'quick' of dis: expected one of ultrafast, fast, medium"


def test_predict_shows_progress_within_a_video_on_a_terminal(
    command: Command, store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, force_interactive=True)
    monkeypatch.setattr("stresnet.cli.display.errors", screen)
    seen: list[tuple[str, int, int]] = []
    show = Bar.__call__
    monkeypatch.setattr(Bar, "__call__", lambda self, *now: seen.append(now[:3]) or show(self, *now))
    video = Path(store.select("test")[0].record.path)
    code, out, err = command("predict", run.folder / "model.safetensors", video, "--protocol", "center")
    assert (code, err) == (0, "")
    assert one_line(out).startswith(f"{video}: ")
    flow = f"{video.name}: computing flow"
    assert seen == [
        ("recognising", 0, 1),
        *((flow, n, 23) for n in range(1, 24)),  # of 26 frames, those of five stacks
        (f"{video.name}: scoring", 0, 1),
    ]
    assert flow in screen.file.getvalue()


def test_predict_notes_damaged_videos(command: Command, run: Run, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    video = encode(tmp_path / "cut.mp4", list(noise), mux={"movflags": "faststart"})
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    predict = ["predict", run.folder / "model.safetensors", video, "--protocol", "center"]
    code, out, err = command(*predict, "--json")
    assert code == 0
    found = json.loads(out)[0]
    note = f"note: {video}: damaged; only the {found['frames']} frames that could be decoded are used"
    assert (found["truncated"], err.splitlines()[-1]) == (True, note)
    code, out, err = command(*predict)
    assert (code, err.splitlines()[-1]) == (0, note)
    assert one_line(out).startswith(f"{video}: red_")


def test_predict_goes_on_after_videos_that_cannot_be_read(
    command: Command, store: Store, run: Run, tmp_path: Path
) -> None:
    reasons = write_unreadable(tmp_path)
    good = store.select("test")[0].record.path
    code, out, err = command("predict", run.folder, *(tmp_path / n for n in reasons), good, "--json")
    *failed, found = json.loads(out)
    assert (code, found["video"], found["frames"]) == (1, str(good), 26)
    for one, (name, reason) in zip(failed, reasons.items(), strict=True):
        assert one["video"] == str(tmp_path / name)
        assert reason in one["error"]
    assert [line.split(": ")[0] for line in err.splitlines()[-4:]] == ["failed"] * 4
    assert "Traceback" not in err


def test_file_names_that_are_not_valid_text(store: Store, run: Run, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    shutil.copyfile(store.select("test")[0].record.path, odd)
    predict = [sys.executable, "-m", "stresnet", "predict", run.folder / "model.safetensors", odd, "--protocol"]
    for options in (["center"], ["center", "--json"]):
        done = subprocess.run([*predict, *options], capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert b"caf\\udce9.mp4" in done.stdout
    assert json.loads(done.stdout)[0]["video"] == os.fsdecode(odd)
