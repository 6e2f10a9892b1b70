"""From a DagNN file to what our network needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stresnet.errors import CheckpointError
from stresnet.model.checkpoint import parse_metadata
from stresnet.model.config import STREAMS, STResNetConfig
from stresnet.model.preprocessing import Preprocessing
from stresnet.weights.matconvnet import own
from stresnet.weights.matconvnet.dagnn import DagNN, read_dagnn, storable
from stresnet.weights.matconvnet.graph import Graph, graph_of
from stresnet.weights.matconvnet.guess import guess_config
from stresnet.weights.matconvnet.match import match
from stresnet.weights.matconvnet.meta import class_names, preprocessing_of
from stresnet.weights.matconvnet.order import in_order
from stresnet.weights.matconvnet.values import decode


@dataclass(frozen=True)
class Imported:
    """What a MatConvNet file holds.

    Attributes:
        config: the network, read from the graph; a link's scale, whose start a file does not tell, is said to have
            started from 0.1.
        weights: its state dict, complete, float32.
        preprocessing: how bytes become its input, from `meta.normalization`.
        story: if `write_matconvnet` wrote the file, what `Checkpoint` takes besides model and preprocessing; its
            classes are those that the file names now.
        notes: what was left out, assumed or found changed, one line each.
        classes: the names in `meta.classes.name`, if there are as many as classes.
    """

    config: STResNetConfig
    weights: dict[str, Tensor]
    preprocessing: Preprocessing
    story: dict[str, Any] | None
    notes: tuple[str, ...]
    classes: tuple[str, ...] | None = None


def read_matconvnet(path: str | Path) -> Imported:
    """The network in a `.mat` file of MatConvNet (DagNN), exactly: the released ones, and our own.

    Every layer and parameter of the file is either part of the network or left out with a note; the notes also say
    what an old file does not tell and had to be assumed.

    Raises:
        CheckpointError: if the file cannot be read, or holds anything that an STResNet does not; one line names it.
    """
    net = read_dagnn(path)
    try:
        return from_dagnn(net)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def from_dagnn(net: DagNN) -> Imported:
    """As `read_matconvnet`, from a net in memory, whose parameters are taken out of it."""
    description = own.description_in(net.meta)
    layers, notes = in_order(net.layers)
    config = guess_config(net, layers)
    graph = graph_of(config)
    names, more = match(graph, layers, net.params)
    notes += more
    weights, more = _decoded(graph, net, names)
    notes += more
    preprocessing, more = preprocessing_of(config, net.meta)
    notes += more
    classes, more = class_names(net.meta, config.num_classes)
    notes += more
    story = None
    if description is not None:
        config, preprocessing, story, more = _as_told(description, graph, config, preprocessing, weights, net.meta)
        notes += more
        if classes not in (None, tuple(storable(name) for name in story["classes"])):
            story["classes"] = classes
        classes = story["classes"]
    return Imported(config, weights, preprocessing, story, tuple(notes), classes)


def _decoded(graph: Graph, net: DagNN, names: dict[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict, and notes; the file's values are let go of one by one, so that memory never holds two of all."""
    weights: dict[str, Tensor] = {}
    rounded = []
    for weight in graph.weights.values():
        if weight.name not in names:  # a bias that the file does without
            weights |= {key: torch.zeros(weight.shape[0]) for key in weight.keys}
            continue
        theirs = names[weight.name]
        value = net.params.pop(theirs)
        try:
            weights |= decode(weight, value)
        except CheckpointError as error:
            raise CheckpointError(f"{error} (in the file {theirs})" if theirs != weight.name else str(error)) from None
        if weight.kind == "moments":
            weights[weight.keys[0].replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
        if value.dtype != np.float32 and not np.array_equal(value, value.astype(np.float32)):
            rounded.append(theirs)
    more = f" and {len(rounded) - 3} more" if len(rounded) > 3 else ""
    return weights, [f"rounded to single precision: {', '.join(rounded[:3])}{more}"] if rounded else []


def _as_told(
    description: dict[str, Any],
    graph: Graph,
    config: STResNetConfig,
    preprocessing: Preprocessing,
    weights: dict[str, Tensor],
    meta: dict[str, Any],
) -> tuple[STResNetConfig, Preprocessing, dict[str, Any], list[str]]:
    """Config, preprocessing and story with what our own file tells beyond its graph; and notes.

    The exact values that it keeps are put back into `weights`.
    """
    try:
        story = parse_metadata(description)
        told_config = STResNetConfig.from_dict(description["config"])
        told_preprocessing = Preprocessing.from_dict(description["preprocessing"])
        if len(story["classes"]) != config.num_classes:
            raise ValueError(f"{len(story['classes'])} class names for {config.num_classes} logits")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the description in meta.stresnet cannot be read ({error}): update stresnet, or remove meta.stresnet"
        ) from None
    notes = []
    if graph_of(told_config) == graph:  # it may say more, such as what a scale started from
        config = told_config
    else:
        notes.append("the net changed since stresnet wrote the file: its config is read from the graph")
    scales = {stream: own.scales_of(stream, told_preprocessing) for stream in config.streams}
    divided, more = own.restore(graph, weights, own.exact_in(meta), scales)
    # what a stream that is off would read is nowhere else in the file
    for stream in STREAMS:
        if stream in divided or stream not in config.streams:
            fields = {"appearance": ("rgb_std",), "motion": ("flow_std",)}[stream]
            preprocessing = replace(preprocessing, **{name: getattr(told_preprocessing, name) for name in fields})
    if "appearance" not in config.streams:
        preprocessing = replace(preprocessing, rgb_mean=told_preprocessing.rgb_mean)
    return config, replace(preprocessing, mirror=told_preprocessing.mirror), story, notes + more
