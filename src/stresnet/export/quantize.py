"""Quantise networks to int8 with NNCF: weights per channel, activations by what calibration clips show."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from stresnet.data.clips import Clip
from stresnet.errors import StresnetError
from stresnet.inference.exported import as_inputs
from stresnet.model.metadata import ModelMetadata

CALIBRATION_VIDEOS = 128


def quantize(model: Any, metadata: ModelMetadata, clips: Sequence[Clip]) -> Any:
    """Return a model, an `openvino.Model` or `onnx.ModelProto`, with most convolutions in int8.

    The first convolution of each stream, which reads the pixels, and the classifiers stay in floating point.

    Args:
        model: the network; it is not changed.
        metadata: that of the network.
        clips: training clips, one batch each.

    Raises:
        StresnetError: NNCF is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # otherwise NNCF reports its use to its authors, without asking
    try:
        import nncf
    except ImportError as error:
        raise StresnetError(f"--int8 needs {error.name}: pip install 'stresnet[export]'") from None
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(
        model,
        nncf.Dataset([as_inputs(metadata, clip) for clip in clips]),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(clips),
        ignored_scope=nncf.IgnoredScope(names=_ends(model)),
    )


def _ends(model: Any) -> list[str]:
    """Return the names of the first convolutions, the only ones of 7×7, and of the classifiers."""
    if hasattr(model, "graph"):
        sides = {value.name: value.dims[-1] for value in model.graph.initializer if value.dims}
        first = [node.name for node in model.graph.node if node.op_type == "Conv" and sides.get(node.input[1]) == 7]
        return first + [node.name for node in model.graph.node if node.op_type == "Gemm"]
    ops = model.get_ordered_ops()
    first = [op.get_friendly_name() for op in ops if op.get_type_name() == "Convolution" and _side(op) == 7]
    return first + [op.get_friendly_name() for op in ops if op.get_type_name() == "MatMul"]


def _side(convolution: Any) -> int:
    return int(convolution.input(1).get_shape()[-1])
