"""The output of the command line: progress, notes, failures and the table of an evaluation."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from stresnet.evaluation.report import ReportRow

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move the cursor, start a line, command the terminal or turn the direction of writing."""


def visible(text: str) -> str:
    """Return a text with control characters written as escapes, such as ``\\x1b``."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Console(Console):
    """Prints the names of files, classes and videos as they are: brackets have no meaning, nor have controls."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


console = _Console(markup=False, emoji=False, highlight=False)
errors = _Console(stderr=True, markup=False, emoji=False, highlight=False)

MAX_NAMED = 20
"""At most this many videos of a long list are named; a file holds all of them."""

SECONDS_BETWEEN_LINES = 60


class Bar:
    """A `stresnet.progress.Progress` that draws a bar on a terminal.

    Without a terminal it prints a line at every tenth of the work, and at least once a minute.
    """

    def __init__(self, *, transient: bool = False) -> None:
        """Create a bar, removed from the screen when done if `transient`."""
        self._transient = transient
        self._display: rich_progress.Progress | None = None
        self._task = rich_progress.TaskID(0)
        self._activity = ""
        self._tenth = -1
        self._printed_at = 0.0
        self._began, self._done_at_start = 0.0, 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        self.clear()

    @property
    def on_terminal(self) -> bool:
        """Whether the bar is drawn, rather than printed line by line."""
        return errors.is_terminal

    def __call__(self, activity: str, done: int, total: int, detail: str = "") -> None:
        """Show progress, see `stresnet.progress.Progress`."""
        if activity != self._activity:
            self.clear()
            self._activity, self._tenth, self._printed_at = activity, -1, time.monotonic()
            self._began, self._done_at_start = time.monotonic(), done
        if self.on_terminal:
            self._draw(done, total, visible(detail))
        else:
            self._print(done, total, detail)

    def clear(self) -> None:
        """Stop drawing, for a result to be printed in place of the bar."""
        if self._display is not None:
            self._display.stop()
        self._display = None

    def _draw(self, done: int, total: int, detail: str) -> None:
        if self._display is None:
            self._display = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}", markup=False),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TimeElapsedColumn(),
                rich_progress.TextColumn("left"),
                rich_progress.TimeRemainingColumn(),
                rich_progress.TextColumn("{task.fields[detail]}", markup=False),
                console=errors,
                transient=self._transient,
            )
            self._display.start()
            self._task = self._display.add_task(visible(self._activity), total=total or None, detail=detail)
        self._display.update(self._task, completed=done, total=total or None, detail=detail)

    def _print(self, done: int, total: int, detail: str) -> None:
        now = time.monotonic()
        tenth = 10 * done // total if total else 0
        if tenth != self._tenth or now - self._printed_at >= SECONDS_BETWEEN_LINES:
            counts = f"{self._activity}: {done}/{total or '?'}"
            new = done - self._done_at_start
            left = (now - self._began) * (total - done) / new if new > 0 else 0
            details = [text for text in (f"{_duration(left)} left" if left >= 1 else "", detail) if text]
            errors.print("  ".join([counts, " · ".join(details)]).rstrip(), soft_wrap=True)
            self._tenth, self._printed_at = tenth, now


def print_json(values: Any) -> None:
    """Print JSON to standard output."""
    print(_json(values))


class JsonResults:
    """Prints results to standard output as they come, one on each line: a JSON list, or JSON Lines."""

    def __init__(self, *, lines: bool) -> None:
        """Begin; `lines` leaves out what makes the lines one list."""
        self._lines = lines
        self._between = "" if lines else "["

    def __enter__(self) -> JsonResults:
        return self

    def add(self, values: Any) -> None:
        """Print a result, complete for whoever reads along."""
        print(f"{self._between}{_json(values)}", end="\n" if self._lines else "", flush=True)
        self._between = "" if self._lines else ",\n"

    def __exit__(self, *exc: object) -> None:
        if not self._lines:
            print("[]" if self._between == "[" else "]")


def _json(values: Any) -> str:
    """Return JSON, with null for NaN and infinity, which JSON lacks."""
    finite = json.loads(json.dumps(values), parse_constant=lambda name: None)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(finite, ensure_ascii=False))


def note(text: str) -> None:
    """Print a note to standard error."""
    errors.print(f"note: {text}", soft_wrap=True)


def note_damaged(video: object, frames: int) -> None:
    """Note that a video is damaged, and how many frames of it are used."""
    note(f"{video}: damaged; only the {frames} frames that could be decoded are used")


def show_rows(rows: Sequence[ReportRow], *, as_json: bool) -> None:
    """Print the table of an evaluation, as text or JSON."""
    from stresnet.evaluation.summary import summarize

    values = summarize(rows)
    if as_json:
        print_json(values)
        return
    table = Table("", "top-1", "95 %", "mean class", "ceiling", "p-value", "minutes", box=None, pad_edge=False)
    for row in values:
        top1, low, high = row["top1"]
        table.add_row(
            row["name"],
            _percent(top1),
            f"{_percent(low)} – {_percent(high)}",
            _percent(row["mean_class"][0]),
            "" if row["ceiling"] is None else _percent(row["ceiling"]),
            "" if row["p_value"] is None else f"{row['p_value']:.2g}",
            "" if row["minutes"] is None else f"{row['minutes']:.1f}",
        )
    console.print(table)


def exit_with_failures(failed: Sequence[tuple[str, str]], all_in: Path | None = None) -> None:
    """Name the failures and exit with code 1, if there are any.

    Args:
        failed: (name, reason) of each failure.
        all_in: file that holds all reasons; if given, only the first `MAX_NAMED` are printed.
    """
    named = failed[:MAX_NAMED] if all_in else failed
    for name, reason in named:
        errors.print(f"failed: {reason if name in reason else f'{name}: {reason}'}", soft_wrap=True)
    if len(named) < len(failed):
        errors.print(f"and {len(failed) - len(named)} more failed; all reasons are in {all_in}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _duration(seconds: float) -> str:
    """Return a time of 1 s or more in its two largest units, such as "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
