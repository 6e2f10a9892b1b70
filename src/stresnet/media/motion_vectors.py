"""Assign the motion vectors of a coded video to the steps between its frames.

For each block of a picture, a decoder reports where the encoder found its content in another picture, the reference. It
does not report how many frames away the reference is, and pictures are not coded in display order. Here the reference
is taken to be the nearest one that was available when the picture was decoded: before it for vectors into the past,
after it for vectors into the future. This is exact for MPEG-1, 2 and 4, H.263 and related codecs, and for H.264 with
one reference per direction. With several, an encoder mostly picks the nearest.

A vector may span several frames. It is then assigned to each step of its span, at constant speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from numpy.typing import NDArray

from stresnet.media.side_data import side_data

MOTION_VECTOR = np.dtype([(name, np.float32) for name in ("x", "y", "width", "height", "u", "v", "span_frames")])
"""The motion of one block from the previous frame to this one, in pixels of `Frame.rgb`.

``x``, ``y``: its centre in the *previous* frame, where (0, 0) is the corner of the picture, not the centre of its first
pixel; ``width``, ``height``; ``u`` right, ``v`` down, pixels per frame; ``span_frames``: the number of frames that the
codec's vector spans. The shorter the span, the more accurate is the vector for this step.
"""

# Names of the decoders for which FFmpeg exports vectors. The tests cover each of them.
_LOW_DELAY = frozenset({"flv", "h263", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2"})  # P pictures only
_B_VECTORS = frozenset({"h264", "mpeg1video", "mpeg2video"})
# In B pictures of MPEG-4 part 2 (Xvid, DivX), FFmpeg exports zeros only; the P pictures around them are used.
CODECS_WITH_VECTORS = _LOW_DELAY | _B_VECTORS | {"mpeg4"}
"""Names of the decoders that export motion vectors."""

_MAX_SPAN_FRAMES = 16  # the most reference pictures that H.264 allows
_BIDIRECTIONAL = frozenset({PictureType.B, PictureType.BI})
_NONE = np.empty(0, MOTION_VECTOR)
_SUSPECT = 1 << 10  # added to the span of vectors that may be artefacts, so that they are painted first


@dataclass
class _Picture:
    """A decoded picture. `frame` is released once it has been yielded."""

    frame: VideoFrame | None
    shown: int
    """Position in display order."""
    decoded: int
    """Position in decoding order."""
    bidirectional: bool
    reference: bool
    blocks: NDArray[np.void] | None
    """FFmpeg's vectors, or None if there are none or they are not valid."""
    spans: list[tuple[int, NDArray[np.float64]]] | None = field(default=None)
    """Per reference, `step` frames later: (step, (n, 7) columns as in MOTION_VECTOR, but centres in this picture)."""


def tag_packet(packet: Packet[Any], codec: VideoCodecContext, number: int) -> None:
    """Attach to a packet what `with_vectors` needs to know about its picture.

    Args:
        packet: a packet that has not been decoded yet.
        codec: its decoder, with ``Flags.copy_opaque`` set.
        number: the packet's position in decoding order.
    """
    reference = codec.name != "h264" or _is_h264_reference(bytes(cast(Any, packet)), codec.extradata)
    packet.opaque = (number, reference)


def with_vectors(coded: Iterator[VideoFrame], codec: str) -> Iterator[tuple[VideoFrame, NDArray[np.void]]]:
    """Yield each picture with its motion vectors, (n,) MOTION_VECTOR in pixels of the coded picture.

    Vectors are sorted for painting: later ones take precedence. Reads ahead up to the next picture that is not a B
    picture. The first picture has no vectors.

    Args:
        coded: pictures in display order, from packets that went through `tag_packet`.
        codec: the decoder's name, one of CODECS_WITH_VECTORS.
    """
    window: deque[_Picture] = deque()  # consecutive in display order: some already yielded, then those read ahead
    read = 0
    for now in range(1 << 62):
        while read <= now + _MAX_SPAN_FRAMES and not any(p.shown >= now and not p.bidirectional for p in window):
            frame = next(coded, None)
            if frame is None:
                break
            window.append(_picture(frame, read, codec))
            read += 1
        if read == now:
            return
        current = next(picture for picture in window if picture.shown == now)
        frame, current.frame = current.frame, None
        assert frame is not None
        yield frame, _step_into(now, window, suspect_zeros=codec == "h264")
        while window[0].shown < now - _MAX_SPAN_FRAMES:
            window.popleft()


