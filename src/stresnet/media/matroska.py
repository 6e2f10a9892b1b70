"""Detect truncated Matroska and WebM files, which FFmpeg reads without an error."""

from __future__ import annotations

from pathlib import Path

_SEGMENT = bytes.fromhex("18538067")  # the element that holds everything after the EBML header


def is_truncated(path: Path) -> bool:
    """Return whether a file is shorter than its header says; False if it does not say, as in a live recording."""
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(2):
            name, first = file.read(4), file.read(1)
            # A size has as many bytes as the first one has leading zeros, plus one. The bits after the first 1 are its
            # value; all ones mean unknown.
            length = 9 - int.from_bytes(first).bit_length()
            unknown = 2 ** (7 * length) - 1
            size = int.from_bytes(first + file.read(length - 1)) & unknown
            if file.tell() + size > file_bytes:
                return name == _SEGMENT and size != unknown
            file.seek(size, 1)
    return False
