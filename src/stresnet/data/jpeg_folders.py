"""Find the files of each video in folders of frames and flow that were extracted elsewhere.

    ROOT/jpegs_256/VIDEO/frame000001.jpg, ROOT/u/VIDEO/frame000001.jpg, ROOT/v/VIDEO/frame000001.jpg
    ROOT/rgb/VIDEO/img_00001.jpg, ROOT/flow/VIDEO/flow_x_00001.jpg, ROOT/flow/VIDEO/flow_y_00001.jpg
    ROOT/VIDEO/img_00001.jpg, ROOT/VIDEO/flow_x_00001.jpg, ROOT/VIDEO/flow_y_00001.jpg

The authors released UCF101 and HMDB51 in the first layout; denseflow writes the last. Folders of frames and of flow
may have the other names below, VIDEO may be a path such as ``class/video``, and files may be PNGs. Numbers start at 0
or 1. Flow picture k takes frame k to k + 1; one after the last frame is ignored. Flow may be numbered otherwise, such
as from 0 for frames from 1, if there is one picture fewer than frames: then each belongs to one step. The files do not
show what their levels of flow mean (method and bound).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stresnet.errors import VideoError

FRAME_ROOTS = ("jpegs_256", "jpegs", "rgb", "frames")
FLOW_ROOTS = (("u", "v"), ("tvl1_flow/u", "tvl1_flow/v"), ("flow/u", "flow/v"), ("flow", "flow"))
_FRAME_NAMES = ("frame", "frame_", "img", "img_", "image", "image_", "")
_U_NAMES, _V_NAMES = ("flow_x_", "x_"), ("flow_y_", "y_")
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")
NUMBERED = re.compile(r"(.*?)(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


@dataclass(frozen=True)
class Pictures:
    """The picture files of one video, in order.

    Attributes:
        folder: the folder of the frames.
        frames: T paths.
        u, v: T−1 paths each; empty if flow was not asked for.
    """

    folder: str
    frames: tuple[str, ...]
    u: tuple[str, ...] = ()
    v: tuple[str, ...] = ()

    def files(self) -> tuple[str, ...]:
        """Return all paths."""
        return *self.frames, *self.u, *self.v


def name_of(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """Return the name of a file for a message about the video whose frames are in ``folder``."""
    return Path(os.path.relpath(path, os.path.commonpath([folder, path]))).as_posix()


def frames_root(root: Path) -> Path:
    """Return the folder that contains the folders of frames: one of FRAME_ROOTS if there is one, otherwise the root."""
    return next((root / name for name in FRAME_ROOTS if (root / name).is_dir()), root)


def find_pictures(folder: str | os.PathLike[str], *, flow: bool) -> Pictures:
    """Return the files of a video.

    Args:
        folder: the folder of its frames.
        flow: whether to find its flow too.

    Raises:
        VideoError: there is no such folder, or files are missing.
    """
    here = Path(folder)
    if not here.is_dir():
        raise VideoError(f"{folder}: expected a folder of pictures, found {'a file' if here.exists() else 'none'}")
    frames = _Series(here, here, _FRAME_NAMES)
    pictures = Pictures(str(folder), frames.paths())
    if not flow:
        return pictures
    at_u, at_v = _flow_folders(here)
    plain_names = () if at_u == at_v else _FRAME_NAMES
    u, v = _Series(here, at_u, _U_NAMES + plain_names), _Series(here, at_v, _V_NAMES + plain_names)
    for present, absent in ((u, v), (v, u)):
        for number in sorted(present.names.keys() - absent.names.keys())[:1]:
            raise VideoError(f"{folder}: {present.name(number)} exists, {absent.name(number)} is missing")
    fields, steps = u.paths(starts=(frames.first - 1, frames.first, frames.first + 1)), len(pictures.frames) - 1
    if u.first != frames.first and len(fields) != steps:
        found = f"{len(fields)} from {u.first}"
        raise VideoError(
            f"{folder}: expected flow from {frames.first}, like the frames, or {steps} pictures, found {found}"
        )
    if not steps <= len(fields) <= steps + 1:
        found = f"{len(fields)} pictures of flow for {steps + 1} frames"
        raise VideoError(f"{folder}: expected as many as frames or one fewer, found {found}")
    return Pictures(str(folder), pictures.frames, fields[:steps], v.paths(starts=(u.first,))[:steps])


class _Series:
    """The numbered pictures of one kind in a folder.

    Attributes:
        names: file names by number.
        first: the smallest number.
    """

    def __init__(self, video: Path, folder: Path, prefixes: Sequence[str]) -> None:
        self._video, self._folder = video, folder
        found: dict[str, dict[int, str]] = {}
        listing = _list_folder(video, folder)
        for name in listing:
            if (match := NUMBERED.fullmatch(name)) and match[1] in prefixes:
                twin = found.setdefault(match[1], {}).setdefault(int(match[2]), name)
                if twin != name:
                    raise VideoError(f"{video}: {twin} and {name} have the same number; remove one")
        if len(found) != 1:
            expected = ", ".join(f"{prefix}00001.jpg" for prefix in prefixes)
            kinds = " and ".join(names[min(names)] for names in found.values()) or f"none in {len(listing)} files"
            raise VideoError(f"{video}: expected one kind of {expected} in {folder}, found {kinds}")
        ((self._prefix, self.names),) = found.items()
        self.first = min(self.names)

    def paths(self, starts: Sequence[int] = (0, 1)) -> tuple[str, ...]:
        """Return the paths in order.

        Args:
            starts: the numbers that the first may have.

        Raises:
            VideoError: a number is missing.
        """
        if self.first not in starts:
            expected = " or ".join(str(start) for start in starts if start >= 0)
            raise VideoError(
                f"{self._video}: expected numbers that start at {expected}, found {self.name(self.first)} first"
            )
        for number in range(self.first, self.first + len(self.names)):
            if number not in self.names:
                raise VideoError(f"{self._video}: {self.name(number)} is missing, but later ones exist")
        return tuple(str(self._folder / self.names[number]) for number in sorted(self.names))

    def name(self, number: int) -> str:
        """Return the name of the picture with a number, whether or not it exists."""
        like = Path(self.names[self.first])
        digits = len(like.stem) - len(self._prefix)
        name = self.names.get(number, f"{self._prefix}{number:0{digits}}{like.suffix}")
        return name_of(self._folder / name, self._video)


def _list_folder(video: Path, folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise VideoError(f"{video}: expected pictures in {folder} ({error.strerror})") from error


def _flow_folders(folder: Path) -> tuple[Path, Path]:
    """Return the folders of u and v of a video, given the folder of its frames."""
    matches = map(NUMBERED.fullmatch, _list_folder(folder, folder))
    if any(match and match[1] in _U_NAMES + _V_NAMES for match in matches):
        return folder, folder
    roots = [parent for parent in folder.parents if parent.name in FRAME_ROOTS]
    for root in roots:
        for u, v in FLOW_ROOTS:
            if (root.parent / u).is_dir() or (root.parent / v).is_dir():
                video = folder.relative_to(root)
                return root.parent / u / video, root.parent / v / video
    if not roots:
        return folder, folder
    known = ", ".join(" and ".join(dict.fromkeys(pair)) for pair in FLOW_ROOTS)
    raise VideoError(f"{folder}: expected its flow below {roots[0].parent} in {known}; found none of these")