def transform_vectors(
    vectors: NDArray[np.void], coded: tuple[int, int], scaled: tuple[int, int], quarter_turns: int, mirrored: bool
) -> NDArray[np.void]:
    """Return vectors of a coded picture in pixels of the scaled, mirrored and rotated picture.

    Args:
        vectors: (n,) MOTION_VECTOR.
        coded: (width, height) of the coded picture.
        scaled: (width, height) after scaling, before rotation.
        quarter_turns: clockwise quarter turns, applied last.
        mirrored: whether left and right are exchanged before the rotation.
    """
    out = vectors.copy()
    for names, scale in ((("x", "width", "u"), scaled[0] / coded[0]), (("y", "height", "v"), scaled[1] / coded[1])):
        for name in names:
            out[name] *= scale
    width, height = scaled
    if mirrored:
        out["x"], out["u"] = width - out["x"], -out["u"]
    for _ in range(quarter_turns):
        out["x"], out["y"] = height - out["y"], out["x"].copy()
        out["u"], out["v"] = -out["v"], out["u"].copy()
        out["width"], out["height"] = out["height"].copy(), out["width"].copy()
        width, height = height, width
    return out


def _picture(frame: VideoFrame, shown: int, codec: str) -> _Picture:
    bidirectional = frame.pict_type in _BIDIRECTIONAL
    # Without a tag from its packet, a picture is taken to be decoded in display order.
    decoded, reference = cast("tuple[int, bool]", frame.opaque or (shown, True))
    vectors = side_data(frame, "MOTION_VECTORS")
    valid = vectors is not None and (codec in _B_VECTORS or not bidirectional)
    return _Picture(
        frame=frame,
        shown=shown,
        decoded=decoded,
        bidirectional=bidirectional,
        reference=reference if codec == "h264" else not bidirectional,
        blocks=cast(Any, vectors).to_ndarray().copy() if valid else None,
    )


def _step_into(now: int, window: deque[_Picture], *, suspect_zeros: bool) -> NDArray[np.void]:
    """Return all vectors in the window whose span covers the step from frame now - 1 to frame now."""
    found = []
    for picture in window:
        if picture.blocks is None:
            continue
        if picture.spans is None:
            picture.spans = _spans(picture, window, suspect_zeros=suspect_zeros and picture.bidirectional)
        for step, blocks in picture.spans:
            if min(picture.shown, picture.shown + step) < now <= max(picture.shown, picture.shown + step):
                moved = blocks.copy()
                moved[:, 0:2] += (now - 1 - picture.shown) * blocks[:, 4:6]
                found.append(moved)
    if now == 0 or not found:
        return _NONE
    columns = np.concatenate(found)
    columns = columns[np.argsort(-columns[:, 6], kind="stable")]
    columns[:, 6] %= _SUSPECT
    return np.ascontiguousarray(columns, np.float32).view(MOTION_VECTOR)[:, 0]


def _spans(picture: _Picture, window: deque[_Picture], *, suspect_zeros: bool) -> list[tuple[int, NDArray[np.float64]]]:
    """Return a picture's vectors, grouped by the distance to their reference; those without one are dropped."""
    usable = [p.shown for p in window if p.reference and p.decoded < picture.decoded]
    past = max((shown for shown in usable if shown < picture.shown), default=picture.shown) - picture.shown
    future = min((shown for shown in usable if shown > picture.shown), default=picture.shown) - picture.shown
    assert picture.blocks is not None
    spans = []
    for sign, step in ((-1, past), (1, future)):
        blocks = picture.blocks[np.sign(picture.blocks["source"]) == sign]
        if step == 0 or len(blocks) == 0:
            continue
        columns = np.empty((len(blocks), 7))
        for index, name in enumerate(("dst_x", "dst_y", "w", "h", "motion_x", "motion_y")):
            columns[:, index] = blocks[name]
        # The displacement to the reference, divided by the signed number of frames to it, is the motion per frame.
        columns[:, 4:6] /= blocks["motion_scale"][:, None] * float(step)
        columns[:, 6] = abs(step)
        if suspect_zeros:
            # For a partitioned macroblock, the H.264 decoder exports a vector in both directions for every part, zero
            # if the part has none. True zeros cannot be distinguished; they count where no other vector covers them.
            in_parts = blocks["w"].astype(int) * blocks["h"] < 256
            columns[in_parts & (blocks["motion_x"] == 0) & (blocks["motion_y"] == 0), 6] += _SUSPECT
        spans.append((step, columns))
    return spans


def _is_h264_reference(data: bytes, extradata: bytes | None) -> bool:
    """Return whether an H.264 packet holds a reference picture, by the nal_ref_idc of its first slice."""
    if extradata and extradata[0] == 1:  # AVCC, as in MP4: each unit follows its length
        length_bytes = (extradata[4] & 3) + 1
        at = 0
        while at + length_bytes < len(data):
            header = data[at + length_bytes]
            if 1 <= header & 31 <= 5:
                return header >> 5 & 3 != 0
            at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")
        return True
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        if 1 <= data[at + 3] & 31 <= 5:
            return data[at + 3] >> 5 & 3 != 0
        at = data.find(b"\0\0\1", at + 3)
    return True
