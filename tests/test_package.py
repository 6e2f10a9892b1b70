"""The public names of the package."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

import stresnet
from stresnet import errors

NAMES = {
    *("STResNet", "STResNetConfig", "Recognizer", "Prediction", "FlowSpec"),
    *("estimate_flow", "read_video", "prepare", "train", "evaluate", "load_recipe"),
}
ERRORS = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}


def test_dir_shows_exactly_the_public_names() -> None:
    import_module("stresnet.flow")  # submodules that are loaded are not shown
    assert {name for name in dir(stresnet) if not name.startswith("__")} == NAMES | ERRORS
    assert "StresnetError" in ERRORS


@pytest.mark.parametrize("name", sorted(NAMES | ERRORS))
def test_public_names_are_documented_and_importable(name: str) -> None:
    value = getattr(stresnet, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


def test_star_import_and_unknown_names() -> None:
    assert set(stresnet.__all__) == NAMES | ERRORS | {"__version__"}
    with pytest.raises(AttributeError, match="module 'stresnet' has no attribute 'load'"):
        _ = stresnet.load


def test_errors_have_a_common_base() -> None:
    assert all(issubclass(getattr(errors, name), stresnet.StresnetError) for name in ERRORS)
