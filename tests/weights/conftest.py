"""Fixtures of tests that download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.web import Web, web_server


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use no proxy, token or cache of this machine, and do not wait between retries."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("STRESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("stresnet.weights.fetch.WAIT_SEC", 0.0)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server
