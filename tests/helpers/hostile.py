"""Files that try to run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Trap:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)
