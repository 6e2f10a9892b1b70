"""The page of a study, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stresnet import __version__
from stresnet.evaluation.metrics import Interval
from stresnet.studies.plan import Plan
from stresnet.studies.results import Comparison, RowResult, StudyResult

_METHOD = """\
Top-1 accuracy in %, with 95 % confidence intervals: each video counts once, with the share of its seeds that are right,
and the intervals come from 2,000 bootstrap resamples of {units}. They reflect the choice of videos; the columns of the
seeds show how much training varies. *Difference*: to the row *{reference}*, on the same videos. *Better, worse*:
videos that more, or fewer, seeds classify correctly than with that row. *p*: exact paired test with random signs of
the differences of {units} (McNemar's test, if each video is its own group and there is one seed); *Holm*: corrected for
the {tests} rows tested. *Minutes*: of training per fold and seed, of the stages that the row reports; *in all*: with
those that these start from, which rows share where they are the same.
"""


def render_page(plan: Plan, result: StudyResult) -> str:
    """Return the page of what a study has found so far."""
    study = plan.study
    parts = [
        f"# {study.title or study.name}",
        *([study.note.strip()] if study.note else []),
        _what_was_run(plan, result),
    ]
    if result.rows:
        units = "groups" if result.groups else "videos"
        titles = {row.name: row.title for row in plan.rows}
        tests = sum(row.comparison is not None for row in result.rows)
        parts += ["\n".join(_main_table(result.rows))]
        parts += [_METHOD.format(units=units, reference=titles[study.reference], tests=tests).rstrip()]
        parts += ["## By fold and seed", "\n".join(_fold_table(result.rows))]
        parts += ["## What the rows change", "\n".join(_changes_table(result.rows))]
    if result.failed:
        failed = [f"- {_cell(title)}: {_cell(reason)}" for title, reason in result.failed.items()]
        parts += ["## Rows that failed", "\n".join(failed)]
    return "\n\n".join(parts) + "\n"


def _what_was_run(plan: Plan, result: StudyResult) -> str:
    study, store = plan.study, plan.store
    seeds = f"seeds {', '.join(map(str, study.seeds))}" if len(study.seeds) > 1 else f"seed {study.seeds[0]}"
    groups = f" in {result.groups} groups" if result.groups else ""
    how = f"held out once each, in {study.folds} folds by group" if study.folds else "the test split"
    text = (
        f"{store.name}: {result.videos} test videos{groups} of {len(store.classes)} classes, {how}; {seeds}; protocol "
        f"`{plan.rows[0].protocol}`; recipe `{study.recipe}`; stresnet {__version__}."
    )
    if result.complete < result.blocks:
        text += f" **Not complete: {result.complete} of {result.blocks} pairs of fold and seed so far.**"
    if result.unscored:
        text += f" {result.unscored} videos are left out because a model could not score them."
    return text


def _main_table(rows: Sequence[RowResult]) -> Iterator[str]:
    yield "| | top-1 (95 %) | difference (95 %) | better, worse | p | Holm | minutes | in all |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        compared = _comparison(row.comparison) if row.comparison else ["reference", "", "", ""]
        cells = [_cell(row.title), _interval(row.top1), *compared, f"{row.minutes:.1f}", f"{row.all_minutes:.1f}"]
        yield _line(cells)


def _comparison(comparison: Comparison) -> list[str]:
    return [
        _interval(comparison.difference, sign="+"),
        f"{comparison.better}, {comparison.worse}",
        _p_value(comparison.p_value),
        _p_value(comparison.corrected),
    ]


def _fold_table(rows: Sequence[RowResult]) -> Iterator[str]:
    seeds = [f"seed {seed}" for seed in rows[0].by_seed]
    yield _line(["", *rows[0].by_fold, *seeds])
    yield "|" + "---|" * (1 + len(rows[0].by_fold) + len(seeds))
    for row in rows:
        yield _line([_cell(row.title), *(f"{100 * v:.1f}" for v in (*row.by_fold.values(), *row.by_seed.values()))])


def _changes_table(rows: Sequence[RowResult]) -> Iterator[str]:
    yield "| | changes |"
    yield "|---|---|"
    for row in rows:
        yield _line([_cell(row.title), " ".join(f"`{_cell(change)}`" for change in row.changes) or "none"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Return a text in one line that cannot end its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _interval(interval: Interval, sign: str = "") -> str:
    value, low, high = (f"{100 * x:{sign}.1f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} ({low} – {high})".replace("-", "−")


def _p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"
