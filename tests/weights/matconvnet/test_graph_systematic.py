"""Systematic changes of every layer, input, property and parameter: each is detected."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.matconvnet_changes import (
    read_error,
    removed,
)
from helpers.matconvnet_nets import CONFIGS, a_net, change, insert, the
from stresnet.model import STResNet
from stresnet.weights.matconvnet.graph import graph_of
from stresnet.weights.matconvnet.read import from_dagnn
from stresnet.weights.matconvnet.verify import PROPERTIES

EACH = pytest.mark.parametrize("name", ["scaled both ways", "small mulnet"])


def layers_of(name: str) -> list[str]:
    return [layer.name for layer in graph_of(CONFIGS[name]).layers]


@EACH
def test_missing_repeated_and_changed_layers_raise(name: str) -> None:
    for layer in layers_of(name):
        if not layer.startswith("drop_") and not layer.endswith("_Time"):  # without it, the file has another config
            net = a_net(name)
            removed(layer)(net)
            assert read_error(net), layer
        net = a_net(name)
        twin = net.layers[the(net, layer)]
        insert(net, replace(twin, name="twin", outputs=("twin",)))
        assert "twin" in read_error(net), layer
        net = a_net(name)
        change(net, layer, type="dagnn.Sum" if twin.type == "dagnn.ReLU" else "dagnn.ReLU")
        assert read_error(net), layer


@EACH
def test_changed_inputs_raise(name: str) -> None:
    rng = np.random.default_rng(0)
    outputs = [one.outputs[0] for one in a_net(name).layers if one.type != "dagnn.Loss"]
    for layer in layers_of(name):
        original = a_net(name).layers[the(a_net(name), layer)]
        for index in range(len(original.inputs)):
            for other in rng.choice([n for n in outputs if n not in original.inputs], 2, replace=False):
                net = a_net(name)
                inputs = (*original.inputs[:index], str(other), *original.inputs[index + 1 :])
                change(net, layer, inputs=inputs)
                assert read_error(net), (layer, inputs)


def others(value: Any) -> list[Any]:
    """Return values that differ in one place."""
    if isinstance(value, tuple):
        return [(*value[:i], n + 1, *value[i + 1 :]) for i, n in enumerate(value)]
    if isinstance(value, str):
        return ["avg" if value == "max" else "max"]
    return [not value] if isinstance(value, bool) else [value + 1]


@EACH
def test_changed_properties_raise(name: str) -> None:
    for layer in layers_of(name):
        original = a_net(name).layers[the(a_net(name), layer)]
        for key, default in PROPERTIES.get(original.type, {}).items():
            for other in others(original.block.get(key, default)):
                if other is False or key == "rate" or (original.type, key) == ("dagnn.PoolTime", "stride"):
                    continue  # other valid configs
                net = a_net(name)
                change(net, layer, **{key: other})
                assert layer in read_error(net)


@EACH
def test_every_parameter_is_used(name: str) -> None:
    """A changed value changes its entry of the state dict and no other."""
    before = from_dagnn(a_net(name)).weights
    for number, weight in enumerate(graph_of(CONFIGS[name]).weights.values()):
        net = a_net(name)
        value = net.params[weight.name].copy()
        value.flat[-1] += 1
        net.params[weight.name] = value
        if weight.kind == "zero":
            assert weight.name in read_error(net)
            continue
        after = from_dagnn(net).weights
        different = {key for key, tensor in before.items() if not tensor.equal(after[key])}
        assert different == {weight.keys[-1]}, weight.name
        if number % 4:
            continue
        net = a_net(name)
        del net.params[weight.name]
        read_error(net)
        net = a_net(name)
        net.params[weight.name] = np.concatenate([value, value], axis=-1)
        read_error(net)


@pytest.mark.parametrize("name", CONFIGS)
def test_graph_has_every_entry_of_the_state_dict_once(name: str) -> None:
    graph = graph_of(CONFIGS[name])
    keys = [key for weight in graph.weights.values() for key in weight.keys]
    state = STResNet(CONFIGS[name]).state_dict()
    assert sorted(keys) == sorted(key for key in state if not key.endswith("num_batches_tracked"))
    used = [param for layer in graph.layers for param in layer.params]
    assert sorted(used) == sorted(graph.weights)
    assert len(used) == len(set(used))
    assert from_dagnn(a_net(name)).weights.keys() == state.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_graphs_of_different_configs_differ(name: str) -> None:
    """Otherwise a file could be read as two configs."""
    graphs = {other: graph_of(config) for other, config in CONFIGS.items()}
    assert [other for other, graph in graphs.items() if graph == graphs[name]] == [name]
