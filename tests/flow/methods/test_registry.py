"""The registry of flow methods: imports, help texts, availability."""

from __future__ import annotations

import subprocess
import sys

import cv2
import pytest

from stresnet.errors import FlowSpecError
from stresnet.flow import FlowSpec, require_available
from stresnet.flow.methods import METHODS, methods_help, presets_help

ALL_SPECS = [FlowSpec(method.name, preset) for method in METHODS.values() for preset in method.presets]


def test_importing_the_registry_loads_no_heavy_library() -> None:
    program = (
        "import sys; from stresnet.flow import FlowSpec; from stresnet.flow.methods import METHODS\n"
        "FlowSpec(); assert METHODS; print({'numpy', 'cv2', 'av', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_help_texts_name_every_method_and_every_choice_of_preset() -> None:
    assert [part.split(" ")[0] for part in methods_help().split("), ")] == list(METHODS)
    several = [method for method in METHODS.values() if len(method.presets) > 1]
    for method, part in zip(several, presets_help().split("; "), strict=True):
        assert part.startswith(f"{method.name}: ")
        assert all(preset in part for preset in method.presets)
        assert part.count("(default)") == 1


@pytest.mark.parametrize("spec", [spec for spec in ALL_SPECS if spec.method != "raft"], ids=lambda s: s.method)
def test_methods_without_further_requirements_are_available(spec: FlowSpec) -> None:
    require_available(spec)  # raises if not
    assert METHODS[spec.method].presets[spec.preset] == spec.parameters


def test_tvl1_by_opencv_needs_the_contrib_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(FlowSpecError, match=r"^flow tvl1/default needs OpenCV's contrib modules"):
        require_available(FlowSpec("tvl1"))
    require_available(FlowSpec("tvl1", "fast"))


def test_methods_that_need_the_video_are_not_computed_on_the_fly() -> None:
    assert [name for name, method in METHODS.items() if method.on_the_fly] == ["dis", "tvl1", "farneback"]
    assert all(method.from_vectors is None for method in METHODS.values() if method.on_the_fly)
