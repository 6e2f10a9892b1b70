"""Write the model card of a checkpoint: its network, training, scores and limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from stresnet.data.prepared_video import MIN_FRAMES
from stresnet.model import Checkpoint, STResNetConfig
from stresnet.model.profile import describe, network_name, parameters

LIBRARY = "stresnet"
TASK = "video-classification"
MOST_NAMED = 12

_SIDED = {"left", "right", "leftward", "rightward", "leftwards", "rightwards"} | {
    f"{counter}clockwise" for counter in ("", "anti", "counter")
}
"""Words in class names that distinguish an action from its mirror image."""

_CITATIONS = {
    "ST-ResNet": """The method, [arXiv 1611.02155](https://arxiv.org/abs/1611.02155):

```bibtex
@inproceedings{feichtenhofer2016spatiotemporal,
  title = {Spatiotemporal Residual Networks for Video Action Recognition},
  author = {Feichtenhofer, Christoph and Pinz, Axel and Wildes, Richard P.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2016}
}
```""",
    "ST-MulNet": """The method:

```bibtex
@inproceedings{feichtenhofer2017spatiotemporal,
  title = {Spatiotemporal Multiplier Networks for Video Action Recognition},
  author = {Feichtenhofer, Christoph and Pinz, Axel and Wildes, Richard P.},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2017}
}
```""",
}


def model_card(checkpoint: Checkpoint, *, repo: str = "owner/name", license: str = "") -> str:
    """Return the README.md of a model on the hub: a YAML header for the hub's filters, then Markdown.

    Everything comes from the checkpoint; what it does not record is called unknown.

    Args:
        checkpoint: the model.
        repo: `owner/name`, for the usage example.
        license: of the weights, as the hub abbreviates it (`mit`, `cc-by-nc-4.0`). A checkpoint does not record it;
            without it the card says that none is named.
    """
    sections = {
        "Use": _use(repo),
        "Network": _network(checkpoint),
        "Actions": _actions(checkpoint.classes),
        "Training": _training(checkpoint),
        "Scores": _scores(checkpoint),
        "Limits": "\n".join(f"- {limit}" for limit in _limits(checkpoint)),
        "Licence": f"`{license}`" if license else "Not specified.",
        "Citation": _CITATIONS[_kind(checkpoint.model.config)],
    }
    title = f"# {_plain(_title(checkpoint))}\n\nRecognises the action in a video, one of {len(checkpoint.classes)}."
    body = "\n\n".join([title, *(f"## {name}\n\n{text}" for name, text in sections.items())])
    return f"---\n{_head(checkpoint, license)}\n---\n\n{body}\n"


def _head(checkpoint: Checkpoint, license: str) -> str:
    results = [result for score in checkpoint.scores for result in _results(score)]
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        license=license or None,
        tags=["action-recognition", "optical-flow", _kind(checkpoint.model.config).lower()],
        metrics=["accuracy"],
        model_name=_title(checkpoint) if results else None,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _results(score: dict[str, Any]) -> Iterator[EvalResult]:
    for name, (value, _, _) in (("top-1", score["top1"]), ("mean class", score["mean_class"])):
        yield EvalResult(
            task_type=TASK,
            dataset_type=score["store"],
            dataset_name=score["store"],
            dataset_split=score["split"],
            metric_type="accuracy",
            metric_value=round(value, 4),
            metric_name=f"{name} accuracy, {score['protocol']}",
        )


def _kind(config: STResNetConfig) -> str:
    return "ST-MulNet" if config.link == "multiply" or config.temporal == "inject" else "ST-ResNet"


def _title(checkpoint: Checkpoint) -> str:
    store = checkpoint.training.get("store")
    return network_name(checkpoint.model.config) + (f" trained on {store}" if store else "")


def _use(repo: str) -> str:
    return f"""```python
from stresnet import Recognizer
recognizer = Recognizer.from_pretrained("{repo}")
print(recognizer.predict("holiday.mp4").top)
```

Install with `pip install stresnet`. On the command line, with this repository's `model.safetensors`:

```sh
stresnet predict model.safetensors holiday.mp4
```"""


def _network(checkpoint: Checkpoint) -> str:
    config = checkpoint.model.config
    rows = {part.capitalize(): text for part, text in describe(config).items()}
    size = f"{parameters(checkpoint.model) / 1e6:.1f} million parameters, width {config.width:g}"
    return _table(rows | {"Size": size})


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items() if text)])


def _actions(classes: tuple[str, ...]) -> str:
    named = ", ".join(_plain(name) for name in classes[:MOST_NAMED])
    more = len(classes) - MOST_NAMED
    return f"{named}{f' and {more} more; config.json lists them all' if more > 0 else ''}."


def _training(checkpoint: Checkpoint) -> str:
    training, recipe, flow = checkpoint.training, checkpoint.recipe, checkpoint.store_spec.get("flow")
    stages = ", then ".join(str(stage["name"]) for stage in recipe.get("stages", ()))
    rows = {
        "Videos": f"{training['videos']} of {_plain(training['store'])}" if "videos" in training else "unknown",
        "Held out": ", ".join(map(_plain, checkpoint.test_groups)),
        "Recipe": f"{_plain(recipe['name'])}: {stages}" if recipe else "unknown",
        "This stage": f"{checkpoint.stage}, {training['iterations']} iterations, {training['minutes']:.1f} minutes"
        if "iterations" in training
        else "",
        "Converted from": f"{_plain(training['source'])}, SHA-256 {training['sha256']}" if "source" in training else "",
        "Frames": f"short side {flow['short_side']} px, crops of {checkpoint.preprocessing.crop_px} px" if flow else "",
        "Flow": f"{flow['method']} ({flow['preset']}), clipped at ±{flow['bound_px']:g} px" if flow else "unknown",
        "Software": f"stresnet {checkpoint.version}" if checkpoint.version else "",
    }
    return _table(rows)


def _scores(checkpoint: Checkpoint) -> str:
    if not checkpoint.scores:
        return "Not evaluated: this checkpoint has no scores."
    lines = ["| videos | protocol | top-1 % (95 %) | mean class % (95 %) |", "|---|---|---|---|"]
    for score in checkpoint.scores:
        what = f"{score['videos']} of {_plain(score['store'])}, {_plain(score['split'])}"
        lines.append(f"| {what} | {score['protocol']} | {_percent(score['top1'])} | {_percent(score['mean_class'])} |")
    trained = any(score["split"] == "train" for score in checkpoint.scores)
    except_train = ", except for split train" if trained else ""
    note = f"None of these videos was a training video, judging by the content of their files{except_train}."
    return "\n".join([*lines, "", note])


def _percent(interval: list[float]) -> str:
    value, low, high = (f"{100 * v:.1f}" for v in interval)
    return f"{value} ({low} – {high})"


def _limits(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what a user should know before using the model."""
    config, training = checkpoint.model.config, checkpoint.training
    yield "It always predicts one of its actions, even if a video shows none of them."
    yield "Its probabilities are a softmax of averaged logits and are not calibrated."
    if checkpoint.preprocessing.mirror:
        sided = [name for name in checkpoint.classes if _SIDED & set(_words(name))]
        affected = f": do not rely on it for {', '.join(map(_plain, sided[:MOST_NAMED]))}" if sided else ""
        yield f"Training and testing mirror videos, so it cannot distinguish left from right{affected}."
    yield f"A video needs at least {max(MIN_FRAMES, config.flow_stack + 1)} frames."
    if "motion" in config.streams:
        yield "Flow must be computed as above: `predict` does that; stores prepared differently are rejected."
    if "videos" in training:
        videos, classes = training["videos"], len(checkpoint.classes)
        yield (
            f"It was trained on {videos} videos, {videos / classes:.0f} per action on average: expect lower accuracy "
            "for other cameras, places and people."
        )
    widths = [score["top1"][2] - score["top1"][1] for score in checkpoint.scores]
    if widths and max(widths) > 0.05:
        yield f"Few videos were scored: its accuracy is uncertain by ±{50 * max(widths):.0f} points."


def _words(name: str) -> list[str]:
    """Return the words of a class name such as `TurnLeft`, `turn_left` or `turn left`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def _plain(name: Any) -> str:
    """Return a name in one line, with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", " ".join(str(name).split()))
