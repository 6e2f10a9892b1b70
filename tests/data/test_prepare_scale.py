"""Preparing many videos: the bookkeeping grows with their number, and no faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.counting import count_calls
from stresnet.data import prepare as prepare_module
from stresnet.data.catalog import VideoRecord
from stresnet.data.encode_video import encode_video
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import PreparedVideo
from stresnet.data.prepared_video_writer import write_prepared_video
from stresnet.data.store import Store, StoreEntry, StoreSpec, video_path
from stresnet.flow.spec import FlowSpec
from stresnet.media import write_video

SPEC = StoreSpec(FlowSpec(preset="ultrafast", short_side=32))


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Prepare videos by linking to one that is ready; return it and its source."""
    source, template = tmp_path / "source.mp4", tmp_path / "template.arrow"
    write_video(source, np.zeros((12, 32, 32, 3), np.uint8), fps=25)
    meta = write_prepared_video(template, partial(encode_video, "video", source, SPEC))

    def link(root: Path, records: Sequence[VideoRecord], **_: object) -> list[StoreEntry]:
        (record,) = records
        path = video_path(root, record.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(template)
        return [prepare_module._entry(record, meta, path.stat().st_size)]

    def here(function: Callable[[Any], Any], records: Iterable[Any], *_: object) -> Iterator[Any]:
        yield from map(function, records)

    monkeypatch.setattr(prepare_module, "_prepare_file", link)
    monkeypatch.setattr(prepare_module, "map_in_processes", here)
    return source, template


def linked_videos(folder: Path, source: Path, count: int) -> Path:
    for n in range(10):
        (folder / f"class {n}").mkdir(parents=True)
    for n in range(count):
        (folder / f"class {n % 10}" / f"{n:05}.mp4").symlink_to(source)
    return folder


def test_calls_grow_with_the_videos(tmp_path: Path, ready: tuple[Path, Path]) -> None:
    def calls(count: int) -> tuple[int, int]:
        videos = linked_videos(tmp_path / f"{count} videos", ready[0], count)
        first, again = (count_calls(lambda: prepare(videos, tmp_path / str(count), SPEC)) for _ in range(2))
        assert len(Store.open(tmp_path / str(count)).select()) == count
        return first, again

    few, many = calls(200), calls(2_000)
    assert many[0] < 10 * few[0]
    assert many[1] < 10 * few[1]


def test_each_video_is_looked_at_once(
    tmp_path: Path, ready: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = linked_videos(tmp_path / "videos", ready[0], 50)
    prepare(videos, tmp_path / "store", SPEC)
    opened: Counter[Path] = Counter()
    specs = []
    open_video, from_dict = PreparedVideo.open, StoreSpec.from_dict

    def count(path: Path) -> PreparedVideo:
        opened[path] += 1
        return open_video(path)

    monkeypatch.setattr(PreparedVideo, "open", count)
    monkeypatch.setattr(StoreSpec, "from_dict", lambda data: specs.append(data) or from_dict(data))
    assert prepare(videos, tmp_path / "store", SPEC).kept == 50
    assert len(opened) == 50
    assert set(opened.values()) == {1}
    assert len(specs) < 5  # of the store and the index, not of every video
