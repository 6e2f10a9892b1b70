"""Notes on the classes of a store: names that may mean the same, and classes that lack training or test videos."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from stresnet.data.finding import Finding, listing
from stresnet.data.store import Store


def class_notes(store: Store) -> list[Finding]:
    """Return findings on the classes of a store, judging by its usable videos.

    Nothing is said of a split without any video, and of classes without any, which preparing names.
    """
    usable = store.select()
    present = usable.distinct("label")
    notes = [
        Finding(
            "similar_names", f"classes {listing(names)} have similar names; give them one name if they are the same"
        )
        for names in look_alikes(store.classes)
    ]
    for split, name, kind, consequence in (
        ("train", "training", "untrained_class", "cannot be learnt"),
        ("test", "test", "untested_class", "are not tested"),
    ):
        labels = usable.where("split", [split]).distinct("label")
        lacking = [label for label in store.classes if label in present - labels]
        if lacking and labels:
            share = f"{len(lacking)} of {len(store.classes)} classes"
            videos = tuple(usable.where("label", lacking).column("id").to_pylist())
            message = f"{share} have no usable {name} video and {consequence}: {listing(lacking)}"
            notes.append(Finding(kind, message, videos))
    return notes


def training_findings(store: Store) -> list[Finding]:
    """Return why nothing can be trained on a store, whatever the recipe; nothing if something can."""
    findings = []
    if not store.select("train"):
        findings.append(Finding("no_training", "no training videos: give some the split `train`"))
    if len(store.classes) < 2:
        findings.append(Finding("one_class", f"one class, {store.classes[0]}: recognition needs at least two"))
    return findings


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ only in case, punctuation, spaces or the form of characters."""
    groups: dict[str, list[str]] = {}
    for name in names:
        plain = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))
        groups.setdefault(plain or name, []).append(name)
    return [group for group in groups.values() if len(group) > 1]
