"""Files that are either there in full or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` that becomes ``path`` when the block ends well.

    If the block raises, the temporary file is removed and whatever stood at ``path`` stays.
    The name carries the process id, so that two processes writing the same file do not meet.
    The ending is kept: some writers choose their format by it. The file has the permissions of any new file, also if
    its writer replaces the temporary file by one that others may not read.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder. None may be writing to it."""
    for temporary in folder.glob(".*.[0-9]*.tmp*"):
        temporary.unlink(missing_ok=True)
