"""Measure on this machine what it costs to prepare a frame, and to train a stage on a clip."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.utils.data import default_collate

from stresnet.data.catalog import Catalog
from stresnet.data.index import StoreEntry
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import StoreSpec
from stresnet.data.store import Store
from stresnet.data.training_clips import Sample, TrainingClips
from stresnet.model import Preprocessing, STResNet
from stresnet.recipes import Stage
from stresnet.training.memory import keeping_freed_memory
from stresnet.training.stage import StageTraining, clip_loss
from stresnet.training.trainer import emulates_bf16

_PREPARED_SEC = 8.0
"""At most this much of a video is prepared, in seconds."""

_MEASURED_SEC = 2.0
_LONG_SEC = 6.0
"""The first iteration has two clips, and is enough if it takes the latter time. Otherwise others have as many as should
take the former time, at most those of the stage."""


class PrepareCost(NamedTuple):
    """What it costs to prepare a frame: seconds of one core, and bytes in the store."""

    frame_sec: float
    frame_bytes: float


class StageCost(NamedTuple):
    """What it costs to train a stage.

    Attributes:
        clip_sec: seconds for the network, forwards and backwards, for each clip.
        read_sec: seconds of one core to read a clip.
        memory_bytes: the most memory that training takes, of the process or of the GPU; NaN where it is not known.
        model_bytes: the size of the stage's model.
        state_bytes: the size of what an interrupted training resumes from.
    """

    clip_sec: float
    read_sec: float
    memory_bytes: float
    model_bytes: int
    state_bytes: int


def measure_preparing(
    entries: Sequence[StoreEntry], classes: Sequence[str], spec: StoreSpec, root: Path
) -> PrepareCost:
    """Prepare some videos, or their first seconds, as training videos of a new store.

    Args:
        entries: the videos, each of another file.
        classes: the classes of the source.
        spec: how to prepare them.
        root: a new folder for the store.

    Raises:
        StoreError: the store cannot be written.
    """
    records = []
    for entry in entries:
        start = entry.record.start_sec
        end = min(entry.record.end_sec, start + _PREPARED_SEC)
        whole = entry.frames <= _PREPARED_SEC * entry.fps
        records.append(entry.record if whole else replace(entry.record, start_sec=start, end_sec=end))
    records = sorted((replace(record, split="train") for record in records), key=lambda record: record.id)
    catalog = Catalog("calibration", tuple(classes), tuple(records))
    at: list[float] = []  # when preparing began, and when each video was done

    def note_time(activity: str, done: int, total: int, detail: str = "") -> None:
        at.append(perf_counter())

    summary = prepare(catalog, root, spec, workers=1, progress=note_time)
    store = Store.open(root)
    skipped = 1 if len(records) > 1 else 0  # the first video also takes the time that the process needs to start
    timed = [store.entries.find(record.id) for record in records[skipped:]]
    frames = max(1, sum(entry.frames for entry in timed if entry is not None))
    return PrepareCost((at[-1] - at[skipped]) / frames, summary.bytes / max(1, summary.frames))


def measure_stage(root: Path, threads: int, stage: Stage) -> StageCost | None:
    """Train a few iterations of a stage, on as many clips as there is time for; runs in a worker process.

    Args:
        root: the store to read clips from.
        threads: threads of the network.
        stage: the stage.

    Returns:
        What it costs, or None if the GPU has too little memory.
    """
    torch.set_num_threads(threads)
    store = Store.open(root)
    clips = TrainingClips(store, store.select("train"), stage.clips, stage.network, seed=0)
    clips[0]  # the first takes longer
    start = perf_counter()
    samples = [clips[index] for index in range(1, 3)]
    read_sec = (perf_counter() - start) / len(samples)
    try:
        with keeping_freed_memory():
            gc.collect()
            return _measured(_Iteration(stage, len(store.classes)), samples, read_sec)
    except torch.cuda.OutOfMemoryError:
        return None


def _measured(iteration: _Iteration, samples: Sequence[Sample], read_sec: float) -> StageCost:
    most = iteration.stage.optimisation.sub_batch_videos
    clips = min(2, most)  # batch norm may need two
    before = _reset_peak_memory()
    seconds = [iteration(samples, clips)]
    if seconds[0] < _LONG_SEC:  # otherwise what the first one takes longer does not count
        clips = min(most, max(clips, int(clips * _MEASURED_SEC / seconds[0])))
        seconds = [iteration(samples, clips)]
    while len(seconds) < 3 and sum(seconds) < _MEASURED_SEC:
        seconds.append(iteration(samples, clips))
    peak = _peak_memory()
    model_bytes, state_bytes = iteration.sizes()
    of_clip = max(0.0, peak - before - state_bytes) / clips  # beyond the gradients and the state of the optimiser
    return StageCost(min(seconds) / clips, read_sec, peak + of_clip * (most - clips), model_bytes, state_bytes)


class _Iteration:
    """An iteration of a stage, as training does it, from random weights."""

    def __init__(self, stage: Stage, classes: int) -> None:
        self.stage = stage
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = STResNet(stage.network.with_classes(classes)).to(self.device)
        preprocessing = Preprocessing.of_layout(stage.network.layout, crop_px=stage.clips.crop_px, mirror=False)
        videos = torch.arange(classes).numpy()
        self._training = StageTraining(model, stage, preprocessing, videos, seed=0).train()
        self._optimizer: torch.optim.Optimizer = self._training.configure_optimizers()["optimizer"]
        self._in_bf16 = stage.optimisation.precision == "bf16-mixed" and not emulates_bf16(stage)

    def __call__(self, samples: Sequence[Sample], clips: int) -> float:
        """Train on some clips and return the seconds it took."""
        batch: dict[str, Any] = default_collate([samples[index % len(samples)] for index in range(clips)])
        batch = {name: value.to(self.device) for name, value in batch.items()}
        start = perf_counter()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bf16):
            logits = self._training(batch)
        clip_loss(logits, batch["label"], self.stage.optimisation).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - start

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the model, and of the model with the state of the optimiser."""
        model = sum(value.nbytes for value in self._training.model.state_dict().values())
        state = (value for values in self._optimizer.state.values() for value in values.values())
        return model, model + sum(value.nbytes for value in state if isinstance(value, torch.Tensor))


def usable_memory() -> float:
    """Return the bytes of memory that training can take, of the GPU or of this machine; NaN where it is not known."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    found = _proc_number("/proc/meminfo", "MemTotal")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(found, float(text)) if text.isdigit() else found


def _reset_peak_memory() -> float:
    """Return the memory in use in bytes, from where `_peak_memory` then counts; NaN where it is not known."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_reserved())
    with suppress(OSError):  # not on Linux
        Path("/proc/self/clear_refs").write_text("5")
    return _proc_number("/proc/self/status", "VmRSS")


def _peak_memory() -> float:
    """Return the most memory since the last reset, in bytes, of the GPU or of this process; NaN where not known."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_reserved())
    return _proc_number("/proc/self/status", "VmHWM")


def _proc_number(file: str, name: str) -> float:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE)
    except OSError:
        found = None
    return 1024.0 * int(found[1]) if found else math.nan
