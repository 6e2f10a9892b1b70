"""Recognise actions in videos with a trained network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresnet.data.prepared_video import PreparedVideo
from stresnet.data.sampling import Protocol
from stresnet.errors import CheckpointError, StresnetError
from stresnet.inference.prediction import Prediction, VideoScores, ranked
from stresnet.inference.protocols import clip_frames, default_protocol, require_protocol
from stresnet.inference.runtime import open_runtime
from stresnet.inference.scorer import Scored, Scorer, Wanted, prepare_for, reads_flow, spec_for, wanted
from stresnet.inference.source import Source, opened
from stresnet.inference.timeline import Timeline, require_lengths, windowed
from stresnet.media.limits import DEFAULT_LIMITS, Limits
from stresnet.model.config import STREAMS
from stresnet.model.metadata import ModelMetadata
from stresnet.model.profile import network_name
from stresnet.progress import Progress
from stresnet.weights import hub
from stresnet.weights.names import HubName

if TYPE_CHECKING:  # exported models run without PyTorch
    import torch

    from stresnet.inference.embedding import Embedding
    from stresnet.inference.engine import Engine
    from stresnet.inference.explanation import Explanation
    from stresnet.inference.live import Live, Mode
    from stresnet.inference.torch_runtime import TorchRuntime
    from stresnet.model import Checkpoint
    from stresnet.model.precision import PrecisionChoice


class Recognizer:
    """A trained network that recognises the action in a video.

    Examples:
        >>> recognizer = Recognizer("run/")  # doctest: +SKIP
        >>> recognizer.predict("holiday.mp4").label  # doctest: +SKIP
        'Surfing'
    """

    def __init__(
        self,
        model: str | Path | ModelMetadata,
        *,
        device: str | torch.device | None = None,
        precision: PrecisionChoice = "auto",
        compiled: bool = False,
        flow_preset: str | None = None,
        stream: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Load a network.

        On a machine that is busy with other work, set OMP_WAIT_POLICY=PASSIVE before Python starts, as the command
        line does: threads that wait for each other then leave the cores to others. A library cannot set it, because
        OpenMP reads it when torch is imported.

        Args:
            model: a checkpoint file, the folder of a run, a loaded checkpoint, or an exported model: an `.onnx` file,
                or an `.xml` file with its `.bin` file beside it.
            device: where to run; by default CUDA if available, else the CPU. Exported models run on the CPU.
            precision: `fp32`, `bf16`, or `auto`: bf16 where the device computes in it natively.
            compiled: whether to compile the network. It takes up to minutes for the first clip of each size, then saves
                time on each clip; logits differ from those of the network uncompiled by rounding. Exported models are
                compiled already.
            flow_preset: preset of the network's flow method that videos are prepared with, instead of the one of
                training: `fast` for `tvl1` is about 25 times as fast as OpenCV's, but not the same flow.
            stream: which video stream of each file is read, from 0 on; by default the one that players show.
            limits: how much a video may ask for.

        Raises:
            CheckpointError: the file is not a checkpoint, the folder has none, or the network has not been trained.
            FlowSpecError: the network's flow method has no such preset, or the network reads no flow.
            StresnetError: the device is not available.
        """
        self._scorer = Scorer(open_runtime(model, device, precision, compiled=compiled))
        self.metadata = self._scorer.metadata
        """What the model file says about the network."""
        if not self.metadata.store_spec:
            raise CheckpointError("the checkpoint is an initial model: train it first, with stresnet train --init")
        self.store_spec = spec_for(self.metadata, flow_preset, stream)
        """How videos are prepared for this network."""
        self._limits = limits

    def __repr__(self) -> str:
        return f"Recognizer({network_name(self.metadata.config)}, {len(self.classes)} classes, {self.device})"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the logits."""
        return self.metadata.classes

    @property
    def checkpoint(self) -> Checkpoint:
        """The network and its metadata.

        Raises:
            CheckpointError: the model is an exported one, whose network cannot be taken apart.
        """
        return self._torch_runtime.metadata

    @property
    def engine(self) -> Engine:
        """The network as it computes, for normalised clips.

        Raises:
            CheckpointError: as `checkpoint`.
        """
        return self._torch_runtime.engine

    @property
    def _torch_runtime(self) -> TorchRuntime:
        from stresnet.inference.torch_runtime import TorchRuntime

        if not isinstance(self._scorer.runtime, TorchRuntime):
            raise CheckpointError("an exported model only scores clips: give the .safetensors file it was made from")
        return self._scorer.runtime

    @property
    def device(self) -> str | torch.device:
        """The device that the network runs on."""
        return self._scorer.runtime.device

    @property
    def numerics(self) -> str:
        """What the logits depend on in their last digits: precision, runtime, and whether the network is compiled."""
        return self._scorer.runtime.numerics

    def digest(self) -> str:
        """Return a text that is the same only for the same weights."""
        return self._scorer.runtime.digest()

    @property
    def protocol(self) -> Protocol:
        """The test protocol that is used by default: the one that the recipe names, or `dense25`."""
        return default_protocol(self.metadata)

    def wanted(self, protocol: Protocol | None) -> Wanted:
        """Return how to prepare a video for `predict` under a protocol, or without one for `timeline`."""
        return wanted(self.metadata, self.store_spec, protocol)

    def predict(
        self,
        video: Source,
        *,
        protocol: Protocol | None = None,
        top: int = 5,
        fps: float = 25.0,
        progress: Progress | None = None,
    ) -> Prediction:
        """Recognise the action in a video; flow is computed as for evaluation, with the same result.

        Args:
            video: the file or its frames, see `Source`.
            protocol: the views that are scored; by default the model's own, see `protocol`.
            top: number of classes in `Prediction.top`.
            fps: frames per second of frames that are given as an array.
            progress: called after every frame read and before every crop scored.

        Raises:
            VideoError: the file cannot be read, or is too short for a stack of flow fields.
        """
        protocol = protocol or self.protocol
        require_protocol(protocol, self.metadata)
        prepared = self._prepared(video, protocol, fps, progress)
        scored = Scored(prepared.meta, self._scorer.score(prepared, protocol, progress))
        return self._prediction(scored, protocol, top)

    def predict_all(
        self, videos: Iterable[Source], *, protocol: Protocol | None = None, top: int = 5, fps: float = 25.0
    ) -> Generator[Prediction | StresnetError]:
        """Yield the prediction for each video in order, or the error that it raised.

        The results are those of `predict`. While the network runs, the next video is read in another thread.

        Args:
            videos: the files or their frames, see `Source`.
            protocol: the views that are scored; by default the model's own, see `protocol`.
            top: number of classes in `Prediction.top`.
            fps: frames per second of frames that are given as arrays.
        """
        protocol = protocol or self.protocol
        require_protocol(protocol, self.metadata)

        def prepared(video: Source) -> PreparedVideo:
            return self._prepared(video, protocol, fps)

        opening = (partial(prepared, video) for video in videos)
        for scored in self._scorer.score_all(opening, protocol):
            yield scored if isinstance(scored, StresnetError) else self._prediction(scored, protocol, top)

    def timeline(
        self,
        video: Source,
        *,
        window_sec: float | None = None,
        stride_sec: float | None = None,
        fps: float = 25.0,
        progress: Progress | None = None,
    ) -> Timeline:
        """Score windows that slide over a long video, in one pass.

        The video is scored step by step, at the middle stride of training; a window has the mean logits of the steps
        within it.

        Args:
            video: the file or its frames, see `Source`.
            window_sec: length of a window; by default that of a training clip at its middle stride.
            stride_sec: from one window to the next; by default half of `window_sec`.
            fps: frames per second of frames that are given as an array.
            progress: called after every frame read and before every clip scored.

        Raises:
            ValueError: a length is not a positive number.
            VideoError: the file cannot be read, or is too short for a stack of flow fields.
        """
        require_lengths(window_sec, stride_sec)
        prepared = self._prepared(video, None, fps, progress)
        steps, meta = self._scorer.score_steps(prepared, progress), prepared.meta
        lengths = self._lengths_sec(prepared, window_sec, stride_sec)
        windows_sec, means = windowed(steps.times_sec, steps.fused, *lengths)
        return Timeline(self.classes, windows_sec, means, lengths[0], meta.frames, meta.truncated)

    def _lengths_sec(
        self, video: PreparedVideo, window_sec: float | None, stride_sec: float | None
    ) -> tuple[float, float, float]:
        """Return the lengths of a video and of windows, and their stride, in seconds."""
        window_sec = window_sec or clip_frames(self.metadata) / video.meta.fps
        return float(video.times_sec[-1]) + 1 / video.meta.fps, window_sec, stride_sec or window_sec / 2

    def live(
        self,
        mode: Mode = "immediate",
        *,
        protocol: Protocol = "center",
        stride_frames: int | None = None,
        top: int = 5,
    ) -> Live:
        """Return a recogniser of a stream, which is given one frame after the other.

        Args:
            mode: `immediate` or `exact`, whose results come later; see `stresnet.inference.live.Mode`.
            protocol: the crops and mirrors that are scored, each of which costs as much: `center` and `fast` score the
                centre crop, `dense` and `dense25` the whole frame and its mirror, `crop10x25` ten crops.
            stride_frames: frames from one step to the next; by default the middle stride of training.
            top: number of classes in `LiveResult.top`.

        Examples:
            >>> live = recognizer.live("immediate")  # doctest: +SKIP
            >>> for number, frame in enumerate(frames):  # doctest: +SKIP
            ...     result = live.push(frame, number / 25)

        Raises:
            ValueError: there is no such mode or protocol, or `stride_frames` is below 1.
            VideoError: the network's flow is that of a codec, which frames do not have.
        """
        from stresnet.inference.live import Live

        return Live(self.checkpoint, self.store_spec, self.engine, mode, protocol, stride_frames, top)

    def explain(
        self, video: Source, *, label: str | None = None, fps: float = 25.0, progress: Progress | None = None
    ) -> Explanation:
        """Explain the score of a class for the middle clip of a video, in float32; see `Explanation`.

        Args:
            video: the file or its frames, see `Source`.
            label: the class; by default the most likely one.
            fps: frames per second of frames that are given as an array.
            progress: called after every frame read.

        Raises:
            ValueError: the network has no such class.
            CheckpointError: the length of the network's clips is unknown.
            VideoError: the file cannot be read, or is too short for a stack of flow fields.
        """
        from stresnet.inference.explanation import explain

        require_protocol("center", self.checkpoint)
        prepared = self._prepared(video, "center", fps, progress)
        return explain(self.checkpoint, prepared, label, self.engine.device)

    def embed(
        self,
        video: Source | PreparedVideo,
        *,
        protocol: Protocol | None = None,
        fps: float = 25.0,
        progress: Progress | None = None,
    ) -> Embedding:
        """Return the features that the classifiers read, averaged over a video's views.

        Args:
            video: the file or its frames, see `Source`, or a prepared video.
            protocol: the views; by default the model's own, see `protocol`.
            fps: frames per second of frames that are given as an array.
            progress: called after every frame read and before every crop scored.

        Raises:
            VideoError: the file cannot be read, or is too short for a stack of flow fields.
            FlowSpecError: the video was prepared with another flow.
        """
        protocol = protocol or self.protocol
        from stresnet.inference.embedding import Embedding

        require_protocol(protocol, self.metadata)
        prepared = self._prepared(video, protocol, fps, progress)
        features = self._features.score(prepared, protocol, progress)
        return Embedding(features.appearance, features.motion)

    def embed_windows(
        self,
        video: Source | PreparedVideo,
        *,
        window_sec: float | None = None,
        stride_sec: float | None = None,
        fps: float = 25.0,
        progress: Progress | None = None,
    ) -> list[tuple[float, float, Embedding]]:
        """Return the start and end of windows that slide over a long video, in seconds, and the features of each.

        The windows are those of `timeline`, to which the arguments and errors belong; features are means over the steps
        in a window.
        """
        from stresnet.inference.embedding import Embedding

        require_lengths(window_sec, stride_sec)
        prepared = self._prepared(video, None, fps, progress)
        steps = self._features.score_steps(prepared, progress)
        lengths = self._lengths_sec(prepared, window_sec, stride_sec)
        found = {}
        for stream in self.metadata.config.streams:
            windows_sec, found[stream] = windowed(steps.times_sec, getattr(steps, stream), *lengths)
        appearance, motion = (found.get(stream, [None] * len(windows_sec)) for stream in STREAMS)
        return [
            (float(start), float(end), Embedding(of_frames, of_flow))
            for (start, end), of_frames, of_flow in zip(windows_sec, appearance, motion, strict=True)
        ]

    @cached_property
    def _features(self) -> Scorer:
        from stresnet.inference.embedding import headless

        engine, model = self.engine, headless(self.checkpoint)
        return Scorer(open_runtime(model, engine.device, engine.precision, compiled=engine.compiled))

    def _prepared(
        self,
        video: Source | PreparedVideo,
        protocol: Protocol | None,
        fps: float,
        progress: Progress | None = None,
    ) -> PreparedVideo:
        source = video if isinstance(video, PreparedVideo) else opened(video, fps)
        return prepare_for(self.metadata, self.store_spec, source, protocol, progress, self._limits)

    def _prediction(self, scored: Scored, protocol: Protocol, top: int) -> Prediction:
        video, scores = scored
        best = ranked(self.classes, scores.fused, top)
        flow = self.store_spec.flow.name if reads_flow(self.metadata) else None
        return Prediction(*best[0], best, scores, protocol, flow, frames=video.frames, truncated=video.truncated)

    def score(self, video: PreparedVideo, protocol: Protocol | None = None) -> VideoScores:
        """Return the logits of a prepared video under a protocol.

        Raises:
            FlowSpecError: the video was prepared differently from `store_spec`.
        """
        self._require_same(video)
        return self._scorer.score(video, protocol or self.protocol)

    def score_all(
        self, videos: Iterable[Callable[[], PreparedVideo]], protocol: Protocol | None = None
    ) -> Generator[VideoScores | StresnetError]:
        """Yield the logits of prepared videos in order, or the error that one raised.

        While the network runs, the next video is read in another thread, where the functions that open each are called.
        """

        def checked(open_video: Callable[[], PreparedVideo]) -> PreparedVideo:
            video = open_video()
            self._require_same(video)
            return video

        opening = (partial(checked, open_video) for open_video in videos)
        for scored in self._scorer.score_all(opening, protocol or self.protocol):
            yield scored if isinstance(scored, StresnetError) else scored.scores

    def _require_same(self, video: PreparedVideo) -> None:
        self.store_spec.require_same(video.meta.spec, f"the model and {video.meta.id}")

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        device: str | torch.device | None = None,
    ) -> Recognizer:
        """Load a model from the Hugging Face hub, or from a folder that `save_pretrained` or training wrote.

        See `stresnet.weights.hub.download` for the arguments and errors.
        """
        if Path(repo_or_folder).exists():
            return cls(repo_or_folder, device=device)
        name = HubName(str(repo_or_folder), hub.MODEL, revision)
        options: dict[str, Any] = {"force_download": force_download, "local_files_only": local_files_only}
        return cls(hub.download(name, token=token, cache_dir=cache_dir, **options), device=device)

    def save_pretrained(self, folder: str | Path, *, license: str = "") -> None:
        """Write the model, its config.json and its model card to a folder. See `stresnet.weights.hub.save_folder`."""
        hub.save_folder(Path(folder), self.checkpoint, license=license)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push model with stresnet",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        license: str = "",
    ) -> str:
        """Upload the model to the Hugging Face hub and return the commit's URL. See `stresnet.weights.hub.push`."""
        options: dict[str, Any] = {"private": private, "token": token, "branch": branch, "create_pr": create_pr}
        return hub.push(repo_id, self.checkpoint, commit_message=commit_message, license=license, **options)
