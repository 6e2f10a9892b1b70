"""Find copies: videos with the same content, whatever their names, among those of a store and those of a model.

Content is that of the file, byte by byte. A copy that was encoded again, scaled or cut is not recognised: only groups
or lists that keep recordings together help against that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from stresnet.data.finding import Finding
from stresnet.data.index import Entries, StoreEntry
from stresnet.data.segment import Segment
from stresnet.data.store import Store

_NUMBER = r"(\d+(?:\.\d+)?)"
_IDENTITY = re.compile(rf"([0-9a-f]{{16}})(?:#t={_NUMBER}(?:,{_NUMBER})?)?")


class Copies(NamedTuple):
    """Videos of files with the same content.

    Attributes:
        ids: their ids.
        labels, splits: their classes and splits.
        overlap: whether the videos are the same in part, or else different segments.
    """

    ids: tuple[str, ...]
    labels: frozenset[str]
    splits: frozenset[str]
    overlap: bool


def identities(entries: Entries) -> list[str]:
    """Return what identifies the content of each video: a hash, and its segment; nothing where the hash is unknown."""
    columns = [entries.column(name).to_numpy() for name in ("content", "start_sec", "end_sec")]
    return [
        f"{content:016x}{Segment(*borders).fragment}" for content, *borders in zip(*columns, strict=True) if content
    ]


def videos_among(identified: Iterable[str], entries: Entries) -> list[str]:
    """Return the ids of the videos that show, in part, what identified ones show.

    Args:
        identified: what `identities` returned for other videos, such as those that a model was trained on.
        entries: the videos.
    """
    whole: set[int] = set()
    parts: dict[int, list[Segment]] = {}
    for found in filter(None, map(_IDENTITY.fullmatch, identified)):
        digits, start, end = found.groups()
        if start is None:
            whole.add(int(digits, 16))
        else:
            parts.setdefault(int(digits, 16), []).append(Segment(float(start), float(end or "inf")))
    known = np.fromiter((whole | parts.keys()) - {0}, np.uint64)  # 0 stands for unknown content
    rows = np.flatnonzero(np.isin(entries.column("content").to_numpy(), known))
    candidates = [entries[row] for row in rows.tolist()]
    return [
        entry.record.id
        for entry in candidates
        if entry.content in whole or any(map(entry.record.segment.overlaps, parts[entry.content]))
    ]


def unchecked_note(identified: Iterable[str], entries: Entries) -> str:
    """Return a note if `videos_among` cannot tell, because the content of videos was not recorded, or an empty text."""
    before = "from a version that did not record the content of videos"
    if any(_IDENTITY.fullmatch(text) is None for text in identified):
        return f"the model is {before}: whether it was trained on these videos is not known"
    if unknown := int(np.count_nonzero(entries.column("content").to_numpy() == 0)):
        return f"{unknown} videos are {before}: whether the model was trained on them is not known; prepare again"
    return ""


def find_copies(entries: Entries) -> Iterator[Copies]:
    """Yield the groups of videos of files with the same content, in the order of that content."""
    content = entries.column("content").to_numpy()
    rows = np.argsort(content, kind="stable")
    for group in np.split(rows, np.flatnonzero(np.diff(content[rows])) + 1):
        if len(group) > 1 and content[group[0]]:
            yield from _overlapping([entries[row] for row in group.tolist()])


def _overlapping(entries: list[StoreEntry]) -> Iterator[Copies]:
    """Yield the groups of segments of one content that overlap; if they are in several splits, also all of them."""
    entries.sort(key=lambda entry: entry.record.segment)
    groups = [[entries[0]]]
    for entry in entries[1:]:
        if any(entry.record.segment.overlaps(other.record.segment) for other in groups[-1]):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    yield from (_copies(group, overlap=True) for group in groups if len(group) > 1)
    if len(groups) > 1 and len({entry.record.split for entry in entries}) > 1:
        yield _copies(entries, overlap=False)


def _copies(entries: list[StoreEntry], *, overlap: bool) -> Copies:
    records = [entry.record for entry in entries]
    ids = tuple(sorted(record.id for record in records))
    return Copies(ids, frozenset(r.label for r in records), frozenset(r.split for r in records), overlap)


def copy_notes(store: Store) -> list[Finding]:
    """Return findings on copies among the usable videos of a store."""
    usable = store.select()
    found: dict[tuple[str, str, str], list[Copies]] = {}
    for copies in find_copies(usable):
        found.setdefault(_describe(copies), []).append(copies)
    notes = [
        Finding(
            kind,
            f"{len(sets)} {what}, such as {' and '.join(sets[0].ids[:2])}{consequence}",
            tuple(name for copies in sets for name in copies.ids),
        )
        for (kind, what, consequence), sets in found.items()
    ]
    if unknown := int(np.count_nonzero(usable.column("content").to_numpy() == 0)):
        message = f"{unknown} videos have no hash of their content; prepare again to find copies"
        notes.append(Finding("unhashed", message))
    return notes


def _describe(copies: Copies) -> tuple[str, str, str]:
    """Return the kind of finding that copies are, what is wrong with them, and the consequence."""
    if not copies.overlap:
        what = "file(s) have segments in several splits"
        return "split_file", what, "; these show the same people and place"
    if len(copies.splits) > 1:
        what = "video(s) are there twice, in several splits"
        return "leak", what, "; evaluate refuses to test on training videos"
    if len(copies.labels) > 1:
        what = "video(s) are there twice, in several classes"
        return "conflicting_copies", what, "; a network cannot tell them apart"
    return "copies", "video(s) are there twice, in one class", ""
