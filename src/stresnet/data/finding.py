"""Findings: what is wrong with a set of videos, in one form for `prepare`, `train` and `doctor`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

SEVERITIES: dict[str, Severity] = {
    "few_usable": "error",
    "no_training": "error",
    "one_class": "error",
    "empty_class": "error",
    "untrained_class": "error",
    "leak": "error",
    "group_leak": "error",
    "damaged": "error",
    "unusable": "warning",
    "rejected": "warning",
    "truncated": "warning",
    "conflicting_copies": "warning",
    "split_file": "warning",
    "similar_names": "warning",
    "untested_class": "warning",
    "rare_class": "warning",
    "imbalance": "warning",
    "shortcut": "warning",
    "odd": "warning",
    "still": "warning",
    "clipped": "warning",
    "disk": "warning",
    "copies": "note",
    "unhashed": "note",
    "source": "note",
}
"""The severity of each kind of finding. With an error, training would be wasted: it fails, or its result is worthless.
A warning costs accuracy; a note is worth knowing."""

_MAX_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """Something wrong with a set of videos.

    Attributes:
        kind: a key of `SEVERITIES`.
        message: one line for the user.
        videos: ids of the videos concerned, all of them; empty if it concerns the set as a whole.
    """

    kind: str
    message: str
    videos: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return SEVERITIES[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON types."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "message": self.message,
            "videos": list(self.videos),
        }


def listing(names: Sequence[str]) -> str:
    """Return the first of some names, and the number of the others."""
    more = [f"{len(names) - _MAX_NAMED} more"] if len(names) > _MAX_NAMED else []
    return ", ".join([*map(repr, names[:_MAX_NAMED]), *more])


def messages(findings: Iterable[Finding]) -> list[str]:
    """Return the messages of some findings."""
    return [finding.message for finding in findings]
