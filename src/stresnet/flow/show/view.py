"""A look at the flow of a video: as a video, as a picture, or as numbers in files."""

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
from stresnet.flow.show.statistics import FlowStatistics
from stresnet.flow.show.steps import Look, OnProgress, Part, Step
from stresnet.flow.spec import FlowSpec
from stresnet.media.video import write_video

_SHOWN_PERCENT = 99  # of the speeds lie below the one in full colour
_SAMPLED_STEPS = 32  # of a video, or up to twice as many, for its scale


@dataclass(frozen=True)
class Style:
    """How flow is drawn.

    Attributes:
        arrows: in an .mp4, draw arrows over the frame.
        scale_px: the speed shown in full colour, pixels per frame; None takes one that few vectors exceed. For an
            .mp4 that takes a first pass, over some of its steps.
    """

    arrows: bool = False
    scale_px: float | None = None


def view_flow(
    video: str | os.PathLike[str],
    out: str | os.PathLike[str],
    spec: FlowSpec,
    *,
    part: Part | None = None,
    style: Style | None = None,
    progress: OnProgress | None = None,
) -> Look:
    """Returns what was found in a video, after writing its flow; what is written is there in full or not at all.

    Args:
        video: the video file.
        out: what is written, by its ending. ``.mp4``: frame and colours side by side. ``.png``: the step with the
            largest mean speed (or the one at `part.at_sec`) as frame, colours and arrows. ``.npz``: ``flow``
            (T-1,2,H,W) float32 in pixels per frame, ``times_sec`` (T,), ``fps`` and ``spec`` (JSON). ``.flo``: one
            step, as for ``.png``. ``/``: a new folder with a .flo for each step, named by its first frame's index.
        spec: which flow, and the bound that the statistics ask about; nothing is clipped.
        part: which part of the video; all of it by default.
        style: how flow is drawn.
        progress: called at every frame.

    Raises:
        VideoError: the video cannot be read, or the part has fewer than two frames.
        FlowSpecError: the method cannot be run here.
        FlowFileError: another ending, or the file cannot be written.
    """
    ending = ending_of(out)
    if ending not in _WRITERS:
        raise FlowFileError(
            f"{out}: the ending says what to write, .mp4, .png, .npz, .flo, or / for a folder of .flo files; "
            f"found {ending or 'none'}"
        )
    require_available(spec)
    target = Path(out)
    look = Look(Path(video), spec, part or Part(), progress)
    _require_place(target, look.video, ending)
    with _one_line(target):
        _WRITERS[ending](target, look, style or Style())
    return look


def ending_of(out: str | os.PathLike[str]) -> str:
    """Returns what decides the format: the name's ending in lower case, or ``/`` for a folder."""
    name = os.fspath(out)
    return "/" if name.endswith(("/", os.sep)) else Path(name).suffix.lower()


# ---------------------------------------------------------------- formats


def _write_mp4(target: Path, look: Look, style: Style) -> None:
    scale_px = style.scale_px or _usual_px(look)

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for step in look:
            rgb, moment = step.frame.rgb, _moment(step)
            frame = draw_arrows(rgb, step.flow, scale_px) if style.arrows else enlarge(rgb)
            if style.arrows:
                moment += f"; {_length(rgb, scale_px)}"
            yield side_by_side([frame, draw_colours(step.flow, scale_px)], [moment, _method(look.spec)])

    write_video(target, pictures(), fps=look.info.fps)


def _write_png(target: Path, look: Look, style: Style) -> None:
    step = _moving_most(look)
    scale_px = style.scale_px or _scale_of([step.flow])
    rgb = step.frame.rgb
    panels = [enlarge(rgb), draw_colours(step.flow, scale_px), draw_arrows(rgb, step.flow, scale_px)]
    picture = side_by_side(panels, [_moment(step), _method(look.spec), _length(rgb, scale_px)])
    _, encoded = cv2.imencode(".png", picture[..., ::-1])
    with replacing(target) as unfinished:
        unfinished.write_bytes(encoded.tobytes())


