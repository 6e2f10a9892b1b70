"""Iterate in a background thread, so that preparing the next item overlaps with the use of this one."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Generator[Item]) -> Generator[Item]:
    """Yield the items of a generator, which runs in another thread and at most one item ahead.

    An exception is raised in place of the item that failed. Closing waits for the item being prepared.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as thread:
        try:
            following = thread.submit(next, items, end)
            while (item := following.result()) is not end:
                following = thread.submit(next, items, end)
                yield item  # type: ignore[misc]
        finally:
            thread.submit(items.close).result()
