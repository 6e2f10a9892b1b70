"""`stresnet predict`: the action in video files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, console, exit_with_failures, note, note_damaged
from stresnet.errors import StresnetError, VideoError

if TYPE_CHECKING:
    from stresnet.progress import Progress


def predict(
    model: Annotated[str, typer.Argument(help="Model file, folder of a run, URL or hub name.", show_default=False)],
    videos: Annotated[list[str], typer.Argument(help="Video files.", show_default=False)],
    top: Annotated[int, typer.Option(help="Number of actions to list.", min=1)] = 5,
    protocol: options.Protocol = "dense25",
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Recognise the action in each video. Flow is computed too."""
    from stresnet.inference.recognizer import Recognizer
    from stresnet.weights.fetch import fetch

    chosen = options.parse_protocols([protocol])[0]
    with Bar(transient=True) as bar:
        recognizer = Recognizer(fetch(model, progress=bar), device=device)
    stages = [stage["name"] for stage in recognizer.checkpoint.recipe.get("stages", ())]
    if Path(model).is_dir() and stages and stages[-1] != recognizer.checkpoint.stage:
        note(f"the run is not finished: using its stage {recognizer.checkpoint.stage}")
    results: list[dict[str, Any]] = []
    with Bar(transient=True) as bar:
        for done, video in enumerate(videos):
            bar("recognising", done, len(videos))
            name = Path(video).name[-40:]
            label = f"{done + 1}/{len(videos)} {name}" if len(videos) > 1 else name
            try:
                _require_local(video)
                found = recognizer.predict(video, protocol=chosen, top=top, progress=_nested(bar, label))
            except StresnetError as error:
                results.append({"video": video, "error": str(error)})
                continue
            results.append({"video": video} | {k: v for k, v in found.to_dict().items() if k != "scores"})
            bar.clear()
            if found.truncated:
                note_damaged(video, found.frames)
            if not as_json:
                names = "  ".join(f"{name} {probability:.1%}" for name, probability in found.top)
                console.print(f"{video}: {names}", soft_wrap=True)
    if as_json:
        print(json.dumps(results, ensure_ascii=False))
    exit_with_failures([(result["video"], result["error"]) for result in results if "error" in result])


def _require_local(video: str) -> None:
    if "://" in video and not Path(video).exists():
        raise VideoError(f"{video}: expected a file, found a URL; download it first")


def _nested(bar: Bar, label: str) -> Progress:
    """Return a callback that shows the progress within one video, on a terminal only."""

    def progress(activity: str, done: int, total: int, detail: str = "") -> None:
        if bar.on_terminal:
            bar(f"{label}: {activity}", done, total, detail)

    return progress
