"""Tell whether a file ends as files of its container do, which FFmpeg does not say of most.

A container states sizes, counts or end marks. Here its elements are followed from one to the next, by their headers
alone: whatever is cut off, or overwritten by zeros as in an unfinished download, breaks the chain or lacks its end.
Damage inside an element is not seen here; decoding it is what tells.

Elementary streams, and transport streams that end between two pictures, say nothing of their end. No damage is reported
where a file contradicts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stresnet.media.matroska import CLUSTER, SEGMENT, Read, TooManyReadsError, elements, opened


def is_whole(path: Path, format: str) -> bool:
    """Return whether nothing that a container says of itself is missing from a file.

    Args:
        path: the file.
        format: FFmpeg's names of its container, separated by commas.
    """
    with opened(path) as (read, size):
        checks = [_CHECKS[name] for name in format.split(",") if name in _CHECKS] or [_has_content_at_end]
        try:
            return all(check(read, size) for check in checks)
        except TooManyReadsError:
            return True
        except (IndexError, KeyError, ValueError):  # a header that is cut off or makes no sense
            return False


def _has_content_at_end(read: Read, size: int) -> bool:
    """Any other format: the last page of a file of several is not empty."""
    return size <= 2 * _PAGE or any(read(size - _PAGE, _PAGE))


_PAGE = 4096


def _mov(read: Read, size: int) -> bool:
    """Boxes: size, type. Cameras append data that are no boxes, so only boxes of known types count."""
    at = 0
    while at < size:
        header = read(at, 16)
        kind, length = header[4:8], int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:16])
        elif length == 0:
            return True  # up to the end of the file
        if length < 8 or kind not in _BOXES:
            return True
        at += length
    return at == size


_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"free", b"skip", b"wide", b"uuid"})


def _matroska(read: Read, size: int) -> bool:
    """Elements: identifier, size. The size of the segment, which holds all others, is unknown in a live recording."""
    after, segment_end = 0, size
    for name, at, end in elements(read, size, blocks=True):
        if name == SEGMENT and end is not None:
            segment_end = end
        after = at if end is None or name in (SEGMENT, CLUSTER) else end
        if after >= segment_end or segment_end > size:
            break
    return after == segment_end


def _avi(read: Read, size: int) -> bool:
    """Chunks of RIFF: type, size. The flags of the header say whether an index of all chunks comes last."""
    at, indexed, index_found = 0, False, False
    while at < size:
        header = read(at, 24)
        kind, length = header[:4], int.from_bytes(header[4:8], "little")
        if len(header) < 8 or min(kind) < 0x20:
            break
        if kind == b"avih":
            indexed = bool(header[20] & 0x10)
        index_found |= kind == b"idx1" and at + 8 + length <= size
        is_list = kind in (b"RIFF", b"LIST") and header[8:12] in (b"AVI ", b"AVIX", b"hdrl", b"movi", b"rec ")
        at += 12 if is_list else 8 + length + length % 2
    # What follows the index is no part of the video. The last chunk may lack its padding.
    return index_found or (not indexed and size <= at <= size + 1)


def _flv(read: Read, size: int) -> bool:
    """Tags: type, size, 7 more bytes, data, 4 bytes."""
    at = int.from_bytes(read(5, 4)) + 4
    while at < size:
        header = read(at, 4)
        if header[0] & 0x1F not in (8, 9, 15, 18):
            return False
        at += 11 + int.from_bytes(header[1:4]) + 4
    return at == size


def _asf(read: Read, size: int) -> bool:
    """Objects: identifier of 16 bytes, size. One of the header states the size of the file; data come in packets."""
    at = packet_bytes = 0
    while at + 24 <= size:
        name, length = read(at, 16), int.from_bytes(read(at + 16, 8), "little")
        if length < 24:
            return False
        if name == _ASF_HEADER:
            at += 30  # its objects are followed one by one
            continue
        if name == _ASF_FILE:
            properties = read(at, 104)
            is_live = properties[88] & 1
            packet_bytes = int.from_bytes(properties[92:96], "little")
            if not is_live and int.from_bytes(properties[40:48], "little") > size:
                return False
        if name == _ASF_DATA and packet_bytes:
            packets = range(at + 50, min(at + length, size), packet_bytes)
            if not all(any(read(packet, 8)) for packet in packets):
                return False
        at += length
    return at == size


_ASF_HEADER = bytes.fromhex("3026B2758E66CF11A6D900AA0062CE6C")
_ASF_FILE = bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")
_ASF_DATA = bytes.fromhex("3626B2758E66CF11A6D900AA0062CE6C")


def _gif(read: Read, size: int) -> bool:
    """Blocks: extensions and pictures, each a chain of pieces of up to 255 bytes, then a trailer."""
    at = 13 + _gif_colours(read(10, 1))
    while at < size:
        kind = read(at, 1)
        if kind == b";":
            return True
        if kind == b"!":
            at += 2
        elif kind == b",":
            at += 11 + _gif_colours(read(at + 9, 1))
        else:
            return False
        while length := read(at, 1):
            at += 1 + length[0]
            if not length[0]:
                break
    return False


def _gif_colours(flags: bytes) -> int:
    """Return the bytes of the table of colours that flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _ogg(read: Read, size: int) -> bool:
    """Pages: a header of 27 bytes, whose flags mark the last one of each stream, and the sizes of its segments."""
    at, ended = 0, {}
    while at < size:
        header = read(at, 27)
        if not header.startswith(b"OggS") or len(header) < 27:
            return False
        ended[header[14:18]] = bool(header[5] & 4)
        at += 27 + header[26] + sum(read(at + 27, header[26]))
    return at == size and all(ended.values())


