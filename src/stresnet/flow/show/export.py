"""Write the flow of a video: as a video, as a picture, or as numbers in files."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.atomic import replacing
from stresnet.errors import FlowFileError
from stresnet.flow.estimate import flow_of, require_available
from stresnet.flow.show.drawing import arrow_px, draw_arrows, draw_colours, enlarge, full_colour_px, side_by_side
from stresnet.flow.show.flo import write_flo
from stresnet.flow.show.reader import FlowReader, FlowStep, Segment
from stresnet.flow.show.statistics import FlowStatistics
from stresnet.flow.spec import FlowSpec
from stresnet.media import write_video
from stresnet.progress import Progress

_SCALE_PERCENTILE = 99  # of the speeds: the one shown in full colour
_SAMPLED_STEPS = 32  # steps, up to twice as many, that the scale of an .mp4 is taken from


@dataclass(frozen=True)
class DrawingStyle:
    """How flow is drawn.

    Attributes:
        arrows: whether to draw arrows over the frames of an .mp4.
        scale_px: speed shown in full colour, pixels per frame. By default one that few vectors exceed; for an .mp4
            this takes a first pass over some of its steps.
    """

    arrows: bool = False
    scale_px: float | None = None


def export_flow(
    video: str | os.PathLike[str],
    out: str | os.PathLike[str],
    spec: FlowSpec,
    *,
    segment: Segment | None = None,
    style: DrawingStyle | None = None,
    progress: Progress | None = None,
) -> FlowReader:
    """Write the flow of a video and return the reader, which holds its statistics.

    The output appears under its name only when it is complete.

    Args:
        video: the video file.
        out: the output, whose ending selects the format. ``.mp4``: frame and colours side by side. ``.png``: the step
            with the largest mean speed (or the one at `segment.at_sec`) as frame, colours and arrows. ``.npz``:
            ``flow`` (T-1,2,H,W) float32 in pixels per frame, ``times_sec`` (T,), ``fps`` and ``spec`` (JSON).
            ``.flo``: one step, as for ``.png``. ``/``: a new folder with a .flo per step, named by its first frame.
        spec: the flow method, and the bound for the share of clipped vectors; nothing is clipped.
        segment: the segment of the video; all of it by default.
        style: how flow is drawn.
        progress: called for every frame.

    Raises:
        VideoError: the video cannot be read, or the segment has fewer than two frames.
        FlowSpecError: the method is not available.
        FlowFileError: the ending is unknown, or the file cannot be written.
    """
    format_ = format_of(out)
    if format_ not in _WRITERS:
        raise FlowFileError(
            f"{out}: the ending selects the format: .mp4, .png, .npz, .flo, or / for a folder of .flo files; "
            f"found {format_ or 'none'}"
        )
    require_available(spec)
    target = Path(out)
    reader = FlowReader(Path(video), spec, segment or Segment(), progress)
    _require_writable(target, reader.video, format_)
    with _errors_naming(target):
        _WRITERS[format_](target, reader, style or DrawingStyle())
    return reader


def format_of(out: str | os.PathLike[str]) -> str:
    """Return the ending of a name, which selects the format, in lower case; ``/`` for a folder."""
    name = os.fspath(out)
    return "/" if name.endswith(("/", os.sep)) else Path(name).suffix.lower()


# ---------------------------------------------------------------- formats


def _write_mp4(target: Path, reader: FlowReader, style: DrawingStyle) -> None:
    scale_px = style.scale_px or _sampled_scale(reader)

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for step in reader:
            rgb, caption = step.frame.rgb, _step_caption(step)
            frame = draw_arrows(rgb, step.flow, scale_px) if style.arrows else enlarge(rgb)
            if style.arrows:
                caption += f"; {_arrow_caption(rgb, scale_px)}"
            yield side_by_side([frame, draw_colours(step.flow, scale_px)], [caption, _method_caption(reader.spec)])

    write_video(target, pictures(), fps=reader.info.fps)


def _write_png(target: Path, reader: FlowReader, style: DrawingStyle) -> None:
    step = _largest_step(reader)
    scale_px = style.scale_px or _scale_of([step.flow])
    rgb = step.frame.rgb
    panels = [enlarge(rgb), draw_colours(step.flow, scale_px), draw_arrows(rgb, step.flow, scale_px)]
    captions = [_step_caption(step), _method_caption(reader.spec), _arrow_caption(rgb, scale_px)]
    _, encoded = cv2.imencode(".png", side_by_side(panels, captions)[..., ::-1])
    with replacing(target) as unfinished:
        unfinished.write_bytes(encoded.tobytes())


def _write_flo(target: Path, reader: FlowReader, style: DrawingStyle) -> None:
    write_flo(target, _largest_step(reader).flow)


def _write_folder(target: Path, reader: FlowReader, style: DrawingStyle) -> None:
    target = target.absolute()  # "./" has no name
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    unfinished.mkdir()
    try:
        for step in reader:
            write_flo(unfinished / f"{step.index:06d}.flo", step.flow)
        if target.exists():  # an empty folder, see _require_writable
            target.rmdir()
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_npz(target: Path, reader: FlowReader, style: DrawingStyle) -> None:
    """Write the flow field by field. Its header needs the number of frames, which a first pass counts."""
    frames, (height, width) = _count_frames(reader)
    shape = (frames - 1, 2, height, width)
    needed, free = 4 * int(np.prod(shape)), shutil.disk_usage(target.parent).free
    if needed > free:
        raise FlowFileError(
            f"{target}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; "
            "use a smaller --short-side, --max-frames, or --from and --to"
        )
    with replacing(target) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        with archive.open("flow.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for step in reader:
                file.write(step.flow.astype("<f4").tobytes())
        rest = {"times_sec": reader.times_sec, "fps": reader.info.fps, "spec": json.dumps(reader.spec.to_dict())}
        for name, value in rest.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


_WRITERS = {".mp4": _write_mp4, ".png": _write_png, ".npz": _write_npz, ".flo": _write_flo, "/": _write_folder}


# ---------------------------------------------------------------- shared by the formats


def _largest_step(reader: FlowReader) -> FlowStep:
    """Return the step with the largest mean speed, or the first if no vector is known."""
    largest: FlowStep | None = None
    for step in reader:
        if largest is None or step.largest_so_far:
            largest = step
    assert largest is not None  # a reader without a step raises
    return largest


def _count_frames(reader: FlowReader) -> tuple[int, tuple[int, int]]:
    """Return the number of frames, which is only known after decoding, and their height and width."""
    count, size = 0, (0, 0)
    with reader.open() as frames:
        for frame in reader.segment_frames(frames, "counting frames"):
            count, size = count + 1, (frame.rgb.shape[0], frame.rgb.shape[1])
    reader.require_two(count)
    return count, size


def _sampled_scale(reader: FlowReader) -> float:
    """Return the scale for a whole video, from steps spread evenly over it: it is needed before the first step."""
    stride = reader.segment.expected_frames(reader.info.header_frames, reader.info.fps) // _SAMPLED_STEPS
    with reader.open() as frames:
        numbered = enumerate(reader.segment_frames(frames, "finding the scale"))
        sampled = (frame for number, frame in numbered if number % max(1, stride) < 2)
        # Where frames are left out, every second field joins the end of one sampled step to the start of the next.
        fields = islice(flow_of(sampled, reader.spec), 0, None, 2 if stride > 2 else 1)
        return _scale_of(fields)


def _scale_of(fields: Iterable[NDArray[np.float32]]) -> float:
    statistics = FlowStatistics(bound_px=1.0)  # the bound does not matter here
    for field in fields:
        statistics.add(field)
    return full_colour_px(statistics.percentile_px(_SCALE_PERCENTILE))


def _step_caption(step: FlowStep) -> str:
    return f"frame {step.index}, {step.frame.time_sec:.3f} s"


def _arrow_caption(rgb: NDArray[np.uint8], scale_px: float) -> str:
    return f"arrow of {arrow_px(rgb.shape[0], rgb.shape[1])} px: {scale_px:g} px/frame"


def _method_caption(spec: FlowSpec) -> str:
    return f"flow: {spec.method}, {spec.preset}" + (", median subtracted" if spec.subtract_median else "")


def _require_writable(target: Path, video: Path, format_: str) -> None:
    """Raise unless the output can be written, before the work starts.

    Raises:
        FlowFileError: the folder does not exist or is read-only, or the output would replace the video or a folder.
    """
    folder = target.absolute().parent
    if not folder.is_dir():
        raise FlowFileError(f"{target}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise FlowFileError(f"{target}: the folder {folder} is read-only; choose another")
    if not target.exists():
        return
    if os.path.samefile(target, video):
        raise FlowFileError(f"{target}: is the input video; choose another name")
    if format_ == "/" and not (target.is_dir() and not any(target.iterdir())):
        raise FlowFileError(f"{target}: expected a new or an empty folder; choose another name")
    if format_ != "/" and target.is_dir():
        raise FlowFileError(f"{target}: is a folder; choose another name")


@contextmanager
def _errors_naming(target: Path) -> Iterator[None]:
    """Raise a failure to write as a `FlowFileError` that names the target, not the temporary file."""
    try:
        yield
    except OSError as error:
        raise FlowFileError(f"{target}: cannot be written ({error.strerror or error})") from error
