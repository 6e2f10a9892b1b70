"""Numbers recorded before a change of structure come out the same after it; `--record-golden` records them anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import golden
from stresnet.data.store import Store
from stresnet.recipes import packaged_recipes

LOGITS, LOSSES = 1e-4, 0.2
"""Relative tolerances on another kind of machine. Small batches magnify the last bits: losses moved by up to 4 %."""


@pytest.fixture(scope="module")
def recorded(request: pytest.FixtureRequest, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.config.getoption("--record-golden"):
        golden.record(store, tmp_path_factory.mktemp("recording"))
    return golden.load()


@pytest.fixture(scope="module")
def same_machine(recorded: Any) -> bool:
    return bool(recorded["machine"] == golden.machine())


def test_logits(recorded: Any, same_machine: bool) -> None:
    found = golden.logits()
    if same_machine:
        assert found == recorded["logits"]
    assert found.keys() == recorded["logits"].keys()
    for name, values in found.items():
        assert values == pytest.approx(recorded["logits"][name], rel=LOGITS, abs=1e-4), name


@pytest.mark.parametrize("name", packaged_recipes())
def test_first_losses(name: str, recorded: Any, same_machine: bool, store: Store, tmp_path: Path) -> None:
    found, expected = golden.losses(store, tmp_path, name), recorded["losses"][name]
    if same_machine:
        assert found == expected
    assert found.keys() == expected.keys()
    for stage, values in found.items():
        assert values["loss"] == pytest.approx(expected[stage]["loss"], rel=LOSSES), stage


@pytest.mark.parametrize("name", packaged_recipes())
def test_recipes(name: str, recorded: Any) -> None:
    assert golden.recipe_values(name) == golden.with_new_fields(recorded["recipes"][name])


def test_stored_pictures(recorded: Any, same_machine: bool, store: Store) -> None:
    found, expected = golden.pictures(store), recorded["pictures"]
    if same_machine:
        assert found == expected
    assert found.keys() == expected.keys()
    for video, values in found.items():
        for name in ("rgb_mean", "flow_mean"):
            assert values[name] == pytest.approx(expected[video][name], abs=0.05), (video, name)


def test_converted_weights(recorded: Any, tmp_path: Path) -> None:
    assert golden.conversions(tmp_path) == recorded["conversions"]


@pytest.mark.slow
def test_demo(recorded: Any, same_machine: bool, tmp_path: Path) -> None:
    found, expected = golden.demo(tmp_path / "demo"), recorded["demo"]
    if same_machine:
        assert found == expected
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=0.05)
