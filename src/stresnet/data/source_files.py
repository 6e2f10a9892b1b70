"""Tell whether the files of a video are the same as before, and whether two videos are copies: by their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stresnet.data.jpeg_folders import name_of
from stresnet.errors import VideoError
from stresnet.media.failures import explain


class Stamp(NamedTuple):
    """The state of files according to the file system. If it is unchanged, so is their content.

    Attributes:
        size_bytes: their total size.
        mtime_ns: the latest time of modification, which copying may keep or tools may set.
        ctime_ns: the latest time of any change, which only the system sets.
    """

    size_bytes: int
    mtime_ns: int
    ctime_ns: int


class SourceFile(NamedTuple):
    """A source whose state was noted before it is read.

    Attributes:
        path: the video file, or the folder of frames.
        stamp: its stamp.
        content_hash: see `content_hash`; empty if it is not needed.
    """

    path: str | os.PathLike[str]
    stamp: Stamp
    content_hash: str

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        files: Sequence[str | os.PathLike[str]] = (),
        *,
        hashed: bool = True,
    ) -> SourceFile:
        """Note the state of a source, and compute its hash if asked for.

        Args:
            path: the video file, or the folder of frames.
            files: the files, if it is a folder.
            hashed: whether to compute the hash.

        Raises:
            VideoError: a file cannot be read.
        """
        try:
            return cls(path, stamp_of(files or [path]), content_hash(files or [path]) if hashed else "")
        except OSError as error:
            what = f"{name_of(error.filename, path)} cannot be read ({error.strerror})" if files else explain(error)
            raise VideoError(f"{path}: {what}") from error


def stamp_of(paths: Iterable[str | os.PathLike[str]]) -> Stamp:
    """Return the stamp of one or more files.

    Raises:
        OSError: a file cannot be found.
    """
    stats = [os.stat(path) for path in paths]
    return Stamp(sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats), max(s.st_ctime_ns for s in stats))


def content_hash(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return BLAKE2b of the content of files in their order, 16 hexadecimal digits.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        with open(path, "rb") as file:
            digest.update(os.fstat(file.fileno()).st_size.to_bytes(8, "little"))
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
