"""The page of a diagnosis: findings, estimates, and a contact sheet of the videos; a single file without scripts."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stresnet.atomic import replacing
from stresnet.data.index import Entries, StoreEntry
from stresnet.data.workers import default_workers
from stresnet.doctor.pictures import pictures_of
from stresnet.doctor.run import Diagnosis
from stresnet.errors import StoreError
from stresnet.pages import templates
from stresnet.progress import Progress

_OF_FINDING = 12
_OF_CLASS = 6
_ON_SHEET = 400
"""At most so many videos are shown for a finding, for a class, and for all classes."""


def write_page(
    path: Path, diagnosis: Diagnosis, *, workers: int | None = None, progress: Progress | None = None
) -> None:
    """Write the page of a diagnosis.

    Args:
        path: the file.
        diagnosis: what to show.
        workers: processes that make the pictures; by default one per usable core.
        progress: called after every picture.

    Raises:
        StoreError: the file cannot be written.
    """
    store = diagnosis.survey.store
    of_findings = [[store.entries.find(name) for name in f.videos[:_OF_FINDING]] for f in diagnosis.findings]
    sheet = _sheet(store.entries, len(store.classes))
    groups: list[Sequence[StoreEntry | None]] = [*of_findings, *sheet.values()]
    shown = {entry.record.id: entry for group in groups for entry in group if entry is not None}
    pictures = pictures_of(store, diagnosis.survey.prepared, shown.values(), workers or default_workers(), progress)
    kinds: dict[str, list[str]] = {}
    for finding in diagnosis.findings:
        for name in finding.videos:
            kinds.setdefault(name, []).append(finding.kind.replace("_", " "))

    def cards(entries: Iterable[StoreEntry | None]) -> list[dict[str, Any]]:
        return [_card(entry, pictures, kinds) for entry in entries if entry is not None]

    environment = templates("stresnet.doctor")
    environment.filters.update(hours=hours_text, bytes=bytes_text)
    counts = Counter(store.entries.column("label").to_pylist())
    text = environment.get_template("page.html.j2").render(
        **diagnosis.to_dict(),
        name=store.name,
        findings_shown=[
            finding.to_dict() | {"cards": cards(entries)}
            for finding, entries in zip(diagnosis.findings, of_findings, strict=True)
        ],
        sheet=[{"name": name, "videos": counts[name], "cards": cards(entries)} for name, entries in sheet.items()],
    )
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, "utf-8", errors="replace")  # names may hold bytes that are not valid text
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from error


def _sheet(entries: Entries, classes: int) -> dict[str, list[StoreEntry]]:
    """Return some videos of each class, spread over the index."""
    each = max(1, min(_OF_CLASS, _ON_SHEET // max(1, classes)))
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(entries.column("label").to_pylist()):
        rows.setdefault(label, []).append(row)
    chosen = {label: np.unique(np.linspace(0, len(of) - 1, each).round().astype(int)) for label, of in rows.items()}
    return {label: [entries[rows[label][k]] for k in chosen[label].tolist()] for label in sorted(rows)}


def _card(entry: StoreEntry, pictures: Mapping[str, bytes], kinds: Mapping[str, list[str]]) -> dict[str, Any]:
    record = entry.record
    jpeg = pictures.get(record.id)
    size = f"{entry.frames} frames, {entry.width} × {entry.height} px, {entry.fps:.4g} fps"
    return {
        "id": record.id,
        "picture": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else "",
        "facts": entry.reason or size,
        "where": ", ".join(filter(None, (record.label, record.split, record.group))),
        "kinds": kinds.get(record.id, []),
    }


def hours_text(hours: float) -> str:
    """Return a time in the unit that fits; a dash if it is not known."""
    if math.isnan(hours):
        return "–"
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"


def bytes_text(count: float) -> str:
    """Return a size in MB or GB; a dash if it is not known."""
    if math.isnan(count):
        return "–"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
