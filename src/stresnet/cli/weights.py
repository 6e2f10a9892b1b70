"""`stresnet weights`: what the authors and others have released, and getting it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from stresnet.cli.display import Bar, console, errors
from stresnet.errors import DownloadError, StresnetError

if TYPE_CHECKING:
    from stresnet.weights.released import Release

app = typer.Typer(help="Weights that the authors and others have released: list them, get them.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
MB = 10**6


@app.command("list")
def list_weights(as_json: Json = False) -> None:
    """Name the released weights: what they are, how good, and which are here already."""
    from stresnet.weights.released import releases

    if as_json:
        rows = [r.model_dump() | {"fetched": str(r.fetched) if r.fetched else None} for r in releases()]
        print(json.dumps(rows, ensure_ascii=False))
        return
    _show(releases())
    errors.print(
        "N: the official split, 1 to 3. top-1: in %, as published, on UCF101 and HMDB51 the mean of three splits. "
        "The names of files on the authors' server are from their scripts and could not be confirmed there.",
        soft_wrap=True,
    )


def _show(found: Sequence[Release]) -> None:
    """A table with a row for the splits of each."""
    from rich.table import Column, Table

    rows: dict[str, list[Release]] = {}
    for release in found:
        rows.setdefault(release.name.removesuffix(f"-{release.split}"), []).append(release)
    table = Table(Column("name", no_wrap=True), "what", "data", "top-1", "MB", "here", box=None, pad_edge=False)
    for name, of_splits in rows.items():
        first, here = of_splits[0], [r for r in of_splits if r.fetched]
        sizes = [r.fetched.stat().st_size / MB for r in here if r.fetched] or [first.megabytes or 0.0]
        table.add_row(
            name if first.split is None else f"{name}-N",
            first.title,
            first.dataset,
            "" if first.top1 is None else f"{first.top1:.1f}",
            f"{max(sizes):.0f}" if max(sizes) else "",
            ("yes" if first.split is None else ", ".join(str(r.split) for r in here)) if here else "",
        )
    console.print(table, soft_wrap=True)


@app.command("get")
def get_weights(
    name: Annotated[str, typer.Argument(help="A short name, see `stresnet weights list`.", show_default=False)],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The .safetensors file to write; default: NAME.safetensors here."),
    ] = None,
    mirror: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Folder or base URL to look in first; also $STRESNET_MIRRORS.", show_default=False),
    ] = None,
    sha256: Annotated[str, typer.Option(help="What the file must be, if you know better than the list.")] = "",
    classes: Annotated[
        str, typer.Option(help="File of class names, such as classInd.txt; for an image network also their number.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Download released weights, verify them, and turn them into a model (image weights, into a two-stream start)."""
    from stresnet.weights.checksum import sha256_of
    from stresnet.weights.convert import convert, require_possible
    from stresnet.weights.released import forget, get_released, release

    wanted = release(name)
    target = out or Path(f"{name}.safetensors")
    if target.exists():
        raise DownloadError(f"{target} exists already; remove it, or name another file with --out")
    if target.suffix.lower() != ".safetensors":
        raise DownloadError(f"--out {target}: expected a file ending in .safetensors; name another")
    image = wanted.dataset == "imagenet"
    if image and not classes:
        raise typer.BadParameter(f"{name} is an image network; it needs --classes, the actions to start for")
    require_possible(target, classes, 0 if image else wanted.classes)  # said before the download rather than after it
    known = bool(wanted.sha256 or wanted.md5 or sha256 or wanted.fetched)
    with Bar(transient=True) as bar:
        file = get_released(name, mirrors=mirror or [], sha256=sha256, progress=partial(bar.fetch, name))
    digest = sha256_of(file)
    note = "" if known else "; nobody has published its digest, so that later downloads are compared with this one"
    errors.print(f"{file}: {file.stat().st_size / MB:.1f} MB, sha256 {digest}{note}", soft_wrap=True)
    try:
        report = convert(file, target, classes=classes)
        _require_classes(wanted, file, target)
    except StresnetError:
        if not known:
            forget(name)  # or its digest would stand for the release ever after
        raise
    if as_json:
        values = {"out": str(report.out), "report": report.lines, "file": str(file), "sha256": digest}
        print(json.dumps(values, ensure_ascii=False))
        return
    for line in report.lines:
        console.print(line, soft_wrap=True)
    console.print(f"written: {report.out}", soft_wrap=True)


def _require_classes(wanted: Release, file: Path, model: Path) -> None:
    from stresnet.model.checkpoint import read_metadata

    found = read_metadata(model)["config"]["num_classes"]
    if wanted.dataset != "imagenet" and found != wanted.classes:
        model.unlink()
        raise DownloadError(f"{file} tells {found} classes apart, where {wanted.name} does {wanted.classes}: remove it")
