"""`stresnet predict`: the action in video files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, console, exit_with_failures, note, note_damaged, print_json
from stresnet.errors import StresnetError

if TYPE_CHECKING:
    from stresnet.data.sampling import Protocol
    from stresnet.inference.prediction import Prediction
    from stresnet.inference.recognizer import Recognizer
    from stresnet.progress import Progress


def predict(
    model: Annotated[str, typer.Argument(help="Model file, folder of a run, URL or hub name.", show_default=False)],
    videos: Annotated[
        list[str], typer.Argument(help="Video files; FILE#t=10,20 is a segment, in seconds.", show_default=False)
    ],
    top: Annotated[int, typer.Option(help="Number of actions to list.", min=1)] = 5,
    protocol: options.Protocol = None,
    device: options.Device = None,
    flow_preset: Annotated[
        str | None,
        typer.Option(
            help="Preset of the model's flow method instead of the one of training: fast for tvl1.", show_default=False
        ),
    ] = None,
    precision: options.Precision = "auto",
    compiled: options.Compile = None,
    as_json: options.Json = False,
) -> None:
    """Recognise the action in each video. Flow is computed too."""
    from stresnet.inference.engine import worth_compiling
    from stresnet.inference.protocols import stride_note
    from stresnet.inference.recognizer import Recognizer
    from stresnet.weights.fetch import fetch

    given, wanted = options.parse_protocols([protocol] if protocol else []), options.parse_precision(precision)
    with Bar(transient=True) as bar:
        file = fetch(model, progress=bar)
    if compiled is None:
        compiled = worth_compiling(len(videos), wanted, device)
    recognizer = Recognizer(file, device=device, precision=wanted, compiled=compiled, flow_preset=flow_preset)
    chosen = given[0] if given else recognizer.protocol
    _note_differences(model, recognizer)
    results: list[dict[str, Any]] = []
    with Bar(transient=True) as bar:
        for video, found in zip(videos, _predictions(recognizer, videos, chosen, top, bar), strict=True):
            bar.clear()
            if isinstance(found, StresnetError):
                results.append({"video": video, "error": str(found)})
                continue
            results.append({"video": video} | {k: v for k, v in found.to_dict().items() if k != "scores"})
            if found.truncated:
                note_damaged(video, found.frames)
            if not as_json:
                names = "  ".join(f"{name} {probability:.1%}" for name, probability in found.top)
                console.print(f"{video}: {names}", soft_wrap=True)
    frames = [result["frames"] for result in results if "frames" in result]
    if text := stride_note(chosen, recognizer.checkpoint, frames):
        note(text)
    if as_json:
        print_json(results)
    exit_with_failures([(result["video"], result["error"]) for result in results if "error" in result])


def _note_differences(model: str, recognizer: Recognizer) -> None:
    """Note where the network or its flow is not the one that the recipe describes."""
    from stresnet.data.prepared_video import StoreSpec

    checkpoint = recognizer.checkpoint
    stages = [stage["name"] for stage in checkpoint.recipe.get("stages", ())]
    if Path(model).is_dir() and stages and stages[-1] != checkpoint.stage:
        note(f"the run is not finished: using its stage {checkpoint.stage}")
    trained, used = StoreSpec.from_dict(checkpoint.store_spec).flow, recognizer.store_spec.flow
    if used != trained:
        note(f"flow by {used.name} instead of {trained.name}, which the model was trained with")


def _predictions(
    recognizer: Recognizer, videos: Sequence[str], protocol: Protocol, top: int, bar: Bar
) -> Iterator[Prediction | StresnetError]:
    """Yield the prediction or the error of each video, and show how far the work is."""
    bar("recognising", 0, len(videos))
    if len(videos) == 1:
        try:
            yield recognizer.predict(videos[0], protocol=protocol, top=top, progress=_on_terminal(bar, videos[0]))
        except StresnetError as error:
            yield error
        return
    for done, found in enumerate(recognizer.predict_all(videos, protocol=protocol, top=top), 1):
        yield found
        if done < len(videos):
            bar("recognising", done, len(videos))


def _on_terminal(bar: Bar, video: str) -> Progress:
    """Return a callback that shows the progress within one video, on a terminal only."""
    name = Path(video).name[-40:]

    def progress(activity: str, done: int, total: int, detail: str = "") -> None:
        if bar.on_terminal:
            bar(f"{name}: {activity}", done, total, detail)

    return progress
