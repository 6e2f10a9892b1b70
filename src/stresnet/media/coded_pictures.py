"""Look into coded packets, without decoding them: whether a decoder can start there, and whether they are shown.

Container files mark key frames, but a mark promises less than is needed here: after an H.264 recovery point or an intra
picture of VP9, later pictures may still depend on earlier ones. Each codec says in its first bytes what a picture is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from av.video.codeccontext import VideoCodecContext


@dataclass(frozen=True)
class CodedPicture:
    """What a packet says about the one picture that it holds.

    Attributes:
        start: whether a decoder can start here: no picture that is shown later depends on an earlier packet.
        shown: whether a frame comes of it.
        parameters: settings that stay valid for later pictures, such as sequence parameter sets.
    """

    start: bool
    shown: bool = True
    parameters: bytes = b""


Inspect = Callable[[bytes, bool], CodedPicture | None]
"""From a packet, and whether it is marked as a key frame, to its picture; None if it may hold none or several."""


def inspector(codec: VideoCodecContext) -> Inspect | None:
    """Return the function that looks into packets for a decoder, or None if there is none for its codec."""
    if codec.codec.intra_only or codec.name == "png":
        return _intra
    if codec.name in _UNITS:
        extradata = codec.extradata or b""
        length_bytes = 0
        if extradata and not extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
            at = _UNITS[codec.name].length_at
            if len(extradata) <= at:
                return None
            length_bytes = (extradata[at] & 3) + 1
        return partial(_units, _UNITS[codec.name], length_bytes)
    return _INSPECTORS.get(codec.name)


def _intra(data: bytes, key: bool) -> CodedPicture:
    return CodedPicture(start=True)


def _marked(data: bytes, key: bool) -> CodedPicture:
    """Trust the mark: for codecs whose pictures depend on the one before only, and on nothing at a key frame."""
    return CodedPicture(start=key)


@dataclass(frozen=True)
class _UnitTypes:
    """The NAL units of a codec.

    Attributes:
        shift, mask: where the type is in the first byte.
        pictures: types of slices.
        starts: those of pictures from which a decoder can start.
        parameters: types of parameter sets.
        length_at: the byte of the decoder's configuration that holds the number of bytes of a unit's length, less one.
    """

    shift: int
    mask: int
    pictures: range
    starts: frozenset[int]
    parameters: frozenset[int]
    length_at: int


_UNITS = {
    # An IDR picture. Other key pictures are recovery points, which need not be exact.
    "h264": _UnitTypes(0, 31, range(1, 6), frozenset({5}), frozenset({7, 8, 13, 15}), 4),
    # IDR and CRA pictures: what precedes a CRA picture in display order is not used.
    "hevc": _UnitTypes(1, 63, range(32), frozenset({19, 20, 21}), frozenset({32, 33, 34}), 21),
}


def _units(types: _UnitTypes, length_bytes: int, data: bytes, key: bool) -> CodedPicture | None:
    parameters = b""
    for unit in _split_by_length(data, length_bytes) if length_bytes else _split_by_start_code(data):
        kind = unit[0] >> types.shift & types.mask
        if kind in types.pictures:
            return CodedPicture(kind in types.starts, parameters=parameters)
        if kind in types.parameters:
            parameters += unit
    return None


def _split_by_length(data: bytes, length_bytes: int) -> Iterator[bytes]:
    at = 0
    while at + length_bytes < len(data):
        end = at + length_bytes + int.from_bytes(data[at : at + length_bytes])
        if end > at + length_bytes:
            yield data[at + length_bytes : end]
        at = end


def _split_by_start_code(data: bytes) -> Iterator[bytes]:
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        # Parameter sets come before the slices and are short, so the search for a slice's end is in vain only once.
        following = data.find(b"\0\0\1", at + 3)
        yield data[at + 3 : following if following >= 0 else None].rstrip(b"\0")
        at = following


def _mpeg12(data: bytes, key: bool) -> CodedPicture | None:
    if data.count(b"\0\0\1\0") != 1:
        return None
    group = data.find(b"\0\0\1\xb8")
    if 0 <= group < len(data) - 7 and data[group + 7] & 0x20:
        return None  # a broken link: the decoder may leave out what is shown before this picture
    return CodedPicture(start=key and data.startswith(b"\0\0\1\xb3"))


def _mpeg4(data: bytes, key: bool) -> CodedPicture | None:
    at = data.find(b"\0\0\1\xb6")
    # A packet may hold a P and a B picture, or be a placeholder of a few bytes.
    if data.count(b"\0\0\1\xb6") != 1 or len(data) - at < 20:
        return None
    return CodedPicture(start=data[at + 4] >> 6 == 0)


def _theora(data: bytes, key: bool) -> CodedPicture | None:
    return CodedPicture(start=data[0] & 0x40 == 0) if data[0] & 0x80 == 0 else None


def _vp8(data: bytes, key: bool) -> CodedPicture:
    return CodedPicture(start=data[0] & 1 == 0, shown=data[0] >> 4 & 1 == 1)


def _vp9(data: bytes, key: bool) -> CodedPicture | None:
    if data[0] >> 6 != 0b10 or data[0] >> 4 == 0b1011:
        return None  # no frame, or profile 3, whose header has one bit more
    known, inter, shown = (data[0] >> bit & 1 == 1 for bit in (3, 2, 1))
    # The last byte of a superframe: hidden pictures, and one that is shown.
    together = data[-1] >> 5 == 0b110
    return CodedPicture(start=not known and not inter, shown=together or known or shown)


def _av1(data: bytes, key: bool) -> CodedPicture | None:
    at, parameters = 0, b""
    while at < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        if not sized:
            return None
        at += 1 + extended
        size = shift = 0
        while True:
            if at >= len(data):
                return None
            size |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        if kind == 1:
            parameters += data[at : at + size]
        if kind in (3, 6) and size:  # a frame header; then: show_existing_frame, frame_type (2 bits), show_frame
            return CodedPicture(start=data[at] >> 4 == 0b0001, parameters=parameters)
        at += size
    return None


_INSPECTORS: dict[str, Inspect] = {
    "mpeg1video": _mpeg12,
    "mpeg2video": _mpeg12,
    "mpeg4": _mpeg4,
    "theora": _theora,
    "vp8": _vp8,
    "vp9": _vp9,
    "libdav1d": _av1,
    **dict.fromkeys(("ffv1", "flv", "h263", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2"), _marked),
}
