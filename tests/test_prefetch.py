"""Prefetching: the same items and errors in the same order, one item ahead, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from stresnet.prefetch import prefetched


def test_items_come_in_order_from_another_thread() -> None:
    threads = set()

    def items() -> Generator[int]:
        for item in range(5):
            threads.add(threading.current_thread())
            yield item

    assert list(prefetched(items())) == list(range(5))
    assert threading.current_thread() not in threads


def test_the_next_item_is_prepared_while_one_is_used_and_no_more() -> None:
    prepared = [threading.Event() for _ in range(4)]

    def items() -> Generator[int]:
        for item, event in enumerate(prepared):
            event.set()
            yield item

    ahead = prefetched(items())
    assert next(ahead) == 0
    assert prepared[1].wait(timeout=60)
    assert not prepared[2].wait(timeout=0.2)
    ahead.close()
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_an_error_takes_the_place_of_its_item() -> None:
    def items() -> Generator[int]:
        yield 0
        raise ValueError("broken")

    ahead = prefetched(items())
    assert next(ahead) == 0
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_closing_closes_the_generator() -> None:
    closed = threading.Event()

    def items() -> Generator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    ahead = prefetched(items())
    next(ahead)
    ahead.close()
    assert closed.is_set()
