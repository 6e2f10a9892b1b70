"""Tell from its packets alone which frames a video has, when they are shown, and where decoding can start.

A packet holds one coded picture, most of the time. Where it may hold none or two, or where order or times are in doubt,
there is no index, and only decoding tells. An index knows nothing of damage within packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from stresnet.errors import StresnetError
from stresnet.media.coded_pictures import inspector
from stresnet.media.decode import VideoFile, is_last

_MAY_HOLD_FIELDS = frozenset({"h264", "mpeg2video"})
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE


@dataclass(frozen=True)
class PacketIndex:
    """The frames of a video in display order.

    Attributes:
        packets: position of each frame's packet in the file, (T,) int64.
        ticks: presentation time of each frame in ticks of the stream's clock, (T,) int64, strictly increasing.
        starts: frames, ascending, from whose packet a decoder can start: it yields this frame and all later ones as if
            it had started at the beginning of the file. The first is frame 0.
    """

    packets: NDArray[np.int64]
    ticks: NDArray[np.int64]
    starts: NDArray[np.int64]

    def start_of(self, frame: int) -> int:
        """Return the last start that is not after a frame."""
        return int(self.starts[np.searchsorted(self.starts, frame, side="right") - 1])


def index_packets(file: VideoFile) -> PacketIndex | None:
    """Read all packets of a file and return the index of its frames, or None if they do not determine them.

    Args:
        file: a file that no packet has been read of yet.
    """
    codec = file.stream.codec_context
    inspect = inspector(codec)
    if inspect is None or (codec.name in _MAY_HOLD_FIELDS and codec.field_order != _PROGRESSIVE):
        return None
    rows: list[tuple[int, int, bool]] = []
    parameters: list[bytes] = []
    try:
        for number, packet in enumerate(file.packets()):
            if is_last(packet):
                break
            if not _is_sound(packet, by_decode_time=file.by_decode_time):
                return None
            picture = inspect(bytes(cast(Any, packet)), packet.is_keyframe)
            if picture is None or (number == 0 and not (picture.start and picture.shown)):
                return None
            parameters.append(picture.parameters)
            if picture.shown:
                rows.append((number, cast(int, packet.pts), picture.start))
    except StresnetError:
        raise
    except Exception:  # decoding will tell what is wrong
        return None
    if not rows or file.truncated or not file.is_whole() or not {b"", parameters[0]} >= set(parameters):
        return None  # parameters must not change midway
    return _in_display_order(np.array(rows, np.int64), codec.reorder_depth)


def _is_sound(packet: Packet[Any], *, by_decode_time: bool) -> bool:
    """Return whether a packet is complete, is shown, and says when."""
    return (
        packet.size > 0
        and packet.pts is not None
        and (not by_decode_time or packet.pts == packet.dts)
        and not packet.is_corrupt
        and not packet.is_discard
        and not packet.has_sidedata("new_extradata")
    )


def _in_display_order(rows: NDArray[np.int64], reorder_depth: int) -> PacketIndex | None:
    """Return the index of frames given in decoding order.

    Args:
        rows: (T, 3): packet, tick, whether it is a start.
        reorder_depth: number of pictures that the decoder holds back to put them in order.
    """
    order = np.argsort(rows[:, 1], kind="stable")
    packets, ticks, is_start = rows[order].T
    held_back = np.maximum.accumulate(order) - np.arange(len(order))
    if order[0] != 0 or (np.diff(ticks) <= 0).any() or held_back.max() > reorder_depth:
        return None
    return PacketIndex(packets, ticks, np.flatnonzero(is_start))
