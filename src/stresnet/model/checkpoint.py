"""Weights in and out: from image networks, from stage to stage, and the checkpoint for use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from stresnet.atomic import replacing
from stresnet.errors import CheckpointError
from stresnet.model.config import STResNetConfig
from stresnet.model.mismatch import misfit
from stresnet.model.network import STResNet, average_taps
from stresnet.model.preprocessing import Preprocessing

FORMAT = 1
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A network and its whole story: all that is needed to use it, and to know what it is worth.

    Attributes:
        model: the network, in evaluation mode.
        classes: K action names, in the order of the logits.
        preprocessing: how bytes become its input.
        store_spec: how the videos it was trained on were prepared, flow included, as `StoreSpec.to_dict` gives it;
            empty for a start from images, which has seen none.
        stage: the stage of the recipe that made it.
        recipe: the recipe, as plain values.
        training: on what and for how long: store, videos, steps, minutes.
        trained_on: a short hash of each video it was trained on, see `video_hash`; these are never test videos.
        test_groups: the groups held out of training, if the split was made by groups.
        scores: what it scored and on what, one entry an evaluation.
        version: of the library that wrote the file.
    """

    model: STResNet
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    store_spec: dict[str, Any]
    stage: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()
    test_groups: tuple[str, ...] = ()
    scores: tuple[dict[str, Any], ...] = ()
    version: str = ""


_TUPLES = ("classes", "trained_on", "test_groups", "scores")
_STORY = (*_TUPLES, "store_spec", "stage", "recipe", "training", "version")
_JSON: dict[type, str] = {list: "a list", str: "text", dict: "values by name"}


def video_hash(video_id: str) -> str:
    """What a checkpoint keeps of the id of a training video: enough to find it among test videos."""
    return hashlib.blake2b(video_id.encode(errors="surrogateescape"), digest_size=6).hexdigest()


def metadata_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """All of a checkpoint but its weights, as plain values that JSON can hold."""
    story = {name: getattr(checkpoint, name) for name in _STORY}
    return story | {
        "format": FORMAT,
        "config": checkpoint.model.config.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
    }


def parse_metadata(story: Mapping[str, Any]) -> dict[str, Any]:
    """What `Checkpoint` takes besides model and preprocessing, from a story that has been through JSON.

    Raises:
        ValueError: if something is missing or of another type, or the story is of a format that this library does not
            read.
    """
    if story.get("format") != FORMAT:
        raise ValueError(f"it has format {story.get('format')}, this library reads {FORMAT}")
    if missing := [name for name in _STORY if name not in story]:
        raise ValueError(f"{missing[0]} is missing")
    for name in _STORY:
        if name not in _TUPLES:
            _require_kind(name, story[name], str if name in ("stage", "version") else dict)
            continue
        _require_kind(name, story[name], list)
        for value in story[name]:
            _require_kind(f"each of {name}", value, dict if name == "scores" else str)
    return {name: tuple(story[name]) if name in _TUPLES else story[name] for name in _STORY}


def _require_kind(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {_JSON[kind]}, not {value!r:.40}")


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write one `.safetensors` file, whole or not at all.

    Raises:
        CheckpointError: if it cannot be written, such as on a full disk.
    """
    path = Path(path)
    tensors = {k: v.detach().contiguous().cpu() for k, v in checkpoint.model.state_dict().items()}
    metadata = {"stresnet": json.dumps(metadata_of(checkpoint))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be written ({first_line(error)}): mend that and save again") from None


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a checkpoint, without its weights.

    Raises:
        CheckpointError: if the file is missing, cut short, or not a checkpoint of this library.
    """
    if Path(path).is_dir():
        raise CheckpointError(f"{path} is a folder: give the .safetensors file in it")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("stresnet")
    except FileNotFoundError:
        raise CheckpointError(f"no model at {path}: give the .safetensors file that training wrote") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is no model, or not a whole one ({first_line(error)}): give the .safetensors file of a training, "
            "or make one of it with `stresnet convert`"
        ) from None
    if text is None:
        raise CheckpointError(
            f"{path} holds weights but no description of an ST-ResNet: give a file that `stresnet train` wrote"
        )
    try:
        story: dict[str, Any] = dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the description in {path} is damaged ({error}): copy the file again") from None
    if story.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {story.get('format')}, this library reads {FORMAT}: update stresnet")
    return story


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint in a file, its network in evaluation mode on the CPU.

    Raises:
        CheckpointError: if the file is not a checkpoint, or any weight is missing, superfluous or of another shape.
    """
    story = read_metadata(path)
    try:
        model = STResNet(STResNetConfig.from_dict(story["config"]))
        preprocessing = Preprocessing.from_dict(story["preprocessing"])
        rest = parse_metadata(story)
        if len(rest["classes"]) != model.config.num_classes:
            raise ValueError(f"{len(rest['classes'])} class names for {model.config.num_classes} logits")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the description in {path} cannot be read ({error}): update stresnet, or copy the file again"
        ) from None
    weights = load_file(path)
    problems = compare(model.state_dict(), weights)
    if problems:
        found = misfit(model.state_dict(), weights) or summary(problems)
        raise CheckpointError(f"{path} does not fit its own description: {found}: copy the file again")
    model.load_state_dict(weights)
    return Checkpoint(model=model.eval(), preprocessing=preprocessing, **rest)


def load_model(path: str | Path) -> STResNet:
    """The network in a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    return load_checkpoint(path).model


def transfer_weights(model: STResNet, sources: Sequence[Weights], *, new_classifier: bool = False) -> None:
    """Hand weights on from earlier stages to a network that may have grown temporal taps, links or a pool.

    A temporal filter takes an image filter as the average over its taps; an injected temporal convolution and a
    learned link scale that no source has keep their initial values. All else must be there in the same shape, and
    nothing more in the streams that the network has. A stream that two sources hold is taken from the later one.
    With `new_classifier`, classifiers keep their random start: the classes are others.

    Raises:
        CheckpointError: saying how the network they are of differs, or else naming the weights that are missing,
            superfluous or of another shape.
    """
    found = {key: value for source in sources for key, value in source.items()}
    state = model.state_dict()
    taken: dict[str, Tensor] = {}
    for key, own in state.items():
        value = found.get(key)
        if value is not None and own.ndim == 4 and own.shape[2:] == (3, 1) and value.shape[2:] == (1, 1):
            value = average_taps(value)
        if value is None and (key.startswith("links.") or ".temporal." in key):
            value = own
        if ".fc." in key and new_classifier:
            value = own
        if value is not None:
            taken[key] = value
    streams = tuple(f"{stream}." for stream in model.config.streams)
    extra = {k: v for k, v in found.items() if k.startswith(streams) and k not in state}
    problems = compare(state, taken | extra)
    if problems:
        raise CheckpointError(
            f"the weights are of another network: {misfit(state, taken | extra) or summary(problems)}"
        )
    model.load_state_dict(taken)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def compare(expected: Weights, found: Weights) -> list[str]:
    """What keeps `found` from filling `expected`: a line for each weight missing, superfluous or of another shape."""
    problems = [f"{key} is missing" for key in expected if key not in found]
    problems += [f"{key} is not expected" for key in found if key not in expected]
    problems += [
        f"{key} is {tuple(found[key].shape)}, not {tuple(own.shape)}"
        for key, own in expected.items()
        if key in found and found[key].shape != own.shape
    ]
    return problems


def summary(problems: Sequence[str], most: int = 3) -> str:
    more = f" and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more
