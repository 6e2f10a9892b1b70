"""`stresnet live`: the actions in a camera or stream, as they happen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, JsonResults, console, note
from stresnet.cli.predict import FlowPreset, Model, note_differences

if TYPE_CHECKING:
    from stresnet.inference.live import Mode
    from stresnet.inference.live_session import Judged, Pace
    from stresnet.media.feed import Arrival, Feed

SECONDS_BETWEEN_WARNINGS = 10

Source = Annotated[
    str,
    typer.Argument(
        help="Camera (0, 1 … or /dev/video0), URL (rtsp://, http://), video file, or - for standard input.",
        show_default=False,
    ),
]
ModeName = Annotated[
    str,
    typer.Option("--mode", help="immediate: judge each step at once. exact: as in one clip of the stream, but later."),
]
Views = Annotated[
    str,
    typer.Option(
        "--protocol", help="Crops of a frame, as in testing: center its centre; dense all of it, and its mirror."
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(help="Frames from one step to the next. Default: the middle of training.", min=1, show_default=False),
]
Reconnect = Annotated[
    bool, typer.Option(help="Open a stream again when it is interrupted, instead of ending with exit code 1.")
]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="Print a line of JSON for each step.")]


def live(
    model: Model,
    source: Source,
    mode: ModeName = "immediate",
    protocol: Views = "center",
    stride: Stride = None,
    top: Annotated[int, typer.Option(help="Number of actions to list.", min=1)] = 3,
    reconnect: Reconnect = True,
    device: options.Device = None,
    flow_preset: FlowPreset = None,
    precision: options.Precision = "auto",
    as_json_lines: JsonLines = False,
) -> None:
    """Recognise the actions in a stream as they happen, until it ends or Ctrl-C."""
    from stresnet.inference.live_session import Pace, file_arrivals, recognized
    from stresnet.inference.recognizer import Recognizer
    from stresnet.media.feed import Feed
    from stresnet.media.stream import is_stream
    from stresnet.weights.fetch import fetch

    seen, wanted = options.parse_protocols([protocol])[0], options.parse_precision(precision)
    with Bar(transient=True) as bar:
        file = fetch(model, progress=bar)
    recognizer = Recognizer(file, device=device, precision=wanted, flow_preset=flow_preset)
    note_differences(model, recognizer)
    stream = recognizer.live(_parse_mode(mode), protocol=seen, stride_frames=stride, top=top)
    spec, pace, feed = recognizer.store_spec, Pace(), None
    if is_stream(source):
        feed = Feed(source, short_side=spec.flow.short_side, spec=spec.frames, note=note, reconnect=reconnect)
        arrivals: Iterator[Arrival] = _told_of_drops(feed)
        note(f"a step every {stream.stride_frames} frames; its result {_delay(stream.delay_frames, feed.fps)} later")
    else:
        arrivals = file_arrivals(source, spec)
    lines = JsonResults(lines=True) if as_json_lines else None
    with closing(feed or cast(Any, arrivals)):
        try:
            for judged in recognized(stream, arrivals, pace):
                _show(judged, feed, lines)
        finally:
            note(_summary(pace, feed))


def _parse_mode(name: str) -> Mode:
    from stresnet.inference import live

    if name not in (names := get_args(live.Mode)):
        raise typer.BadParameter(f"--mode must be one of {', '.join(names)}, not {name!r}")
    return cast("Mode", name)


def _delay(frames: int, fps: float) -> str:
    return f"{frames} frames ({frames / fps:.1f} s)"


def _told_of_drops(feed: Feed) -> Iterator[Arrival]:
    """Yield the frames of a stream; note now and then if some were dropped."""
    told_sec, read, dropped = time.monotonic(), 0, 0
    for arrival in feed:
        yield arrival
        if (now_sec := time.monotonic()) - told_sec >= SECONDS_BETWEEN_WARNINGS:
            if feed.dropped > dropped:
                share = (feed.dropped - dropped) / (feed.read - read)
                note(f"too slow: {share:.0%} of the last frames were dropped; use a larger --stride or a smaller model")
            told_sec, read, dropped = now_sec, feed.read, feed.dropped


def _show(judged: Judged, feed: Feed | None, lines: JsonResults | None) -> None:
    """Print a result as text, unless `lines` takes it."""
    result = judged.result
    if lines:
        pace = {"latency": round(judged.latency_sec, 4), "dropped": feed.dropped} if feed else {}
        lines.add(result.to_dict() | pace)
    else:
        names = "  ".join(f"{label} {probability:.1%}" for label, probability in result.top)
        console.print(f"{result.time_sec:.2f} s: {names}", soft_wrap=True)


def _summary(pace: Pace, feed: Feed | None) -> str:
    """Return in a line how fast a stream was recognised."""
    elapsed_sec = max(pace.elapsed_sec(), 1e-9)
    text = f"{pace.results} results from {pace.frames} frames, {pace.frames / elapsed_sec:.1f} frames/s"
    if feed is None:
        return f"{text}, {pace.video_sec / elapsed_sec:.1f} × real time"
    latency = f"latency {pace.latency_sec(50):.2f} s, for 95 % at most {pace.latency_sec(95):.2f} s"
    return f"{text}, {feed.dropped} of {feed.read} dropped; {latency}"
