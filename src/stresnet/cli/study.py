"""`stresnet study`: the cells of a study, trained, scored and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stresnet.cli import options
from stresnet.cli.display import Bar, console, errors, exit_with_failures, note, print_json
from stresnet.cli.train import Init, fetch_initial_weights, warnings_about

if TYPE_CHECKING:
    from stresnet.studies import Plan, StudyResult


def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="YAML file of the study.", show_default=False)],
    store: options.Store,
    out: Annotated[Path, typer.Argument(help="Folder of the study.", show_default=False)],
    init: Init = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.", min=0)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and stop.")] = False,
    as_json: options.Json = False,
) -> None:
    """Train recipes that differ in a few fields on the same folds and seeds, and compare them in one page.

    Stages that are the same in several cells are trained once. Several processes may run the same study at once.
    """
    from stresnet.data.store import Store
    from stresnet.studies import load_study, plan_study, run_study

    loaded, recipes = load_study(file)
    prepared = Store.open(store)
    plan = plan_study(loaded, recipes, prepared, fetch_initial_weights(init or []))
    warnings = (text for recipe in recipes.values() for text in warnings_about(prepared, recipe, bool(loaded.folds)))
    for warning in dict.fromkeys(warnings):
        note(warning)
    if dry_run:
        _show_plan(plan, out, as_json=as_json)
        return
    with Bar() as bar:
        result = run_study(plan, out, workers=workers, progress=bar)
    _show_result(result, as_json=as_json)
    errors.print(f"page: {out / 'study.md'}", soft_wrap=True)
    exit_with_failures(list(result.failed.items()))


def _show_plan(plan: Plan, out: Path, *, as_json: bool) -> None:
    """Print the distinct stages, the rows that need each, and how many of their trainings are done."""
    from stresnet.studies.folder import StudyFolder

    summary = StudyFolder(out, plan).summary()
    if as_json:
        print_json(summary)
        return
    table = Table("stage", "trained", "for", box=None, pad_edge=False)
    for stage in summary["stages"]:
        names = stage["rows"]
        rows = ", ".join(names) if len(names) <= 4 else f"{len(names)} rows: {', '.join(names[:3])}, …"
        table.add_row(stage["stage"], f"{stage['trained']}/{summary['blocks']}", rows)
    console.print(table)
    sizes = f"{len(summary['stages'])} distinct stages × folds {summary['folds']} × seeds {summary['seeds']}"
    console.print(
        f"{summary['trainings']} trainings: {sizes}; {summary['trained']} done; without sharing stages there would be "
        f"{summary['unshared']}",
        soft_wrap=True,
    )


def _show_result(result: StudyResult, *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_dict())
        return
    table = Table("", "top-1", "95 %", "difference", "p", "Holm", "minutes", box=None, pad_edge=False)
    for row in result.rows:
        compared: list[Any] = ["", "", ""]
        if row.comparison:
            p_values = (row.comparison.p_value, row.comparison.corrected)
            compared = [f"{100 * row.comparison.difference.value:+.1f}", *(f"{p:.2g}" for p in p_values)]
        top1 = row.top1
        table.add_row(
            row.title,
            f"{100 * top1.value:.1f}",
            f"{100 * top1.low:.1f} – {100 * top1.high:.1f}",
            *compared,
            f"{row.all_minutes:.1f}",
        )
    console.print(table)
