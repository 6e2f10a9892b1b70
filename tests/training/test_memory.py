"""Freed memory stays in the process while a stage is trained."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.tiny import tiny_recipe
from stresnet.data.store import Store
from stresnet.training import train
from stresnet.training.memory import keeping_freed_memory

BLOCK_BYTES = 64 << 20

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def is_kept() -> bool:
    """Return whether a block that was freed can be filled again without taking its pages from the system anew."""
    block = b"x" * BLOCK_BYTES
    del block
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * BLOCK_BYTES
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    del block
    return faults < BLOCK_BYTES // resource.getpagesize() // 2


IN_A_NEW_PROCESS = """
from test_memory import is_kept, keeping_freed_memory

found = [is_kept()]
with keeping_freed_memory():
    found.append(is_kept())
print(*found, is_kept())
"""
"""Earlier tests may leave holes in the heap that are as large as a block, and are filled again in any case."""


@needs_glibc
def test_freed_memory_is_kept_within_the_block_only() -> None:
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "True", "False"], done.stderr


def test_another_libc_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    before = is_kept()
    with keeping_freed_memory():
        assert is_kept() is before


@needs_glibc
def test_training_keeps_freed_memory(store: Store, tmp_path: Path) -> None:
    kept = []

    def progress(activity: str, done: int, total: int, detail: str = "") -> None:
        kept.append(is_kept())

    train(store, tmp_path / "run", tiny_recipe(), only="appearance", workers=0, progress=progress)
    assert kept
    assert all(kept)
