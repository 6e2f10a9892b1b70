"""Compute ahead of a caller, in order, on several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Generator[Result, None, None]:
    """Yield ``function(item)`` of each item, in order, as `map` does, while threads compute those that follow.

    Items are taken in the caller's thread. Beyond the one that is asked for, up to ``threads + 1`` are taken ahead: one
    for each thread, and one that waits. An exception, of the items or of the function, is raised in its turn, after
    the results before it. When the iterator ends, fails or is closed, its threads have ended.

    Args:
        function: to be called in several threads at once.
        items: any number.
        threads: at least 1; a single thread is the caller's, and nothing is computed ahead.
    """
    if threads == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="flow")
    submitted = _submitted(pool, function, items)
    waiting: deque[Future[Result]] = deque()
    try:
        while True:
            waiting.extend(islice(submitted, threads + 2 - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Future[Result]]:
    """Submit each item when asked for its future. If the items fail, the last future has failed with their error."""
    try:
        for item in items:
            yield pool.submit(function, item)
    except Exception as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed
