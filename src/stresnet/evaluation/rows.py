"""The rows of an evaluation: every model under every protocol, and the late fusion of the single streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.sampling import Protocol
from stresnet.evaluation.report import ReportRow
from stresnet.evaluation.score_files import ScoreFile, write_scores
from stresnet.evaluation.scores import fuse
from stresnet.evaluation.scoring import ScoredParts, SplitScorer
from stresnet.inference.recognizer import Recognizer
from stresnet.inference.runtime import read_model_metadata
from stresnet.model.metadata import ModelMetadata
from stresnet.model.profile import on_meta, parameters
from stresnet.recipes import LATE_FUSION, Stage

OpenModel = Callable[[Path], Recognizer]


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Attributes:
        model: its file, or the loaded recognizer.
        title: its name in the report.
        stage: the stage of the recipe that trained it, for a model of a run.
    """

    model: Path | Recognizer
    title: str
    stage: Stage | None = None

    @property
    def name(self) -> str:
        """Its name in error messages."""
        return self.title if isinstance(self.model, Recognizer) else str(self.model)

    @property
    def stage_name(self) -> str:
        """The name of its stage; the model must be one of a run."""
        assert self.stage is not None
        return self.stage.name

    def metadata(self) -> ModelMetadata:
        """Return its metadata, read from the file if there is one."""
        return self.model.metadata if isinstance(self.model, Recognizer) else read_model_metadata(self.model)

    def recognizer(self, open_model: OpenModel) -> Recognizer:
        """Return a recognizer; a loaded one stays as it is."""
        return self.model if isinstance(self.model, Recognizer) else open_model(self.model)


@dataclass(frozen=True)
class _Scored:
    """A candidate's scores under every protocol, and what the report says about it."""

    candidate: Candidate
    parts: Sequence[ScoredParts]
    minutes: float | None
    parameters: int

    def row(self, scores: ScoreFile, *, chosen: bool) -> ReportRow:
        """Return the row of scores merged from one of the parts."""
        stage = self.candidate.stage
        return ReportRow(
            table=scores,
            note=stage.note if stage else "",
            ceiling=stage.ceiling if stage else None,
            minutes=self.minutes,
            parameters=self.parameters,
            chosen=chosen,
        )


def score_rows(
    scorer: SplitScorer,
    candidates: Sequence[Candidate],
    protocols: Sequence[Protocol],
    open_model: OpenModel,
    late_fusion_ceiling: float | None,
    folder: Path,
) -> list[ReportRow]:
    """Score every candidate under every protocol, and write the scores of each row to a file in a folder.

    Returns:
        Rows ordered by protocol, then as the candidates, all with the same videos. The last candidate under the first
        protocol is marked as chosen. Where two of the candidates are single streams, a row of their late fusion
        follows them.

    Raises:
        StoreError: if none of the videos can be scored.
        ScoreError: if scores cannot be written.
    """
    # A video on which one model fails is left out of all rows, so no file is written before all models are done.
    scored = [_score(scorer, candidate, protocols, open_model) for candidate in candidates]
    files = _Files(folder)
    rows: list[ReportRow] = []
    for i, protocol in enumerate(protocols):
        of_protocol = [
            model.row(
                scorer.merge(model.parts[i], files.named(model.parts[i].name)), chosen=i == 0 and model is scored[-1]
            )
            for model in scored
        ]
        title = _title(LATE_FUSION, protocol, protocols[0])
        rows += _with_late_fusion(of_protocol, candidates, title, late_fusion_ceiling, files)
    return rows


class _Files:
    """Names of score files in a folder, each given out once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[str] = set()

    def named(self, title: str) -> Path:
        """Return the file for the row with a title."""
        slug = "".join(c if c.isalnum() or c in "*-" else "-" for c in title.lower())
        slug = slug.replace("*", "-star").strip("-")
        while slug in self._taken:
            slug += "-again"
        self._taken.add(slug)
        return self._folder / f"scores-{slug}.parquet"


def _title(title: str, protocol: Protocol, first: Protocol) -> str:
    """Return the name of a row, with its protocol unless it is the first."""
    return title if protocol == first else f"{title} ({protocol})"


def _score(scorer: SplitScorer, candidate: Candidate, protocols: Sequence[Protocol], open_model: OpenModel) -> _Scored:
    recognizer = candidate.recognizer(open_model)
    metadata = recognizer.metadata
    names = {protocol: _title(candidate.title, protocol, protocols[0]) for protocol in protocols}
    return _Scored(
        candidate=candidate,
        parts=scorer.score(recognizer, names),
        minutes=metadata.training.get("minutes"),
        parameters=parameters(on_meta(metadata.config)),
    )


def _with_late_fusion(
    rows: list[ReportRow], candidates: Sequence[Candidate], title: str, ceiling: float | None, files: _Files
) -> list[ReportRow]:
    """Insert the two-stream baseline, the mean of the single streams' scores, after these."""
    single = {
        candidate.stage.network.streams[0]: i
        for i, candidate in enumerate(candidates)
        if candidate.stage is not None and len(candidate.stage.network.streams) == 1
    }
    if set(single) != {"appearance", "motion"}:
        return rows
    pair = [rows[i] for i in single.values()]
    batches = zip(*(row.table.batches(streams=()) for row in pair), strict=True)
    fused = ReportRow(
        table=write_scores(files.named(title), (fuse(tables, name=title) for tables in batches)),
        note="mean of both streams' scores",
        ceiling=ceiling,
        minutes=sum(row.minutes or 0 for row in pair),
        parameters=sum(row.parameters or 0 for row in pair),
    )
    after = max(single.values()) + 1
    return [*rows[:after], fused, *rows[after:]]
