"""The report: its numbers equal the scores, and its page is self-contained and runs no scripts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresnet.data.store import Store
from stresnet.errors import ScoreError
from stresnet.evaluation import metrics
from stresnet.evaluation.report import Example, LearningCurve, Report, ReportRow, write_report
from stresnet.evaluation.report import page as report_page
from stresnet.evaluation.report.collect import collect_examples
from stresnet.evaluation.report.drawings import curve_panels
from stresnet.evaluation.scores import ScoreTable

EVIL = "<script>alert(1)</script>"
EVIL_ATTRIBUTE = '"><img src=x onerror=alert(1)>'


def table_of(name: str, accuracy: float, classes: int = 4, videos: int = 60, seed: int = 0) -> ScoreTable:
    generator = np.random.default_rng(seed)
    names = tuple(f"class_{i}" for i in range(classes))
    labels = np.arange(videos) % classes
    logits = generator.normal(size=(videos, classes)).astype(np.float32)
    right = generator.random(videos) < accuracy
    logits[right, labels[right]] = 9
    return ScoreTable(name, "dense25", names, tuple(f"v{i}" for i in range(videos)), labels, logits)


def example_of(video_id: str = "v0", label: str = "class_0") -> Example:
    frames = np.zeros((4, 32, 48, 3), dtype=np.uint8)
    flow = np.ones((4, 2, 32, 48), dtype=np.float32)
    wrong, right = [("class_1", 0.7), ("class_0", 0.3)], [("class_0", 0.9), ("class_1", 0.1)]
    return Example(video_id, label, frames, flow, 10.0, wrong, wrong, right)


CURVES = {
    "motion": LearningCurve([1, 2, 3], [1.4, 0.9, 0.5], [0.3, 0.5, 0.75], [0.25, float("nan"), 0.625]),
    "fused": LearningCurve([1], [0.5], [0.9]),
}


def report_of(**changes: Any) -> Report:
    rows = [
        ReportRow(table_of("motion", 0.5, seed=1), "flow only", ceiling=0.5, minutes=3.25, parameters=1_234_567),
        ReportRow(table_of("linked", 0.9, seed=2), "both", chosen=True),
    ]
    report = Report("A title", "First.\n\nSecond.", rows, [], {}, 0.25, {})
    return replace(report, **changes)


class Page(HTMLParser):
    """The tags, attributes and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += "" if tag == "wbr" else " "

    def handle_endtag(self, tag: str) -> None:
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> set[str | None]:
        return {attributes.get("id") for tag, attributes in self.tags if tag == "section"}

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def written(tmp_path: Path, report: Report) -> tuple[Page, dict[str, Any]]:
    path = write_report(tmp_path / "report", report)
    assert path == tmp_path / "report" / "report.html"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["report.html", "report.json"]

    def reject(constant: str) -> None:
        raise AssertionError(f"{constant} is not valid JSON")

    text = (tmp_path / "report" / "report.json").read_text(encoding="utf-8")
    return Page(path), json.loads(text, parse_constant=reject)


def test_json_equals_scores(tmp_path: Path) -> None:
    report = report_of()
    _, found = written(tmp_path, report)
    assert found["chosen"] == 1
    assert found["classes"] == list(report.rows[0].table.classes)
    assert found["videos"] == {"labelled": 60, "per_class": [15, 15, 15, 15]}
    for row, data in zip(report.rows, found["rows"], strict=True):
        for key, interval in {
            "top1": metrics.top_k_accuracy(row.table, 1),
            "mean_class": metrics.mean_class_accuracy(row.table),
        }.items():
            assert data["metrics"][key] == {"value": interval.value, "interval": [interval.low, interval.high]}
        assert data["metrics"]["top5"] is None
        assert data["per_class"] == metrics.per_class_accuracy(row.table).tolist()
        assert data["confusion"] == metrics.confusion_matrix(row.table).tolist()
        assert (data["name"], data["protocol"], data["n"]) == (row.table.name, "dense25", 60)
        assert (data["ceiling"], data["minutes"], data["parameters"]) == (row.ceiling, row.minutes, row.parameters)
    test = metrics.mcnemar(report.rows[0].table, report.rows[1].table)
    assert found["rows"][0]["mcnemar"] == {
        "only_this": test.only_a,
        "only_chosen": test.only_b,
        "p_value": test.p_value,
    }
    assert found["rows"][1]["mcnemar"] is None


