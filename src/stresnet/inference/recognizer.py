"""What a network says of a video: the test protocols, and the recogniser that runs them on any video file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin
from numpy.typing import NDArray
from torch import Tensor

from stresnet.data.clips import Sample, cut
from stresnet.data.encode_video import temporary_video
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.sampling import (
    Crop,
    Indices,
    corner_and_center_crops,
    middle_centers,
    spread_centers,
    whole_frame,
)
from stresnet.errors import CheckpointError, StresnetError
from stresnet.flow import FlowSpec
from stresnet.model import Checkpoint, load_checkpoint
from stresnet.model.checkpoint import first_line
from stresnet.model.preprocessing import mirrored
from stresnet.progress import Progress
from stresnet.recipes import parse_recipe
from stresnet.weights import hub

Protocol = Literal["dense25", "crop10x25", "center"]
PROTOCOLS: tuple[Protocol, ...] = ("dense25", "crop10x25", "center")
"""How a video is looked at.

`dense25`: 25 centres spread over the video, whole frames and their mirrors (released code).
`crop10x25`: the same centres, corners and centre of crop_px² px and their mirrors (released code's alternative).
`center`: one clip as in training from the middle of the video, one central crop (fast).
"""

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class VideoScores:
    """Logits (K,) of one video, averaged over views and temporal outputs; None for a stream switched off."""

    appearance: Scores | None
    motion: Scores | None

    @property
    def fused(self) -> Scores:
        """The mean over the streams, (K,) float32."""
        return _mean([s for s in (self.appearance, self.motion) if s is not None])


@dataclass(frozen=True)
class Prediction:
    """What a video shows.

    Attributes:
        label: the most likely action.
        probability: its softmax of the fused logits; not calibrated.
        top: the most likely actions with their probabilities, best first.
        scores: the logits behind them, in the order of the classes.
        frames: how many of the video could be decoded; all of them were used.
        truncated: whether some could not: the file is cut off, or damaged on the way.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    scores: VideoScores
    frames: int
    truncated: bool


class Recognizer(ModelHubMixin):
    """A trained network, ready for any video.

    Example:
        >>> recognizer = Recognizer("run/model.safetensors")  # doctest: +SKIP
        >>> recognizer.predict("holiday.mp4").label  # doctest: +SKIP
        'Surfing'
        >>> recognizer.push_to_hub("owner/name")  # doctest: +SKIP
        >>> recognizer = Recognizer.from_pretrained("owner/name")  # doctest: +SKIP
    """

    # Not None, or the mixin would keep a copy of whatever the constructor is given, the network included.
    _hub_mixin_config: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, model: str | Path | Checkpoint, *, device: str | torch.device | None = None) -> None:
        """Load a network.

        Args:
            model: a checkpoint file, or one already loaded.
            device: where to run; by default CUDA if there is any, else the CPU.

        Raises:
            CheckpointError: if the file is not a checkpoint, or only a start from images.
            StresnetError: if the device is not there.
        """
        self.checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
        if not self.checkpoint.store_spec:
            raise CheckpointError("this model is a start from images: train it first, with stresnet train --init FILE")
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            net = self.checkpoint.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (RuntimeError, AssertionError) as error:  # an unknown name, or a torch without CUDA
            # of an unknown name torch says all that it knows
            reason = "no such kind" if "Expected one of" in str(error) else first_line(error)
            raise StresnetError(f"device {str(device)!r} cannot be used ({reason}): give cpu") from error
        self._net = net.eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]  # takes named arguments only, of which it knows each
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str | torch.device | None = None,
    ) -> Recognizer:
        """The recogniser in a repository on the Hugging Face hub, or in a folder that `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: `owner/name`, or a folder.
            force_download: fetch it anew.
            token: the hub's; None for the one logged in with, False for none.
            cache_dir: where copies lie; None for the hub's own cache.
            local_files_only: ask no one, take the copy from an earlier time.
            revision: branch, tag or commit; None for the newest.
            device: where to run; by default CUDA if there is any, else the CPU.

        Raises:
            CheckpointError: there is no such repository or folder, it holds no model, or it cannot be had.
            StresnetError: if the device is not there.
        """
        # The mixin's own would hand the entries of config.json to the constructor; the checkpoint says all itself.
        file = hub.download(
            str(pretrained_model_name_or_path),
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        return cls(file, device=device)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config: Any = None,
        commit_message: str = "Push model with stresnet",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """The address of the commit that brings the model, its card and its config.json to a repository on the hub.

        Args:
            repo_id: `owner/name`; made if it is not there.
            config: not used; the checkpoint's own is written.
            commit_message: its first line.
            private: whether a new repository is.
            token: the hub's; None for the one logged in with.
            branch: None for main.
            create_pr: ask for the commit rather than make it.
            allow_patterns: push only such files.
            ignore_patterns: push no such files; `README.md` spares a card that was edited on the hub.
            delete_patterns: delete such files there.
            model_card_kwargs: given to `stresnet.weights.hub.model_card`, such as `{"license": "mit"}`.

        Raises:
            CheckpointError: the hub cannot be reached, or refuses.
        """
        with hub.explained(repo_id):
            return super().push_to_hub(
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=delete_patterns,
                model_card_kwargs={"repo": repo_id} | (model_card_kwargs or {}),
            )

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the model, its config.json and its card to a folder, all of them or none; a card that is there stays.

        Args:
            save_directory: the folder; made if it is not there.
            config: not used; the checkpoint's own is written.
            repo_id: where to push to; None for the folder's name.
            push_to_hub: push it too; the commit's address comes back then.
            model_card_kwargs: given to `stresnet.weights.hub.model_card`, such as `{"license": "mit"}`.
            push_to_hub_kwargs: see `push_to_hub`.

        Raises:
            CheckpointError: it cannot be written, or pushed.
        """
        # The mixin's own removes what is there before it writes, and leaves half where the disk is full.
        folder = Path(save_directory)
        hub.save_folder(folder, self.checkpoint, str(self.generate_model_card(**(model_card_kwargs or {}))))
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    def generate_model_card(self, *, repo: str = "owner/name", license: str = "") -> ModelCard:
        """The model card; `save_pretrained` leaves one that is there as it is."""
        return ModelCard(hub.model_card(self.checkpoint, repo=repo, license=license))

    @property
    def classes(self) -> tuple[str, ...]:
        """The actions it tells apart, in the order of the logits."""
        return self.checkpoint.classes

    @property
    def store_spec(self) -> StoreSpec:
        """How videos must be prepared for it."""
        return StoreSpec.from_dict(self.checkpoint.store_spec)

    def predict(
        self,
        video: str | Path,
        *,
        protocol: Protocol = "dense25",
        top: int = 5,
        progress: Progress | None = None,
    ) -> Prediction:
        """The action in a video file, its flow computed on the way: exactly what evaluation says of it.

        Args:
            video: the file.
            protocol: how it is looked at.
            top: how many actions are named.
            progress: told of every frame read, and of every crop scored.

        Raises:
            VideoError: if the file cannot be read, or is too short for a stack of flows.
        """
        self._require(protocol)  # before minutes go into flow
        spec = self.store_spec
        if "motion" not in self.checkpoint.model.config.streams:  # then nobody will ask for flow
            spec = StoreSpec(FlowSpec(short_side=spec.flow.short_side), spec.jpeg_quality, flow_stored=False)
        clip = temporary_video(str(video), video, spec, progress)
        return self._prediction(clip, self._score(clip, protocol, progress), top)

    def judge(self, clip: PreparedVideo, *, protocol: Protocol = "dense25", top: int = 5) -> Prediction:
        """The action in a prepared video.

        Raises:
            FlowSpecError: if the clip was prepared otherwise than the network was trained.
        """
        return self._prediction(clip, self.score(clip, protocol), top)

    def _prediction(self, clip: PreparedVideo, scores: VideoScores, top: int) -> Prediction:
        best = ranked(self.classes, scores.fused, top)
        return Prediction(*best, scores=scores, frames=clip.meta.frames, truncated=clip.meta.truncated)

    def score(self, clip: PreparedVideo, protocol: Protocol = "dense25") -> VideoScores:
        """The logits of a prepared video under a protocol.

        Raises:
            FlowSpecError: if the clip was prepared otherwise than the network was trained.
        """
        self.store_spec.require_same(clip.meta.spec, f"the model and {clip.meta.id}")
        return self._score(clip, protocol)

    @torch.inference_mode()
    def _score(self, clip: PreparedVideo, protocol: Protocol, progress: Progress | None = None) -> VideoScores:
        config, preprocessing = self.checkpoint.model.config, self.checkpoint.preprocessing
        by_stream: dict[str, list[Scores]] = {stream: [] for stream in config.streams}
        centers, crops = self._crops(clip, protocol)
        mirror = preprocessing.mirror and protocol != "center"
        doing = "scoring" if self.store_spec.flow_stored else "computing flow, scoring"
        for done, (crop, size) in enumerate(crops):
            if progress:
                progress(doing, done, len(crops))
            sample = cut(clip, centers, crop, size, flow_stack=config.flow_stack, streams=config.streams)
            batch = cast(Sample, {name: cast(Tensor, value)[None].to(self.device) for name, value in sample.items()})
            inputs = preprocessing.normalize(batch.get("rgb"), batch.get("flow"), batch["flow_scale"])
            for view in (inputs, mirrored(*inputs)) if mirror else (inputs,):
                logits = self._net(*view)
                for stream, scores in by_stream.items():
                    scores.append(getattr(logits, stream)[0].mean(0).float().cpu().numpy())
        means = {stream: _mean(values) for stream, values in by_stream.items()}
        return VideoScores(means.get("appearance"), means.get("motion"))

    def _crops(self, clip: PreparedVideo, protocol: Protocol) -> tuple[Indices, Sequence[tuple[Crop, tuple[int, int]]]]:
        """The centres of a protocol, and its crops with the size each is resized to; mirrors are made of these."""
        self._require(protocol)
        meta, crop_px = clip.meta, self.checkpoint.preprocessing.crop_px
        flow_stack = self.checkpoint.model.config.flow_stack
        if protocol == "center":
            crop = corner_and_center_crops(meta.height, meta.width, crop_px)[-1]
            return self._middle_clip(meta.frames), [(crop, (crop_px, crop_px))]
        centers = spread_centers(meta.frames, flow_stack, 25)
        if protocol == "crop10x25":
            return centers, [(c, (crop_px, crop_px)) for c in corner_and_center_crops(meta.height, meta.width, crop_px)]
        window = whole_frame(meta.height, meta.width, crop_px)
        return centers, [(window, (max(window.height, crop_px), max(window.width, crop_px)))]

    def _require(self, protocol: Protocol) -> None:
        if protocol not in PROTOCOLS:
            raise ValueError(f"no protocol {protocol!r}: give one of {', '.join(PROTOCOLS)}")
        if protocol == "center" and not self.checkpoint.recipe:
            raise CheckpointError("the checkpoint names no recipe, so the length of its clips is unknown: use dense25")

    def _middle_clip(self, frames: int) -> Indices:
        """The clip of training's length and middle stride around the middle of the video."""
        stage = parse_recipe(self.checkpoint.recipe, "the checkpoint's recipe").stage(self.checkpoint.stage)
        return middle_centers(frames, self.checkpoint.model.config.flow_stack, stage.clips.steps, stage.clips.tau)


def _mean(scores: Sequence[Scores]) -> Scores:
    mean: Scores = np.stack(scores).mean(axis=0, dtype=np.float32)
    return mean


def ranked(classes: Sequence[str], logits: Scores, top: int) -> tuple[str, float, tuple[tuple[str, float], ...]]:
    """The best class, its softmax probability, and the `top` best with theirs; ties go to the earlier class."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    order = np.argsort(-logits, kind="stable")[:top]
    best = tuple((classes[k], float(probabilities[k])) for k in order)
    return best[0][0], best[0][1], best
