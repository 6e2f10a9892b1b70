"""Full disks and missing permissions: one clear line, no half-written file, and no lost work."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from helpers.commands import ONE_STEP, TINY, unfinished
from helpers.tiny import Command
from stresnet.data.store import Store
from stresnet.training import Run

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.name != "posix" or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root on Linux to mount a small file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_while_training(
    command: Command, store: Store, recipe: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at an interim checkpoint, then at the model of a stage. The resumed run is unaffected."""
    train = ["train", store.root, tmp_path / "run", "--recipe", recipe, "--workers", "0"]

    def full(*_: object, **__: object) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, out, err = command(*train)
        assert (code, out) == (1, "")
        path = tmp_path / "run" / "appearance" / "last.ckpt"
        assert f"{path} cannot be written (No space left on device): fix this, then resume with --resume" in err
        assert "Traceback" not in err
    assert unfinished(tmp_path / "run") == []

    def full_when_saving(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("stresnet.model.checkpoint.save_file", full_when_saving)
        code, out, err = command(*train, "--resume")
        assert (code, out) == (1, "")
        assert "appearance/model.safetensors cannot be written (I/O error: No space left" in err.splitlines()[-1]
    assert unfinished(tmp_path / "run") == []
    code, _, err = command(*train, "--resume")
    assert code == 0, err
    for stage in ("appearance", "motion", "st-resnet"):
        assert Run(tmp_path / "run", run.recipe).curves(stage)["loss"] == run.curves(stage)["loss"]


def test_a_full_disk_while_evaluating(
    command: Command, store: Store, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}

    def full(*_: object, **__: object) -> None:
        raise FULL

    evaluate = ["evaluate", copy, store.root, "--protocol", "center"]
    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", full)
        code, out, err = command(*evaluate)
        assert (code, out) == (1, "")
        assert "cannot write scores to " in err.splitlines()[-1]
        assert "No space left on device" in err.splitlines()[-1]
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
    with monkeypatch.context() as patch:
        patch.setattr("stresnet.model.checkpoint.save_file", full)
        code, out, err = command(*evaluate)
        assert (code, out) == (1, "")
        assert "cannot be written (" in err.splitlines()[-1]
    assert {p: p.read_bytes() for p in copy.rglob("*.safetensors")} == {
        p: content for p, content in before.items() if p.suffix == ".safetensors"
    }
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        assert command(*evaluate)[0] == 1
    assert (copy / "model.safetensors").read_bytes() == before[copy / "model.safetensors"]
    assert command(*evaluate)[0] == 0
    assert unfinished(copy) == []


def test_full_file_system(
    command: Command, store: Store, videos: Path, recipe: Path, small_disk: Path, run: Run
) -> None:
    folder = small_disk / "run"
    train = ["train", store.root, folder, "--recipe", recipe, "--workers", "0"]
    code, out, err = command(*train)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("stresnet: ")
    assert "No space left on device" in line
    assert (folder / "appearance" / "model.safetensors").is_file()  # finished stages are kept
    assert unfinished(folder) == []
    (small_disk / "filling").write_bytes(bytes(shutil.disk_usage(small_disk).free - 200_000))
    code, out, err = command("prepare", videos, small_disk / "store", *TINY)
    assert (code, out) == (1, "")
    assert "cannot be written (No space left on device)" in err.splitlines()[-1]
    assert unfinished(small_disk) == []
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert command(*train, "--resume")[0] == 0
    assert Run.open(folder).curves("st-resnet")["loss"] == run.curves("st-resnet")["loss"]
    assert command("prepare", videos, small_disk / "store", *TINY)[0] == 0


def test_full_temporary_file_system(
    command: Command, video: Path, run: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small_disk / "filling").write_bytes(bytes(shutil.disk_usage(small_disk).free - 20_000))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    code, out, err = command("predict", run.folder / "model.safetensors", video)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        f"failed: {video}: {small_disk}: cannot hold the decoded video (No space left on device); make room there, or "
        "name another folder in the environment variable TMPDIR"
    )
    assert [path.name for path in small_disk.iterdir()] == ["filling"]


def test_files_where_folders_should_be(
    command: Command, videos: Path, store: Store, run: Run, recipe: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a file"
    file.write_text("precious")
    model = run.folder / "model.safetensors"
    for arguments in (
        ["prepare", videos, file, *TINY],
        ["train", store.root, file, "--recipe", recipe, *ONE_STEP],
        ["train", store.root, file / "run", "--recipe", recipe, *ONE_STEP],
        ["evaluate", model, store.root, "--out", file, "--protocol", "center"],
        ["demo", file],
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (1, ""), arguments
        line = err.splitlines()[-1]
        assert line.startswith("stresnet: ")
        assert str(file) in line
        assert "Traceback" not in err
    assert file.read_text() == "precious"


@pytest.mark.parametrize("real", [True, False])
def test_no_permission(
    command: Command,
    store: Store,
    videos: Path,
    recipe: Path,
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    real: bool,
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    if real:
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        locked.chmod(0o500)
    else:
        # Simulate a read-only folder: all files and folders are created through one of these.
        mkdir, open_file = Path.mkdir, Path.open

        def deny(path: Path) -> None:
            if path.is_relative_to(locked):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))

        def guarded_mkdir(self: Path, *arguments: Any, **options: Any) -> None:
            if not self.exists():
                deny(self)
            mkdir(self, *arguments, **options)

        def guarded_open(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if mode != "r":
                deny(self)
            return open_file(self, mode, *arguments, **options)

        monkeypatch.setattr(Path, "mkdir", guarded_mkdir)
        monkeypatch.setattr(Path, "open", guarded_open)
    for arguments in (
        ["prepare", videos, locked / "store", *TINY],
        ["train", store.root, locked / "run", "--recipe", recipe, *ONE_STEP],
        ["evaluate", copy / "model.safetensors", store.root, "--out", locked / "report", "--protocol", "center"],
        ["demo", locked / "demo"],
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (1, "")
        line = err.splitlines()[-1]
        assert line.startswith("stresnet: ")
        assert "Permission denied" in line
        assert str(locked) in line
        assert "Traceback" not in err
