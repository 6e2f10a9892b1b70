"""Files that are either there in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` that becomes ``path`` when the block ends well.

    If the block raises, the temporary file is removed and whatever stood at ``path`` stays.
    The name carries the process id, so that two processes writing the same file do not meet.
    The ending is kept: some writers choose their format by it.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
