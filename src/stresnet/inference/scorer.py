"""Score videos with a network: prepare a file, cut the views of a protocol, average the logits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

from stresnet.data.clips import Sample, cut_clips
from stresnet.data.encode_video import video_around
from stresnet.data.prepared_video import PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.sampling import Protocol
from stresnet.data.segment import split_fragment
from stresnet.data.sources import is_url
from stresnet.errors import StresnetError
from stresnet.flow import FlowSpec
from stresnet.inference.engine import Engine, default_device
from stresnet.inference.prediction import Scores, VideoScores, mean_scores
from stresnet.inference.protocols import centers, views
from stresnet.model import Checkpoint
from stresnet.model.checkpoint import first_line
from stresnet.model.precision import PrecisionChoice, choose_precision
from stresnet.model.preprocessing import mirrored
from stresnet.prefetch import prefetched
from stresnet.progress import Progress
from stresnet.weights.fetch import fetch


class Scored(NamedTuple):
    """A video and its logits."""

    video: PreparedVideoMetadata
    scores: VideoScores


class _View(NamedTuple):
    """One crop of a video's clips, ready for the network."""

    video: PreparedVideoMetadata
    clips: Sample
    mirror: bool
    is_last: bool


def prepare_for(
    checkpoint: Checkpoint, spec: StoreSpec, video: str | Path, protocol: Protocol, progress: Progress | None = None
) -> PreparedVideo:
    """Prepare what a network looks at under a protocol, in a temporary file; no flow if it has no motion stream.

    The video may be a segment of a file, such as ``match.mp4#t=10,20``, or have a URL: then it is downloaded into the
    cache first.

    Raises:
        DownloadError: it cannot be downloaded.
        VideoError: the file cannot be read, or has too few frames.
        StoreError: the temporary file cannot be written.
    """
    path, segment = split_fragment(video)
    file = fetch(path, progress=progress) if is_url(path) else path
    flow_stack = checkpoint.model.config.flow_stack
    if "motion" not in checkpoint.model.config.streams:
        flow_stack = 0
        spec = StoreSpec(FlowSpec(short_side=spec.flow.short_side), spec.jpeg_quality, flow_stored=False)
    return video_around(str(video), file, spec, partial(centers, protocol, checkpoint), flow_stack, progress, segment)


class Scorer:
    """A network on a device that scores prepared videos."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str | torch.device | None = None,
        precision: PrecisionChoice = "auto",
        *,
        compiled: bool = False,
    ) -> None:
        """Make the network of a checkpoint ready; see `Recognizer` for the arguments.

        Raises:
            StresnetError: the device is not available.
        """
        self.checkpoint = checkpoint
        try:
            place = default_device(device)
            self.engine = Engine(checkpoint.model, place, choose_precision(precision, place), compiled=compiled)
        except (RuntimeError, AssertionError) as error:  # an unknown name, or a torch without CUDA
            # for an unknown name torch lists all that it knows
            reason = "unknown device type" if "Expected one of" in str(error) else first_line(error)
            raise StresnetError(f"device {str(device)!r} cannot be used ({reason}): use cpu") from error

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

    def _views(
        self, videos: Iterable[Callable[[], PreparedVideo]], protocol: Protocol, progress: Progress | None = None
    ) -> Generator[_View | StresnetError]:
        """Yield every crop of every video, and in place of the remaining ones of a video the error it raised."""
        config = self.checkpoint.model.config
        for open_video in videos:
            try:
                video = open_video()
                shown = views(protocol, self.checkpoint, video.meta)
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
                yield Scored(view.video, _mean(logits))
                logits = []

    def _logits(self, view: _View) -> Iterator[VideoScores]:
        """Yield the logits of a crop and, if wanted, of its mirror, averaged over clips and temporal outputs."""
        batch = {name: cast(Tensor, value).to(self.engine.device) for name, value in view.clips.items()}
        normalize = self.checkpoint.preprocessing.normalize
        inputs = normalize(batch.get("rgb"), batch.get("flow"), batch["flow_scale"])
        for rgb, flow in (inputs, mirrored(*inputs)) if view.mirror else (inputs,):
            logits = self.engine(rgb, flow)  # (B,T′,K) of each stream
            yield VideoScores(*(None if s is None else s.flatten(0, 1).mean(0).cpu().numpy() for s in logits))


def _mean(logits: list[VideoScores]) -> VideoScores:
    def of_stream(values: list[Scores | None]) -> Scores | None:
        present = [value for value in values if value is not None]
        return mean_scores(present) if present else None

    return VideoScores(of_stream([s.appearance for s in logits]), of_stream([s.motion for s in logits]))
