"""Work shared out among processes: every item answered once, whatever kills a process or interrupts the command."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import stresnet.data.workers
from stresnet.data.workers import map_in_processes
from stresnet.errors import StoreError


def die_of_odd(number: int) -> int:
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(folder: Path) -> str:
    """A process that is killed for what others did, as by a system short of memory."""
    try:
        (folder / "seen").touch(exist_ok=False)
    except FileExistsError:
        return "second time"
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def refuse_seven(number: int) -> int:
    if number == 7:
        raise StoreError("seven")
    return number


def threads_of(module: str) -> int:
    """What a process takes for OpenCV, or for torch, imported by the job."""
    return int(import_module("cv2").getNumThreads() if module == "cv2" else import_module("torch").get_num_threads())


def nobody_died(item: object) -> Any:
    raise AssertionError(f"the process of {item!r} died")


def shared(job: Any, items: Iterable[Any], workers: int = 2, on_crash: Any = nobody_died) -> list[Any]:
    return sorted(map_in_processes(job, items, workers, on_crash))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_one_answer_an_item(workers: int) -> None:
    assert shared(math.factorial, range(20), workers) == [math.factorial(n) for n in range(20)]
    assert multiprocessing.active_children() == []


def test_each_takes_one_thread() -> None:
    assert shared(threads_of, ["cv2", "torch"], 1) == [1, 1]


def test_nothing_to_do() -> None:
    assert shared(math.factorial, []) == []


def test_deaths_are_told_of_their_own_items() -> None:
    assert shared(die_of_odd, range(7), 3, on_crash=lambda n: -n) == [-5, -3, -1, 0, 2, 4, 6]


def test_a_process_that_dies_once_is_forgiven(tmp_path: Path) -> None:
    assert shared(die_once, [tmp_path]) == ["second time"]


def test_what_a_job_raises_ends_it_all() -> None:
    seen: list[int] = []
    with pytest.raises(StoreError, match="seven"):
        seen.extend(map_in_processes(refuse_seven, range(1000), 2, nobody_died))
    assert seen
    assert 7 not in seen
    assert len(seen) < 999
    assert multiprocessing.active_children() == []


class Interrupted(BaseException):
    """Ctrl-C that no other code expects."""


def run_interrupted(at: float) -> int:
    """Shares out three items, with Ctrl-C before line number ``at`` of this side's code; returns the lines executed.

    Lines that end the processes do not count: a second Ctrl-C may leave that to the end of the command.
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
        shared(math.factorial, range(3), 2)
    finally:
        sys.settrace(before)
    return lines


def test_interrupted_anywhere_it_ends() -> None:
    """Ctrl-C comes out wherever it comes in: nothing waits for ever, and no process stays."""
    lines = run_interrupted(math.inf)
    assert lines > 50
    for line in range(1, lines - 10, 2):  # one more or less from run to run: the order of answers differs
        with pytest.raises(Interrupted):
            run_interrupted(line)
        assert multiprocessing.active_children() == []
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
