"""Read the data that decoders attach to pictures."""

from __future__ import annotations

from typing import Any, cast

from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame


def side_data(frame: VideoFrame, name: str) -> SideData | None:
    """Return the data of a kind that a decoder attached to a picture, such as ``DISPLAYMATRIX``, or None."""
    return cast("SideData | None", frame.side_data.get(name))


def _unnamed(cls: type[Type], value: object) -> Type:
    """Return a new member of PyAV's enumeration of kinds."""
    member: Any = object.__new__(cls)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return cast(Type, member)


# FFmpeg knows kinds that PyAV has no name for, such as the EXIF of a JPEG. PyAV then refuses to give the others too.
Type._missing_ = classmethod(_unnamed)  # type: ignore[method-assign, assignment]
