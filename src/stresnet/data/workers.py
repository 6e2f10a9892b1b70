"""A job that processes share out among themselves, any of which may be killed by what it works on.

Each process has a pipe of its own, and this side has neither threads nor locks: Ctrl-C may come between any two
instructions (those of ``concurrent.futures`` must not be interrupted everywhere), and a process that dies leaves no
doubt about what it was working on.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import cv2

from stresnet.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    job: Callable[[Item], Result], items: Iterable[Item], workers: int, died: Callable[[Item], Result]
) -> Generator[Result]:
    """Yields one result per item, in the order they are done.

    The processes end at once if the generator is closed, if an exception comes out of it, or if this process is
    killed. They are spawned, and use one thread each for OpenCV and for torch.

    Args:
        job: done in another process; must be importable there.
        items: what it is done for.
        workers: processes.
        died: the result for an item that killed the process at work on it twice, the second time alone.

    Raises:
        StoreError: no process can start; and whatever the job raises.
    """
    suspects: list[Item] = []
    yield from _work_off(job, items, workers, suspects.append)
    for suspect in suspects:  # one at a time: others may have used up the memory
        culprits: list[Item] = []
        yield from _work_off(job, [suspect], 1, culprits.append)
        yield from map(died, culprits)


def _work_off(
    job: Callable[[Item], Result], items: Iterable[Item], workers: int, lost: Callable[[Item], object]
) -> Generator[Result]:
    """Yields the results of all items but those that ``lost`` is told of: their process died."""
    waiting = deque(items)
    with _links() as start:
        links = {start(job) for _ in range(min(workers, len(waiting)))}  # to processes, every one of which will answer
        at_work: dict[Connection, Item] = {}
        while links:
            for link in wait(list(links)):
                assert isinstance(link, Connection)
                try:
                    result, error = link.recv()
                except (EOFError, OSError):
                    links.remove(link)
                    if link not in at_work:
                        raise StoreError(
                            "the worker processes cannot start; a script must call prepare below "
                            "if __name__ == '__main__':"
                        ) from None
                    lost(at_work.pop(link))
                    if waiting:
                        links.add(start(job))
                    continue
                began = link in at_work  # else it says that it is ready
                at_work.pop(link, None)
                if waiting:
                    at_work[link] = waiting.popleft()
                    with suppress(OSError):  # dead since then, which reading from it will tell
                        link.send(at_work[link])
                else:
                    links.remove(link)
                if error is not None:
                    raise error
                if began:
                    yield result


@contextmanager
def _links() -> Iterator[Callable[[Callable[..., Any]], Connection]]:
    """What starts a process and returns the link to it; at the end of the block all processes end at once."""
    context = multiprocessing.get_context("spawn")
    processes: list[tuple[BaseProcess, Connection]] = []

    def start(job: Callable[..., Any]) -> Connection:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(job, there), daemon=True)
        processes.append((process, here))
        with _without_ctrl_c():
            process.start()
        there.close()  # so that the link ends when the process does
        return here

    try:
        yield start
    finally:
        _end(processes)


def _end(processes: list[tuple[BaseProcess, Connection]]) -> None:
    for process, link in processes:
        link.close()
        if process.pid is not None:  # it was started
            process.kill()
    for process, _ in processes:
        if process.pid is not None:
            process.join()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes started in this block never see Ctrl-C: only the one in command does."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # else the first process starts it, which unmasks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(job: Callable[[Any], Any], link: Connection) -> None:
    """Answers each item with (result, None) or (None, exception), and begins with (None, None)."""
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, should the job import it
    if "torch" in sys.modules:  # the started script did
        sys.modules["torch"].set_num_threads(1)
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(link, items), daemon=True).start()
    link.send((None, None))
    while True:
        item = items.get()
        result, failure = None, None
        try:
            result = job(item)
        except Exception as error:
            failure = error
        link.send((result, failure))


def _receive(link: Connection, items: queue.SimpleQueue[Any]) -> None:
    # Always listening, so that a process at work, too, notices that the one in command has been killed.
    with suppress(EOFError, OSError):
        while True:
            items.put(link.recv())
    os._exit(1)