def _mpegts(read: Read, size: int) -> bool:
    """Packets of one size, each with a mark."""
    packet_bytes, mark_at = _packets(read)
    if not packet_bytes:
        return True  # begins within a packet, as some recordings do
    chunk = packet_bytes << 12
    marks = (set(read(at, chunk)[mark_at::packet_bytes]) for at in range(0, size, chunk))
    return size % packet_bytes == 0 and all(found == {0x47} for found in marks)


def ends_within_picture(path: Path, pid: int) -> bool:
    """Return whether a transport stream seems to end within a picture.

    The last packet of a picture is filled up with padding, except in 1 of 184 cases. Decoding tells which it is.

    Args:
        path: the file.
        pid: the number that the packets of its video have.
    """
    with opened(path) as (read, size):
        packet_bytes, mark_at = _packets(read)
        if not packet_bytes:
            return False
        for at in range(size - packet_bytes + mark_at, max(0, size - (_PAGE * packet_bytes)), -packet_bytes):
            header = read(at, 4)
            if int.from_bytes(header[1:3]) & 0x1FFF == pid and header[3] & 0x10:
                return not header[3] & 0x20
    return False


def _packets(read: Read) -> tuple[int, int]:
    """Return the bytes of a packet of a transport stream and where in it its mark is; 0 if unknown."""
    start = read(0, 4 * 208)
    for packet_bytes, mark_at in ((188, 0), (192, 4), (204, 0)):
        if all(start[mark_at + n * packet_bytes : mark_at + n * packet_bytes + 1] == b"G" for n in range(3)):
            return packet_bytes, mark_at
    return 0, 0


def _mpeg(read: Read, size: int) -> bool:
    """Packs: a start code, and either a size or, for headers of packs, a fixed one. Some pad with zeros."""
    at = 0
    while at < size:
        header = read(at, 14)
        if not header.startswith(b"\0\0\1"):
            padding = read(at, 2 * _PAGE).find(b"\0\0\1")
            if padding < 0:
                return not header.strip(b"\0") and size - at < _PAGE
            at += padding
        elif header[3:4] == b"\xb9":
            at += 4
        elif header[3:4] == b"\xba":
            at += 14 + (header[13] & 7) if len(header) == 14 and header[4] >> 6 == 1 else 12
        elif len(header) >= 6:
            at += 6 + int.from_bytes(header[4:6])
        else:
            return False
    return at == size


def _mxf(read: Read, size: int) -> bool:
    """Sets: a key of 16 bytes that begin alike, size."""
    at = 0
    while at < size:
        header = read(at, 25)
        if not header.startswith(b"\x06\x0e\x2b\x34") or len(header) < 17:
            return False
        size_bytes = header[16] & 0x7F if header[16] & 0x80 else 0
        at += 17 + size_bytes + (int.from_bytes(header[17 : 17 + size_bytes]) if size_bytes else header[16])
    return at == size


def _ivf(read: Read, size: int) -> bool:
    """Pictures: size, 8 more bytes, data."""
    at = int.from_bytes(read(6, 2), "little")
    while at + 12 <= size:
        length = int.from_bytes(read(at, 4), "little")
        if not length:
            return False
        at += 12 + length
    return at == size


def _y4m(read: Read, size: int) -> bool:
    """A line of text with the format, and pictures of one size, each after the same line."""
    line = read(0, 256).split(b"\n")[0]
    words = {word[:1]: word[1:].decode("latin-1") for word in line.split()[1:]}
    colours, _, depth = words.get(b"C", "420").removesuffix("jpeg").partition("p")
    if colours not in _Y4M_CHROMA or not (depth or "8").isdecimal():
        return True
    width, height = int(words[b"W"]), int(words[b"H"])
    across, down = _Y4M_CHROMA[colours]
    chroma = -(-width // across) * -(-height // down) if across else 0
    picture = (width * height + 2 * chroma) * (2 if depth else 1)
    return (size - len(line) - 1) % (len(b"FRAME\n") + picture) == 0


_Y4M_CHROMA = {"mono": (0, 0), "411": (4, 1), "420": (2, 2), "422": (2, 1), "444": (1, 1)}
"""Pixels across and down that share a sample of each colour."""


def _mjpeg(read: Read, size: int) -> bool:
    """JPEGs, which end with a mark."""
    return read(max(0, size - _PAGE), _PAGE).rstrip(b"\0").endswith(b"\xff\xd9")


_CHECKS: dict[str, Callable[[Read, int], bool]] = {
    "mov": _mov,
    "matroska": _matroska,
    "avi": _avi,
    "flv": _flv,
    "asf": _asf,
    "gif": _gif,
    "ogg": _ogg,
    "mpegts": _mpegts,
    "mpeg": _mpeg,
    "mxf": _mxf,
    "ivf": _ivf,
    "yuv4mpegpipe": _y4m,
    "mjpeg": _mjpeg,
}
