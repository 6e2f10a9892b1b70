"""What `stresnet predict` writes to files: time lines, overlays, explanations and features."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stresnet.cli.display import Bar, JsonResults, console, errors, exit_with_failures, note_damaged, print_json
from stresnet.errors import StresnetError

if TYPE_CHECKING:
    from stresnet.data.sampling import Protocol
    from stresnet.data.sources import NamedVideo
    from stresnet.flow import FlowSpec
    from stresnet.inference.recognizer import Recognizer
    from stresnet.inference.timeline import Timeline
    from stresnet.progress import Progress


def require_timeline_files(timeline: Path | None, overlay: Path | None) -> None:
    """Raise unless a time line can be written to these files. Call it before anything is computed.

    Raises:
        ScoreError: it cannot.
    """
    from stresnet.inference.overlay import require_overlay
    from stresnet.inference.timeline_files import require_timeline_format

    if timeline:
        require_timeline_format(timeline)
    if overlay:
        require_overlay()


def write_timeline_files(
    video: str,
    line: Timeline,
    min_score: float,
    timeline: Path | None,
    overlay: Path | None,
    flow: FlowSpec | None,
    *,
    as_json: bool,
) -> None:
    """Write the time line of a video, and the video with it, and print the segments."""
    from stresnet.inference.overlay import write_overlay
    from stresnet.inference.timeline_files import write_timeline

    if timeline:
        write_timeline(timeline, line, title=video, min_score=min_score)
    if overlay:
        with Bar(transient=True) as bar:
            shown = within_video(bar, video)
            write_overlay(overlay, video, line, min_score=min_score, flow=flow, progress=shown)
    _show_timeline(line, video, min_score, as_json=as_json)


def _show_timeline(timeline: Timeline, video: str, min_score: float, *, as_json: bool) -> None:
    """Print the segments of a time line, as text or JSON."""
    if timeline.truncated:
        note_damaged(video, timeline.frames)
    if as_json:
        print_json({"video": video} | timeline.to_dict(min_score))
        return
    for segment in timeline.segments(min_score):
        times = f"{segment.start_sec:.2f} to {segment.end_sec:.2f} s"
        console.print(f"{times}: {segment.label} {segment.score:.1%}", soft_wrap=True)


def write_explanations(
    recognizer: Recognizer,
    videos: Sequence[NamedVideo],
    folder: Path,
    label: str | None,
    *,
    as_json: bool,
    as_json_lines: bool,
) -> None:
    """Write a page on each video, and print what each says in short."""
    from stresnet.inference.explanation_page import write_explanation

    if label is not None and label not in recognizer.classes:
        raise typer.BadParameter(f"--explain-class: the model has no class {label!r}")
    failed: list[tuple[str, str]] = []
    with ExitStack() as stack:
        bar = stack.enter_context(Bar(transient=True))
        results = stack.enter_context(JsonResults(lines=as_json_lines)) if as_json or as_json_lines else None
        for number, video in enumerate(videos, 1):
            try:
                if video.problem:
                    raise StresnetError(video.problem)
                found = recognizer.explain(video.name, label=label, progress=within_video(bar, video.name))
                name = f"{number}-{Path(video.name).stem}" if len(videos) > 1 else Path(video.name).stem
                page = write_explanation(folder, name, found, title=video.name)
            except StresnetError as error:
                failed.append((video.name, str(error)))
                continue
            bar.clear()
            if results:
                results.add({"video": video.name, "page": str(page)} | found.to_dict())
            else:
                console.print(f"{video.name}: {found.label} {found.probability:.1%}  {page}", soft_wrap=True)
    exit_with_failures(failed)


def write_features(
    recognizer: Recognizer,
    videos: Sequence[NamedVideo],
    out: Path,
    protocol: Protocol,
    windows_sec: tuple[float, float | None] | None,
) -> None:
    """Write the features of each video, or of windows of a length and stride in it, and name the failures."""
    from stresnet.inference.embedding_file import Row, write_embeddings

    failed: list[tuple[str, str]] = []
    rows: list[Row] = []
    with Bar() as bar:
        for done, video in enumerate(videos):
            bar("computing features", done, len(videos))
            try:
                if video.problem:
                    raise StresnetError(video.problem)
                if windows_sec is None:
                    rows.append((video.name, None, recognizer.embed(video.name, protocol=protocol)))
                else:
                    window_sec, stride_sec = windows_sec
                    found = recognizer.embed_windows(video.name, window_sec=window_sec, stride_sec=stride_sec)
                    rows += [(video.name, (start, end), features) for start, end, features in found]
            except StresnetError as error:
                failed.append((video.name, str(error)))
    if rows:
        write_embeddings(out, rows)
        errors.print(f"{len(rows)} row(s) of features: {out}", soft_wrap=True)
    exit_with_failures(failed)


def within_video(bar: Bar, video: str) -> Progress:
    """Return a callback that shows the progress within one video, on a terminal only."""
    name = Path(video).name[-40:]

    def progress(activity: str, done: int, total: int, detail: str = "") -> None:
        if bar.on_terminal:
            bar(f"{name}: {activity}", done, total, detail)

    return progress
