"""Every kind of network computes the same after its export; `test_run.py` has one of them in every run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.exporting import exportable, require_same_at_any_size
from stresnet.export.network import as_openvino, exported_metadata, trace, write_onnx, write_openvino
from stresnet.inference.runtime import open_runtime
from stresnet.model import Checkpoint

pytestmark = pytest.mark.slow

ONE_STREAM = {"link": None, "temporal": None}
NETWORKS = {
    "st-resnet": {},
    "pool": {"temporal_pool": (5, 2), "layout": "caffe"},
    "mulnet": {"link": "multiply", "temporal": "inject", "temporal_pool": (5, 1), "layout": "caffe"},
    "residual": {"link_form": "residual", "link_scale": 0.1, "link_direction": "both"},
    "appearance": {"streams": ("appearance",), **ONE_STREAM, "layout": "caffe"},
    "motion": {"streams": ("motion",), **ONE_STREAM, "stem_channels": 12},
    "50": {"depth": 50},
    "50 and 101": {"depth": 50, "motion_depth": 101},
    "152": {"depth": 152},
}


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """Return a network and a folder with it as `model.onnx` and `model.xml`."""
    checkpoint = exportable(**NETWORKS[request.param])
    folder = tmp_path_factory.mktemp("exported")
    proto, metadata = trace(checkpoint), exported_metadata(checkpoint, "fp32")
    write_openvino(folder / "model.xml", as_openvino(proto), metadata)
    write_onnx(folder / "model.onnx", proto, metadata)
    return checkpoint, folder


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_logits_are_those_of_pytorch_at_any_size(exported: tuple[Checkpoint, Path], name: str) -> None:
    checkpoint, folder = exported
    require_same_at_any_size(folder / name, checkpoint)


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_the_file_alone_has_all_metadata(exported: tuple[Checkpoint, Path], name: str) -> None:
    checkpoint, folder = exported
    found = open_runtime(folder / name).metadata
    assert found.to_dict() == checkpoint.to_dict() | {"precision": "fp32"}
