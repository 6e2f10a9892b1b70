"""Fixtures shared by the tests of the commands."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stresnet.data.store import Store
    from stresnet.training import Run


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """Return a copy of the trained run that a command may change."""
    return Path(shutil.copytree(run.folder, tmp_path / "run [b]"))


@pytest.fixture
def store_copy(store: Store, tmp_path: Path) -> Path:
    """Return a copy of the store that a test may damage."""
    return Path(shutil.copytree(store.root, tmp_path / "store"))


@pytest.fixture
def video(store: Store) -> Path:
    """Return an intact video."""
    return Path(store.select("test")[0].record.path)
