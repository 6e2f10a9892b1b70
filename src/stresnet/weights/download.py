"""One file downloaded: into `.part`, resumed from where it stopped, and renamed when it is whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO

from stresnet.atomic import replacing
from stresnet.errors import DownloadError
from stresnet.weights.opening import Body, Interrupted, NoSuchOffset, Unreached, Version, open_at

Progress = Callable[[int, int], None]
"""Told the bytes that are there and those of the whole file, 0 where the server does not say."""

RETRIES = 4
"""How often a transfer is tried again without a single new byte."""
WAIT_SEC = 1.0
"""Before the first of those; doubled for each that follows."""
CHUNK_BYTES = 1 << 18


class UnreachableError(DownloadError):
    """The server of a file does not answer."""


def download(url: str, target: Path, progress: Progress | None = None) -> None:
    """Put the file of a URL at `target`, going on with what an earlier call left there.

    The bytes gather in `target`.part. Which version of the remote file they are of (size, ETag, Last-Modified) is
    written beside them first, so that after a kill at any moment the rest is asked for by a range request, and is
    taken only if the server still has that version; otherwise it starts over.

    Raises:
        DownloadError: there is no such file, the disk is full, or the connection broke again and again.
        UnreachableError: the server does not answer.
    """
    part = target.with_name(f"{target.name}.part")
    most = at_start = _size(part)
    attempt = 0
    while True:
        try:
            _go_on(url, part, progress)
            break
        except Interrupted as stop:
            there = _size(part)
            attempt = 1 if there > most else attempt + 1
            most = max(most, there)
            if isinstance(stop, Unreached) and most == at_start:
                raise UnreachableError(f"{url}: {stop}; check the network, or give another place") from stop
            if attempt > RETRIES:
                advice = f"{there} bytes are kept, the same command goes on from them" if there else "try again later"
                raise DownloadError(f"{url}: {stop}; {advice}") from stop
            time.sleep(WAIT_SEC * 2 ** (attempt - 1))
    os.replace(part, target)
    _version_file(part).unlink(missing_ok=True)


def _go_on(url: str, part: Path, progress: Progress | None) -> None:
    """Fetch what is missing of a part."""
    known, start = _read_version(part), _size(part)
    if known and start == known.size:
        return  # killed between the last byte and the renaming
    if not (start and known and _resume(url, part, start, known, progress)):
        with open_at(url, 0) as body:
            _start_over(body, part, progress)


def _resume(url: str, part: Path, start: int, known: Version, progress: Progress | None) -> bool:
    """Fetch the rest of a part; False if the server does not have that version any more."""
    try:
        with open_at(url, start) as body:
            if body.start == start and body.version.continues(known):
                _receive(body, part, progress)
            elif body.start == 0:  # no ranges here: all of it comes, and is taken
                _start_over(body, part, progress)
            else:
                return False
    except NoSuchOffset:
        return False
    return True


def _start_over(body: Body, part: Path, progress: Progress | None) -> None:
    part.unlink(missing_ok=True)  # before the version changes: these bytes must never pass for that version's
    with replacing(_version_file(part)) as temporary:
        temporary.write_text(json.dumps(asdict(body.version)), "utf-8")
    _receive(body, part, progress)


def _receive(body: Body, part: Path, progress: Progress | None) -> None:
    at, total = body.start, body.version.size
    if total is not None and shutil.disk_usage(part.parent).free < total - at:
        raise _disk_full(part, f"{total - at} more bytes are needed")
    # Written at offsets rather than appended: where locks do not hold (some network file systems), a second process
    # writes the same bytes to the same places.
    with part.open("r+b" if at else "wb", buffering=0) as file:
        file.seek(at)
        while chunk := body.read(CHUNK_BYTES):
            _write(file, chunk, part)
            at += len(chunk)
            if progress:
                progress(at, total or 0)
        os.fsync(file.fileno())
    if total is not None and at != total:
        raise Interrupted(f"the connection ended after {at} of {total} bytes")


def _write(file: IO[bytes], chunk: bytes, part: Path) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _disk_full(part, "what has arrived is kept") from error


def _disk_full(part: Path, fact: str) -> DownloadError:
    advice = "free some, or set STRESNET_CACHE to a folder with more"
    return DownloadError(f"{part.parent}: no space left on the disk, {fact}; {advice}")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_version(part: Path) -> Version | None:
    try:
        return Version(**json.loads(_version_file(part).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
