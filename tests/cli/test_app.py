"""The application: help, usage errors, error messages and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stresnet
import stresnet.recipes
from helpers.tiny import Command, one_line
from stresnet.training import Run

COMMANDS = [
    "demo",
    "prepare",
    "doctor",
    "train",
    "evaluate",
    "fuse",
    "predict",
    "live",
    "serve",
    "convert",
    "models",
    "flow",
]
GROUPS = ["recipes", "weights"]


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
    assert one_line(done.stderr).startswith("stresnet: no.safetensors does not exist: give")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predict"], "Missing argument"),
        (["prepare", "--nonsense"], "No such option: --nonsense"),
        (["nonsense"], "No such command 'nonsense'"),
        (
            ["evaluate", "run", "store", "--protocol", "densest"],
            "--protocol must be one of dense25, crop10x25, dense, fast, center",
        ),
        (["predict", "model", "video", "--protocol", "dence"], "not 'dence'"),
        (["predict", "model", "video", "--top", "0"], "'--top'"),
        (["prepare", "a", "b", "--dataset", "ucf101"], "--dataset ucf101 needs --splits"),
        (
            ["prepare", "a", "b", "--dataset", "kinetics"],
            "must be one of folders, list, ucf101, hmdb51, not 'kinetics'",
        ),
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
