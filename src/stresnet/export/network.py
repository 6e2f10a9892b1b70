"""Write a network for other runtimes: ONNX by torch's exporter, OpenVINO from that."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from stresnet.export.graph import ExportedNetwork
from stresnet.export.operators import translations
from stresnet.inference.exported import ExportedMetadata, inputs_of
from stresnet.model import Checkpoint
from stresnet.model.metadata import KEY

OPSET = 18
_LEAST_PX = 33
"""Below it the last maps are one position wide, and the exporter would keep to that. What is exported has no limit."""


def trace(checkpoint: Checkpoint) -> Any:
    """Return a network as an `onnx.ModelProto`, from bytes to logits, with dynamic batch, time and size."""
    config = checkpoint.config
    axes = {"B": "clips", "T": "steps", "H": "height", "W": "width"}
    dims = {k: torch.export.Dim(v, min={"H": _LEAST_PX, "W": _LEAST_PX}.get(k, 1)) for k, v in axes.items()}
    steps, side = max(6, (config.temporal_pool or (1, 1))[0] + 1), 64
    shapes = {
        "rgb": ((2, steps, side, side + 32, 3), "BTHW"),
        "flow": ((2, steps, 2 * config.flow_stack, side, side + 32), "BT HW"),
        "flow_scale": ((2, 2), "B"),
    }
    used = inputs_of(checkpoint)
    arguments = {
        name: torch.zeros(shape, dtype=torch.float32 if name == "flow_scale" else torch.uint8) if name in used else None
        for name, (shape, _) in shapes.items()
    }
    dynamic = {
        name: {axis: dims[letter] for axis, letter in enumerate(letters) if letter != " "} if name in used else None
        for name, (_, letters) in shapes.items()
    }
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # torchvision is absent
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            ExportedNetwork(checkpoint),
            kwargs=arguments,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=used,
            output_names=list(config.streams),
            custom_translation_table=translations(),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def exported_metadata(checkpoint: Checkpoint, precision: str) -> ExportedMetadata:
    """Return the metadata of a checkpoint for a file with weights of a precision, `fp32` or `int8`."""
    return ExportedMetadata.from_dict(checkpoint.to_dict() | {"precision": precision})


def write_onnx(path: Path, proto: Any, metadata: ExportedMetadata) -> None:
    """Write an `onnx.ModelProto` with metadata to one `.onnx` file."""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=KEY, value=_text(metadata))
    path.write_bytes(proto.SerializeToString())


def write_openvino(path: Path, model: Any, metadata: ExportedMetadata) -> None:
    """Write an `openvino.Model` with metadata to an `.xml` file and the `.bin` file beside it."""
    import openvino

    model.set_rt_info(_text(metadata), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def as_openvino(proto: Any) -> Any:
    """Return a network as an `openvino.Model`."""
    import openvino

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return openvino.Core().read_model(path)  # unlike convert_model, it reports its use to nobody


def _text(metadata: ExportedMetadata) -> str:
    return json.dumps(metadata.metadata())
