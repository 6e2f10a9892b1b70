"""`stresnet weights`: list and download released weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, console, errors, print_json
from stresnet.errors import DownloadError, StresnetError

if TYPE_CHECKING:
    from stresnet.weights.released import Release

app = typer.Typer(help="List and download the weights that the authors and others have released.", no_args_is_help=True)

MB = 10**6


@app.command("list")
def list_weights(as_json: options.Json = False) -> None:
    """List the released weights: network, data set, published accuracy, and which are downloaded."""
    from stresnet.weights.released import releases

    if as_json:
        rows = [r.model_dump() | {"fetched": str(r.fetched) if r.fetched else None} for r in releases()]
        print_json(rows)
        return
    _show(releases())
    errors.print(
        "N: official split, 1 to 3. top-1: confirmed published accuracy in %; on UCF101, the mean of three splits. "
        "File names on the authors' server are taken from their scripts and have not been confirmed there.",
        soft_wrap=True,
    )


def _show(found: Sequence[Release]) -> None:
    """Print a table with one row for all splits of a release."""
    from rich.table import Column, Table

    rows: dict[str, list[Release]] = {}
    for release in found:
        rows.setdefault(release.name.removesuffix(f"-{release.split}"), []).append(release)
    table = Table(Column("name", no_wrap=True), "network", "data set", "top-1", "MB", "local", box=None, pad_edge=False)
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
    name: Annotated[str, typer.Argument(help="Name from `stresnet weights list`.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="File to write (.safetensors). Default: NAME.safetensors in this folder.")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder or base URL to try first. May be repeated; also $STRESNET_MIRRORS.", show_default=False
        ),
    ] = None,
    sha256: Annotated[
        str, typer.Option(help="Expected SHA-256 of the file, instead of the listed one.", show_default=False)
    ] = "",
    classes: options.Classes = "",
    as_json: options.Json = False,
) -> None:
    """Download released weights, verify them and convert them to a model (image weights: to an initial model)."""
    from stresnet.weights.convert import convert, require_possible
    from stresnet.weights.digest import sha256_of
    from stresnet.weights.released import forget, get_released, release

    wanted = release(name)
    target = out or Path(f"{name}.safetensors")
    if target.exists():
        raise DownloadError(f"{target} already exists; remove it, or name another file with --out")
    if target.suffix.lower() != ".safetensors":
        raise DownloadError(f"--out {target}: expected a file ending in .safetensors; name another")
    image = wanted.dataset == "imagenet"
    if image and not classes:
        raise typer.BadParameter(f"{name} is an image network; give the class names with --classes")
    require_possible(target, classes, 0 if image else wanted.classes)  # before the download
    known = bool(wanted.sha256 or wanted.md5 or sha256 or wanted.fetched)
    with Bar(transient=True) as bar:
        file = get_released(name, mirrors=mirror or [], sha256=sha256, progress=bar)
    digest = sha256_of(file)
    note = "" if known else "; no digest is published, so later downloads are compared with this one"
    errors.print(f"{file}: {file.stat().st_size / MB:.1f} MB, sha256 {digest}{note}", soft_wrap=True)
    try:
        report = convert(file, target, classes=classes)
        _require_classes(wanted, file, target)
    except StresnetError:
        if not known:
            forget(name)  # else later downloads would be compared with the digest of a wrong file
        raise
    if as_json:
        values = {"out": str(report.out), "report": report.lines, "file": str(file), "sha256": digest}
        print_json(values)
        return
    for line in report.lines:
        console.print(line, soft_wrap=True)
    console.print(f"written: {report.out}", soft_wrap=True)


def _require_classes(wanted: Release, file: Path, model: Path) -> None:
    from stresnet.model.checkpoint import read_metadata

    found = read_metadata(model)["config"]["num_classes"]
    if wanted.dataset != "imagenet" and found != wanted.classes:
        model.unlink()
        raise DownloadError(f"{file} has {found} classes, expected {wanted.classes} for {wanted.name}; remove it")
