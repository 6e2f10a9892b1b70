"""Score videos with a network: prepare a file, cut the views of a protocol, average the logits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stresnet.data.clips import Clip, cut_clips, mirrored
from stresnet.data.encode_video import frames_around, video_around
from stresnet.data.prepared_video import PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.sampling import Indices, Protocol
from stresnet.data.segment import split_fragment
from stresnet.data.sources import is_url
from stresnet.errors import FlowSpecError, StresnetError
from stresnet.flow import FlowSpec
from stresnet.inference.prediction import Scores, VideoScores, mean_scores, mean_video_scores
from stresnet.inference.protocols import centers, default_protocol, runs, views
from stresnet.inference.runtime import ClipLogits, Runtime
from stresnet.media import Video
from stresnet.media.limits import DEFAULT_LIMITS, Limits
from stresnet.model.metadata import ModelMetadata
from stresnet.prefetch import prefetched
from stresnet.progress import Progress
from stresnet.weights.fetch import fetch


class Scored(NamedTuple):
    """A video and its logits."""

    video: PreparedVideoMetadata
    scores: VideoScores


class StepScores(NamedTuple):
    """The logits of the time steps of a video.

    Attributes:
        times_sec: (M,) float64, seconds since the first frame.
        appearance: (M,K) float32; None if the stream is switched off.
        motion: (M,K) float32; None if the stream is switched off.
    """

    times_sec: NDArray[np.float64]
    appearance: Scores | None
    motion: Scores | None

    @property
    def fused(self) -> Scores:
        """The mean over the streams, (M,K) float32."""
        return mean_scores([stream for stream in (self.appearance, self.motion) if stream is not None])


class _View(NamedTuple):
    """One crop of a video's clips, ready for the network."""

    video: PreparedVideoMetadata
    clips: Clip
    mirror: bool
    is_last: bool


class Wanted(NamedTuple):
    """What a network looks at in a video.

    Attributes:
        spec: how the video is prepared; no flow if the network has no motion stream.
        flow_stack: L, the flow fields around a step; 0 without flow.
        steps_of: from the number of frames to the frames that are steps, (N,) int64.
    """

    spec: StoreSpec
    flow_stack: int
    steps_of: Callable[[int], Indices]


def spec_for(metadata: ModelMetadata, flow_preset: str | None, stream: int | None) -> StoreSpec:
    """Return how videos are prepared for a network, with another preset of its flow method if one is given.

    The stream is not that of training: it is a property of files.
    """
    spec = StoreSpec.from_dict(metadata.store_spec)
    spec = replace(spec, frames=replace(spec.frames, stream=stream))
    if flow_preset is None:
        return spec
    if not reads_flow(metadata):
        raise FlowSpecError(f"flow preset {flow_preset!r} cannot be used: the network has no motion stream")
    return replace(spec, flow=replace(spec.flow, preset=flow_preset))


def reads_flow(metadata: ModelMetadata) -> bool:
    return "motion" in metadata.config.streams


def wanted(metadata: ModelMetadata, spec: StoreSpec, protocol: Protocol | None) -> Wanted:
    """Return what a network looks at under a protocol, or without one for a time line."""
    flow_stack = metadata.config.flow_stack
    if not reads_flow(metadata):
        flow_stack = 0
        spec = replace(spec, flow=FlowSpec(short_side=spec.flow.short_side), flow_stored=False)
    return Wanted(spec, flow_stack, partial(centers, protocol, metadata) if protocol else partial(_steps, metadata))


