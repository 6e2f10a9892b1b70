"""Fixtures of the tests of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stresnet.training import Run


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """Return a copy of the trained run that a test may change."""
    shutil.copytree(run.folder, tmp_path / "copy")
    return tmp_path / "copy"
