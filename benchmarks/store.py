"""Compare formats of prepared videos: size, speed and error of ours and of others.

    python benchmarks/store.py FOLDER [--videos 8] [--clips 40] [--rounds 5] [--short-side 256]

FOLDER contains videos; a sample of them is prepared in every format. Reading a clip is what training does: open the
files, decode T = 5 frames, τ = 5 … 15 apart, and every flow field of their stacks of 10 once, into uint8 arrays.
Everything is read from the page cache, on one thread. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol

import av
import cv2
import numpy as np
import simplejpeg
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from stresnet.data.encode_video import temporary_video
from stresnet.data.prepared_video import PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import PreparedVideoWriter, write_prepared_video
from stresnet.flow.codec import quantize_flow
from stresnet.flow.estimate import iter_flow
from stresnet.flow.spec import FlowSpec
from stresnet.media.video import VIDEO_EXTENSIONS, iter_frames

Levels = NDArray[np.uint8]
Indices = NDArray[np.int64]

STEPS, FLOW_STACK = 5, 10  # T and L of the released code
KEY_FRAME_EVERY = 12
H264 = {"crf": "18", "g": str(KEY_FRAME_EVERY), "keyint_min": str(KEY_FRAME_EVERY), "bf": "0", "tune": "fastdecode"}


@dataclass(frozen=True)
class Sample:
    """One video: exact frames (T,H,W,3) and flow levels (T-1,2,H,W) as raw files, and prepared by us."""

    name: str
    rgb: Levels
    flow: Levels
    prepared: PreparedVideo


class Format(Protocol):
    """A format of prepared videos."""

    name: str

    def write(self, sample: Sample, folder: Path) -> tuple[int, int]:
        """Write a video; return the bytes of its frames and of its flow."""
        ...

    def read(self, sample: Sample, folder: Path, frames: Indices, fields: Indices) -> tuple[Levels, Levels]:
        """Return frames (n,H,W,3) and flow levels (n,2,H,W)."""
        ...


class Arrow:
    """One Arrow file: JPEG frames, and flow as gray JPEG with u above v."""

    def __init__(self, name: str, quality: int = 95, sampling: str = "444") -> None:
        self.name = name
        self._quality, self._sampling = quality, sampling

    def write(self, sample: Sample, folder: Path) -> tuple[int, int]:
        rgb = [simplejpeg.encode_jpeg(frame, self._quality, "RGB", self._sampling) for frame in sample.rgb]
        stacked = sample.flow.reshape(len(sample.flow), -1, sample.flow.shape[-1], 1)
        flow = [simplejpeg.encode_jpeg(field, self._quality, "GRAY", "Gray") for field in stacked]

        def encode(sink: BinaryIO) -> PreparedVideoMetadata:
            writer = PreparedVideoWriter(sink, sample.prepared.meta.spec)
            for row in zip(sample.prepared.times_sec, rgb, [*flow, None], strict=True):
                writer.append(*row)
            return writer.finish(sample.prepared.meta)

        write_prepared_video(folder / f"{sample.name}.arrow", encode)
        sizes = sum(map(len, rgb)), sum(map(len, flow))
        overhead = (folder / f"{sample.name}.arrow").stat().st_size - sum(sizes)
        return sizes[0] + overhead, sizes[1]

    def read(self, sample: Sample, folder: Path, frames: Indices, fields: Indices) -> tuple[Levels, Levels]:
        prepared = PreparedVideo.open(folder / f"{sample.name}.arrow")
        return prepared.rgb(frames), prepared.flow(fields)


class Loose:
    """A JPEG per frame and two per flow field, in folders rgb/, u/ and v/, as in the released code."""

    name = "loose JPEG 95 files in rgb/ u/ v/"

    def write(self, sample: Sample, folder: Path) -> tuple[int, int]:
        base = folder / sample.name
        for part in ("rgb", "u", "v"):
            (base / part).mkdir(parents=True, exist_ok=True)
        for t, frame in enumerate(sample.rgb):
            (base / "rgb" / f"{t:06}.jpg").write_bytes(simplejpeg.encode_jpeg(frame, 95, "RGB", "444"))
        for t, field in enumerate(sample.flow):
            for part, levels in zip("uv", field, strict=True):
                jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(levels[..., None]), 95, "GRAY", "Gray")
                (base / part / f"{t:06}.jpg").write_bytes(jpeg)
        sizes = {part: sum(path.stat().st_size for path in (base / part).iterdir()) for part in ("rgb", "u", "v")}
        return sizes["rgb"], sizes["u"] + sizes["v"]

    def read(self, sample: Sample, folder: Path, frames: Indices, fields: Indices) -> tuple[Levels, Levels]:
        base = folder / sample.name
        height, width = sample.rgb.shape[1:3]
        rgb = np.empty((len(frames), height, width, 3), np.uint8)
        flow = np.empty((len(fields), 2, height, width, 1), np.uint8)
        for target, t in zip(rgb, frames, strict=True):
            simplejpeg.decode_jpeg((base / "rgb" / f"{t:06}.jpg").read_bytes(), "RGB", buffer=target)
        for targets, t in zip(flow, fields, strict=True):
            for part, target in zip("uv", targets, strict=True):
                simplejpeg.decode_jpeg((base / part / f"{t:06}.jpg").read_bytes(), "GRAY", buffer=target)
        return rgb, flow[..., 0]


class H264Files:
    """Two MP4 files: frames as usual, flow in the Y plane with u above v; a key frame every 12, no B frames."""

    name = "H.264 crf 18, key frame every 12"

    def write(self, sample: Sample, folder: Path) -> tuple[int, int]:
        height, width = sample.rgb.shape[1:3]
        pad_h, pad_w = height % 2, width % 2
        rgb = np.pad(sample.rgb, ((0, 0), (0, pad_h), (0, pad_w), (0, 0)), mode="edge")
        flow = np.pad(sample.flow.reshape(len(sample.flow), -1, width), ((0, 0), (0, 0), (0, pad_w)), mode="edge")
        paths = folder / f"{sample.name}.rgb.mp4", folder / f"{sample.name}.flow.mp4"
        _write_h264(paths[0], (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in rgb), rgb.shape[1:3])
        _write_h264(paths[1], map(_as_luma, flow), flow.shape[1:3])
        return paths[0].stat().st_size, paths[1].stat().st_size

    def read(self, sample: Sample, folder: Path, frames: Indices, fields: Indices) -> tuple[Levels, Levels]:
        height, width = sample.rgb.shape[1:3]
        rgb = np.empty((len(frames), height, width, 3), np.uint8)
        flow = np.empty((len(fields), 2, height, width), np.uint8)
        reformatter = VideoReformatter()
        for target, frame in zip(rgb, _read_h264(folder / f"{sample.name}.rgb.mp4", frames), strict=True):
            target[:] = reformatter.reformat(frame, format="rgb24").to_ndarray()[:height, :width]
        for target, frame in zip(flow, _read_h264(folder / f"{sample.name}.flow.mp4", fields), strict=True):
            luma = np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(frame.height, frame.planes[0].line_size)
            target[:] = luma[:, :width].reshape(2, height, width)
        return rgb, flow


class Raw:
    """Uncompressed and memory-mapped: the size and speed without any codec."""

    name = "raw uint8 .npy, memory-mapped"

    def write(self, sample: Sample, folder: Path) -> tuple[int, int]:
        np.save(folder / f"{sample.name}.rgb.npy", sample.rgb)
        np.save(folder / f"{sample.name}.flow.npy", sample.flow)
        return sample.rgb.nbytes, sample.flow.nbytes

    def read(self, sample: Sample, folder: Path, frames: Indices, fields: Indices) -> tuple[Levels, Levels]:
        rgb = np.load(folder / f"{sample.name}.rgb.npy", mmap_mode="r")[frames]
        return np.asarray(rgb), np.asarray(np.load(folder / f"{sample.name}.flow.npy", mmap_mode="r")[fields])


def _as_luma(levels: Levels) -> av.VideoFrame:
    height, width = levels.shape
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    planes[:height] = levels
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def _write_h264(path: Path, frames: Iterator[av.VideoFrame], size: tuple[int, ...]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=H264)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _read_h264(path: Path, wanted: Indices) -> Iterator[av.VideoFrame]:
    """Yield the wanted frames, which are sorted; seek to a key frame whenever that saves decoding."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        ticks = round(1 / (25 * (stream.time_base or Fraction(1, 25))))
        position = 0
        decoded = container.decode(stream)
        for index in wanted:
            if index // KEY_FRAME_EVERY * KEY_FRAME_EVERY > position:
                container.seek(int(index) * ticks, stream=stream, backward=True)
                decoded = container.decode(stream)
            for frame in decoded:
                position = (frame.pts or 0) // ticks + 1
                if position == index + 1:
                    yield frame
                    break


