"""The work of one request: decode the upload, score it, and say what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stresnet.data.prepared_video import PreparedVideo
from stresnet.data.sampling import Indices, Protocol
from stresnet.data.segment import WHOLE, Segment
from stresnet.errors import StresnetError
from stresnet.inference.prediction import Prediction, Scores, ranked
from stresnet.inference.protocols import PROTOCOLS, require_protocol
from stresnet.inference.recognizer import Recognizer
from stresnet.inference.timeline import Timeline
from stresnet.model.profile import network_name
from stresnet.progress import Progress
from stresnet.serving.decoder import Order
from stresnet.serving.decoding import Decoders, Interruption
from stresnet.serving.problems import ProblemError
from stresnet.serving.settings import Settings


@dataclass(frozen=True)
class Question:
    """What a client asks about a video.

    Attributes:
        model: name of the network.
        protocol: the views that are scored.
        top: number of classes to name.
        timeline: whether to say when what happens.
        segment: the part of the video.
    """

    model: str
    protocol: Protocol
    top: int
    timeline: bool
    segment: Segment = WHOLE


@dataclass(frozen=True)
class Answer:
    """What was found in a video.

    Attributes:
        values: plain JSON values.
        timeline: the time line, if it was asked for.
    """

    values: dict[str, Any]
    timeline: Timeline | None


class Models:
    """The networks of a service by name; the first one is the default."""

    def __init__(self, recognizers: Mapping[str, Recognizer]) -> None:
        """Serve some networks."""
        self._recognizers = dict(recognizers)

    @property
    def names(self) -> list[str]:
        """The names, the default one first."""
        return list(self._recognizers)

    def get(self, name: str) -> Recognizer:
        """Return a network.

        Raises:
            ProblemError: there is none of this name.
        """
        if name not in self._recognizers:
            raise ProblemError("invalid-request", f"no model {name!r}; expected one of {', '.join(self.names)}")
        return self._recognizers[name]

    def question(self, model: str | None, protocol: str | None, top: int, timeline: bool, segment: Segment) -> Question:
        """Return a question that the network can answer.

        Raises:
            ProblemError: there is no such network or protocol, or they do not go together.
        """
        model = model or self.names[0]
        recognizer = self.get(model)
        chosen = next((one for one in PROTOCOLS if one == protocol), None)
        if protocol and chosen is None:
            raise ProblemError("invalid-request", f"no protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
        chosen = chosen or recognizer.protocol
        try:
            require_protocol(chosen, recognizer.metadata)
        except StresnetError as error:
            raise ProblemError("invalid-request", str(error)) from error
        return Question(model, chosen, top, timeline, segment)

    def describe(self) -> list[dict[str, Any]]:
        """Return what clients may know of the networks, as plain JSON values."""
        return [
            {
                "name": name,
                "network": network_name(one.metadata.config),
                "streams": list(one.metadata.config.streams),
                "flow": one.store_spec.flow.name if "motion" in one.metadata.config.streams else None,
                "protocol": one.protocol,
                "precision": one.numerics,
                "classes": list(one.classes),
            }
            for name, one in self._recognizers.items()
        ]


def prepare(
    models: Models,
    decoders: Decoders,
    settings: Settings,
    upload: BinaryIO,
    name: str,
    question: Question,
    progress: Progress,
    interruption: Interruption,
) -> PreparedVideo:
    """Return an upload, of which the client has a name, as a prepared video with all that a question needs.

    Raises:
        ProblemError, VideoError, OSError: see `Decoders.prepare`.
    """
    recognizer = models.get(question.model)
    looks = [recognizer.wanted(question.protocol)] + [recognizer.wanted(None)] * question.timeline

    def steps_of(frames: int) -> Indices:
        return reduce(np.union1d, (look.steps_of(frames) for look in looks))

    order = Order(
        name,
        looks[0].spec,
        looks[0].flow_stack,
        question.segment,
        settings.limits,
        settings.decoder_bytes,
        settings.decoded_bytes,
        settings.max_seconds,
    )
    with interruption.working():
        return decoders.prepare(upload, order, steps_of, progress, interruption)


def recognise(
    models: Models,
    video: PreparedVideo,
    name: str,
    question: Question,
    progress: Progress,
    interruption: Interruption,
) -> Answer:
    """Score a prepared video, of which the client has a name.

    Raises:
        ProblemError: it takes too long, or the job was cancelled.
    """
    recognizer = models.get(question.model)

    def checked(activity: str, done: int, total: int, detail: str = "") -> None:
        interruption.check()
        progress(activity, done, total, detail)

    with interruption.working():
        found = recognizer.predict(video, protocol=question.protocol, top=question.top, progress=checked)
        timeline = recognizer.timeline(video, progress=checked) if question.timeline else None
    values = {"video": name, "model": question.model, **_values(found, recognizer.classes, question.top)}
    if timeline:
        values["timeline"] = timeline.to_dict(top=question.top)
    return Answer(values, timeline)


def _values(found: Prediction, classes: Sequence[str], top: int) -> dict[str, Any]:
    """Return a prediction as plain JSON values, with the best classes of each stream instead of all logits."""
    values = {key: value for key, value in found.to_dict().items() if key != "scores"}
    streams = {"appearance": found.scores.appearance, "motion": found.scores.motion}
    return values | {"streams": {name: _best(classes, scores, top) for name, scores in streams.items()}}


def _best(classes: Sequence[str], scores: Scores | None, top: int) -> list[dict[str, Any]] | None:
    if scores is None:
        return None
    return [{"label": label, "probability": probability} for label, probability in ranked(classes, scores, top)]


def model_names(files: Sequence[str]) -> list[str]:
    """Return a name for each model: that of its folder, or of its file.

    Raises:
        StresnetError: two are the same.
    """
    names = [_model_name(Path(file)) for file in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise StresnetError(f"two models are named {twice.pop()!r}; copy one to a file of another name")
    return names


def _model_name(path: Path) -> str:
    name = path.resolve().name if path.is_dir() else path.stem
    return path.resolve().parent.name if name == "model" else name
