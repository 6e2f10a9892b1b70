"""The checks: each looks at a survey and yields what it finds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import repeat

from stresnet.data.class_notes import class_notes, training_findings
from stresnet.data.copies import copy_notes
from stresnet.data.finding import Finding, listing
from stresnet.data.index import Entries
from stresnet.doctor.differences import differences
from stresnet.doctor.survey import Survey
from stresnet.flow import clipping_note

_FEW_VIDEOS = 5
"""A class with fewer training videos is rare."""

_MAX_NAMED = 5

_IMBALANCED = 10
"""Classes are imbalanced if the largest has this many times the training videos of the smallest that is not rare."""


def _source(survey: Survey) -> Iterator[Finding]:
    for note in survey.notes:
        yield Finding("source", note)
    if survey.rejected:
        where, reason = survey.rejected[0]
        rows = f"{len(survey.rejected)} row(s) of the list name no video"
        yield Finding("rejected", f"{rows}, such as {where}: {reason}")


def _unusable(survey: Survey) -> Iterator[Finding]:
    entries = survey.store.entries
    failed = entries.where("reason", entries.distinct("reason") - {""})
    if not len(failed):
        return
    by_reason: dict[str, list[str]] = {}
    for name, reason in zip(failed.column("id").to_pylist(), failed.column("reason").to_pylist(), strict=True):
        by_reason.setdefault(re.sub(r"\d+(\.\d+)?", "N", reason), []).append(name)
    for ids in by_reason.values():
        first = failed.find(ids[0])
        assert first is not None
        yield Finding("unusable", f"{len(ids)} video(s) cannot be used, such as {ids[0]}: {first.reason}", tuple(ids))
    if 2 * len(failed) > len(entries):
        yield Finding("few_usable", f"{len(failed)} of {len(entries)} videos cannot be used", tuple(_ids(failed)))


def _damaged(survey: Survey) -> Iterator[Finding]:
    if survey.damaged:
        name, reason = survey.damaged[0]
        files = f"{len(survey.damaged)} prepared video(s) are missing or damaged"
        yield Finding("damaged", f"{files}, such as {name}: {reason}", tuple(name for name, _ in survey.damaged))


def _truncated(survey: Survey) -> Iterator[Finding]:
    usable = survey.store.select()
    ids = usable.column("id").filter(usable.column("truncated")).to_pylist()
    if ids:
        entry = usable.find(ids[0])
        assert entry is not None
        yield Finding(
            "truncated",
            f"{len(ids)} video(s) are cut off or damaged; only the frames that can be decoded are used, such as "
            f"{entry.frames} of {ids[0]}",
            tuple(ids),
        )


def _classes(survey: Survey) -> Iterator[Finding]:
    store = survey.store
    yield from training_findings(store)
    usable = store.select().distinct("label")
    if usable and (empty := [name for name in store.classes if name not in usable]):
        message = f"{len(empty)} of {len(store.classes)} classes have no usable video: {listing(empty)}"
        yield Finding("empty_class", message, tuple(_ids(store.entries.where("label", empty))))
    yield from class_notes(store)


def _balance(survey: Survey) -> Iterator[Finding]:
    training = survey.store.select("train")
    counts = Counter(training.column("label").to_pylist())
    rare = sorted(name for name, count in counts.items() if count < _FEW_VIDEOS)
    if rare:
        shown = ", ".join(f"{name!r} ({counts[name]})" for name in rare[:_MAX_NAMED])
        yield Finding(
            "rare_class",
            f"{len(rare)} of {len(survey.store.classes)} classes have fewer than {_FEW_VIDEOS} training videos, such "
            f"as {shown}; add some, or leave the class out",
            tuple(_ids(training.where("label", rare))),
        )
    others = [(count, name) for name, count in counts.items() if count >= _FEW_VIDEOS]
    if others and (most := max(others))[0] >= _IMBALANCED * (least := min(others))[0]:
        yield Finding(
            "imbalance",
            f"classes have from {least[0]} ({least[1]!r}) to {most[0]} ({most[1]!r}) training videos; a network "
            "prefers the frequent ones; train with --set '*.optimisation.balance=sqrt'",
        )


def _copies(survey: Survey) -> Iterator[Finding]:
    yield from copy_notes(survey.store)


def _groups(survey: Survey) -> Iterator[Finding]:
    usable = survey.store.select()
    splits: dict[str, set[str]] = {}
    columns = (usable.column(name).to_pylist() for name in ("group", "split"))
    for group, split in set(zip(*columns, strict=True)):
        splits.setdefault(group, set()).add(split)
    shared = sorted(group for group, found in splits.items() if group and len(found) > 1)
    if shared:
        where = " and ".join(sorted(splits[shared[0]]))
        yield Finding(
            "group_leak",
            f"{len(shared)} group(s) have videos in several splits, such as {shared[0]!r} in {where}; a test then "
            "recognises people or places it was trained on; keep each group in one split",
            tuple(_ids(usable.where("group", shared))),
        )


def _motion(survey: Survey) -> Iterator[Finding]:
    if survey.still:
        still = tuple(sorted(survey.still))
        message = (
            f"nothing moves in {len(still)} video(s), such as {still[0]}; the motion stream learns nothing from it"
        )
        yield Finding("still", message, still)
    usable = survey.store.select()
    ids, shares = usable.column("id").to_pylist(), usable.column("clipped_share").to_pylist()
    notes = map(clipping_note, ids, shares, repeat(survey.store.spec.flow.bound_px))
    clipped = {name: (share, note) for name, share, note in zip(ids, shares, notes, strict=True) if note}
    if clipped:
        _, worst = max(clipped.values())
        message = f"{len(clipped)} video(s) have much of their flow clipped, such as {worst}"
        yield Finding("clipped", message, tuple(clipped))


def _ids(entries: Entries) -> list[str]:
    ids: list[str] = entries.column("id").to_pylist()
    return ids


CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    _source,
    _unusable,
    _damaged,
    _truncated,
    _classes,
    _balance,
    _copies,
    _groups,
    _motion,
    differences,
)
"""All checks. To add one, write a function and name it here; a new kind also needs its severity, in `SEVERITIES`."""