FORMATS: tuple[Format, ...] = (
    Arrow("**Arrow, JPEG 95, 4:4:4, u above v (ours)**"),
    Arrow("the same, frames and flow at JPEG 92", quality=92),
    Arrow("the same, JPEG 95, frames 4:2:0", sampling="420"),
    Loose(),
    H264Files(),
    Raw(),
)


def prepare_samples(folder: Path, count: int, spec: StoreSpec, raw: Path) -> list[Sample]:
    """Return every n-th video of a folder; exact frames and flow are in ``raw``, memory-mapped."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
    samples = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        frames = np.stack([frame.rgb for frame in iter_frames(path, short_side=spec.flow.short_side)])
        flow = np.stack([quantize_flow(field, spec.flow.bound_px) for field in iter_flow(frames, spec.flow)])
        sample = Sample(path.stem, frames, flow, temporary_video(path.stem, path, spec))
        Raw().write(sample, raw)
        rgb_map, flow_map = (np.load(raw / f"{path.stem}.{part}.npy", mmap_mode="r") for part in ("rgb", "flow"))
        samples.append(replace(sample, rgb=rgb_map, flow=flow_map))
    return samples


def plan_clips(samples: list[Sample], count: int) -> list[tuple[Sample, Indices, Indices]]:
    """Return which frames and flow fields to read, the same for every format."""
    rng = np.random.default_rng(0)
    plan = []
    for index in range(count):
        sample = samples[index % len(samples)]
        first, end = FLOW_STACK // 2, len(sample.rgb) - FLOW_STACK // 2
        apart = min(int(rng.integers(5, 16)), (end - 1 - first) // (STEPS - 1))
        start = int(rng.integers(first, end - apart * (STEPS - 1)))
        centers = start + apart * np.arange(STEPS)
        fields = np.unique(centers[:, None] + np.arange(-FLOW_STACK // 2, FLOW_STACK // 2))
        plan.append((sample, centers, fields))
    return plan


def error_of(form: Format, samples: list[Sample], folder: Path) -> tuple[float, float]:
    """Return the mean absolute error of frames and of flow, in levels of 0 to 255."""
    errors = []
    for sample in samples:
        frames, fields = np.arange(0, len(sample.rgb), 5), np.arange(0, len(sample.flow), 5)
        rgb, flow = form.read(sample, folder, frames, fields)
        pairs = ((rgb, sample.rgb[frames]), (flow, sample.flow[fields]))
        errors.append([np.abs(found.astype(np.int16) - exact).mean() for found, exact in pairs])
    mean = np.mean(errors, axis=0)
    return float(mean[0]), float(mean[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--clips", type=int, default=40, dest="count")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short-side", type=int, default=256)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    spec = StoreSpec(FlowSpec(short_side=options.short_side))
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, str(index)) for index in range(len(FORMATS))]
        for folder in (*folders, Path(temporary, "exact")):
            folder.mkdir()
        samples = prepare_samples(options.folder, options.videos, spec, Path(temporary, "exact"))
        report(samples, folders, plan_clips(samples, options.count), options.rounds)


def report(
    samples: list[Sample], folders: list[Path], plan: list[tuple[Sample, Indices, Indices]], rounds: int
) -> None:
    """Write, read and compare. Formats take turns within each round, so other load affects all of them."""
    frames = sum(len(sample.rgb) for sample in samples)
    sizes, errors, writing = [], [], []
    for form, folder in zip(FORMATS, folders, strict=True):
        start = time.perf_counter()
        written = np.sum([form.write(sample, folder) for sample in samples], axis=0)
        writing.append((time.perf_counter() - start) / frames)
        sizes.append(written / frames)
        errors.append(error_of(form, samples, folder))
    seconds = np.empty((rounds, len(FORMATS)))
    for turn in range(rounds):
        for index, (form, folder) in enumerate(zip(FORMATS, folders, strict=True)):
            start = time.perf_counter()
            for sample, centers, fields in plan:
                form.read(sample, folder, centers, fields)
            seconds[turn, index] = (time.perf_counter() - start) / len(plan)
    fields_read = np.mean([len(fields) for _, _, fields in plan])
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"{len(samples)} videos, {frames} frames, {fields_read:.0f} flow fields a clip, medians of {rounds} rounds\n")
    print(
        "| format | KB/frame RGB | KB/frame flow | write ms/frame | clips/s | relative speed | error RGB | error flow |"
    )
    print("|---|---|---|---|---|---|---|---|")
    ratios = np.median(seconds[:, :1] / seconds, axis=0)
    for index, form in enumerate(FORMATS):
        rgb_kb, flow_kb = sizes[index] / 1000
        cells = [f"{rgb_kb:.1f}", f"{flow_kb:.2f}", f"{1000 * writing[index]:.2f}"]
        cells += [f"{1 / np.median(seconds[:, index]):.0f}", f"{ratios[index]:.2f}"]
        cells += [f"{errors[index][0]:.2f}", f"{errors[index][1]:.3f}"]
        print(f"| {form.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