def test_page_shows_the_same_numbers(tmp_path: Path) -> None:
    page, found = written(tmp_path, report_of())
    for row in found["rows"]:
        top1 = row["metrics"]["top1"]
        low, high = top1["interval"]
        assert f"{100 * top1['value']:.1f} {100 * low:.1f}–{100 * high:.1f}" in page.text
    motion = found["rows"][0]
    assert "(ceiling 50)" in page.text
    assert "1.23 M" in page.text
    assert "3.2 min" in page.text
    assert f"{motion['mcnemar']['only_this']} : {motion['mcnemar']['only_chosen']}" in page.text
    for counts in found["rows"][1]["confusion"]:
        shares = [f"{n} {100 * n / sum(counts):.0f} %" if n else "0" for n in counts]
        assert " ".join(shares) in page.text


def test_unlabelled_videos_and_empty_classes_are_ignored(tmp_path: Path) -> None:
    table = table_of("net", 0.8)
    labels = np.where(table.labels == 3, -1, table.labels)
    page, found = written(tmp_path, report_of(rows=[ReportRow(replace(table, labels=labels))]))
    assert found["rows"][0]["n"] == found["videos"]["labelled"] == 45
    assert found["rows"][0]["per_class"][3] is None
    assert "class_3 no videos" in page.text


def test_first_row_is_chosen_by_default(tmp_path: Path) -> None:
    rows = [ReportRow(table_of("one", 0.5)), ReportRow(table_of("two", 0.9, seed=1))]
    _, found = written(tmp_path, report_of(rows=rows))
    assert found["chosen"] == 0
    assert found["rows"][1]["mcnemar"] is not None


def test_page_is_self_contained(tmp_path: Path) -> None:
    page, _ = written(tmp_path, report_of(examples=[example_of()], curves=CURVES, facts={"Seed": "0"}))
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "srcset", "poster", "action", "xlink:href"):
            if attributes.get(name) is not None:
                assert re.match(r"data:|#", attributes[name] or ""), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?://|@import|url\(", page.source)
    policy = next(attributes for _, attributes in page.tags if "http-equiv" in attributes)
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_links_point_to_sections(tmp_path: Path) -> None:
    page, _ = written(tmp_path, report_of(examples=[example_of()], curves=CURVES, facts={"Seed": "0"}))
    targets = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert targets == page.ids() == {"results", "examples", "confusion", "classes", "learning", "facts"}


def test_empty_sections_are_omitted(tmp_path: Path) -> None:
    page, _ = written(tmp_path, report_of())
    assert page.ids() == {"results", "confusion", "classes"}


@pytest.mark.parametrize("classes", [4, 40])
def test_user_text_is_escaped(tmp_path: Path, classes: int) -> None:
    table = table_of(EVIL, 0.5, classes=classes, videos=2 * classes)
    names = (EVIL, EVIL_ATTRIBUTE, *table.classes[2:])
    ids = (EVIL_ATTRIBUTE, *table.video_ids[1:])
    table = replace(table, classes=names, video_ids=ids, protocol=EVIL_ATTRIBUTE)
    example = replace(example_of(EVIL_ATTRIBUTE, EVIL), fused_top3=[(EVIL, 0.5), (EVIL_ATTRIBUTE, 0.5)])
    page, _ = written(
        tmp_path,
        report_of(
            title=EVIL,
            intro=EVIL_ATTRIBUTE,
            rows=[ReportRow(table, note=EVIL_ATTRIBUTE)],
            examples=[example],
            curves={EVIL_ATTRIBUTE: CURVES["motion"]},
            facts={EVIL: EVIL_ATTRIBUTE},
        ),
    )
    assert page.count("script") == page.count("img") == 0
    assert EVIL in page.text
    assert EVIL_ATTRIBUTE in page.text


def test_examples_have_two_playable_videos_and_a_verdict(tmp_path: Path) -> None:
    page, found = written(tmp_path, report_of(examples=[example_of("clips/v0.mp4")]))
    videos = [attributes for tag, attributes in page.tags if tag == "video"]
    assert len(videos) == 2
    for attributes in videos:
        assert (attributes["src"] or "").startswith("data:video/mp4;base64,")
        assert {"autoplay", "muted", "loop", "playsinline"} <= set(attributes)
    assert page.text.count("✗ wrong") == 2  # appearance, motion
    assert page.text.count("✓ correct") == 1  # fused
    assert found["examples"][0]["fused"][0] == {"class": "class_0", "probability": 0.9}


def test_example_of_unknown_class_has_no_verdict(tmp_path: Path) -> None:
    page, _ = written(tmp_path, report_of(examples=[example_of(label="")]))
    assert "unknown class" in page.text
    assert "✗" not in page.text
    assert "✓" not in page.text


