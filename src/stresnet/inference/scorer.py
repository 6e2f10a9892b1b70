"""Score videos with a network: prepare a file, cut the views of a protocol, average the logits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from stresnet.data.clips import Sample, cut
from stresnet.data.encode_video import video_around
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.errors import StresnetError
from stresnet.flow import FlowSpec
from stresnet.inference.prediction import Scores, VideoScores, mean_scores
from stresnet.inference.protocols import Protocol, centers, views
from stresnet.model import Checkpoint
from stresnet.model.checkpoint import first_line
from stresnet.model.preprocessing import mirrored
from stresnet.progress import Progress


def prepare_for(
    checkpoint: Checkpoint, spec: StoreSpec, video: str | Path, protocol: Protocol, progress: Progress | None = None
) -> PreparedVideo:
    """Prepare what a network looks at under a protocol, in a temporary file; no flow if it has no motion stream.

    Raises:
        VideoError: the file cannot be read, or has too few frames.
        StoreError: the temporary file cannot be written.
    """
    flow_stack = checkpoint.model.config.flow_stack
    if "motion" not in checkpoint.model.config.streams:
        flow_stack = 0
        spec = StoreSpec(FlowSpec(short_side=spec.flow.short_side), spec.jpeg_quality, flow_stored=False)
    return video_around(str(video), video, spec, partial(centers, protocol, checkpoint), flow_stack, progress)


class Scorer:
    """A network on a device that scores prepared videos."""

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device | None = None) -> None:
        """Move the network of a checkpoint to a device; by default CUDA if available, else the CPU.

        Raises:
            StresnetError: the device is not available.
        """
        self.checkpoint = checkpoint
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            net = checkpoint.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (RuntimeError, AssertionError) as error:  # an unknown name, or a torch without CUDA
            # for an unknown name torch lists all that it knows
            reason = "unknown device type" if "Expected one of" in str(error) else first_line(error)
            raise StresnetError(f"device {str(device)!r} cannot be used ({reason}): use cpu") from error
        self._net = net.eval()

    @torch.inference_mode()
    def score(self, video: PreparedVideo, protocol: Protocol, progress: Progress | None = None) -> VideoScores:
        """Return the logits of a prepared video, averaged over views and temporal outputs.

        Raises:
            CheckpointError: the protocol needs the clip length, which the checkpoint does not record.
        """
        config, preprocessing = self.checkpoint.model.config, self.checkpoint.preprocessing
        scores: dict[str, list[Scores]] = {stream: [] for stream in config.streams}
        shown = views(protocol, self.checkpoint, video.meta)
        with_flow = video.meta.spec.flow_stored or "motion" not in config.streams
        activity = "scoring" if with_flow else "computing flow, scoring"
        for done, (crop, size) in enumerate(shown.crops):
            if progress:
                progress(activity, done, len(shown.crops))
            sample = cut(video, shown.centers, crop, size, flow_stack=config.flow_stack, streams=config.streams)
            batch = cast(Sample, {name: cast(Tensor, value)[None].to(self.device) for name, value in sample.items()})
            inputs = preprocessing.normalize(batch.get("rgb"), batch.get("flow"), batch["flow_scale"])
            for view in (inputs, mirrored(*inputs)) if shown.mirror else (inputs,):
                logits = self._net(*view)
                for stream, of_stream in scores.items():
                    of_stream.append(getattr(logits, stream)[0].mean(0).float().cpu().numpy())
        means = {stream: mean_scores(of_stream) for stream, of_stream in scores.items()}
        return VideoScores(means.get("appearance"), means.get("motion"))