def prepare_for(
    metadata: ModelMetadata,
    spec: StoreSpec,
    video: str | Path | Video | PreparedVideo,
    protocol: Protocol | None,
    progress: Progress | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> PreparedVideo:
    """Prepare what a network looks at under a protocol, in a temporary file; see `wanted`.

    The video may be a segment of a file, such as ``match.mp4#t=10,20``, or have a URL: then it is downloaded into the
    cache first. One that is prepared is returned as it is.

    Raises:
        DownloadError: it cannot be downloaded.
        VideoError: the file cannot be read, or has too few frames.
        StoreError: the temporary file cannot be written.
        FlowSpecError: it was prepared with another flow.
    """
    used, flow_stack, looked_at = wanted(metadata, spec, protocol)
    if isinstance(video, PreparedVideo):
        if video.meta.spec != used:
            spec.require_same(video.meta.spec, f"the model and {video.meta.id}")
        return video
    if isinstance(video, Video):
        return frames_around("the frames", video, used, looked_at, flow_stack, progress)
    path, segment = split_fragment(video)
    file = fetch(path, progress=progress) if is_url(path) else path
    return video_around(str(video), file, used, looked_at, flow_stack, progress, segment, limits)


def _steps(metadata: ModelMetadata, frames: int) -> Indices:
    return np.concatenate([clip for clip, *_ in runs(metadata, frames)])


class Scorer:
    """A network that scores prepared videos."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.metadata = runtime.metadata

    def score(self, video: PreparedVideo, protocol: Protocol, progress: Progress | None = None) -> VideoScores:
        """Return the logits of a prepared video, averaged over views and temporal outputs.

        Raises:
            CheckpointError: the protocol needs the clip length, which the checkpoint does not record.
            StoreError: the prepared video is damaged.
        """
        (scored,) = self._score(self._views([lambda: video], protocol, progress))
        if isinstance(scored, StresnetError):
            raise scored
        return scored.scores

    def score_all(
        self, videos: Iterable[Callable[[], PreparedVideo]], protocol: Protocol
    ) -> Generator[Scored | StresnetError]:
        """Yield the logits of each video in order, or the error that it raised.

        While the network runs, the next view or video is read in another thread.

        Args:
            videos: functions that open or prepare a video each; called in that thread.
            protocol: the test protocol.
        """
        views_ahead = prefetched(self._views(videos, protocol))
        try:
            yield from self._score(views_ahead)
        finally:
            views_ahead.close()

    def score_steps(self, video: PreparedVideo, progress: Progress | None = None) -> StepScores:
        """Return the logits of steps over a whole video: means over the crops and mirrors of the network's protocol.

        Raises:
            StoreError: the prepared video is damaged.
        """
        config = self.metadata.config
        shown = views(default_protocol(self.metadata), self.metadata, video.meta)
        size, stride = config.temporal_pool or (1, 1)
        steps: list[int] = []
        scored: dict[str, list[Scores]] = {stream: [] for stream in config.streams}
        parts = runs(self.metadata, video.meta.frames)
        for done, (clip, first, end) in enumerate(parts):
            if progress:
                progress("scoring", done, len(parts))
            outputs = np.arange((size - 1) // 2, len(clip) - size // 2, stride)  # the step in the middle of each
            counted = (first <= outputs) & (outputs < end)
            shown_logits = [
                logits
                for crop, size_px in shown.crops
                for logits in self._outputs(
                    cut_clips(video, clip[None], crop, size_px, flow_stack=config.flow_stack, streams=config.streams),
                    mirror=shown.mirror,
                )
            ]
            for stream, found in scored.items():
                found.append(np.mean([getattr(logits, stream)[0] for logits in shown_logits], 0)[counted])
            steps += clip[outputs[counted]].tolist()
        whole = {stream: np.concatenate(found) for stream, found in scored.items()}
        return StepScores(video.times_sec[steps], whole.get("appearance"), whole.get("motion"))

    def _views(
        self, videos: Iterable[Callable[[], PreparedVideo]], protocol: Protocol, progress: Progress | None = None
    ) -> Generator[_View | StresnetError]:
        """Yield every crop of every video, and in place of the remaining ones of a video the error it raised."""
        config = self.metadata.config
        for open_video in videos:
            try:
                video = open_video()
                shown = views(protocol, self.metadata, video.meta)
                with_flow = video.meta.spec.flow_stored or "motion" not in config.streams
                activity, crops = "scoring" if with_flow else "computing flow, scoring", len(shown.crops)
                for done, (crop, size) in enumerate(shown.crops):
                    if progress:
                        progress(activity, done, crops)
                    clips = cut_clips(
                        video, shown.clips, crop, size, flow_stack=config.flow_stack, streams=config.streams
                    )
                    yield _View(video.meta, clips, shown.mirror, is_last=done == crops - 1)
            except StresnetError as error:
                yield error

    def _score(self, shown: Iterator[_View | StresnetError]) -> Generator[Scored | StresnetError]:
        logits: list[VideoScores] = []
        for view in shown:
            if isinstance(view, StresnetError):
                logits = []
                yield view
                continue
            logits += self._logits(view)
            if view.is_last:
                yield Scored(view.video, mean_video_scores(logits))
                logits = []

    def _logits(self, view: _View) -> Iterator[VideoScores]:
        """Yield the logits of a crop and, if wanted, of its mirror, averaged over clips and temporal outputs."""
        for logits in self._outputs(view.clips, mirror=view.mirror):
            yield VideoScores(*(None if s is None else s.mean((0, 1)) for s in logits))

    def _outputs(self, clips: Clip, *, mirror: bool) -> Iterator[ClipLogits]:
        """Yield the logits of clips, (B,T′,K) of each stream, and, if wanted, those of their mirrors."""
        yield self.runtime(clips)
        if mirror:
            yield self.runtime(mirrored(clips))
