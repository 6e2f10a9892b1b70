"""The commands: what they print to stdout and stderr, and their exit codes."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import stresnet
import stresnet.recipes
from helpers.tiny import STAGES, Command, grouped, one_line, prepared
from helpers.video_files import encode
from stresnet.cli.display import Bar
from stresnet.data.datasets import read_catalog
from stresnet.data.store import Store
from stresnet.data.synthetic import SyntheticSpec
from stresnet.evaluation.metrics import mcnemar, top_k_accuracy
from stresnet.evaluation.scores import ScoreTable
from stresnet.model.checkpoint import read_metadata
from stresnet.recipes import load_recipe
from stresnet.training import Run

COMMANDS = ["demo", "prepare", "train", "evaluate", "fuse", "predict", "convert", "models", "flow"]
GROUPS = ["recipes", "weights"]
ONE_STEP = ["--set", "*.optimisation.schedule=[{lr: 0.01, iterations: 1}]", "--workers", "0"]


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """A copy of the trained run that a command may change."""
    return Path(shutil.copytree(run.folder, tmp_path / "run [b]"))


@pytest.fixture
def scores(tmp_path: Path) -> list[Path]:
    """Two score files of 20 videos: the first is correct on 16, the second on 10 of these and 2 others."""
    labels = np.arange(20) % 3
    files = []
    for name, correct in (("a", range(16)), ("b", [*range(10), 18, 19])):
        answers = np.where(np.isin(np.arange(20), list(correct)), labels, (labels + 1) % 3)
        logits = np.eye(3, dtype=np.float32)[answers] * (3 if name == "a" else 1)
        table = ScoreTable(name, "dense25", ("x", "y", "z"), tuple(f"v{i:02}" for i in range(20)), labels, logits)
        files.append(tmp_path / f"{name}.parquet")
        table.write(files[-1])
    return files


# ---------------------------------------------------------------- help


def test_help_lists_all_commands(command: Command) -> None:
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    assert all(name in out for name in COMMANDS + GROUPS)
    for name in COMMANDS:
        code, out, _ = command(name, "--help")
        assert code == 0
        assert f"{name} [OPTIONS]" in out
    assert command("--version") == (0, f"stresnet {stresnet.__version__}\n", "")
    code, out, err = command()
    assert "Usage" in out
    assert (code, err) == (2, "")


def test_help_loads_no_heavy_libraries() -> None:
    heavy = "{'torch', 'lightning', 'cv2', 'av', 'matplotlib'} & set(sys.modules)"
    script = f"import sys, time; t = time.perf_counter(); import stresnet; print(time.perf_counter() - t, {heavy})"
    script += f"; from stresnet.cli.app import run; run(['--help']); print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    seconds, _, loaded = lines[0].partition(" ")
    assert float(seconds) < 1  # takes milliseconds unless the machine is busy
    assert loaded == lines[-1] == "set()"


def test_module_runs_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stresnet", "predict", "no.safetensors", "no.mp4"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert one_line(done.stderr).startswith("stresnet: no model at no.safetensors: give")


# ---------------------------------------------------------------- the commands


def test_prepare(command: Command, videos: Path, tmp_path: Path) -> None:
    options = ["--short-side", "32", "--workers", "1"]
    code, out, err = command("prepare", videos, tmp_path / "store", *options, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["done"], found["kept"], found["failed"], found["empty_classes"]) == (12, 0, {}, [])
    assert found["truncated"] == []
    assert found["frames"] == 12 * 26
    assert err.splitlines()[0] == "note: 1 file(s) that are not videos are left out, such as 'synthetic.json'"
    assert err.splitlines()[1] == "preparing videos: 0/12"
    assert err.splitlines()[-1].startswith("preparing videos: 12/12")
    code, out, _ = command("prepare", videos, tmp_path / "store", *options)
    assert code == 0
    assert one_line(out).startswith("0 videos prepared, 12 kept, 0 failed; 312 frames, ")
    store = Store.open(tmp_path / "store")
    assert (store.spec.flow.method, store.spec.flow.preset, store.spec.flow.bound_px) == ("dis", "medium", 20.0)
    assert store.spec.jpeg_quality == 95


def test_prepare_prints_notes(command: Command, videos: Path, tmp_path: Path) -> None:
    folder = videos / "test" / "red_up_blue_down"
    shutil.copytree(folder, tmp_path / "clips" / "up [1]")
    options = ["--short-side", "32", "--workers", "1", "--flow", "farneback", "--bound", "10"]
    code, _, err = command("prepare", tmp_path / "clips", tmp_path / "store", *options)
    assert code == 0
    assert "note: no split is given: all 1 videos are for training" in err
    store = Store.open(tmp_path / "store")
    assert (store.spec.flow.method, store.spec.flow.bound_px, store.classes) == ("farneback", 10.0, ("up [1]",))


def test_prepare_with_motion_vectors(command: Command, videos: Path, tmp_path: Path) -> None:
    options = ["--short-side", "32", "--workers", "1", "--flow", "mv", "--subtract-median"]
    assert command("prepare", videos / "test", tmp_path / "store", *options)[0] == 0
    store = Store.open(tmp_path / "store")
    assert (store.spec.flow.method, store.spec.flow.subtract_median) == ("mv", True)
    assert all(store.video(e.record.id).flow(range(25)).std() > 0 for e in store.select())


def test_prepare_notes_videos_that_are_no_longer_listed(command: Command, videos: Path, tmp_path: Path) -> None:
    options = ["--short-side", "32", "--workers", "1", "--preset", "ultrafast"]
    assert "note: 12 videos of" not in command("prepare", videos, tmp_path / "store", *options)[2]
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(f"path,label\n{read_catalog(videos).records[0].path},{name}\n")
    code, out, err = command("prepare", tmp_path / "one.csv", tmp_path / "store", *options, "--json")
    assert code == 0
    assert len(json.loads(out)["no_longer_listed"]) == 12
    expected = "note: 12 videos of the store are not in this source, such as test/red_"
    assert [line for line in err.splitlines() if line.startswith(expected)]
    assert len(list((tmp_path / "store" / "videos").rglob("*.arrow"))) == 13
    code, _, err = command("prepare", tmp_path / "two.csv", tmp_path / "store", *options)
    assert code == 0
    assert "not in this source" not in err  # the same video under another label


def test_prepare_names_the_first_of_many_damaged_videos(command: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    whole = encode(tmp_path / "whole.mp4", list(noise), mux={"movflags": "faststart"}).read_bytes()
    folder = tmp_path / "clips" / "up"
    folder.mkdir(parents=True)
    for n in range(22):
        (folder / f"{n:02}.mp4").write_bytes(whole[: len(whole) // 2])
    options = ["--short-side", "32", "--workers", "1", "--preset", "ultrafast", "--jpeg-quality", "80"]
    code, _, err = command("prepare", tmp_path / "clips", tmp_path / "store", *options)
    assert code == 0
    store = Store.open(tmp_path / "store")
    frames = store.entries[0].frames
    notes = [line for line in err.splitlines() if line.startswith("note: ") and "damaged" in line]
    named = [
        f"note: up/{n:02}.mp4: damaged; only the {frames} frames that could be decoded are used" for n in range(20)
    ]
    index = store.root / "index.parquet"
    assert notes == [*named, f"note: 2 more are damaged; all are marked as truncated in {index}"]
    assert (store.spec.flow.preset, store.spec.jpeg_quality) == ("ultrafast", 80)
    code, out, _ = command("prepare", tmp_path / "clips", tmp_path / "store", *options, "--json")
    assert code == 0
    assert json.loads(out)["truncated"] == [f"up/{n:02}.mp4" for n in range(22)]


def test_prepare_rejects_other_settings(command: Command, videos: Path, tmp_path: Path) -> None:
    options = ["--short-side", "32", "--workers", "1"]
    code, _, err = command("prepare", videos, tmp_path / "store", *options, "--preset", "slow")
    assert code == 1
    assert err.splitlines()[-1] == ("stresnet: flow preset of dis must be one of ultrafast, fast, medium, found 'slow'")
    assert not (tmp_path / "store").exists()
    prepared(read_catalog(videos), tmp_path / "store")
    options += ["--preset", "ultrafast", "--jpeg-quality", "80"]
    code, _, err = command("prepare", videos, tmp_path / "store", *options)
    assert code == 1
    expected = "this run: expected jpeg_quality 95, found 80; prepare with one of them"
    assert err.splitlines()[-1].endswith(expected)


def test_train_stage_by_stage(command: Command, store: Store, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run [a]"
    train = ["train", store.root, folder, "--recipe", recipe, *ONE_STEP]
    code, out, err = command(*train, "--stage", "motion", "--set", "seed=3")
    assert code == 0
    assert one_line(out) == f"trained: motion; model: {folder / 'model.safetensors'}"
    assert err.splitlines()[0] == "training motion: 0/1"
    assert err.splitlines()[1].startswith("training motion: 1/1  loss ")
    code, out, err = command(*train, "--resume", "--set", "seed=3")
    assert code == 0
    assert out.startswith("trained: appearance, motion, st-resnet; model: ")
    assert "training motion" not in err
    story = read_metadata(folder / "model.safetensors")
    assert (story["stage"], story["recipe"]["seed"], story["training"]["iterations"]) == ("st-resnet", 3, 1)


def test_train_with_another_length_rate_and_batch(command: Command, store: Store, recipe: Path, tmp_path: Path) -> None:
    train = ["train", store.root, tmp_path / "run", "--recipe", recipe, "--stage", "motion", "--workers", "0"]
    code, _, err = command(*train, "--epochs", "0.5", "--lr", "0.001", "--batch", "2")
    assert code == 0, err
    trained = Run.open(tmp_path / "run").recipe
    optimisation = trained.stage("motion").optimisation
    assert (optimisation.batch_videos, optimisation.sub_batch_videos) == (2, 2)
    assert [phase.lr for phase in optimisation.schedule] == [0.001, 0.0001]
    assert sum(phase.epochs or 0 for phase in optimisation.schedule) == pytest.approx(0.5)
    assert trained.stage("appearance") == load_recipe(recipe).stage("appearance")


def test_train_from_initial_weights(
    command: Command, store: Store, run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("stresnet.training.train", lambda *_, init, **__: seen.update(init) or run)
    odd = tmp_path / "epoch=3.pth"
    odd.touch()
    files = ["--init", odd, "--init", f"motion={run.model_file('motion')}", "--init", f"st-resnet={odd}"]
    assert command("train", store.root, tmp_path / "run", "--recipe", recipe, *files)[0] == 0
    assert seen == {"imagenet": odd, "motion": run.model_file("motion"), "st-resnet": odd}


def test_train_with_test_groups(command: Command, videos: Path, recipe: Path, tmp_path: Path) -> None:
    store = prepared(grouped(videos), tmp_path / "store")
    train = ["train", store.root, tmp_path / "run", "--recipe", recipe, *ONE_STEP, "--stage", "motion"]
    code, _, err = command(*train, "--test-group", "g9")
    assert code == 1
    assert one_line(err).endswith("expected test groups among: g1, g2, g3; found g9")
    assert command(*train, "--test-group", "g1", "--test-group", "g3")[0] == 0
    train[2] = tmp_path / "everything"
    code, _, err = command(*train)
    assert code == 0
    assert err.splitlines()[0].endswith("none is left for testing; hold some out with --test-group: g1, g2, g3")
    assert read_metadata(tmp_path / "run" / "model.safetensors")["test_groups"] == ["g1", "g3"]


def test_evaluate(command: Command, store: Store, copy: Path, tmp_path: Path) -> None:
    options = ["--protocol", "center", "--protocol", "center"]  # repeated protocols count once
    code, out, err = command("evaluate", copy, store.root, *options, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["name"] for row in rows] == ["Appearance", "Motion", "late fusion", "ST-ResNet"]
    table = ScoreTable.read(copy / "report" / "scores-st-resnet.parquet")
    top1 = top_k_accuracy(table, 1)
    assert rows[-1]["top1"] == [top1.value, top1.low, top1.high]
    assert (rows[-1]["protocol"], rows[-1]["videos"], rows[-1]["p_value"]) == ("center", 4, None)
    assert err.splitlines()[-1] == f"report: {copy / 'report' / 'report.html'}"
    model = copy / "model.safetensors"
    code, out, err = command("evaluate", model, store.root, *options, "--out", tmp_path / "out", "--split", "train")
    assert code == 0
    assert out.splitlines()[1].startswith("st-resnet ")
    assert (tmp_path / "out" / "report.html").is_file()


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
    assert err.splitlines() == ["recognising: 0/2", "recognising: 1/2"]
    code, out, _ = command("predict", run.folder, good, "--top", "2", "--json")  # the folder holds the same model
    assert (code, json.loads(out)) == (0, [first])
    code, out, _ = command("predict", model, tmp_path / "no.mp4", short, "--json")
    assert code == 1
    failed, found = json.loads(out)
    assert failed == {"video": str(tmp_path / "no.mp4"), "error": failed["error"]}
    assert "cannot be read" in failed["error"]
    assert found["video"] == str(short)
    code, out, err = command("predict", model, tmp_path / "no.mp4", short, "--protocol", "center")
    assert code == 1
    assert one_line(out).startswith(f"{short}: red_")
    assert out.count("%") == 4
    assert err.splitlines()[-1] == f"failed: {tmp_path / 'no.mp4'}: cannot be read (No such file or directory)"


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
        *((flow, n, 26) for n in range(1, 27)),
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


def test_file_names_that_are_not_valid_text(store: Store, run: Run, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    shutil.copyfile(store.select("test")[0].record.path, odd)
    predict = [sys.executable, "-m", "stresnet", "predict", run.folder / "model.safetensors", odd, "--protocol"]
    for options in (["center"], ["center", "--json"]):
        done = subprocess.run([*predict, *options], capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert b"caf\\udce9.mp4" in done.stdout
    assert json.loads(done.stdout)[0]["video"] == os.fsdecode(odd)


def test_fuse(command: Command, scores: list[Path], tmp_path: Path) -> None:
    code, out, err = command("fuse", *scores, "--out", tmp_path / "new" / "fused.parquet", "--json")
    assert (code, err) == (0, "")
    a, b, fused = json.loads(out)
    assert [row["top1"][0] for row in (a, b, fused)] == [0.8, 0.6, 0.8]  # the more confident one wins
    first, second, both = (ScoreTable.read(f) for f in (*scores, tmp_path / "new" / "fused.parquet"))
    np.testing.assert_allclose(both.logits, (first.logits + second.logits) / 2)
    assert (a["p_value"], fused["p_value"]) == (1.0, None)
    assert b["p_value"] == mcnemar(second, both).p_value == pytest.approx(0.289, abs=1e-3)  # 6 against 2 of 8
    code, out, _ = command("fuse", *scores, "--weights", "0,1")
    assert code == 0
    a_line, b_line, fused_line = out.splitlines()[1:]
    assert a_line.split()[:2] == ["a", "80.0"]
    assert b_line.split()[-1] == "1"
    assert fused_line.split()[:2] == ["fusion", "60.0"]
    assert a_line.split()[-1] == "0.29"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from loader processes, since Python 3.12
def test_demo(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SyntheticSpec(width=64, height=64, frames=14, window_px=24, train_per_class=1, test_per_class=1)
    load_recipe = stresnet.recipes.load_recipe

    def shorter(name: str, changes: Sequence[str]) -> Any:
        short = ["network.width=0.0625", "optimisation.precision=32-true"]
        return load_recipe(name, [*short, "*.optimisation.schedule=[{lr: 0.01, iterations: 1}]"])

    monkeypatch.setattr("stresnet.data.synthetic.SyntheticSpec", lambda: spec)
    monkeypatch.setattr("stresnet.recipes.load_recipe", shorter)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    code, out, err = command("demo", tmp_path / "demo", "--json")
    assert code == 0, err
    rows = {row["name"]: row for row in json.loads(out)}
    assert set(rows) >= {"appearance", "motion", "late fusion", "ST-ResNet", "ST-ResNet*"}
    assert {row["videos"] for row in rows.values()} == {4}
    assert "Which colour drifts which way?" in (tmp_path / "demo" / "report" / "report.html").read_text("utf-8")
    steps = [line.partition(":")[0] for line in err.splitlines() if not line.startswith(("generating", "preparing"))]
    assert [s.removeprefix("training ") for s in steps if s.startswith("training ")][:2] == ["appearance", "motion"]
    assert not any(s == "note" for s in steps)
    again = command("demo", tmp_path / "demo")
    assert again[0] == 0
    assert "training" not in again[2]


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predict"], "Missing argument"),
        (["prepare", "--nonsense"], "No such option: --nonsense"),
        (["nonsense"], "No such command 'nonsense'"),
        (["evaluate", "run", "store", "--protocol", "dense"], "--protocol must be one of dense25, crop10x25, center"),
        (["predict", "model", "video", "--protocol", "dense"], "not 'dense'"),
        (["predict", "model", "video", "--top", "0"], "'--top'"),
        (["prepare", "a", "b", "--dataset", "ucf101"], "--dataset ucf101 needs --splits"),
        (["prepare", "a", "b", "--dataset", "kinetics"], "must be one of folders, csv, ucf101, hmdb51, not 'kinetics'"),
        (["prepare", "a", "b", "--short-side", "16"], "'--short-side'"),
        (["train", "a", "b", "--epochs", "0"], "--epochs must be a positive number, not 0.0"),
        (["train", "a", "b", "--lr", "nan"], "--lr must be a positive number, not nan"),
        (["train", "a", "b", "--batch", "0"], "'--batch'"),
        (["prepare", "a", "b", "--split", "4"], "'--split'"),
        (["prepare", "a", "b", "--jpeg-quality", "0"], "'--jpeg-quality'"),
        (["prepare", "a", "b", "--jpeg-quality", "101"], "'--jpeg-quality'"),
        (["fuse", "a", "--weights", "1,b"], "must be numbers separated by commas, not '1,b'"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(command: Command, arguments: list[str], expected: str) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    line = one_line(err)
    assert expected in line
    assert line.startswith("stresnet: ")
    assert line.endswith(" --help")


def test_error_is_one_line_with_traceback_on_request(command: Command, tmp_path: Path) -> None:
    wrong = ["evaluate", tmp_path / "run", tmp_path]
    expected = f"stresnet: {tmp_path}: expected a prepared store, found no store.json; make one with stresnet prepare"
    assert command(*wrong) == (1, "", expected + "\n")
    code, out, err = command("--debug", *wrong)
    assert (code, out) == (1, "")
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1] == expected
    assert command(*wrong)[2].count("\n") == 1  # --debug applies to one command only


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (OSError(28, "No space left on device"), "file system: No space left on device"),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (ValueError("two\nlines  of text"), "two lines of text"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_system_errors_are_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, raised: Exception, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("stresnet.cli.demo.run_demo", fail)
    assert command("demo") == (1, "", f"stresnet: {line}\n")


def test_out_of_gpu_memory_is_one_line_but_other_runtime_errors_are_raised(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("stresnet.cli.demo.run_demo", fail)
    assert command("demo") == (1, "", "stresnet: CUDA out of memory. Tried to allocate 2 GiB.\n")
    monkeypatch.setattr("stresnet.cli.demo.run_demo", lambda *_, **__: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        command("demo")


def test_ctrl_c_is_code_130(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stresnet.cli.demo.run_demo", interrupt)
    code, out, err = command("demo")
    assert (code, out) == (130, "")
    assert one_line(err) == "interrupted; run the same command again to resume"


def test_ctrl_c_hints_at_resuming_only_where_possible(
    command: Command, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stresnet.inference.recognizer.Recognizer.predict", interrupt)
    code, out, err = command("predict", run.folder / "model.safetensors", tmp_path / "any.mp4")
    assert (code, out, err.splitlines()[-1]) == (130, "", "interrupted")


def test_unknown_stage(command: Command, store: Store, recipe: Path) -> None:
    code, _, err = command("train", store.root, recipe.parent / "run", "--recipe", recipe, "--stage", "fusion")
    assert code == 1
    assert one_line(err).endswith(f"has no stage 'fusion': it has {', '.join(STAGES)}")


def test_evaluate_notes_untrained_stages(command: Command, store: Store, run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / "run"))
    shutil.rmtree(copy / "st-resnet")
    code, out, err = command("evaluate", copy, store.root, "--protocol", "center", "--json")
    assert code == 0
    assert err.splitlines()[0] == "note: not trained yet and left out of the report: st-resnet"
    assert [row["name"] for row in json.loads(out)] == ["Appearance", "Motion", "late fusion"]
