"""Diagnose a source of videos or a prepared store: survey, checks, estimates."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresnet.data.catalog import Catalog
from stresnet.data.finding import Finding
from stresnet.data.prepared_video import StoreSpec
from stresnet.data.store import Store
from stresnet.data.workers import default_workers
from stresnet.doctor.checks import CHECKS
from stresnet.doctor.estimates import Estimates, estimate
from stresnet.doctor.survey import Survey, survey_source, survey_store
from stresnet.errors import StoreError
from stresnet.progress import Progress
from stresnet.recipes import Recipe

FORMAT = "stresnet doctor 1"
_ORDER = ("error", "warning", "note")


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What is wrong with a set of videos, and what to expect of it.

    Attributes:
        survey: the videos.
        findings: what is wrong, the worst first.
        estimates: what preparing and training will need; None if they were not asked for, or nothing can be trained.
    """

    survey: Survey
    findings: tuple[Finding, ...]
    estimates: Estimates | None

    @property
    def wasted(self) -> bool:
        """Whether training would be wasted, see `stresnet.data.finding.SEVERITIES`."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as JSON types.

        ``format``     "stresnet doctor 1"
        ``source``     the path of the source or store, and ``prepared``, whether it is a store
        ``videos``     how many are there (``listed``), ``usable``, and of these ``train``, ``val`` and ``test``
        ``frames``     of all usable videos
        ``classes``    their names
        ``wasted``     whether training would be wasted: there is a finding of severity "error"
        ``findings``   a list of {``severity``, ``kind``, ``message``, ``videos``}, the worst first
        ``estimates``  null, or: ``prepare`` (null for a store) with ``hours`` and ``disk_bytes``; ``recipes``, a list
                       of {``recipe``, ``hours``, ``memory_bytes``, ``disk_bytes``, ``problem``}, null where unknown;
                       and ``load``, what else ran on each core (above 1, the times are too long)
        """
        store = self.survey.store
        splits = {split: len(store.select(split)) for split in ("train", "val", "test")}
        usable = store.select()
        return {
            "format": FORMAT,
            "source": str(store.root),
            "prepared": self.survey.prepared,
            "videos": {"listed": len(store.entries), "usable": len(usable), **splits},
            "frames": int(usable.column("frames").to_numpy().sum()),
            "classes": list(store.classes),
            "wasted": self.wasted,
            "findings": [finding.to_dict() for finding in self.findings],
            "estimates": None if self.estimates is None else self.estimates.to_dict(),
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{sum(f.severity == s for f in self.findings)} {s}s" for s in _ORDER)
        return f"Diagnosis({counts})"


def diagnose(
    source: Catalog | Store,
    root: str | Path,
    spec: StoreSpec,
    recipes: Sequence[Recipe] = (),
    *,
    verify: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Diagnose the videos of a catalog, or of a prepared store.

    Args:
        source: the videos.
        root: the path of the source, for messages; of no use for a store.
        spec: how the videos of a catalog would be prepared.
        recipes: the recipes to estimate; none to skip all estimates.
        verify: whether to read every video of a store as a whole and compare it with its checksum.
        workers: number of processes; by default one per usable core.
        progress: called as the work goes on.
    """
    workers = workers or default_workers()
    if isinstance(source, Store):
        survey = survey_store(source, workers, progress, verify=verify)
    else:
        survey = survey_source(source, Path(root), spec, workers, progress)
    findings = [finding for check in CHECKS for finding in check(survey)]
    estimates = None
    try:
        estimates = estimate(survey, recipes, workers, progress) if recipes else None
    except StoreError as error:  # the findings are worth more
        findings.append(Finding("damaged" if survey.prepared else "disk", str(error)))
    findings += _disk(estimates)
    findings.sort(key=lambda finding: _ORDER.index(finding.severity))
    return Diagnosis(survey, tuple(findings), estimates)


def _disk(estimates: Estimates | None) -> Iterator[Finding]:
    if estimates is not None and estimates.prepare is not None:
        needed, free = estimates.prepare.disk_bytes, shutil.disk_usage(".").free
        if needed > free:
            amounts = f"about {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free in this folder"
            yield Finding(
                "disk", f"the store will take {amounts}; prepare on another disk or at a smaller --short-side"
            )
