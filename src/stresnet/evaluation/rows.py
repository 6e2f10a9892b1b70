"""The rows of an evaluation: every model under every protocol, and the late fusion of the single streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stresnet.evaluation.report import ReportRow
from stresnet.evaluation.scores import ScoreTable, fuse
from stresnet.evaluation.scoring import SplitScorer
from stresnet.inference.protocols import Protocol
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint, load_checkpoint
from stresnet.recipes import LATE_FUSION, Stage


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

    def checkpoint(self) -> Checkpoint:
        """Return its checkpoint, read from the file if there is one."""
        return self.model.checkpoint if isinstance(self.model, Recognizer) else load_checkpoint(self.model)

    def recognizer(self, device: str | None) -> Recognizer:
        """Return a recognizer; a loaded one stays on its device."""
        return self.model if isinstance(self.model, Recognizer) else Recognizer(self.model, device=device)


def score_rows(
    scorer: SplitScorer,
    candidates: Sequence[Candidate],
    protocols: Sequence[Protocol],
    device: str | None,
    late_fusion_ceiling: float | None,
) -> list[ReportRow]:
    """Score every candidate under every protocol.

    Returns:
        Rows ordered by protocol, then as the candidates, all with the same videos. The last candidate under the first
        protocol is marked as chosen. Where two of the candidates are single streams, a row of their late fusion
        follows them.

    Raises:
        StoreError: if none of the videos can be scored.
    """
    scored = [[_score(scorer, c, protocol, protocols[0], device) for c in candidates] for protocol in protocols]
    rows: list[ReportRow] = []
    for protocol, of_protocol in zip(protocols, scored, strict=True):
        of_protocol = [replace(row, table=scorer.without_failed(row.table)) for row in of_protocol]
        if protocol == protocols[0]:
            of_protocol[-1] = replace(of_protocol[-1], chosen=True)
        rows += _with_late_fusion(
            of_protocol, candidates, _title(LATE_FUSION, protocol, protocols[0]), late_fusion_ceiling
        )
    return rows


def _title(title: str, protocol: Protocol, first: Protocol) -> str:
    """Return the name of a row, with its protocol unless it is the first."""
    return title if protocol == first else f"{title} ({protocol})"


def _score(
    scorer: SplitScorer, candidate: Candidate, protocol: Protocol, first: Protocol, device: str | None
) -> ReportRow:
    recognizer, stage = candidate.recognizer(device), candidate.stage
    table = scorer.score(recognizer, protocol, _title(candidate.title, protocol, first))
    return ReportRow(
        table=table,
        note=stage.note if stage else "",
        ceiling=stage.ceiling if stage else None,
        minutes=recognizer.checkpoint.training.get("minutes"),
        parameters=sum(p.numel() for p in recognizer.checkpoint.model.parameters()),
    )


def _with_late_fusion(
    rows: list[ReportRow], candidates: Sequence[Candidate], title: str, ceiling: float | None
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
    tables: list[ScoreTable] = [row.table for row in pair]
    fused = ReportRow(
        table=fuse(tables, name=title),
        note="mean of both streams' scores",
        ceiling=ceiling,
        minutes=sum(row.minutes or 0 for row in pair),
        parameters=sum(row.parameters or 0 for row in pair),
    )
    after = max(single.values()) + 1
    return [*rows[:after], fused, *rows[after:]]
