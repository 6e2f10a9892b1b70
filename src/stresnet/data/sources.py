"""The videos that someone means by a file, a folder, a pattern, a list or a URL."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.lists import read_list
from stresnet.data.segment import WHOLE, Segment, parse_segment, split_fragment
from stresnet.data.video_files import VideoFinder, VideoWalk
from stresnet.errors import StoreError

LIST_ENDINGS = frozenset({".txt", ".csv", ".tsv", ".json"})
"""Endings of files that count as lists of videos, in lower case and with the dot."""


@dataclass(frozen=True)
class NamedVideo:
    """A video that a source names.

    Attributes:
        name: its path or URL; what was named if there is no video.
        problem: why there is none; an empty text if there is one, which may still turn out to be unreadable.
    """

    name: str
    problem: str = ""


def named_videos(sources: Iterable[str], notes: list[str], segment: Segment = WHOLE) -> list[NamedVideo]:
    """Return the videos of some sources, in order.

    Args:
        sources: files; segments of files, such as ``match.mp4#t=10,20``; folders, searched with all below; patterns
            such as ``**/*.mp4``; lists in the formats that `stresnet prepare` reads; URLs.
        notes: gets a line for each kind of file that was left out.
        segment: part of each video that is meant where the source names none.
    """
    found: list[NamedVideo] = []
    for source in sources:
        try:
            found += _videos_of(source, notes)
        except StoreError as error:
            found.append(NamedVideo(source, str(error)))
    return [video if video.problem else NamedVideo(_cut(video.name, segment)) for video in found]


def _cut(name: str, segment: Segment) -> str:
    """Return the name of a segment of a video, unless the video is one already."""
    return name if split_fragment(name)[1] != WHOLE else f"{name}{segment.fragment}"


def _videos_of(source: str, notes: list[str]) -> Iterator[NamedVideo]:
    path = Path(split_fragment(source)[0])
    if path.is_dir():
        walk = VideoWalk(path)
        ids = sorted(walk.video_ids())
        notes += [f"{source}: {note}" for note in walk.notes()]
        yield from (NamedVideo(str(path / video_id)) for video_id in ids)
        if not ids:
            yield NamedVideo(source, f"{source}: expected videos in this folder, found none")
    elif path.is_file() and path.suffix.lower() in LIST_ENDINGS:
        yield from _videos_of_list(path)
    elif is_url(source) or path.exists() or not glob.has_magic(source):
        yield NamedVideo(source)
    else:
        files = sorted(name for name in glob.iglob(source, recursive=True) if Path(name).is_file())
        yield from map(NamedVideo, files)
        if not files:
            yield NamedVideo(source, f"{source}: no file has a name of this pattern")


def _videos_of_list(path: Path) -> Iterator[NamedVideo]:
    listed = read_list(path)
    finder = VideoFinder(path.parent, jpegs=False)
    for row in listed.rows:
        name = row.fields["path"]
        file = name if is_url(name) else finder.find(name)
        try:
            segment = parse_segment(row.fields.get("start", ""), row.fields.get("end", ""))
        except ValueError as error:
            yield NamedVideo(name, f"{row.where}: {error}")
            continue
        found = NamedVideo(f"{file}{segment.fragment}")
        yield found if file else NamedVideo(name, f"{row.where}: no such file; check its name")
    yield from (NamedVideo(where, f"{where}: {reason}") for where, reason in listed.rejected)


def is_url(source: str) -> bool:
    """Return whether a text is the URL of a video, and not a file here."""
    return "://" in source and not Path(source).exists()
