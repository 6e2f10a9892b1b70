"""The interface through which long-running work reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callback that long-running functions call as they advance, in the calling process."""

    def __call__(self, activity: str, done: int, total: int, detail: str = "") -> None:
        """Report progress.

        Args:
            activity: what is being done, such as ``"preparing videos"``.
            done: units of work finished, 0 to ``total``.
            total: units of work in all; 0 if unknown.
            detail: more to show beside the counts, such as the speed.
        """
