"""Results computed ahead: order, exceptions, how far ahead, and that no thread is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stresnet.flow.threads import map_ahead

LIMIT_SEC = 60  # after which a test that waits fails


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("flow")]


def test_results_keep_their_order_though_the_first_ends_last() -> None:
    others_done = threading.Semaphore(0)

    def square(number: int) -> int:
        if number == 0:
            assert others_done.acquire(timeout=LIMIT_SEC)
            assert others_done.acquire(timeout=LIMIT_SEC)
        else:
            others_done.release()
        return number * number

    assert list(map_ahead(square, range(9), 2)) == [number * number for number in range(9)]
    assert not alive()


@pytest.mark.parametrize(("threads", "ahead"), [(1, 0), (2, 3), (3, 4)])
def test_a_few_items_are_taken_ahead_in_the_callers_thread(threads: int, ahead: int) -> None:
    takers: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            takers.append(threading.get_ident())
            yield number

    results = map_ahead(str, items(), threads)
    assert not takers
    for count in range(1, 11):
        assert next(results) == str(count - 1)
        assert len(takers) == count + ahead
    results.close()
    assert set(takers) == {threading.get_ident()}
    assert not alive()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_exception_of_the_items_follows_the_results_before_it(threads: int) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("no fourth")

    results = map_ahead(str, items(), threads)
    assert [next(results) for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="no fourth"):
        next(results)
    assert list(results) == []
    assert not alive()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_exception_of_the_function_is_raised_in_its_turn(threads: int) -> None:
    results = map_ahead(lambda number: 6 // (3 - number), range(9), threads)
    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
    assert not alive()


def test_nothing_to_do_starts_no_thread() -> None:
    assert list(map_ahead(str, [], 4)) == []
    assert not alive()
