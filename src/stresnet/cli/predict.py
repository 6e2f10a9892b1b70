"""`stresnet predict`: the action in video files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, JsonResults, console, exit_with_failures, note, note_damaged
from stresnet.cli.predict_files import (
    require_timeline_files,
    within_video,
    write_explanations,
    write_features,
    write_timeline_files,
)
from stresnet.errors import StresnetError

if TYPE_CHECKING:
    from stresnet.data.sampling import Protocol
    from stresnet.data.sources import NamedVideo
    from stresnet.inference.prediction import Prediction
    from stresnet.inference.recognizer import Recognizer


Model = Annotated[str, typer.Argument(help="Model file, folder of a run, URL or hub name.", show_default=False)]
Sources = Annotated[
    list[str],
    typer.Argument(
        help="Videos: files, segments such as 'a.mp4#t=10,20' (seconds), folders, patterns such as '**/*.mp4', "
        "lists (.csv, .txt …), URLs.",
        show_default=False,
    ),
]
Start = Annotated[
    str, typer.Option("--from", help="Use each video from this time on: seconds, or h:m:s.", show_default=False)
]
End = Annotated[str, typer.Option("--to", help="Use each video up to this time.", show_default=False)]
FlowPreset = Annotated[
    str | None,
    typer.Option(
        help="Preset of the model's flow method instead of the one of training: fast for tvl1.", show_default=False
    ),
]
TimelineFile = Annotated[
    Path | None,
    typer.Option(
        "--timeline",
        help="Write when what happens in one video to this file: .json, .csv, .vtt, .srt or .html.",
        show_default=False,
    ),
]
OverlayFile = Annotated[
    Path | None,
    typer.Option(
        "--overlay", help="Write the video to this MP4 with its running label and time line drawn.", show_default=False
    ),
]
OverlayFlow = Annotated[bool, typer.Option("--overlay-flow", help="Draw the flow into the overlay's corner.")]
ExplainFolder = Annotated[
    Path | None,
    typer.Option(
        "--explain",
        help="Write a page on each video to this folder: where in it, and through which links, the network found "
        "the action.",
        show_default=False,
    ),
]
ExplainClass = Annotated[
    str | None, typer.Option(help="The class to explain. Default: the most likely one.", show_default=False)
]
EmbeddingFile = Annotated[
    Path | None,
    typer.Option("--embed", help="Write the features of each video to this Parquet file instead.", show_default=False),
]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="Print a line of JSON for each video.")]


def predict(
    model: Model,
    sources: Sources,
    start: Start = "",
    end: End = "",
    top: Annotated[int, typer.Option(help="Number of actions to list.", min=1)] = 5,
    protocol: options.Protocol = None,
    device: options.Device = None,
    flow_preset: FlowPreset = None,
    stream: options.Stream = None,
    precision: options.Precision = "auto",
    compiled: options.Compile = None,
    timeline: TimelineFile = None,
    window_sec: options.WindowSec = None,
    stride_sec: options.StrideSec = None,
    smooth_sec: options.SmoothSec = 0,
    min_score: options.MinScore = 0,
    overlay: OverlayFile = None,
    overlay_flow: OverlayFlow = False,
    explain: ExplainFolder = None,
    explain_class: ExplainClass = None,
    embed: EmbeddingFile = None,
    as_json: options.Json = False,
    as_json_lines: JsonLines = False,
) -> None:
    """Recognise the action in each video. Flow is computed too. Results are printed as they come."""
    from stresnet.data.segment import parse_segment
    from stresnet.data.sources import named_videos
    from stresnet.inference.recognizer import Recognizer
    from stresnet.inference.runtime import worth_compiling
    from stresnet.weights.fetch import fetch

    try:
        segment = parse_segment(start, end)
    except ValueError as error:
        raise typer.BadParameter(f"--from and --to: {error}") from None
    given, wanted = options.parse_protocols([protocol] if protocol else []), options.parse_precision(precision)
    with Bar(transient=True) as bar:
        file = fetch(model, progress=bar)
    notes: list[str] = []
    videos = named_videos(sources, notes, segment)
    for text in notes:
        note(text)
    if timeline or overlay:
        require_timeline_files(timeline, overlay)
        if len(videos) != 1 or videos[0].problem:
            found = videos[0].problem or f"found {len(videos)}"
            raise typer.BadParameter(f"--timeline and --overlay are for one video: {found}")
    if compiled is None:
        compiled = worth_compiling(file, len(videos), wanted, device)
    recognizer = Recognizer(
        file, device=device, precision=wanted, compiled=compiled, flow_preset=flow_preset, stream=stream
    )
    note_differences(model, recognizer)
    if timeline or overlay:
        name = videos[0].name
        with Bar(transient=True) as bar:
            shown = within_video(bar, name)
            line = recognizer.timeline(name, window_sec=window_sec, stride_sec=stride_sec, progress=shown)
        line = line.smoothed(smooth_sec)
        flow = recognizer.store_spec.flow if overlay_flow else None
        write_timeline_files(name, line, min_score, timeline, overlay, flow, as_json=as_json or as_json_lines)
        return
    if explain:
        write_explanations(recognizer, videos, explain, explain_class, as_json=as_json, as_json_lines=as_json_lines)
        return
    if embed:
        windows = None if window_sec is None else (window_sec, stride_sec)
        write_features(recognizer, videos, embed, given[0] if given else recognizer.protocol, windows)
        return
    with ExitStack() as stack:
        bar = stack.enter_context(Bar(transient=True))
        results = stack.enter_context(JsonResults(lines=as_json_lines)) if as_json or as_json_lines else None
        _show_predictions(recognizer, videos, given[0] if given else recognizer.protocol, top, bar, results)


def _show_predictions(
    recognizer: Recognizer,
    videos: Sequence[NamedVideo],
    protocol: Protocol,
    top: int,
    bar: Bar,
    results: JsonResults | None,
) -> None:
    """Print the prediction of each video, as text unless `results` takes it, and name the failures."""
    from stresnet.inference.protocols import stride_note

    failed: list[tuple[str, str]] = []
    frames: list[int] = []
    for name, found in _predictions(recognizer, videos, protocol, top, bar):
        bar.clear()
        if isinstance(found, StresnetError):
            failed.append((name, str(found)))
            shown: dict[str, Any] = {"error": str(found)}
        else:
            frames.append(found.frames)
            shown = {key: value for key, value in found.to_dict().items() if key != "scores"}
            if found.truncated:
                note_damaged(name, found.frames)
        if results:
            results.add({"video": name} | shown)
        elif not isinstance(found, StresnetError):
            names = "  ".join(f"{label} {probability:.1%}" for label, probability in found.top)
            console.print(f"{name}: {names}", soft_wrap=True)
    if text := stride_note(protocol, recognizer.metadata, frames):
        note(text)
    exit_with_failures(failed)


def note_differences(model: str, recognizer: Recognizer) -> None:
    """Note where the network or its flow is not the one that the recipe describes."""
    from stresnet.data.prepared_video import StoreSpec

    metadata = recognizer.metadata
    stages = [stage["name"] for stage in metadata.recipe.get("stages", ())]
    if Path(model).is_dir() and stages and stages[-1] != metadata.stage:
        note(f"the run is not finished: using its stage {metadata.stage}")
    trained, used = StoreSpec.from_dict(metadata.store_spec).flow, recognizer.store_spec.flow
    if used != trained:
        note(f"flow by {used.name} instead of {trained.name}, which the model was trained with")


def _predictions(
    recognizer: Recognizer, videos: Sequence[NamedVideo], protocol: Protocol, top: int, bar: Bar
) -> Iterator[tuple[str, Prediction | StresnetError]]:
    """Yield the name of each video and its prediction or its error, and show how far the work is."""
    bar("recognising", 0, len(videos))
    names = [video.name for video in videos if not video.problem]
    if len(videos) == len(names) == 1:
        try:
            yield (
                names[0],
                recognizer.predict(names[0], protocol=protocol, top=top, progress=within_video(bar, names[0])),
            )
        except StresnetError as error:
            yield names[0], error
        return
    predictions = recognizer.predict_all(names, protocol=protocol, top=top)
    for done, video in enumerate(videos, 1):
        yield video.name, StresnetError(video.problem) if video.problem else next(predictions)
        if done < len(videos):
            bar("recognising", done, len(videos))
