"""Recognise actions in a stream, frame by frame; this module reads and writes nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from stresnet.data.clips import Clip, cut_clips, mirrored
from stresnet.data.prepared_video import StoreSpec
from stresnet.data.recent_pictures import RecentPictures
from stresnet.data.sampling import Protocol
from stresnet.inference.engine import Engine
from stresnet.inference.prediction import VideoScores, mean_video_scores, ranked
from stresnet.inference.protocols import PROTOCOLS, SizedCrop, clip_frames, stride_frames, views_of_frame
from stresnet.inference.torch_runtime import network_inputs
from stresnet.media.in_memory import Scaler, require_picture
from stresnet.model import Checkpoint, StreamLogits
from stresnet.model.incremental import IncrementalNet
from stresnet.model.preprocessing import Preprocessing

Mode = Literal["exact", "immediate"]
"""When a step is judged.

- `exact`: when all steps that its output sees have come; the logits are those of one clip of the whole stream.
- `immediate`: at once, with every step after the newest taken for zero, as at the end of a clip; the logits are those
  of the network without the future taps of its temporal convolutions.
"""


@dataclass(frozen=True, repr=False)
class LiveResult:
    """What happens around one step of a stream.

    Attributes:
        time_sec: time of the frame in the middle of the step.
        label: the most likely class, by `scores`.
        probability: its softmax probability, 0 to 1; not calibrated.
        top: the most likely classes with their probabilities, best first.
        scores: mean logits of the steps of the last `Live.window_frames` frames.
        step: logits of this step alone.
        classes: the class names, in the order of the logits.
    """

    time_sec: float
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    scores: VideoScores
    step: VideoScores
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values: with each stream's most likely class, without logits."""
        streams = {"appearance": self.scores.appearance, "motion": self.scores.motion}
        judged = {"step": self.step.fused} | {name: logits for name, logits in streams.items() if logits is not None}
        best = {name: ranked(self.classes, logits, 1)[0] for name, logits in judged.items()}
        return {
            "time": self.time_sec,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
            **{name: {"label": label, "probability": probability} for name, (label, probability) in best.items()},
        }

    def __repr__(self) -> str:
        return f"LiveResult({self.time_sec:.2f} s, {self.label!r}, {self.probability:.1%})"


class _Step(NamedTuple):
    """A step of the stream: its frame, the time of that frame, and, once they are complete, its logits."""

    frame: int
    time_sec: float
    scores: VideoScores


