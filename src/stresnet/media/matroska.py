"""Whether the end of a Matroska or WebM file is missing: FFmpeg takes any end for the last one."""

from __future__ import annotations

from pathlib import Path

_SEGMENT = bytes.fromhex("18538067")  # the element that holds all but the EBML header, which is before it


def lacks_its_end(path: Path) -> bool:
    """Returns whether a file is shorter than its header says; a live recording's does not say, which is no lack."""
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(2):
            name, first = file.read(4), file.read(1)
            # A size is as many bytes long as its first one has leading zeros, and one; the rest of the bits are it.
            length = 9 - int.from_bytes(first).bit_length()
            unknown = 2 ** (7 * length) - 1
            size = int.from_bytes(first + file.read(length - 1)) & unknown
            if file.tell() + size > file_bytes:
                return name == _SEGMENT and size != unknown
            file.seek(size, 1)
    return False
