"""Follow the elements of Matroska and WebM files by their headers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Read = Callable[[int, int], bytes]
"""From a position and a number of bytes to these bytes of a file; fewer at its end."""

HEADER, SEGMENT, CLUSTER, ATTACHMENTS = map(bytes.fromhex, ("1A45DFA3", "18538067", "1F43B675", "1941A469"))


MAX_READS = 20_000_000
"""A file of more elements is not followed to its end: this takes about a minute."""


_SMALL_BYTES = 4 << 20
"""Files below are read at once, which is faster than many calls of the system."""


class TooManyReadsError(Exception):
    """A file has too many elements."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[Read, int]]:
    """Open a file for reading a few bytes here and there; yield the function that reads, and the file's size.

    The function raises `TooManyReadsError` when it is called too often.
    """
    left = iter(range(MAX_READS))
    with path.open("rb", buffering=512) as file:
        size = path.stat().st_size
        source = io.BytesIO(file.read()) if size < _SMALL_BYTES else file

        def read(at: int, count: int) -> bytes:
            if next(left, None) is None:
                raise TooManyReadsError
            source.seek(at)
            return source.read(count)

        yield read, size


def elements(read: Read, size: int, *, blocks: bool) -> Iterator[tuple[bytes, int, int | None]]:
    """Yield the elements of a file: identifier, position after it, where it ends; None if it does not say.

    Args:
        read: reads the file.
        size: of the file.
        blocks: whether to follow the elements within clusters of known size, too.

    Raises:
        ValueError, IndexError: there is none where one must be.
    """
    at = 0
    while at < size:
        header = read(at, 12)
        # An identifier, and a size, have as many bytes as the first one has leading zeros, plus one.
        id_bytes = 9 - header[0].bit_length()
        size_bytes = 9 - header[id_bytes].bit_length()
        if id_bytes > 4 or size_bytes > 8:
            raise ValueError
        # The bits of a size after the first 1 are its value; all ones mean unknown, as in a live recording.
        unknown = 2 ** (7 * size_bytes) - 1
        length = int.from_bytes(header[id_bytes : id_bytes + size_bytes]) & unknown
        name, at = header[:id_bytes], at + id_bytes + size_bytes
        end = None if length == unknown else at + length
        yield name, at, end
        if end is not None and name != SEGMENT and (name != CLUSTER or not blocks):
            at = end


def attachment_bytes(path: Path) -> int:
    """Return the size of what is attached to a Matroska file, such as fonts; 0 for any other file."""
    total = 0
    with opened(path) as (read, size):
        if read(0, 4) == HEADER:
            try:
                for name, at, end in elements(read, size, blocks=False):
                    if name == ATTACHMENTS and end is not None:
                        total += end - at
            except (ValueError, IndexError, TooManyReadsError):
                pass  # damaged, or made to take time: reading it will tell
    return total
