"""Keep the layers of a DagNN that its logits depend on, in order of execution."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from stresnet.errors import CheckpointError
from stresnet.weights.matconvnet.dagnn import Layer

KNOWN = frozenset(
    f"dagnn.{name}"
    for name in ("Conv", "ConvTime", "BatchNorm", "ReLU", "Pooling", "PoolTime", "Sum", "Mul", "Scale", "DropOut")
)
"""The kinds of layers in an STResNet."""

_TRAINING = ("dagnn.Loss", "dagnn.LossSpatioTemporal", "dagnn.LossSmoothL1")


def ordered_layers(layers: list[Layer]) -> tuple[list[Layer], list[str]]:
    """Return the layers before the logits, each after its inputs, and notes on the layers that were ignored.

    These are losses, errors and soft-max layers that nothing else reads, and dropout of rate 0.

    Raises:
        CheckpointError: a layer is of a kind that no STResNet has, or the graph is ambiguous or has a cycle.
    """
    kept, notes = _without_ends(layers)
    for layer in kept:
        if layer.type not in KNOWN:
            raise CheckpointError(
                f"layer {layer.name} ({layer.type}) is not part of an STResNet: if the net works without it, remove "
                "it in MATLAB (`net.removeLayer`)"
            )
    kept, more = _without_idle_dropout(kept)
    names = Counter(layer.name for layer in kept)
    outputs = Counter(name for layer in kept for name in layer.outputs)
    for layer in kept:
        if names[layer.name] > 1:
            raise CheckpointError(f"{names[layer.name]} layers are named {layer.name}: save the net again")
        if len(layer.outputs) != 1 or outputs[layer.outputs[0]] > 1:
            raise CheckpointError(
                f"layer {layer.name} ({layer.type}) writes {list(layer.outputs)}: expected one variable that no other "
                "layer writes"
            )
    return _sorted(kept), notes + more


def _without_ends(layers: list[Layer]) -> tuple[list[Layer], list[str]]:
    """Drop the layers after the logits, repeatedly, as a loss may read a soft-max."""
    kept, left_out = list(layers), []
    while True:
        read = {name for layer in kept for name in layer.inputs}
        ends = [
            layer
            for layer in kept
            if layer.type in (*_TRAINING, "dagnn.SoftMax") and not read & set(layer.outputs) and not layer.params
        ]
        if not ends:
            break
        kept = [layer for layer in kept if layer not in ends]
        left_out += ends
    if not left_out:
        return kept, []
    shown = (f"{layer.name} ({layer.block.get('loss') or layer.type})" for layer in sorted(left_out, key=layers.index))
    return kept, [f"ignored, because they follow the logits: {', '.join(shown)}"]


def _without_idle_dropout(layers: list[Layer]) -> tuple[list[Layer], list[str]]:
    """Drop dropout of rate 0; its readers read its input instead."""
    idle = [
        layer
        for layer in layers
        if layer.type == "dagnn.DropOut"
        and layer.block.get("rate", 0.5) == 0
        and len(layer.inputs) == len(layer.outputs) == 1
        and not layer.params
    ]
    source = {layer.outputs[0]: layer.inputs[0] for layer in idle}

    def traced(name: str) -> str:
        for _ in source:
            name = source.get(name, name)
        return name

    kept = [
        replace(layer, inputs=tuple(traced(name) for name in layer.inputs)) for layer in layers if layer not in idle
    ]
    return kept, [f"ignored {layer.name} (dagnn.DropOut of rate 0)" for layer in idle]


def _sorted(layers: list[Layer]) -> list[Layer]:
    """Sort layers topologically, otherwise in the file's order."""
    producer = {layer.outputs[0]: index for index, layer in enumerate(layers)}
    readers: dict[int, list[int]] = {}
    waiting = {}
    for index, layer in enumerate(layers):
        before = {producer[name] for name in layer.inputs if name in producer}
        waiting[index] = len(before)
        for other in before:
            readers.setdefault(other, []).append(index)
    ready = [index for index, count in waiting.items() if count == 0]
    order = []
    for index in ready:  # grows during the loop
        order.append(layers[index])
        for reader in readers.get(index, []):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if len(order) < len(layers):
        stuck = next(layer for index, layer in enumerate(layers) if waiting[index] > 0)
        raise CheckpointError(f"layer {stuck.name} ({stuck.type}) is part of a cycle, or follows one")
    return order
