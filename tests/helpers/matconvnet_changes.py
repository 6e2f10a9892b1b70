"""Changes of DagNNs that make them differ from every STResNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from helpers.matconvnet_nets import change, insert, the
from stresnet.errors import CheckpointError
from stresnet.weights.matconvnet.dagnn import DagNN, Layer
from stresnet.weights.matconvnet.read import from_dagnn

Change = Callable[[DagNN], None]


def read_error(net: DagNN) -> str:
    with pytest.raises(CheckpointError) as caught:
        from_dagnn(net)
    line = str(caught.value)
    assert "\n" not in line
    return line


def changed(name: str, **fields: Any) -> Change:
    return lambda net: change(net, name, **fields)


def removed(*names: str) -> Change:
    """Remove layers; their readers read their first input instead."""

    def mutate(net: DagNN) -> None:
        for name in names:
            gone = net.layers.pop(the(net, name))
            net.layers[:] = [
                replace(one, inputs=tuple(gone.inputs[0] if n == gone.outputs[0] else n for n in one.inputs))
                for one in net.layers
            ]
            for param in gone.params:
                del net.params[param]

    return mutate


def inserted(kind: str, at: str, name: str = "extra", *, params: dict[str, Any] | None = None, **block: Any) -> Change:
    """Insert a layer between a variable and its readers."""

    def mutate(net: DagNN) -> None:
        net.params.update(params or {})
        insert(net, Layer(name, f"dagnn.{kind}", (at,), (name,), tuple(params or ()), block), between=at)

    return mutate


def hanging(kind: str, *inputs: str, name: str = "extra", **block: Any) -> Change:
    """Add a layer that nothing reads."""
    return lambda net: insert(net, Layer(name, f"dagnn.{kind}", inputs, (name,), (), block))


def unlinked(number: int) -> Change:
    """Remove a link: the second unit's branch reads what its shortcut reads."""

    def mutate(net: DagNN) -> None:
        del net.layers[the(net, f"res{number}a_relu_spatial_sum")]
        change(net, f"res{number}b_branch2a_spatial", inputs=(f"res{number}a_relu_spatial",))

    return mutate


def parameter(name: str, value: Any) -> Change:
    def mutate(net: DagNN) -> None:
        net.params[name] = value(net.params[name]) if callable(value) else value

    return mutate


def pooled(size: float = 5, stride: float = 2, at: str = "res5b_relu", **block: Any) -> Change:
    def mutate(net: DagNN) -> None:
        for suffix in ("spatial", "temporal"):
            properties = {"method": "max", "poolSize": (1.0, size), "stride": (1.0, stride), **block}
            inserted("PoolTime", f"{at}_{suffix}", f"pool_time_{suffix}", **properties)(net)

    return mutate


def both(*changes: Change) -> Change:
    def mutate(net: DagNN) -> None:
        for one in changes:
            one(net)

    return mutate