def test_gaps_in_curves_are_null_and_bridged(tmp_path: Path) -> None:
    page, found = written(tmp_path, report_of(curves=CURVES))
    assert found["curves"]["motion"]["val_accuracy"] == [0.25, None, 0.625]
    assert found["curves"]["fused"]["val_accuracy"] is None
    assert page.count("svg") == 4
    assert "train 75 %" in page.text
    assert "val 62 %" in page.text
    lines = [attributes["d"] or "" for tag, attributes in page.tags if tag == "path"]
    assert [line.count("L") for line in lines] == [2, 2, 1, 0, 0]
    assert "nan" not in "".join(lines)


def test_diverged_stage_can_be_reported(tmp_path: Path) -> None:
    nan = float("nan")
    page, found = written(tmp_path, report_of(curves={"bad": LearningCurve([1, 2], [nan, nan], [nan, nan])}))
    assert found["curves"]["bad"]["loss"] == [None, None]
    assert "learning" not in page.ids()


def test_many_classes_become_a_heat_map_with_top_5(tmp_path: Path) -> None:
    table = table_of("net", 0.7, classes=101, videos=606)
    page, found = written(tmp_path, report_of(rows=[ReportRow(table)]))
    confusion = metrics.confusion_matrix(table)
    assert page.count("rect") == np.count_nonzero(confusion)
    assert "top-5" in page.text
    assert found["rows"][0]["metrics"]["top5"]["value"] == metrics.top_k_accuracy(table, 5).value
    most = int((confusion - np.diag(confusion.diagonal())).max())
    assert re.search(rf"Most frequent confusions \S+ predicted as \S+ {most} ", page.text)


def test_bars_are_sorted_by_accuracy(tmp_path: Path) -> None:
    table = table_of("net", 0.6)
    page, _ = written(tmp_path, report_of(rows=[ReportRow(table)]))
    per_class = metrics.per_class_accuracy(table)
    section = page.text[page.text.index("Accuracy by class") :]
    places = [section.index(f"class_{i}") for i in np.argsort(-per_class, kind="stable")]
    assert places == sorted(places)


def test_failed_report_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(tmp_path, report_of(title="old"))

    def full_disk(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(ScoreError, match="No space left"):
        write_report(tmp_path, report_of(title="new"))
    monkeypatch.undo()
    assert "<title>old</title>" in path.read_text(encoding="utf-8")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_rows_with_different_videos_are_rejected(tmp_path: Path) -> None:
    rows = [ReportRow(table_of("a", 0.5), chosen=True), ReportRow(table_of("b", 0.5, videos=64))]
    with pytest.raises(ScoreError, match="same videos"):
        write_report(tmp_path, report_of(rows=rows))


@pytest.mark.parametrize(("p", "shown"), [(1e-9, "< 0.001"), (0.0314, "0.031"), (0.25, "0.25"), (1.0, "1.00")])
def test_p_values_are_short(p: float, shown: str) -> None:
    assert report_page._p_value(p) == shown


def test_small_shares_are_not_shown_as_zero() -> None:
    assert report_page._percent(0.0004, 0) == "< 1"
    assert report_page._percent(0.0, 0) == "0"
    assert report_page._percent(None) == "–"


@pytest.mark.parametrize(("number", "shown"), [(999, "999"), (412_345, "412 k"), (58_624_522, "58.6 M"), (None, "–")])
def test_counts_keep_three_digits(number: int | None, shown: str) -> None:
    assert report_page._count(number) == shown


def test_half_of_the_examples_are_misclassified_and_come_first(store: Store) -> None:
    entries = store.select("test")
    labels = np.array([store.classes.index(entry.record.label) for entry in entries])
    logits = np.eye(4, dtype=np.float32)[[0, 1, 0, 0]]  # of four videos, one of each class, two are right
    table = ScoreTable("a", "center", store.classes, tuple(entry.record.id for entry in entries), labels, logits)
    assert [example.label for example in collect_examples(table, store, 2)] == [store.classes[2], store.classes[0]]
    assert [example.label for example in collect_examples(table, store, 9)] == [store.classes[k] for k in (2, 3, 0, 1)]
    assert len(collect_examples(table.take([0, 1]), store, 2)) == 2
    assert collect_examples(table, store, 0) == []


def test_each_loss_has_its_own_scale() -> None:
    curve = {"epoch": [1.0, 2.0], "accuracy": [0.1, 0.2], "val_accuracy": None}
    panels = curve_panels({"a": {**curve, "loss": [4.0, 2.0]}, "b": {**curve, "loss": [0.4, 0.2]}}, 0.1)
    assert [panels[stage][0]["ticks"][1]["text"] for stage in "ab"] == ["5", "0.5"]
    assert panels["a"][0]["lines"][0]["path"] == panels["b"][0]["lines"][0]["path"]
