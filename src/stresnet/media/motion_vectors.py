"""The motion vectors that a video file was coded with, each brought to the step between two frames it tells of.

A decoder gives, for a block of the picture it has just decoded, where the encoder found its content in another
picture. It does not say how many frames away that picture is, and pictures are not coded in the order they are shown.
Here that is worked out: the reference is taken to be the nearest one there was when the picture was decoded, before it
for vectors into the past and after it for those into the future. That is exact for MPEG-1, 2 and 4, H.263 and their
kin, and for H.264 with one reference per direction; of several, an encoder mostly picks the nearest.

A vector then spans some frames. It is handed over with every step within its span, at constant speed along it.
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

MOTION_VECTOR = np.dtype([(name, np.float32) for name in ("x", "y", "width", "height", "u", "v", "span_frames")])
"""What one block does from the frame before to this one, in pixels of `Frame.rgb`.

``x``, ``y``: its centre in the frame *before* (0, 0 is the corner of the picture, not the centre of its first pixel);
``width``, ``height``; ``u`` right, ``v`` down: pixels per frame; ``span_frames``: over how many frames the codec's
vector ran, of which this is one; the fewer, the better it tells of this very step.
"""

# Every codec that FFmpeg is known to give vectors for and that the tests cover: decoder names.
_LOW_DELAY = frozenset({"flv", "h263", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2"})  # P pictures only
_B_VECTORS = frozenset({"h264", "mpeg1video", "mpeg2video"})
# FFmpeg gives zeros in all B pictures of MPEG-4 part 2 (Xvid, DivX): the P pictures around them have to do.
CODECS_WITH_VECTORS = _LOW_DELAY | _B_VECTORS | {"mpeg4"}
"""Decoders that give motion vectors."""

_FARTHEST = 16  # frames: the most pictures that H.264 can hold for reference
_BIDIRECTIONAL = frozenset({PictureType.B, PictureType.BI})
_NONE = np.empty(0, MOTION_VECTOR)
_SUSPECT = 1 << 10  # added to the span of vectors that may be made up, so that they are painted first


@dataclass
class _Picture:
    """A decoded picture; `frame` is let go of once it has been given."""

    frame: VideoFrame | None
    shown: int
    decoded: int
    bidirectional: bool
    reference: bool
    blocks: NDArray[np.void] | None
    """As FFmpeg has them, or None where there are none to be believed."""
    spans: list[tuple[int, NDArray[np.float64]]] | None = field(default=None)
    """(step, (n,7) columns as in MOTION_VECTOR, centres in this picture); the reference is `step` frames later."""


def tag_packet(packet: Packet[Any], codec: VideoCodecContext, number: int) -> None:
    """Leaves with a packet what `with_vectors` wants to know of its picture; the codec must copy it.

    Args:
        packet: about to be decoded.
        codec: its decoder, with ``Flags.copy_opaque``.
        number: counts packets.
    """
    reference = codec.name != "h264" or _is_h264_reference(bytes(cast(Any, packet)), codec.extradata)
    packet.opaque = (number, reference)


def with_vectors(coded: Iterator[VideoFrame], codec: str) -> Iterator[tuple[VideoFrame, NDArray[np.void]]]:
    """Yields each picture with the vectors (n,) MOTION_VECTOR into it, in pixels of the coded picture.

    They are sorted for painting: those that should win come last. Reads ahead to the next picture that is no B
    picture; the first picture has no vectors.

    Args:
        coded: pictures in the order shown, of packets that went through `tag_packet`.
        codec: the decoder's name, one of CODECS_WITH_VECTORS.
    """
    window: deque[_Picture] = deque()  # consecutive in the order shown: some that were given, then those read ahead
    read = 0
    for now in range(1 << 62):
        while read <= now + _FARTHEST and not any(p.shown >= now and not p.bidirectional for p in window):
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
        while window[0].shown < now - _FARTHEST:
            window.popleft()


def turned(
    vectors: NDArray[np.void], coded: tuple[int, int], scaled: tuple[int, int], quarter_turns: int, mirrored: bool
) -> NDArray[np.void]:
    """Returns vectors of a coded picture in pixels of the picture that is shown.

    Args:
        vectors: (n,) MOTION_VECTOR.
        coded: (width, height) of the coded picture.
        scaled: (width, height) it is scaled to, before it is turned.
        quarter_turns: clockwise, done last.
        mirrored: whether left and right are exchanged before turning.
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
    # A picture whose packet is not known counts as decoded when it is shown.
    decoded, reference = cast("tuple[int, bool]", frame.opaque or (shown, True))
    side_data = frame.side_data.get("MOTION_VECTORS")
    believed = side_data is not None and (codec in _B_VECTORS or not bidirectional)
    return _Picture(
        frame=frame,
        shown=shown,
        decoded=decoded,
        bidirectional=bidirectional,
        reference=reference if codec == "h264" else not bidirectional,
        blocks=cast(Any, side_data).to_ndarray().copy() if believed else None,
    )


def _step_into(now: int, window: deque[_Picture], *, suspect_zeros: bool) -> NDArray[np.void]:
    """Returns all vectors in the window whose span covers the step from frame now - 1 to frame now."""
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
    """Returns a picture's vectors by the distance of the picture they point to; those to no known one are dropped."""
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
        # To the reference, in whole pixels; over the frames to there, it is what the block does per frame.
        columns[:, 4:6] /= blocks["motion_scale"][:, None] * float(step)
        columns[:, 6] = abs(step)
        if suspect_zeros:
            # Of a macroblock in parts, H.264's decoder gives every part a vector in both directions, and a zero
            # where a part has none. A true zero is given as well, and wins where nothing else is there.
            in_parts = blocks["w"].astype(int) * blocks["h"] < 256
            columns[in_parts & (blocks["motion_x"] == 0) & (blocks["motion_y"] == 0), 6] += _SUSPECT
        spans.append((step, columns))
    return spans


def _is_h264_reference(data: bytes, extradata: bytes | None) -> bool:
    """Returns whether other pictures may refer to the one in an H.264 packet: nal_ref_idc of its first slice."""
    if extradata and extradata[0] == 1:  # as in MP4: each unit after its length
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
