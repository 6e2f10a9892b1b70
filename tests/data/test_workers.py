"""The parallel map: one result per item, even if workers die, and no worker left after an interrupt."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import stresnet.data.workers
from stresnet.data.workers import map_in_processes
from stresnet.errors import StoreError


def die_of_odd_numbers(number: int) -> int:
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(folder: Path) -> str:
    """Die at the first call, as a worker does if others use up the memory."""
    try:
        (folder / "seen").touch(exist_ok=False)
    except FileExistsError:
        return "second time"
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fail_at_seven(number: int) -> int:
    if number == 7:
        raise StoreError("seven")
    return number


def threads_of(module: str) -> int:
    """Return the number of threads that OpenCV or torch uses."""
    return int(import_module("cv2").getNumThreads() if module == "cv2" else import_module("torch").get_num_threads())


class DiesAtStart:
    """The factorial, but the first workers that are given it die before they have started."""

    def __init__(self, folder: Path, deaths: int) -> None:
        self.folder, self.deaths = folder, deaths

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        for death in range(self.deaths):
            with suppress(FileExistsError):
                (self.folder / str(death)).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, number: int) -> int:
        return math.factorial(number)


def must_not_crash(item: object) -> Any:
    raise AssertionError(f"the process of {item!r} died")


def sorted_results(function: Any, items: Iterable[Any], workers: int = 2, on_crash: Any = must_not_crash) -> list[Any]:
    return sorted(map_in_processes(function, items, workers, on_crash))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_item_has_one_result(workers: int) -> None:
    assert sorted_results(math.factorial, range(20), workers) == [math.factorial(n) for n in range(20)]
    assert multiprocessing.active_children() == []


def test_workers_use_one_thread_each() -> None:
    assert sorted_results(threads_of, ["cv2", "torch"], 1) == [1, 1]


def test_no_items() -> None:
    assert sorted_results(math.factorial, []) == []


def test_items_that_kill_their_worker_get_the_result_for_crashes() -> None:
    assert sorted_results(die_of_odd_numbers, range(7), 3, on_crash=lambda n: -n) == [-5, -3, -1, 0, 2, 4, 6]


def test_an_item_whose_worker_dies_once_is_retried(tmp_path: Path) -> None:
    assert sorted_results(die_once, [tmp_path]) == ["second time"]


def test_workers_that_die_while_they_start_are_replaced(tmp_path: Path) -> None:
    assert sorted_results(DiesAtStart(tmp_path, 2), range(5)) == [1, 1, 2, 6, 24]
    assert len(list(tmp_path.iterdir())) == 2
    assert multiprocessing.active_children() == []


def test_workers_that_never_start_are_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the worker processes cannot start"):
        sorted_results(DiesAtStart(tmp_path, 100), range(5))
    assert 3 <= len(list(tmp_path.iterdir())) <= 5
    assert multiprocessing.active_children() == []


def test_an_exception_ends_the_workers() -> None:
    seen: list[int] = []
    with pytest.raises(StoreError, match="seven"):
        seen.extend(map_in_processes(fail_at_seven, range(1000), 2, must_not_crash))
    assert seen
    assert 7 not in seen
    assert len(seen) < 999
    assert multiprocessing.active_children() == []


class Interrupted(BaseException):
    """A KeyboardInterrupt that nothing else raises or catches."""


def run_interrupted(at: float) -> int:
    """Map three items, interrupted before the line number ``at`` that is executed; return the number of lines executed.

    Lines that kill the workers do not count: after a second Ctrl-C, they may end with the parent process instead.
    """
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != stresnet.data.workers.__file__ or frame.f_code.co_name == "_kill":
            return None
        lines += event == "line"
        if event == "line" and lines == at:
            raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        sorted_results(math.factorial, range(3), 2)
    finally:
        sys.settrace(before)
    return lines


def test_an_interrupt_at_any_line_ends_the_workers() -> None:
    """The interrupt is raised wherever it arrives; nothing hangs, and no worker is left."""
    lines = run_interrupted(math.inf)
    assert lines > 50
    # A few lines more or less are executed in each run, depending on the order of the results.
    for line in range(1, lines - 10, 2):
        with pytest.raises(Interrupted):
            run_interrupted(line)
        assert multiprocessing.active_children() == []
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
