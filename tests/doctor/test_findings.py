"""Every fault that was planted is found, and nothing is found in a clean set, as a source and as a store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.planted import SPEC, write_clean, write_planted
from stresnet.data.catalog import VideoRecord
from stresnet.data.datasets import read_catalog
from stresnet.data.finding import SEVERITIES, Finding
from stresnet.data.prepare import prepare
from stresnet.data.store import Entries, Store, StoreEntry, video_path
from stresnet.doctor.checks import CHECKS
from stresnet.doctor.run import Diagnosis, diagnose
from stresnet.doctor.survey import Survey


def by_kind(findings: Iterable[Finding]) -> dict[str, set[tuple[str, ...]]]:
    found: dict[str, set[tuple[str, ...]]] = {}
    for finding in findings:
        assert "\n" not in finding.message
        found.setdefault(finding.kind, set()).add(tuple(sorted(finding.videos)))
    return found


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean") / "videos")


@pytest.fixture(scope="module")
def clean_store(clean: Path) -> Store:
    root = clean.parent / "store"
    prepare(read_catalog(clean), root, SPEC, workers=1)
    return Store.open(root)


def test_a_clean_set_gives_no_finding(clean: Path, clean_store: Store) -> None:
    for source in (read_catalog(clean), clean_store):
        diagnosis = diagnose(source, clean, SPEC, verify=isinstance(source, Store), workers=1)
        assert diagnosis.findings == ()
        assert not diagnosis.wasted
        assert diagnosis.to_dict()["videos"] == {"listed": 21, "usable": 21, "train": 15, "val": 0, "test": 6}


def test_planted_faults_are_found_before_and_after_preparing(tmp_path: Path) -> None:
    planted = write_planted(tmp_path / "videos")
    catalog = read_catalog(tmp_path / "videos")
    assert by_kind(diagnose(catalog, tmp_path, SPEC, workers=1).findings) == planted
    summary = prepare(catalog, tmp_path / "store", SPEC, workers=1)
    store = Store.open(tmp_path / "store")
    diagnosis = diagnose(store, "", SPEC, workers=1)
    assert by_kind(diagnosis.findings) == planted
    assert diagnosis.wasted
    assert [finding.severity for finding in diagnosis.findings[:2]] == ["error", "error"]
    assert set(summary.notes) <= {finding.message for finding in diagnosis.findings}


def test_damaged_prepared_videos(clean_store: Store, tmp_path: Path) -> None:
    ids = clean_store.entries.column("id").to_pylist()[:4]
    for name in ids:
        path = video_path(tmp_path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video_path(clean_store.root, name).read_bytes())
    whole = bytearray(video_path(tmp_path, ids[3]).read_bytes())
    at = whole.index(b"\xff\xd8\xff\xe0") + 30  # within the tables of the first JPEG
    whole[at] ^= 1
    video_path(tmp_path, ids[3]).write_bytes(whole)
    video_path(tmp_path, ids[1]).unlink()
    video_path(tmp_path, ids[2]).write_bytes(video_path(tmp_path, ids[2]).read_bytes()[:-100])
    entries = Entries.of(entry for name in ids if (entry := clean_store.entries.find(name)) is not None)
    store = replace(clean_store, root=tmp_path, entries=entries)

    def damaged(verify: bool) -> tuple[str, ...]:
        findings = diagnose(store, "", SPEC, verify=verify, workers=1).findings
        return next(finding.videos for finding in findings if finding.kind == "damaged")

    assert damaged(verify=False) == (ids[1], ids[2])
    assert damaged(verify=True) == (ids[1], ids[2], ids[3])


def survey_of(*rows: str, **fields: object) -> Survey:
    """Return the survey of videos given as ``split/class/group``, a number of times if it ends in ``*number``."""
    entries = []
    for row in rows:
        name, _, count = row.partition("*")
        split, label, group = (*name.split("/"), "")[:3]
        for _ in range(int(count or 1)):
            record = VideoRecord(f"{len(entries):03}", f"{len(entries)}.mp4", label, split, group)
            entries.append(StoreEntry(record, 20, 48, 64, 25.0, content=len(entries) + 1))
    classes = tuple(sorted({entry.record.label for entry in entries})) or ("a",)
    survey = Survey(Store(Path("store"), SPEC, classes, "videos", Entries.of(entries)), frozenset(), True)
    return replace(survey, **fields)  # type: ignore[arg-type]


def findings_of(survey: Survey) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(survey)]


@pytest.mark.parametrize(
    ("survey", "kinds"),
    [
        (survey_of("train/a*5", "train/b*5", "test/a", "test/b"), []),
        (survey_of("train/a*5", "train/b*49", "test/a", "test/b"), []),
        (survey_of("train/a*5", "train/b*50", "test/a", "test/b"), ["imbalance"]),
        (survey_of("train/a*4", "train/b*50", "test/a", "test/b"), ["rare_class"]),
        (survey_of("train/a*5"), ["one_class"]),
        (survey_of("test/a*5", "test/b*5"), ["no_training"]),
        (survey_of(), ["no_training", "one_class"]),
        (survey_of("train/a*5", "train/b*5", "test/a", "test/b", "test/c"), ["untrained_class"]),
        (survey_of("train/a/g*5", "train/b/g*5", "test/a/h", "test/b/h"), []),
        (survey_of("train/a/g*5", "train/b/h*5", "test/a/g", "test/b/i"), ["group_leak"]),
        (survey_of("train/a*5", "train/b*5", rejected=(("line 3", "no label"),)), ["rejected"]),
        (survey_of("train/a*5", "train/b*5", notes=("no test split",)), ["source"]),
    ],
    ids=lambda value: "" if isinstance(value, Survey) else "-".join(value) or "clean",
)
def test_findings_on_the_whole_set(survey: Survey, kinds: list[str]) -> None:
    assert [finding.kind for finding in findings_of(survey)] == kinds


def test_the_group_and_its_videos_are_named() -> None:
    (finding,) = findings_of(survey_of("train/a/g*5", "train/b/h*5", "test/a/g", "test/b/i"))
    assert "'g' in test and train" in finding.message
    assert finding.videos == ("000", "001", "002", "003", "004", "010")


def test_videos_that_fail_alike_are_one_finding() -> None:
    survey = survey_of("train/a*9", "train/b*5")
    reasons = ["3 frames decoded", "5 frames decoded", "damaged"]
    failing = [replace(entry, reason=reason) for entry, reason in zip(survey.store.entries, reasons, strict=False)]
    entries = Entries.of([*failing, *survey.store.entries[3:]])
    findings = findings_of(replace(survey, store=replace(survey.store, entries=entries)))
    assert by_kind(findings) == {"unusable": {("000", "001"), ("002",)}}
    failing = [replace(entry, reason="damaged") for entry in survey.store.entries[:8]]
    entries = Entries.of([*failing, *survey.store.entries[8:]])
    findings = findings_of(replace(survey, store=replace(survey.store, entries=entries)))
    assert {"unusable", "few_usable"} <= {finding.kind for finding in findings}


def test_errors_alone_waste_training() -> None:
    survey = survey_of("train/a*5", "train/b*5")
    for kind, severity in SEVERITIES.items():
        assert Diagnosis(survey, (Finding(kind, ""),), None).wasted == (severity == "error")
