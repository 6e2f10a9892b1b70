"""A parallel map over worker processes that survives the death of any of them.

Each worker has its own pipe, and the parent process uses neither threads nor locks. So Ctrl-C may arrive between any
two instructions (``concurrent.futures`` is not safe against that), and if a worker dies, the item it was processing
is known.
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

from stresnet.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_FAILED_STARTS = 3
"""No worker can start if this many die before they have, one after the other."""

_MAX_ON_WINDOWS = 61  # Windows waits for at most 63 handles at once


def usable_cores() -> int:
    """Return the number of cores this process may use; containers and clusters often grant fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """Return one worker per usable core, but at most 61 on Windows."""
    return min(usable_cores(), _MAX_ON_WINDOWS) if sys.platform == "win32" else usable_cores()


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, on_crash: Callable[[Item], Result]
) -> Generator[Result]:
    """Yield one result per item, in order of completion.

    An item whose worker dies is processed again, alone, at the end: another item may have used up the memory. A worker
    that dies while it starts is replaced. The workers end at once if the generator is closed or raises, or if this
    process is killed. They are spawned, and use one thread each for OpenCV and for torch.

    Args:
        function: called in the workers, so it must be picklable. If it raises, the generator raises the same.
        items: the arguments.
        workers: number of processes.
        on_crash: returns the result of an item whose worker died twice.

    Raises:
        StoreError: no worker can start.
    """
    lost: list[Item] = []
    yield from _map(function, items, workers, lost)
    for item in lost:
        lost_again: list[Item] = []
        yield from _map(function, [item], 1, lost_again)
        yield from map(on_crash, lost_again)


def _map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, lost: list[Item]
) -> Generator[Result]:
    """Yield the results of all items, except for those whose worker died: they are appended to ``lost``."""
    waiting = deque(items)
    with _starting() as start:
        pipes = {start(function) for _ in range(min(workers, len(waiting)))}  # of workers that will send something
        in_progress: dict[Connection, Item] = {}
        failed_starts = 0
        while pipes:
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                try:
                    result, error = pipe.recv()
                except (EOFError, OSError):
                    pipes.remove(pipe)
                    if pipe in in_progress:
                        lost.append(in_progress.pop(pipe))
                    else:
                        failed_starts += 1
                    if failed_starts == _MAX_FAILED_STARTS:
                        raise StoreError(
                            "the worker processes cannot start; a script must call prepare below "
                            "if __name__ == '__main__':, and there must be memory for them"
                        ) from None
                    if waiting:
                        pipes.add(start(function))
                    continue
                failed_starts = 0
                is_result = pipe in in_progress  # otherwise the worker says that it has started
                in_progress.pop(pipe, None)
                if waiting:
                    in_progress[pipe] = waiting.popleft()
                    with suppress(OSError):  # the worker has died since; the next recv will fail
                        pipe.send(in_progress[pipe])
                else:
                    pipes.remove(pipe)
                if error is not None:
                    raise error
                if is_result:
                    yield result


@contextmanager
def _starting() -> Iterator[Callable[[Callable[..., Any]], Connection]]:
    """Yield a function that starts a worker and returns its pipe; kill all workers at the end of the block."""
    context = multiprocessing.get_context("spawn")
    processes: list[tuple[BaseProcess, Connection]] = []

    def start(function: Callable[..., Any]) -> Connection:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(function, there), daemon=True)
        processes.append((process, here))
        with _ignoring_ctrl_c():
            process.start()
        there.close()  # so that the pipe is closed when the worker dies
        return here

    try:
        yield start
    finally:
        _kill(processes)


def _kill(processes: list[tuple[BaseProcess, Connection]]) -> None:
    for process, pipe in processes:
        pipe.close()
        if process.pid is not None:  # it was started
            process.kill()
    for process, _ in processes:
        if process.pid is not None:
            process.join()


@contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """Block SIGINT in the processes started in this block: only the parent process handles Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # otherwise the first process starts it, which unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """Send (None, None) at the start, then (result, None) or (None, exception) for each item received."""
    import cv2  # only workers need it here

    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, if the function imports it
    if "torch" in sys.modules:  # the main script imported it
        sys.modules["torch"].set_num_threads(1)
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, items), daemon=True).start()
    pipe.send((None, None))
    while True:
        item = items.get()
        result, failure = None, None
        try:
            result = function(item)
        except Exception as error:
            failure = error
        pipe.send((result, failure))


def _receive(pipe: Connection, items: queue.SimpleQueue[Any]) -> None:
    # A thread that always listens, so a busy worker notices, too, that the parent process has been killed.
    with suppress(EOFError, OSError):
        while True:
            items.put(pipe.recv())
    os._exit(1)
