"""From a checkpoint to a DagNN file that the authors' toolbox loads."""

from __future__ import annotations

from pathlib import Path

from stresnet.model.checkpoint import Checkpoint, metadata_of
from stresnet.model.config import Stream
from stresnet.weights.matconvnet import own
from stresnet.weights.matconvnet.dagnn import DagNN, Layer, write_dagnn
from stresnet.weights.matconvnet.graph import MULTIPLIERS, graph_of
from stresnet.weights.matconvnet.meta import normalization_of
from stresnet.weights.matconvnet.values import encode


def write_matconvnet(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as a `.mat` file for `dagnn.DagNN.loadobj`, with the released files' names.

    `read_matconvnet` gives the same checkpoint back, bit for bit. The toolbox divides no input, so the scales of
    the preprocessing are folded into conv1. Its 7×7 pool needs inputs of about 200 px, where ours takes smaller ones.

    Raises:
        CheckpointError: if the file cannot be written, or a weight cannot be expressed in it.
    """
    write_dagnn(path, to_dagnn(checkpoint))


def to_dagnn(checkpoint: Checkpoint) -> DagNN:
    """As `write_matconvnet`, the net in memory; its filters are views of the checkpoint's."""
    config = checkpoint.model.config
    graph = graph_of(config)
    state = {key: value.detach().cpu() for key, value in checkpoint.model.state_dict().items()}
    toolbox = dict(state)
    for stream in config.streams:
        key = own.conv1_key(stream)
        toolbox[key] = own.folded(state[key], own.scales_of(stream, checkpoint.preprocessing))
    scaled = [key for key in state if toolbox[key] is not state[key]]
    meta = {
        "normalization": normalization_of(config, checkpoint.preprocessing),
        "classes": {"name": list(checkpoint.classes)},
        "stresnet": own.to_meta(state, metadata_of(checkpoint), scaled),
    }
    return DagNN(
        layers=_with_losses(graph.layers, graph.classifiers),
        params={name: encode(weight, toolbox) for name, weight in graph.weights.items()},
        meta=meta,
        multipliers={name: MULTIPLIERS[weight.role] for name, weight in graph.weights.items()},
    )


def _with_losses(layers: list[Layer], classifiers: dict[Stream, Layer]) -> list[Layer]:
    """Each classifier followed by its loss: the authors' scripts find the one by the other."""
    loss_after = {classifier.name: classifier for classifier in classifiers.values()}
    out = []
    for layer in layers:
        out.append(layer)
        if layer.name in loss_after:
            inputs = (layer.outputs[0], "label")
            block = {"loss": "softmaxlog"}
            out.append(Layer(f"loss_{layer.name}", "dagnn.Loss", inputs, (f"objective_{layer.name}",), (), block))
    return out
