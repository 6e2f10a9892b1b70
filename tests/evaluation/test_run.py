"""`evaluate`: scores equal those of prediction, after interruptions and with damaged videos too."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load_file

import stresnet.evaluation.scoring as scoring_module
from helpers.tiny import SPEC, grouped, prepared, tiny_recipe
from stresnet.data.prepared_video import PreparedVideo
from stresnet.data.store import Entries, Store, StoreEntry, video_path
from stresnet.errors import FlowSpecError, RecipeError, ScoreError, StoreError
from stresnet.evaluation import Evaluation, evaluate
from stresnet.evaluation.metrics import top_k_accuracy
from stresnet.evaluation.scores import ScoreTable
from stresnet.flow import FlowSpec
from stresnet.inference.recognizer import Recognizer
from stresnet.model import load_checkpoint, save_checkpoint
from stresnet.model.checkpoint import read_metadata
from stresnet.progress import Progress
from stresnet.training import Run, train

TITLES = ["Appearance", "Motion", "late fusion", "ST-ResNet"]
FILES = ["appearance", "motion", "late-fusion", "st-resnet"]


class InterruptedTestError(Exception):
    """Raised by a test to interrupt an evaluation."""


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the run, in whose models `evaluation` records its scores."""
    return Path(shutil.copytree(run.folder, tmp_path_factory.mktemp("evaluated") / "run"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "ein Bericht"


@pytest.fixture(scope="module")
def evaluation(folder: Path, store: Store, out: Path) -> Evaluation:
    return evaluate(folder, store, out, protocols=("dense25", "center"), title="Tiny", examples=1)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may change."""
    return Path(shutil.copytree(run.folder, tmp_path / "run"))


@pytest.fixture
def store_copy(store: Store, tmp_path: Path) -> Store:
    """Return a copy of the store that a test may damage."""
    shutil.copytree(store.root, tmp_path / "store")
    return Store.open(tmp_path / "store")


def assert_same_tables(report: Path, expected: Path) -> None:
    for name in FILES:
        a, b = (ScoreTable.read(f / f"scores-{name}.parquet") for f in (report, expected))
        assert a.video_ids == b.video_ids
        for field in ("labels", "logits", "appearance", "motion"):
            assert np.array_equal(getattr(a, field), getattr(b, field)), (name, field)


def counting(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each video is scored from now on."""
    scored: Counter[str] = Counter()
    open_video = scoring_module.SplitScorer._open

    def count(self: scoring_module.SplitScorer, entry: StoreEntry) -> PreparedVideo:
        scored[entry.record.id] += 1
        return open_video(self, entry)

    monkeypatch.setattr(scoring_module.SplitScorer, "_open", count)
    return scored


def interrupt_at(name: str, done: int) -> Progress:
    """Return a callback that raises once ``done`` videos of a row are scored."""

    def progress(activity: str, videos: int, total: int, detail: str = "") -> None:
        if (activity, videos) == (f"scoring {name}", done):
            raise InterruptedTestError

    return progress


# ---------------------------------------------------------------- results


def test_rows_and_files(evaluation: Evaluation, store: Store, out: Path) -> None:
    names = [row.table.name for row in evaluation.rows]
    assert names == [*TITLES, *(f"{title} (center)" for title in TITLES)]
    assert [row.table.name for row in evaluation.rows if row.chosen] == ["ST-ResNet"]
    assert evaluation.failed == ()
    ids = tuple(e.record.id for e in store.select("test"))
    for row in evaluation.rows:
        assert row.table.video_ids == ids
        assert [store.classes[k] for k in row.table.labels] == [i.split("/")[1] for i in ids]
    files = sorted(p.name for p in out.iterdir())
    tables = [f"scores-{name}{ending}.parquet" for name in FILES for ending in ("", "--center")]
    assert files == sorted([*tables, "report.html", "report.json"])
    assert evaluation.report == out / "report.html"


def test_report_equals_scores(evaluation: Evaluation, out: Path) -> None:
    page = (out / "report.html").read_text("utf-8")
    assert "<title>Tiny" in page
    assert all(title in page for title in TITLES)
    text = (out / "report.json").read_text("utf-8")
    rows = json.loads(text)["rows"]
    assert [row["name"] for row in rows] == [row.table.name for row in evaluation.rows]
    for row, found in zip(evaluation.rows, rows, strict=True):
        assert found["metrics"]["top1"]["value"] == top_k_accuracy(row.table, 1).value


@pytest.mark.parametrize(("protocol", "ending"), [("dense25", ""), ("center", "--center")])
def test_prediction_equals_the_score_of_a_test_video(
    evaluation: Evaluation, folder: Path, store: Store, out: Path, protocol: Any, ending: str
) -> None:
    table = ScoreTable.read(out / f"scores-st-resnet{ending}.parquet")
    assert table.protocol == protocol
    recognizer = Recognizer(folder / "model.safetensors")
    for entry in store.select("test"):
        row = table.video_ids.index(entry.record.id)
        scores = recognizer.predict(entry.record.path, protocol=protocol).scores
        assert np.array_equal(scores.fused, table.logits[row])
        assert table.appearance is not None
        assert table.motion is not None
        assert np.array_equal(scores.appearance, table.appearance[row])
        assert np.array_equal(scores.motion, table.motion[row])


def test_late_fusion_is_the_mean_of_the_single_streams(evaluation: Evaluation) -> None:
    by_name = {row.table.name: row.table for row in evaluation.rows}
    for ending in ("", " (center)"):
        single = [by_name[f"{title}{ending}"].logits.astype(np.float64) for title in ("Appearance", "Motion")]
        fused = by_name[f"late fusion{ending}"]
        assert np.array_equal(fused.logits, ((single[0] + single[1]) / 2).astype(np.float32))
        assert fused.appearance is None


def test_scores_are_recorded_in_the_models(evaluation: Evaluation, folder: Path, run: Run) -> None:
    by_name = {row.table.name: row.table for row in evaluation.rows}
    for stage, title in (("appearance", "Appearance"), ("motion", "Motion"), ("st-resnet", "ST-ResNet")):
        file = folder / stage / "model.safetensors"
        scores = read_metadata(file)["scores"]
        assert [score["protocol"] for score in scores] == ["dense25", "center"]
        for score, ending in zip(scores, ("", " (center)"), strict=True):
            top1 = top_k_accuracy(by_name[f"{title}{ending}"], 1)
            assert score["top1"] == [top1.value, top1.low, top1.high]
            assert (score["split"], score["videos"], score["store"]) == ("test", 4, "Vidéos à moi [1]")
        weights, before = load_file(file), load_file(run.model_file(stage))
        assert all(weights[key].equal(value) for key, value in before.items())
    assert (folder / "model.safetensors").read_bytes() == (folder / "st-resnet/model.safetensors").read_bytes()


def test_evaluating_again_replaces_recorded_scores(
    evaluation: Evaluation, folder: Path, store: Store, out: Path
) -> None:
    evaluate(folder, store, out.parent / "again", protocols=("center",), examples=0)
    evaluate(folder, store, out.parent / "again", protocols=("center",), split="train", examples=0)
    scores = read_metadata(folder / "model.safetensors")["scores"]
    assert [(s["split"], s["protocol"]) for s in scores] == [
        ("test", "dense25"),
        ("test", "center"),
        ("train", "center"),
    ]


def test_result_as_plain_values(evaluation: Evaluation, out: Path) -> None:
    values = json.loads(json.dumps(evaluation.to_dict()))
    assert set(values) == {"rows", "report", "failed", "notes"}
    assert [row["name"] for row in values["rows"]] == [row.table.name for row in evaluation.rows]
    chosen = values["rows"][3]
    top1 = top_k_accuracy(evaluation.chosen.table, 1)
    assert (chosen["top1"], chosen["p_value"]) == ([top1.value, top1.low, top1.high], None)
    assert repr(evaluation) == f"Evaluation(8 rows, 0 failed, report={str(out / 'report.html')!r})"
    assert repr(evaluation.chosen.table) == "ScoreFile('ST-ResNet', 'dense25', 4 videos × 4 classes)"


def test_loaded_recognizer_and_path_of_a_store(evaluation: Evaluation, run: Run, store: Store, tmp_path: Path) -> None:
    recognizer = Recognizer(run.model_file("motion"))
    found = evaluate(recognizer, store.root, tmp_path, examples=0)
    assert found.chosen.table.name == "motion"
    assert np.array_equal(found.chosen.table.logits, evaluation.rows[1].table.logits)
    with pytest.raises(ScoreError, match="no default folder for its report; give `out`"):
        evaluate(recognizer, store)


def test_default_folder_of_the_report(copy: Path, store: Store) -> None:
    found = evaluate(Run.open(copy), store, protocols=("center",), split="train", examples=0)
    assert found.report == copy.parent / "run" / "report-train" / "report.html"
    found = evaluate(copy / "model.safetensors", store, protocols=("center",), examples=0)
    assert found.report == copy / "report-model" / "report.html"


def test_single_model(evaluation: Evaluation, run: Run, store: Store, tmp_path: Path) -> None:
    file = run.model_file("motion")
    before = file.read_bytes()
    found = evaluate(file, store, tmp_path, examples=0)
    assert [(row.table.name, row.chosen) for row in found.rows] == [("motion", True)]
    assert np.array_equal(found.rows[0].table.logits, evaluation.rows[1].table.logits)
    assert file.read_bytes() == before


def test_model_with_another_class_order(evaluation: Evaluation, run: Run, store: Store, tmp_path: Path) -> None:
    found = load_checkpoint(run.model_file("st-resnet"))
    order = [2, 0, 3, 1]
    for stream in (found.model.appearance, found.model.motion):
        stream.fc.weight.data, stream.fc.bias.data = stream.fc.weight.data[order], stream.fc.bias.data[order]
    file = tmp_path / "other.safetensors"
    save_checkpoint(file, found.replace(classes=tuple(found.classes[k] for k in order)))
    table = evaluate(file, store, tmp_path / "out", protocols=("dense25",)).rows[0].table
    expected = next(
        row.table for row in evaluation.rows if row.table.name == "ST-ResNet" and row.table.protocol == "dense25"
    )
    assert table.classes == expected.classes == store.classes
    for field in ("logits", "appearance", "motion"):
        assert np.allclose(getattr(table, field), getattr(expected, field), atol=1e-5)


def test_test_groups_are_the_test_videos(videos: Path, tmp_path: Path) -> None:
    store = prepared(grouped(videos), tmp_path / "store")
    recipe = tiny_recipe({"appearance": {"optimisation": {"schedule": [{"lr": 0.01, "iterations": 1}]}}})
    run = train(store, tmp_path / "run", recipe, test_groups=("g2",), workers=0)
    table = evaluate(run.folder, store, tmp_path / "report", protocols=("center",), examples=0).rows[0].table
    assert set(table.video_ids) == {e.record.id for e in store.entries if e.record.group == "g2"}
    assert len(table.video_ids) == 4


# ---------------------------------------------------------------- resuming


def test_interrupted_evaluation_resumes(
    evaluation: Evaluation, out: Path, copy: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_module, "PART_VIDEOS", 2)
    with pytest.raises(InterruptedTestError):
        evaluate(copy, store, tmp_path / "report", progress=interrupt_at("Motion", 3), examples=0)
    assert len(list((tmp_path / "report" / ".parts").iterdir())) == 3
    scored = counting(monkeypatch)
    calls: list[tuple[Any, ...]] = []
    evaluate(copy, store, tmp_path / "report", progress=lambda *call: calls.append(call), examples=0)
    assert sum(scored.values()) == 2 + 4  # half of motion, all of the last stage
    assert calls[-1] == ("scoring ST-ResNet", 4, 4)
    assert_same_tables(tmp_path / "report", out)
    assert not (tmp_path / "report" / ".parts").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_precision_is_recorded_and_scores_equal_those_of_a_recognizer(
    run: Run, store: Store, tmp_path: Path, precision: Any
) -> None:
    model = run.model_file("st-resnet")
    table = evaluate(model, store, tmp_path, precision=precision, examples=0).rows[0].table
    assert ScoreTable.read(tmp_path / "scores-st-resnet.parquet").numerics == precision
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["numerics"] == precision
    recognizer = Recognizer(model, precision=precision)
    for video_id, logits in zip(table.video_ids, table.logits, strict=True):
        assert np.array_equal(recognizer.score(store.video(video_id)).fused, logits)


def test_parts_of_changed_videos_are_not_reused(
    copy: Path, store_copy: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids and model are the same, but the videos have been prepared again."""
    with pytest.raises(InterruptedTestError):
        evaluate(copy, store_copy, tmp_path / "report", progress=interrupt_at("Motion", 0), examples=0)
    entries = [e.record.id for e in store_copy.select("test")]
    one, other = (video_path(store_copy.root, i) for i in entries[:2])
    shutil.copyfile(other, one)
    changed = replace(
        store_copy,
        entries=Entries.of(replace(e, bytes=e.bytes + (e.record.id == entries[0])) for e in store_copy.entries),
    )
    scored = counting(monkeypatch)
    found = evaluate(copy, changed, tmp_path / "report", examples=0)
    assert sum(scored.values()) == 3 * 4
    assert np.array_equal(found.rows[0].table.logits[0], found.rows[0].table.logits[1])


# ---------------------------------------------------------------- damaged videos


def damage_flow(store: Store, record_id: str) -> None:
    """Cut the flow JPEGs of a prepared video short; leave its frames intact."""
    path = video_path(store.root, record_id)
    content = path.read_bytes()
    for value in pa.ipc.open_file(path).get_batch(0).column("flow")[5:20]:
        jpeg = value.as_buffer().to_pybytes()
        assert content.count(jpeg) == 1
        content = content.replace(jpeg, jpeg[: len(jpeg) // 2] + bytes(len(jpeg) - len(jpeg) // 2))
    path.write_bytes(content)


def test_damaged_videos_are_named_and_the_rest_is_scored(
    evaluation: Evaluation, copy: Path, store_copy: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_module, "PART_VIDEOS", 2)
    ids = [e.record.id for e in store_copy.select("test")]
    video_path(store_copy.root, ids[0]).unlink()
    damage_flow(store_copy, ids[2])  # the appearance stream could still read it
    with pytest.raises(InterruptedTestError):
        evaluate(copy, store_copy, tmp_path / "report", progress=interrupt_at("ST-ResNet", 2), examples=0)
    found = evaluate(copy, store_copy, tmp_path / "report", examples=1)
    assert [name for name, _ in found.failed] == [ids[0], ids[2]]
    assert "expected a prepared video, found no file" in found.failed[0][1]
    assert "this prepared video is damaged" in found.failed[1][1]
    whole = {row.table.name: row.table for row in evaluation.rows}
    for row in found.rows:
        assert row.table.video_ids == (ids[1], ids[3])
        assert np.array_equal(row.table.logits, whole[row.table.name].logits[[1, 3]])
    assert read_metadata(copy / "model.safetensors")["scores"][0]["videos"] == 2


def test_video_damaged_between_stages_is_removed_from_all_rows(copy: Path, store_copy: Store, tmp_path: Path) -> None:
    ids = [e.record.id for e in store_copy.select("test")]

    def progress(activity: str, done: int, total: int, detail: str = "") -> None:
        if (activity, done) == ("scoring Motion", 0):
            video_path(store_copy.root, ids[3]).write_bytes(b"ARROW1")

    found = evaluate(copy, store_copy, tmp_path / "report", progress=progress, examples=0)
    assert [name for name, _ in found.failed] == [ids[3]]
    assert {row.table.video_ids for row in found.rows} == {tuple(ids[:3])}


def test_no_video_can_be_scored(copy: Path, store_copy: Store, tmp_path: Path) -> None:
    for entry in store_copy.select("test"):
        video_path(store_copy.root, entry.record.id).unlink()
    with pytest.raises(StoreError, match=r"none of the 4 videos could be scored, first: .*found no file"):
        evaluate(copy, store_copy, tmp_path / "report")


# ---------------------------------------------------------------- mismatches


def test_stores_that_do_not_match_the_model(run: Run, store: Store, tmp_path: Path) -> None:
    other = replace(store, classes=("archery", *store.classes))
    with pytest.raises(
        StoreError,
        match=r"a store \(5\) and .* \(4\) differ, only the store has archery; give a store with the model's classes$",
    ):
        evaluate(run.folder, other, tmp_path)
    with pytest.raises(StoreError, match=r"no usable videos of split 'val'; its splits are test, train$"):
        evaluate(run.folder, store, tmp_path, split="val")
    spec = replace(SPEC, flow=FlowSpec(method="farneback", short_side=32))
    with pytest.raises(FlowSpecError, match=r"the model and .*; use the same flow for both$") as error:
        evaluate(run.folder, replace(store, spec=spec), tmp_path)
    assert str(SPEC.flow) in str(error.value)
    assert str(spec.flow) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_folders_without_a_trained_stage(copy: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"is not a training run: it has no recipe\.yaml"):
        evaluate(store.root, store, tmp_path / "report")
    for stage in ("appearance", "motion", "st-resnet"):
        shutil.rmtree(copy / stage)
    with pytest.raises(RecipeError, match=r"no stage of .* is trained yet; run `stresnet train … --resume`"):
        evaluate(copy, store, tmp_path / "report")
