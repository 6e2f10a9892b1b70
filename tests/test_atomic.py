"""Files that are either there in full or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stresnet.atomic import remove_leftovers, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(file) as temporary:
        temporary.write_text(file.read_text() + Path(tmp_path / "missing").read_text())
    assert (file.read_text(), [p.name for p in tmp_path.iterdir()]) == ("old", ["a.txt"])
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert (file.read_text(), [p.name for p in tmp_path.iterdir()]) == ("new", ["a.txt"])


@pytest.mark.skipif(os.name == "nt", reason="permissions are not those of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_the_permissions_are_those_of_a_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a.bin") as temporary:
            private = tmp_path / "private"
            private.touch(mode=0o600)
            private.rename(temporary)  # as safetensors does
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~umask


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    for name in (".last.4242.tmp.ckpt", ".page.1.tmp.html"):
        (tmp_path / name).touch()
    for name in ("last.ckpt", ".lock", ".keep.tmp", "a.1.tmp.txt"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", ".lock", ".keep.tmp", "a.1.tmp.txt"}
