"""`Bar`: lines without a terminal, and a bar on one."""

from __future__ import annotations

import io
import json

import pytest
import typer
from rich.console import Console
from rich.table import Table

from stresnet.cli import display
from stresnet.cli.display import Bar, JsonResults, console, exit_with_failures, note, print_json


def test_a_line_at_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        for done in range(41):
            bar("scoring", done, 40, f"{done} frames/s" if done else "")
        bar("writing", 0, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["scoring: 0/40", "scoring: 4/40  4 frames/s", "scoring: 8/40  8 frames/s"]
    assert len(lines) == 11 + 1
    assert lines[-1] == "writing: 0/3"


def test_a_line_at_least_once_a_minute_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("stresnet.cli.display.time.monotonic", lambda: now)
    bar = Bar()
    for done in range(7):
        bar("training", done, 1000)
        now += 20.0
    assert capsys.readouterr().err.splitlines() == [
        "training: 0/1000",
        "training: 3/1000  5 h 32 min left",
        "training: 6/1000  5 h 31 min left",
    ]


@pytest.mark.parametrize(("step", "left"), [(0.001, ""), (0.2, "2 s left"), (9.0, "1 min left")])
def test_the_time_left_counts_from_where_the_work_began(
    step: float, left: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("stresnet.cli.display.time.monotonic", lambda: now)
    bar = Bar()
    bar("training", 80, 100, "")
    now += 10 * step
    bar("training", 90, 100, "loss 1.23")  # ten more in ten steps, ten are left
    assert capsys.readouterr().err.splitlines()[1] == f"training: 90/100  {left + ' · ' if left else ''}loss 1.23"


def test_an_unknown_total(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    for done in range(3):
        bar("downloading", done, 0)
    assert capsys.readouterr().err.splitlines() == ["downloading: 0/?"]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, force_interactive=True)
    monkeypatch.setattr(display, "errors", screen)
    with Bar() as bar:
        bar("downloading [x]", 1, 0)
        bar("downloading [x]", 2, 4, "1 MB/s")
        bar("training motion", 4, 4, "loss 1.23")
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert all(text in shown for text in ("downloading [x]", "2/4", "1 MB/s", "training motion", "loss 1.23"))


HOSTILE = "a\x1b]0;title\x07\x1b[2J\r\nfailed: b\x9b1m\u202etxt.mp4"
"""A name that would set the title of a terminal, clear it, forge a line, and end backwards."""
SHOWN = "a\\x1b]0;title\\x07\\x1b[2J\\r\\nfailed: b\\x9b1m\\u202etxt.mp4"


def test_names_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    note(HOSTILE)
    console.print(f"[{HOSTILE}]", soft_wrap=True)
    table = Table("name", box=None)
    table.add_row(HOSTILE)
    console.print(table, soft_wrap=True)
    with pytest.raises(typer.Exit):
        exit_with_failures([(HOSTILE, "no frame")])
    Bar()("reading " + HOSTILE, 1, 2, HOSTILE)
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"[{SHOWN}]"
    assert "".join(out.splitlines()[1:]).split() == ["name", *SHOWN.split()]
    assert err.splitlines() == [f"note: {SHOWN}", f"failed: {SHOWN}: no frame", f"reading {SHOWN}: 1/2  {SHOWN}"]


def test_a_bar_cannot_command_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=300, force_interactive=True)
    monkeypatch.setattr(display, "errors", screen)
    with Bar() as bar:
        bar(HOSTILE, 1, 2, HOSTILE)
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().count(SHOWN) >= 2
    assert "\x1b]0;title" not in screen.file.getvalue()


def test_json_is_valid_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"name": HOSTILE, "é": [1.5, None, "\\x1b"], "bad": [float("nan"), float("inf")]}
    print_json(values)
    line = capsys.readouterr().out
    assert json.loads(line) == values | {"bad": [None, None]}
    assert line.rstrip("\n").isprintable()
    assert "é" in line


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_are_one_list_a_line_for_each(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    values = [{"video": f"{k}\n"} for k in range(count)]
    shown = []
    with JsonResults(lines=False) as results:
        for one in values:
            results.add(one)
            shown.append(capsys.readouterr().out)
    shown.append(capsys.readouterr().out)
    assert json.loads("".join(shown)) == values
    assert [json.loads(text.strip("[,\n")) for text in shown[:-1]] == values  # each complete when it comes
    with JsonResults(lines=True) as results:
        for one in values:
            results.add(one)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == values


def test_a_list_of_results_is_valid_even_if_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), JsonResults(lines=False) as results:
        results.add([results.add(1), 1 // 0])
    assert json.loads(capsys.readouterr().out) == [1]
