"""Files that try to do more than hold weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Trap:
    """What a hostile pickle looks like: unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)
