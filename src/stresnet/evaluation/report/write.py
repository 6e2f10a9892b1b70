"""Write a report to disk."""

from __future__ import annotations

import json
from pathlib import Path

from stresnet.atomic import replacing
from stresnet.errors import ScoreError
from stresnet.evaluation.report.content import Report
from stresnet.evaluation.report.measures import measure
from stresnet.evaluation.report.page import render_page


def write_report(folder: Path, report: Report) -> Path:
    """Write ``report.json`` and ``report.html`` to a folder, each atomically, and return the path of the page.

    `stresnet.evaluation.report.measures.measure` documents the JSON.

    Raises:
        ScoreError: the rows do not score the same videos, no video has a label, or a file cannot be written.
    """
    measures = measure(report)
    folder = Path(folder)
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = render_page(report, measures)
        _write(folder / "report.json", json.dumps(measures, allow_nan=False))
        _write(path, page)
    except OSError as error:
        raise ScoreError(f"cannot write a report to {folder}: {error.strerror or error}") from error
    return path


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        # File names may hold bytes that are not valid text; they become question marks.
        temporary.write_text(text + "\n", encoding="utf-8", errors="replace")
