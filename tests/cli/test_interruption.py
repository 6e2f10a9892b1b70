"""Ctrl-C and SIGTERM: the documented exit codes, no temporary files, and a run that resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers.commands import TINY, unfinished
from helpers.tiny import Command, one_line
from stresnet.cli.app import RESUME_HINTS
from stresnet.data.store import Store


def interrupt(
    arguments: list[object], sign: str, times: int = 1, by: signal.Signals = signal.SIGINT
) -> tuple[int, list[str]]:
    """Start a command, interrupt it after `times` lines of stderr with `sign`, and return its exit code and stderr."""
    command = [sys.executable, "-m", "stresnet", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        times -= sign in line
        if not times:
            break
    time.sleep(0.2)
    os.killpg(process.pid, by)  # to all processes of the command, as a terminal does
    rest = process.communicate(timeout=120)[1]
    return process.returncode, [*lines, *rest.splitlines(keepends=True)]


def assert_interrupted(
    code: int, lines: list[str], expected: int = 130, hint: str = "run the same command again to resume"
) -> None:
    assert code == expected, "".join(lines)
    assert lines[-1] == f"interrupted; {hint}\n"
    assert sum("interrupted" in line for line in lines) == 1
    assert not any("Traceback" in line or "Error" in line for line in lines), "".join(lines)


def test_ctrl_c_while_preparing(command: Command, videos: Path, tmp_path: Path) -> None:
    # TV-L1 is slow, which leaves time to interrupt.
    prepare: list[object] = ["prepare", videos / "test", tmp_path / "store", "--flow", "tvl1", *TINY[:3], 1]
    assert_interrupted(*interrupt(prepare, "preparing videos: 1/4"))
    assert unfinished(tmp_path / "store") == []
    kept = len(list((tmp_path / "store").rglob("*.arrow")))
    assert 1 <= kept < 4
    code, out, _ = command("train", tmp_path / "store", tmp_path / "run")
    assert (code, out) == (1, "")
    code, out, _ = command(*prepare)
    assert code == 0
    assert one_line(out).startswith(f"{4 - kept} videos prepared, {kept} kept, 0 failed")


def test_sigterm_while_preparing(videos: Path, tmp_path: Path) -> None:
    prepare: list[object] = ["prepare", videos / "test", tmp_path / "store", "--flow", "tvl1", *TINY[:3], 1]
    assert_interrupted(*interrupt(prepare, "preparing videos: 1/4", by=signal.SIGTERM), expected=143)
    assert unfinished(tmp_path / "store") == []


def test_ctrl_c_and_sigterm_while_training(store: Store, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = ["--set", "appearance.optimisation.schedule=[{lr: 0.001, iterations: 300}]", "--stage", "appearance"]
    train: list[object] = ["train", store.root, folder, "--recipe", recipe, *long, "--workers", "1"]
    code, lines = interrupt(train, "training appearance: ", 2)  # at the start, and after a tenth
    assert_interrupted(code, lines, hint=RESUME_HINTS["train"])
    assert unfinished(folder) == []
    trained = iterations(lines)[-1]
    assert trained >= 30
    code, lines = interrupt([*train, "--resume"], "training appearance: ", 2, by=signal.SIGTERM)
    assert_interrupted(code, lines, 143, hint=RESUME_HINTS["train"])
    assert trained - 2 <= iterations(lines)[0] < 300  # an epoch has two iterations
    assert not (folder / "model.safetensors").exists()


def iterations(lines: list[str]) -> list[int]:
    """Return the iterations in lines of progress such as `training appearance: 30/300  loss 1.23`."""
    return [int(line.split()[2].partition("/")[0]) for line in lines if line.startswith("training appearance: ")]
