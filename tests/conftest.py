"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from helpers.tiny import Command
    from stresnet.data.store import Store
    from stresnet.training import Run

# Read when torch is loaded. On the tiny tensors of tests several threads mostly wait for each other, which takes up to
# forty times as long on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-golden", action="store_true", help="record golden.json again before comparing")
    parser.addoption("--slow", action="store_true", help="also run tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


# Fixtures import what they need: most tests run without torch, which takes seconds to load.


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos and official lists beside the checkout; skip if there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "clips" / "index.csv").is_file():
        pytest.skip(f"no real clips at {folder}")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of small videos that were once read wrongly, beside the checkout; skip if there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases at {folder}")
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve generated videos in {train,test}/class folders; read only."""
    from helpers import tiny

    return tiny.write_videos(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def store(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of these videos; read only."""
    from helpers import tiny
    from stresnet.data.datasets import read_catalog

    return tiny.prepared(read_catalog(videos), tmp_path_factory.mktemp("prepared") / "a store")


@pytest.fixture(scope="session")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All stages of the tiny recipe, trained on this store; read only."""
    from helpers import tiny
    from stresnet.training import train

    return train(store, tmp_path_factory.mktemp("trained") / "ein Lauf", tiny.tiny_recipe(), workers=0)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs a command line in this process and returns its exit code, stdout and stderr."""
    from stresnet.cli.app import run

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    import yaml

    from helpers import tiny

    path = tmp_path / "récipe [1].yaml"
    path.write_text(yaml.safe_dump(tiny.VALUES), "utf-8")
    return path
