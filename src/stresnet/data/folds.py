"""Folds: the groups of a data set shared out for cross-validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def split_groups(videos: Sequence[tuple[str, str]], folds: int) -> list[tuple[str, ...]]:
    """Return the groups of each fold, from the (label, group) of all videos; no group is in two folds.

    The largest groups come first, by name among equals. Each joins the fold that has the fewest videos of the group's
    labels so far; among equals the one with the fewest videos, then the first.
    """
    members: dict[str, Counter[str]] = {}
    for label, group in videos:
        members.setdefault(group, Counter())[label] += 1
    filled: list[Counter[str]] = [Counter() for _ in range(folds)]
    groups: list[list[str]] = [[] for _ in range(folds)]
    for group in sorted(members, key=lambda name: (-members[name].total(), name)):
        labels = members[group]
        fold = min(range(folds), key=lambda k: (sum(n * filled[k][c] for c, n in labels.items()), filled[k].total(), k))
        filled[fold] += labels
        groups[fold].append(group)
    return [tuple(sorted(names)) for names in groups]