class Live:
    """Recognises actions in a stream of frames, each layer of each step computed once.

    Frames and flow have the bits that preparing them as a video would store, and the steps are those of its time line:
    one every `stride_frames` frames, from the first frame around which there is a whole flow stack. Strides count
    frames, not seconds, as in training.

    Attributes:
        stride_frames: frames from one step to the next.
        window_frames: results are averaged over the steps of so many frames: as many steps as a training clip has.
        delay_frames: how many frames after its own the result of a step comes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: StoreSpec,
        engine: Engine,
        mode: Mode,
        protocol: Protocol,
        stride: int | None,
        top: int,
    ) -> None:
        """Begin a stream; see `Recognizer.live` for the arguments and errors."""
        for what, value, known in (("mode", mode, get_args(Mode)), ("protocol", protocol, PROTOCOLS)):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}: expected one of {', '.join(known)}")
        if stride is not None and stride < 1:
            raise ValueError(f"stride_frames must be at least 1, not {stride}")
        self._checkpoint, self._spec, self._engine = checkpoint, spec, engine
        self._mode, self._protocol, self._top = mode, protocol, top
        config, trained_stride = checkpoint.model.config, stride_frames(checkpoint)
        self.stride_frames = stride or trained_stride
        self.window_frames = clip_frames(checkpoint) // trained_stride * self.stride_frames
        self._flow_stack = config.flow_stack if "motion" in config.streams else 0
        self._ahead_frames = self._flow_stack - self._flow_stack // 2
        self._pool_steps, self._pool_stride = config.temporal_pool or (1, 1)
        late_steps = self._begin_net().delay_steps + self._pool_steps // 2
        self.delay_frames = late_steps * self.stride_frames + self._ahead_frames
        self._scaler = Scaler(spec.flow.short_side)
        self.restart()

    def restart(self) -> None:
        """Begin a new stream; results that are not complete yet are lost."""
        self._shape: tuple[int, ...] = ()
        self._pictures = RecentPictures(self._spec, self._flow_stack)
        self._times_sec: deque[float] = deque(maxlen=self._ahead_frames + 1)
        self._views: list[_View] = []
        self._seen: deque[tuple[int, float]] = deque()  # frame and time of the steps whose results are to come
        self._recent: deque[_Step] = deque()

    def push(self, frame: NDArray[np.uint8], time_sec: float) -> LiveResult | None:
        """Return the result that a frame completes, or None if there is none.

        A frame of another size than those before, once scaled to the short side of the model, begins a new stream.

        Args:
            frame: (H,W,3) uint8, RGB, the one after the last.
            time_sec: its time, which is handed on. If the model was trained at a rate of its own
                (``store_spec.frames.fps``), frames must have this rate: see `stresnet.media.resampling.resampled`.

        Raises:
            VideoError: the frame has another shape or type, or would become too large.
        """
        picture = self._scaler(require_picture(frame))
        if picture.shape != self._shape:
            self.restart()
            self._shape = picture.shape
            self._views = self._begin_views(*picture.shape[:2])
        self._pictures.push(picture)
        self._times_sec.append(time_sec)
        center = self._pictures.frames - 1 - self._ahead_frames
        since_first = center - self._checkpoint.model.config.flow_stack // 2
        if since_first < 0 or since_first % self.stride_frames:
            return None
        self._seen.append((center, self._times_sec[0]))
        results = self._results([view.push(self._clip(view.crop, center)) for view in self._views])
        return results[0] if results else None

    def finish(self) -> list[LiveResult]:
        """Return the results that the end of the stream completes, and begin a new one."""
        results = self._results([view.finish() for view in self._views]) if self._seen else []
        self.restart()
        return results

    def _begin_net(self) -> IncrementalNet:
        return self._engine.incremental(immediate=self._mode == "immediate")

    def _begin_views(self, height: int, width: int) -> list[_View]:
        preprocessing, device = self._checkpoint.preprocessing, self._engine.device
        crops, mirror = views_of_frame(self._protocol, preprocessing, height, width)
        return [_View(crop, [self._begin_net() for _ in range(1 + mirror)], preprocessing, device) for crop in crops]

    def _clip(self, crop: SizedCrop, center: int) -> Clip:
        """Return a batch of one clip that has one step."""
        config = self._checkpoint.model.config
        return cut_clips(
            self._pictures, np.array([[center]]), *crop, flow_stack=config.flow_stack, streams=config.streams
        )

    def _results(self, of_views: list[list[VideoScores]]) -> list[LiveResult]:
        """Return the results of outputs, which are given for each view."""
        return [self._result(mean_video_scores(scores)) for scores in zip(*of_views, strict=True)]

    def _result(self, scores: VideoScores) -> LiveResult:
        """Return the result of the next output, which is that of the step in the middle of its pool's window."""
        frame, time_sec = self._seen[(self._pool_steps - 1) // 2]
        for _ in range(self._pool_stride):
            self._seen.popleft()
        self._recent.append(_Step(frame, time_sec, scores))
        while self._recent[0].frame <= frame - self.window_frames:
            self._recent.popleft()
        mean = mean_video_scores([step.scores for step in self._recent])
        best = ranked(self._checkpoint.classes, mean.fused, self._top)
        return LiveResult(time_sec, *best[0], best, mean, scores, self._checkpoint.classes)


class _View:
    """What a network sees of a stream in one crop and, if wanted, in its mirror."""

    def __init__(
        self, crop: SizedCrop, nets: list[IncrementalNet], preprocessing: Preprocessing, device: torch.device
    ) -> None:
        self.crop = crop
        self._nets, self._preprocessing, self._device = nets, preprocessing, device

    def push(self, clip: Clip) -> list[VideoScores]:
        """Return the outputs that the next step completes, averaged over mirrors."""
        clips = (clip, mirrored(clip))[: len(self._nets)]
        inputs = [network_inputs(self._preprocessing, one, self._device) for one in clips]
        return _mean_outputs([net.push(*views) for net, views in zip(self._nets, inputs, strict=True)])

    def finish(self) -> list[VideoScores]:
        """Return the outputs that the end of the stream completes."""
        return _mean_outputs([net.finish() for net in self._nets])


def _mean_outputs(of_nets: list[StreamLogits]) -> list[VideoScores]:
    """Return the logits of each output, averaged over networks, which give (1,T′,K) for each stream."""

    def outputs(logits: StreamLogits) -> Iterator[VideoScores]:
        streams = [repeat(None) if stream is None else stream[0].float().cpu().numpy() for stream in logits]
        return (VideoScores(appearance, motion) for appearance, motion in zip(*streams, strict=False))

    return [mean_video_scores(scores) for scores in zip(*map(outputs, of_nets), strict=True)]
