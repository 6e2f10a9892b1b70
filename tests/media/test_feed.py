"""A stream that is read in a thread: what is dropped, and what happens when it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from helpers.live_streams import MJPEG_TYPE, Page, Pages, http_pages, mjpeg, wandering
from stresnet.errors import VideoError
from stresnet.media.feed import Feed


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with http_pages() as pages:
        yield pages


class Notes(list[str]):
    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 20
        while not any(text in note for note in self) and time.monotonic() < until:
            time.sleep(0.01)


def feed(url: str, notes: list[str], **options: object) -> Feed:
    return Feed(url, short_side=32, note=notes.append, pauses_sec=(0.01, 0.05), **options)  # type: ignore[arg-type]


def test_the_oldest_frames_are_dropped_and_counted(pages: Pages) -> None:
    pages["/fast"] = Page(MJPEG_TYPE, mjpeg(wandering(30), 1000), ends=True)
    with feed(f"{pages.url}/fast", [], capacity=4) as frames:
        while frames._end is None:
            time.sleep(0.01)
        kept = list(frames)
    assert (len(kept), frames.read, frames.dropped) == (4, 30, 26)
    times = [arrival.frame.time_sec for arrival in kept]
    assert times == sorted(times)
    assert not any(arrival.begins for arrival in kept)


def test_an_interrupted_stream_is_opened_again(pages: Pages) -> None:
    page = pages["/camera"] = Page(MJPEG_TYPE, mjpeg(wandering(6), 100))
    url, notes, taken = f"{pages.url}/camera", Notes(), []
    with feed(url, notes) as frames:
        for arrival in frames:
            taken.append(arrival)
            if len(taken) == 1:
                del pages["/camera"]
            if len(taken) == 6:
                notes.wait_for("has no such stream")
                pages["/camera"] = page
            if len(taken) == 12:
                break
    assert notes[:3] == [
        f"{url}: the stream ended; connecting again",
        f"{url}: the server has no such stream; check the URL",
        f"{url}: connected again",
    ]
    assert [number for number, arrival in enumerate(taken) if arrival.begins] == [0, 6]
    times = [arrival.frame.time_sec for arrival in taken]
    assert times == sorted(times)


def test_otherwise_an_interruption_is_a_failure(pages: Pages) -> None:
    pages["/once"] = Page(MJPEG_TYPE, mjpeg(wandering(6), 1000))
    with feed(f"{pages.url}/once", [], reconnect=False) as frames:
        assert sum(1 for _ in zip(range(6), frames, strict=False)) == 6
        with pytest.raises(VideoError, match=r"/once: the stream ended"):
            next(frames)


def test_a_change_of_size_is_told(pages: Pages) -> None:
    pages["/zoom"] = Page(MJPEG_TYPE, mjpeg([*wandering(3), *wandering(3, 64, 96)], 1000), ends=True)
    notes: list[str] = []
    with feed(f"{pages.url}/zoom", notes) as frames:
        assert len(list(frames)) == 6
    assert notes == [f"{pages.url}/zoom: the picture is 96×64 px from now on"]
