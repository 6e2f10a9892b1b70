"""What of our checkpoints a DagNN cannot hold, kept in `meta.stresnet` for the way back.

`description` is the story of the checkpoint as JSON text. `exact` holds entries of the state dict that a file's
parameters give only rounded: variances (the file has σ), and a conv1 into which the scales of its input were
folded. They count as long as they give the file's parameters bit for bit: where somebody has trained on or edited
the file, the file counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresnet.errors import CheckpointError
from stresnet.model.config import Stream
from stresnet.model.preprocessing import Preprocessing
from stresnet.weights.matconvnet.graph import Graph, Weight
from stresnet.weights.matconvnet.values import encode, tensor_of

_COUNT = "num_batches_tracked"


def conv1_key(stream: Stream) -> str:
    return f"{stream}.conv1.weight"


def scales_of(stream: Stream, preprocessing: Preprocessing) -> tuple[float, ...]:
    """What the input of a stream's conv1 is divided by, per channel or one for all."""
    return preprocessing.rgb_std if stream == "appearance" else (preprocessing.flow_std,)


def folded(conv1: Tensor, scales: tuple[float, ...]) -> Tensor:
    """A conv1 (C,I,7,7) that reads undivided input: w / scale, rounded once."""
    if all(scale == 1 for scale in scales):
        return conv1
    return (conv1.double() / torch.tensor(scales, dtype=torch.float64)[:, None, None]).float()


def to_meta(state: Mapping[str, Tensor], story: dict[str, Any], scaled: list[str]) -> dict[str, Any]:
    """`meta.stresnet` of a checkpoint; `scaled` names the conv1 that were folded."""
    exact = [
        {"name": key, "value": (value.float() if value.is_floating_point() else value).numpy()}
        for key, value in state.items()
        if key.endswith((_COUNT, "running_var")) or key in scaled
    ]
    return {"description": json.dumps(story), "exact": exact}


def description_in(meta: dict[str, Any]) -> dict[str, Any] | None:
    """All of our checkpoint but its weights, as `metadata_of` gave it, or None in a file of other makers.

    Raises:
        CheckpointError: if there is one that cannot be read.
    """
    own = meta.get("stresnet")
    if not isinstance(own, dict) or "description" not in own:
        return None
    try:
        return dict(json.loads(own["description"]))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"meta.stresnet.description is damaged ({error}): remove meta.stresnet to read the file without its story"
        ) from None


def exact_in(meta: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The entries of `exact`, as they are in the file."""
    records = meta.get("stresnet", {}).get("exact", [])
    records = [records] if isinstance(records, dict) else records
    return {
        record["name"]: record["value"]
        for record in records
        if isinstance(record.get("name"), str) and isinstance(record.get("value"), np.ndarray)
    }


def restore(
    graph: Graph,
    state: dict[str, Tensor],
    exact: Mapping[str, NDArray[Any]],
    scales: Mapping[Stream, tuple[float, ...]],
) -> tuple[set[Stream], list[str]]:
    """Put the exact entries into `state` where they give what the file holds.

    Args:
        graph: of the net.
        state: the state dict that the file's parameters gave.
        exact: as `exact_in` gives it.
        scales: what the checkpoint divided the input of each stream by.

    Returns:
        The streams whose original conv1 is back, so that their input must be divided again; and notes.
    """
    changed, unscaled = [], set()
    for weight in graph.weights.values():
        key = weight.keys[-1] if weight.keys else ""
        if weight.kind == "moments" and key in exact:
            count = key.replace("running_var", _COUNT)
            if _gives(weight, state, {key: _as(exact[key], state[key])}):
                state[key] = _as(exact[key], state[key])
                if count in exact:
                    state[count] = torch.tensor(int(exact[count].flat[0]))
            else:
                changed.append(weight.name)
        for stream, scale in scales.items():
            if key == conv1_key(stream) and key in exact:
                original = _as(exact[key], state[key])
                if torch.equal(folded(original, scale), state[key]):
                    state[key] = original
                    unscaled.add(stream)
                else:
                    changed.append(weight.name)
    shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return unscaled, [f"{shown} changed since stresnet wrote the file: the file's values count"] if changed else []


def _as(value: NDArray[Any], like: Tensor) -> Tensor:
    if value.size != like.numel():
        return torch.full_like(like, torch.nan)  # gives nothing that a file holds
    return tensor_of(value).reshape(like.shape)


def _gives(weight: Weight, state: Mapping[str, Tensor], exact: dict[str, Tensor]) -> bool:
    """Whether exact entries are rounded to what the file holds."""
    try:
        return np.array_equal(encode(weight, {**state, **exact}), encode(weight, state))
    except CheckpointError:  # no σ at all
        return False
