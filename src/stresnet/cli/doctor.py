"""`stresnet doctor`: what is wrong with videos or a store, before it costs a day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stresnet.cli import options
from stresnet.cli.display import Bar, console, errors, print_json
from stresnet.data.datasets import read_catalog

if TYPE_CHECKING:
    from stresnet.doctor.estimates import Estimates
    from stresnet.doctor.run import Diagnosis
    from stresnet.recipes import Recipe

_GENERATED = "demo"
"""The recipe of the generated videos, which nobody else needs an estimate for."""


def doctor(
    source: Annotated[
        Path, typer.Argument(help="Class folders or a list, as for `stresnet prepare`; or a store.", show_default=False)
    ],
    dataset: options.DatasetName = None,
    splits: options.SplitLists = None,
    split: options.SplitNumber = 1,
    train: options.TrainList = None,
    val: options.ValList = None,
    test: options.TestList = None,
    classes: options.ClassNames = None,
    short_side: Annotated[
        int, typer.Option(help="Short side in px that a source will be prepared at; a store has its own.", min=32)
    ] = 256,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="Recipe to estimate, or a .yaml file. May be repeated. Default: all that are packaged.",
            show_default=False,
        ),
    ] = None,
    no_estimates: Annotated[
        bool, typer.Option("--no-estimates", help="Do not measure what preparing and training will need here.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every video of a store as a whole and compare its checksum.")
    ] = False,
    page: Annotated[Path | None, typer.Option(help="HTML file to write, with pictures of the videos.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of processes. Default: one per core.", min=1)] = None,
    as_json: options.Json = False,
) -> None:
    """Say what is wrong with videos before they are prepared, or with a store, and what training will need."""
    from stresnet.data.store import Store, StoreSpec
    from stresnet.doctor.page import write_page
    from stresnet.doctor.run import diagnose
    from stresnet.flow import FlowSpec

    recipes = [] if no_estimates else _recipes(recipe or [])
    is_store = (source / "store.json").is_file()
    if verify and not is_store:
        raise typer.BadParameter(f"--verify compares a store with its checksums, but {source} is not one")
    options.check_dataset(dataset, splits)
    lists = {name: file for name, file in (("train", train), ("val", val), ("test", test)) if file is not None}
    with Bar() as bar:
        diagnosis = diagnose(
            Store.open(source)
            if is_store
            else read_catalog(
                source, dataset=dataset, lists=splits, split=split, split_lists=lists, class_names=classes
            ),
            source,
            StoreSpec(FlowSpec(short_side=short_side)),
            recipes,
            verify=verify,
            workers=workers,
            progress=bar,
        )
        if page is not None:
            write_page(page, diagnosis, workers=workers, progress=bar)
    if as_json:
        print_json(diagnosis.to_dict())
    else:
        _show(diagnosis)
    if page is not None:
        errors.print(f"page: {page}", soft_wrap=True)
    if diagnosis.wasted:
        raise typer.Exit(1)


def _recipes(names: list[str]) -> list[Recipe]:
    from stresnet.recipes import load_recipe, packaged_recipes

    return [load_recipe(name) for name in names or packaged_recipes() if names or name != _GENERATED]


def _show(diagnosis: Diagnosis) -> None:
    values = diagnosis.to_dict()
    for finding in diagnosis.findings:
        console.print(f"{finding.severity}: {finding.message}", soft_wrap=True)
    videos = values["videos"]
    console.print(
        f"{videos['listed']} videos, {videos['usable']} usable with {values['frames']} frames; classes: "
        f"{len(values['classes'])}; training: {videos['train']}, validation: {videos['val']}, test: {videos['test']}",
        soft_wrap=True,
    )
    if diagnosis.estimates is not None:
        _show_estimates(diagnosis.estimates)
    if not diagnosis.findings:
        console.print("nothing found", soft_wrap=True)
    elif diagnosis.wasted:
        console.print("training would be wasted; mend the errors first", soft_wrap=True)


def _show_estimates(estimates: Estimates) -> None:
    from stresnet.doctor.page import bytes_text, hours_text

    busy = f"; it is busy (load {estimates.load:.1f} per core), so times are too long" if estimates.load > 1 else ""
    console.print(f"estimates for this machine, from a few videos and iterations{busy}:", soft_wrap=True)
    table = Table("", "time", "memory", "disk", "", box=None, pad_edge=False)
    if estimates.prepare is not None:
        table.add_row("prepare", hours_text(estimates.prepare.hours), "", bytes_text(estimates.prepare.disk_bytes), "")
    for row in estimates.recipes:
        table.add_row(
            f"train --recipe {row.recipe}",
            hours_text(row.hours),
            bytes_text(row.memory_bytes),
            bytes_text(row.disk_bytes),
            row.problem,
        )
    console.print(table)
