"""What the command line shows: one bar for whatever is going on, and the table of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from stresnet.data.prepare import Progress as PrepareProgress
    from stresnet.evaluation.metrics import Interval
    from stresnet.evaluation.report import ReportRow

# Names of files, classes and videos are shown as they are: brackets and colons mean nothing here.
console = Console(markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False)

MOST_NAMED = 20
"""Of a long list of videos, so many are named; a file holds all."""


class Bar:
    """A progress bar on the terminal, or a line at every tenth where there is none."""

    def __init__(self, *, transient: bool = False) -> None:
        self._transient = transient
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""
        self._tenth = -1

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def update(self, label: str, done: int, total: int) -> None:
        """Show how far the piece of work called `label` is."""
        if label != self._label:
            self._close()
            self._label, self._tenth = label, -1
        if not errors.is_terminal:
            tenth = 10 * done // max(total, 1)
            if tenth != self._tenth:
                errors.print(f"{label}: {done}/{total}", soft_wrap=True)
                self._tenth = tenth
            return
        if self._progress is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=errors, transient=self._transient)
            self._progress.start()
            self._task = self._progress.add_task(label, total=total)
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total)

    def detail(self, label: str, done: int, total: int) -> None:
        """Show how far a part of the work is, where there is a terminal; lines of it would be too many."""
        if errors.is_terminal:
            self.update(label, done, total)

    def prepare(self, progress: PrepareProgress) -> None:
        """Show how far preparing is."""
        left = f", {progress.eta_seconds:.0f} s left" if isfinite(progress.eta_seconds) else ""
        speed = f" ({progress.frames / progress.seconds:.0f} frames/s{left})" if progress.seconds > 1 else ""
        self.update("preparing videos", progress.done, progress.total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=f"preparing videos{speed}")

    def fetch(self, label: str, done: int, total: int) -> None:
        """Show how many bytes have come, of how many if that is known, in MB."""
        self.update(f"fetching {label} (MB)", done // 10**6, max(done, total) // 10**6)

    def stage(self, name: str) -> None:
        """Announce a stage of training, which brings its own bar."""
        self._close()
        errors.print(f"training {name}", soft_wrap=True)

    def hide(self) -> None:
        """Clear the line, for a result to be printed there."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None


def show_rows(rows: Sequence[ReportRow], *, as_json: bool) -> None:
    """Print the table of an evaluation, or the same as JSON."""
    from stresnet.evaluation.metrics import mcnemar, mean_class_accuracy, top_k_accuracy

    chosen = next((r for r in rows if r.chosen), rows[-1])
    if as_json:
        print(json.dumps([_as_values(r, chosen) for r in rows], ensure_ascii=False))
        return
    table = Table("", "top-1", "95 %", "mean class", "ceiling", "p", "minutes", box=None, pad_edge=False)
    for row in rows:
        top1, mean_class = top_k_accuracy(row.table, 1), mean_class_accuracy(row.table)
        table.add_row(
            row.table.name,
            _percent(top1.value),
            f"{_percent(top1.low)} – {_percent(top1.high)}",
            _percent(mean_class.value),
            "" if row.ceiling is None else _percent(row.ceiling),
            "" if row is chosen else f"{mcnemar(row.table, chosen.table).p_value:.2g}",
            "" if row.minutes is None else f"{row.minutes:.1f}",
        )
    console.print(table)


def exit_with_failures(failed: Sequence[tuple[str, str]], all_in: Path | None = None) -> None:
    """Name what failed and exit with 1; where a file holds all reasons, the first ones do."""
    named = failed[:MOST_NAMED] if all_in else failed
    for name, reason in named:
        errors.print(f"failed: {reason if name in reason else f'{name}: {reason}'}", soft_wrap=True)
    if len(named) < len(failed):
        errors.print(f"and {len(failed) - len(named)} more failed; all reasons are in {all_in}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _as_values(row: ReportRow, chosen: ReportRow) -> dict[str, object]:
    from stresnet.evaluation.metrics import mcnemar, mean_class_accuracy, top_k_accuracy

    def values(interval: Interval) -> list[float]:
        return [interval.value, interval.low, interval.high]

    return {
        "name": row.table.name,
        "protocol": row.table.protocol,
        "videos": len(row.table.video_ids),
        "top1": values(top_k_accuracy(row.table, 1)),
        "mean_class": values(mean_class_accuracy(row.table)),
        "p_value": None if row is chosen else mcnemar(row.table, chosen.table).p_value,
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
