"""Fixtures shared by the tests of studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.tiny import grouped, prepared
from stresnet.data.store import Store


@pytest.fixture(scope="session")
def groups(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of three groups, all for training."""
    return prepared(grouped(videos), tmp_path_factory.mktemp("grouped") / "store")
