"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos and official lists beside the checkout; skips where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "clips" / "index.csv").is_file():
        pytest.skip(f"no real clips at {folder}")
    return folder