def _write_flo(target: Path, look: Look, style: Style) -> None:
    write_flo(target, _moving_most(look).flow)


def _write_folder(target: Path, look: Look, style: Style) -> None:
    target = target.absolute()  # "./" has no name
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    unfinished.mkdir()
    try:
        for step in look:
            write_flo(unfinished / f"{step.index:06d}.flo", step.flow)
        if target.exists():  # and empty, or it would have been refused
            target.rmdir()
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_npz(target: Path, look: Look, style: Style) -> None:
    """Write one array after the other, the flow field by field: its length, which comes first, is counted before."""
    frames, (height, width) = _count(look)
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
            for step in look:
                file.write(step.flow.astype("<f4").tobytes())
        rest = {"times_sec": look.times_sec, "fps": look.info.fps, "spec": json.dumps(look.spec.to_dict())}
        for name, value in rest.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


_WRITERS = {".mp4": _write_mp4, ".png": _write_png, ".npz": _write_npz, ".flo": _write_flo, "/": _write_folder}


# ---------------------------------------------------------------- what they share


def _moving_most(look: Look) -> Step:
    found: Step | None = None
    for step in look:
        if found is None or step.moves_most:
            found = step
    assert found is not None  # a look without a step raises
    return found


def _count(look: Look) -> tuple[int, tuple[int, int]]:
    """Returns the number of frames, which only decoding tells, and their height and width."""
    frames, size = 0, (0, 0)
    with look.open() as reader:
        for _, frame in look.wanted(reader, "counting frames"):
            frames, size = frames + 1, (frame.rgb.shape[0], frame.rgb.shape[1])
    look.require_two(frames)
    return frames, size


def _usual_px(look: Look) -> float:
    """Returns the scale for all of a video, from steps spread evenly over it: the first colour needs it already."""
    stride = look.part.expected_frames(look.info.header_frames, look.info.fps) // _SAMPLED_STEPS
    with look.open() as reader:
        numbered = enumerate(look.wanted(reader, "finding the scale"))
        frames = (frame for number, (_, frame) in numbered if number % max(1, stride) < 2)
        # Where frames are left out, every other field is from the end of a step to the start of the next sampled one.
        steps = islice(flow_of(frames, look.spec), 0, None, 2 if stride > 2 else 1)
        return _scale_of(steps)


def _scale_of(fields: Iterable[NDArray[np.float32]]) -> float:
    statistics = FlowStatistics(bound_px=1.0)  # any: clipping is not asked about
    for field in fields:
        statistics.add(field)
    return full_colour_px(statistics.percentile_px(_SHOWN_PERCENT))


def _moment(step: Step) -> str:
    return f"frame {step.index}, {step.frame.time_sec:.3f} s"


def _length(rgb: NDArray[np.uint8], scale_px: float) -> str:
    return f"arrow of {arrow_px(rgb.shape[0], rgb.shape[1])} px: {scale_px:g} px/frame"


def _method(spec: FlowSpec) -> str:
    return f"flow: {spec.method}, {spec.preset}" + (", median subtracted" if spec.subtract_median else "")


def _require_place(target: Path, video: Path, ending: str) -> None:
    """Return if something can be written there: better asked before hours of work than after.

    Raises:
        FlowFileError: there is no such folder, or what stands there must stay.
    """
    folder = target.absolute().parent
    if not folder.is_dir():
        raise FlowFileError(f"{target}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise FlowFileError(f"{target}: nothing can be written to the folder {folder}; choose another")
    if not target.exists():
        return
    if os.path.samefile(target, video):
        raise FlowFileError(f"{target}: is the video itself; choose another name")
    if ending == "/" and not (target.is_dir() and not any(target.iterdir())):
        raise FlowFileError(f"{target}: a new or an empty folder is expected; choose another name")
    if ending != "/" and target.is_dir():
        raise FlowFileError(f"{target}: a folder stands there; choose another name")


@contextmanager
def _one_line(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # names the temporary file, if any
        raise FlowFileError(f"{target}: cannot be written ({error.strerror or error})") from error
