"""A job that processes share out among themselves, any of which may be killed by what it works on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import cv2

from stresnet.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")


def share_out(
    job: Callable[[Item], Result], items: Iterable[Item], workers: int, died: Callable[[Item], Result]
) -> Generator[Result]:
    """Yields one result per item, in the order they are done.

    The processes end at once if the generator is closed, if an exception comes out of it, or if this process is
    killed. They are spawned, and use one thread each for OpenCV.

    Args:
        job: done in another process; must be importable there.
        items: what it is done for.
        workers: processes.
        died: the result for an item that killed the process at work on it twice, the second time alone.

    Raises:
        StoreError: no process can start; and whatever the job raises.
    """
    waiting = deque(items)
    while waiting:
        suspects = yield from _until_broken(job, waiting, workers)
        # A worker died, and any of the items under way may be the cause. One at a time tells which.
        while suspects:
            for culprit in (yield from _until_broken(job, suspects, 1)):
                yield died(culprit)


def _until_broken(
    job: Callable[[Item], Result], waiting: deque[Item], workers: int
) -> Generator[Result, None, deque[Item]]:
    """Yields results, taking items from ``waiting`` until there are no more or a worker dies.

    Returns:
        What was under way when a worker died, at most one item per worker.
    """
    running: dict[Future[Result], Item] = {}
    lost: deque[Item] = deque()
    broken = False
    with _pool(min(workers, len(waiting))) as pool:
        started = _submit(pool, os.getpid)
        while (waiting or running) and not broken:
            try:
                while waiting and len(running) < workers:
                    future = _submit(pool, job, waiting[0])
                    running[future] = waiting.popleft()
            except BrokenProcessPool:
                broken = True  # the item at hand was not begun
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    broken = True
                    lost.append(item)
        if broken and started.exception() is not None:
            raise StoreError(
                "the worker processes cannot start; a script must call prepare below if __name__ == '__main__':"
            )
        for future, item in running.items():  # of a broken pool: all over by now, some well
            try:
                yield future.result()
            except BrokenProcessPool:
                lost.append(item)
    return lost


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end at once if the block raises, or if this process is killed."""
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(told,))
    try:
        yield pool
    except BaseException:
        tell.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        tell.close()
        told.close()


def _submit(pool: ProcessPoolExecutor, function: Callable[..., Any], *arguments: object) -> Future[Any]:
    """Returns the future of a call; a process that this starts never sees Ctrl-C, only the one in command does."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return pool.submit(function, *arguments)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(function, *arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(told: Connection) -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(told,), daemon=True).start()


def _end_with(told: Connection) -> None:
    # Nothing is ever sent: the pipe ends when the other side closes it or is killed. Waiting for work, a process of
    # the pool would not notice the latter, and would stay for good.
    with suppress(EOFError, OSError):
        told.recv()
    os._exit(1)
