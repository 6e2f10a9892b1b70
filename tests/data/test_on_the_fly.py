"""Stores of frames only: flow computed when it is read, its difference from stored flow, and every command on them."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from torch.utils.data import DataLoader

from helpers.tiny import SPEC, Command, prepared, tiny_recipe
from helpers.videos_in_memory import encoded
from stresnet.data import prepared_video
from stresnet.data.datasets import read_catalog
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.store import Store
from stresnet.errors import StoreError
from stresnet.evaluation import evaluate
from stresnet.flow import FlowSpec, estimate, estimate_flow, quantize_flow
from stresnet.flow.methods import METHODS
from stresnet.inference.recognizer import Recognizer
from stresnet.media import write_video
from stresnet.model.checkpoint import load_checkpoint
from stresnet.training import Run, train

FRAMES_ONLY = replace(SPEC, flow_stored=False)


@pytest.fixture(scope="module")
def frames_only(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store of the generated videos without flow; read-only."""
    return prepared(read_catalog(videos), tmp_path_factory.mktemp("frames only") / "store", FRAMES_ONLY)


@pytest.fixture
def frames_video(frames_only: Store) -> PreparedVideo:
    return frames_only.video(frames_only.select()[3].record.id)


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    decode, decoded = simplejpeg.decode_jpeg, Counter[bytes]()

    def counting(jpeg: Any, *arguments: Any, **options: Any) -> Any:
        decoded[bytes(jpeg)] += 1
        return decode(jpeg, *arguments, **options)

    monkeypatch.setattr(prepared_video.simplejpeg, "decode_jpeg", counting)
    return decoded


@pytest.mark.parametrize("spec", [FlowSpec(short_side=32), FlowSpec("farneback", short_side=32, bound_px=5)])
def test_flow_is_that_of_the_stored_frames(videos: Path, spec: FlowSpec) -> None:
    video = read_catalog(videos).records[5]
    found = encoded(video.id, video.path, StoreSpec(spec, flow_stored=False))
    assert found.meta.clipped_share is None
    found.verify()
    expected = quantize_flow(estimate_flow(found.rgb(range(26)), spec), spec.bound_px)
    steps = [7, 2, 24, 8, 9, 2, 0, 20]
    np.testing.assert_array_equal(found.flow(steps), expected[steps])
    np.testing.assert_array_equal(found.flow(range(25)), expected)
    assert found.flow([]).shape == (0, 2, 32, 48)
    assert expected.std() > 1
    for wrong in (-1, 25):
        with pytest.raises(IndexError, match=f"flow indices 0 to 24, found .*{wrong}"):
            found.flow([3, wrong])


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize("size", [(32, 43), (43, 32), (64, 86), (48, 32)])
def test_flow_of_small_frames_does_not_depend_on_earlier_calls(size: tuple[int, int], preset: str) -> None:
    """OpenCV's DIS changes its settings on small frames and would keep them for later ones."""
    texture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    frames = np.stack([texture[t : t + size[0], 2 * t : 2 * t + size[1]] for t in range(5)])
    spec = FlowSpec(preset=preset, short_side=32)
    together = estimate_flow(frames, spec)
    for t in (3, 0):
        np.testing.assert_array_equal(estimate_flow(frames[t : t + 2], spec)[0], together[t])


def test_frames_are_decoded_once_and_the_last_result_is_reused(
    frames_video: PreparedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decoded(monkeypatch)
    first = frames_video.flow([3, 4, 5, 9, 4, 11])  # frames 3 … 6, 9, 10, 11, 12
    assert sorted(decoded.values()) == [1] * 8
    again = frames_video.flow([11, 9, 5, 4, 3])
    assert sum(decoded.values()) == 8
    np.testing.assert_array_equal(again, first[[5, 3, 2, 1, 0]])
    frames_video.flow([3, 4])
    assert sum(decoded.values()) == 11


def test_the_estimator_is_made_once(frames_only: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = METHODS["dis"].from_pictures
    assert load is not None

    def counting(preset: str, parameters: Any) -> Any:
        loaded.append(preset)
        return load(preset, parameters)

    monkeypatch.setitem(METHODS, "dis", replace(METHODS["dis"], from_pictures=counting))
    monkeypatch.setattr(estimate, "_of_thread", threading.local())
    monkeypatch.setattr(cv2, "getNumThreads", lambda: 1)  # one for each thread that computes at the same time
    for entry in frames_only.select()[:3]:
        frames_only.video(entry.record.id).flow([1, 2, 9])
    assert loaded == [FRAMES_ONLY.flow.preset]
    other = replace(FRAMES_ONLY.flow, preset="fast")
    estimate_flow(np.zeros((3, 32, 32, 3), np.uint8), other)
    assert loaded == [FRAMES_ONLY.flow.preset, other.preset]
    thread = threading.Thread(target=frames_only.video(frames_only.select()[0].record.id).flow, args=([1],))
    thread.start()
    thread.join()
    assert loaded == [FRAMES_ONLY.flow.preset, other.preset, FRAMES_ONLY.flow.preset]  # not shared with another thread


def test_a_damaged_frame_is_named(frames_only: Store, tmp_path: Path) -> None:
    path = frames_only.root / "videos" / f"{frames_only.select()[0].record.id}.arrow"
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8\xff\xe0", len(content) // 2)
    content[start : start + 64] = bytes(64)
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(StoreError, match="this prepared video is damaged"):
        PreparedVideo.open(tmp_path / "a.arrow").flow(range(25))


def test_computed_flow_differs_from_stored_flow_by_the_coding_only(store: Store, frames_only: Store) -> None:
    errors = []
    for entry in store.select():
        stored, computed = store.video(entry.record.id), frames_only.video(entry.record.id)
        assert computed.meta.frames == stored.meta.frames
        np.testing.assert_array_equal(computed.rgb(range(26)), stored.rgb(range(26)))
        errors.append(np.abs(computed.flow(range(25)).astype(int) - stored.flow(range(25))))
        assert stored.flow(range(25)).std() > 2
    # Levels of 0 to 255. JPEG changes the flow of small, sharply textured pictures more than that of real ones.
    assert np.mean(errors) < 1
    sizes = [sum(e.bytes for e in s.select()) for s in (store, frames_only)]
    assert sizes[1] < 0.95 * sizes[0]


def test_logits_differ_little(store: Store, frames_only: Store, run: Run) -> None:
    recognizer = Recognizer(run.folder / "model.safetensors", device="cpu")
    ids = [e.record.id for e in store.select()]
    stored, computed = (np.stack([recognizer.score(s.video(i)).fused for i in ids]) for s in (store, frames_only))
    assert np.abs(computed - stored).mean() < 0.02 * stored.std()
    assert not np.array_equal(computed, stored)


def test_a_model_of_one_kind_of_store_is_evaluated_on_the_other(frames_only: Store, run: Run, tmp_path: Path) -> None:
    found = evaluate(run.folder / "model.safetensors", frames_only, tmp_path / "report", protocols=["center"])
    assert found.failed == ()


def test_training_computes_flow_in_the_loader(frames_only: Store, run: Run, tmp_path: Path) -> None:
    recipe = tiny_recipe({"motion": {"optimisation": {"schedule": [{"lr": 0.02, "epochs": 1}]}}})
    alone = train(frames_only, tmp_path / "alone", recipe, workers=0)
    helped = train(frames_only, tmp_path / "helped", recipe, workers=2)
    assert alone.curves("motion")["loss"] == helped.curves("motion")["loss"]
    model = load_checkpoint(alone.model_file("motion"))
    assert model.store_spec == FRAMES_ONLY.to_dict()
    # Prediction gives the same numbers as evaluation.
    recognizer = Recognizer(model, device="cpu")
    record = frames_only.select("test")[0].record
    expected = recognizer.score(frames_only.video(record.id)).fused
    assert np.array_equal(recognizer.predict(record.path).scores.fused, expected)


def test_prediction_computes_only_the_flow_that_is_needed(
    frames_only: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe({"motion": {"optimisation": {"schedule": [{"lr": 0.02, "iterations": 1}]}}})
    model = load_checkpoint(train(frames_only, tmp_path / "run", recipe, workers=0).model_file("motion"))
    texture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    write_video(tmp_path / "long.mp4", (np.roll(texture, t, 1)[:32, :48] for t in range(300)), fps=25)
    decoded = count_decoded(monkeypatch)
    Recognizer(model, device="cpu").predict(tmp_path / "long.mp4", protocol="center")
    assert len(decoded) == 11  # the frames of one stack of ten


def test_a_store_has_either_flow_or_frames_only(videos: Path, store: Store, frames_only: Store) -> None:
    with pytest.raises(StoreError, match="expected a store with frames only, found one with flow in it; prepare into"):
        prepare(read_catalog(videos), store.root, FRAMES_ONLY)
    with pytest.raises(StoreError, match="expected a store with flow in it, found one with frames only; prepare into"):
        prepare(read_catalog(videos), frames_only.root, SPEC)
    SPEC.require_same(FRAMES_ONLY, "a model and a store")
    assert StoreSpec.from_dict(FRAMES_ONLY.to_dict()) == FRAMES_ONLY
    incomplete = {name: value for name, value in SPEC.to_dict().items() if name != "flow_stored"}
    with pytest.raises(StoreError, match=r"expected a store spec with .* and flow_stored, found"):
        StoreSpec.from_dict(incomplete)


@pytest.mark.parametrize("method", ["mv", "raft"])
def test_methods_that_need_the_video_or_a_gpu_are_rejected(method: str) -> None:
    expected = f"by dis, tvl1, farneback, found {method}, which loader processes cannot compute: store it"
    with pytest.raises(StoreError, match=expected):
        StoreSpec(FlowSpec(method), flow_stored=False)


def test_loader_processes_compute_tvl1_in_torch(videos: Path, tmp_path: Path) -> None:
    spec = StoreSpec(FlowSpec("tvl1", "fast", short_side=32), flow_stored=False)
    store = tmp_path / "store"
    prepare(read_catalog(videos), store, spec, workers=1)
    frames_video = Store.open(store).video(Store.open(store).select("test")[0].record.id)
    here = frames_video.flow(range(3, 7))
    loader = DataLoader([0], batch_size=None, num_workers=1, collate_fn=lambda _: frames_video.flow(range(3, 7)))
    (there,) = loader
    np.testing.assert_array_equal(there, here)
    assert here.std() > 2


@pytest.mark.parametrize(
    ("flow", "expected"),
    [("on-the-fly", FlowSpec(short_side=32)), ("on-the-fly:farneback", FlowSpec("farneback", short_side=32))],
)
def test_on_the_command_line(command: Command, videos: Path, tmp_path: Path, flow: str, expected: FlowSpec) -> None:
    options = ["--short-side", "32", "--workers", "1"]
    arguments = ["prepare", videos / "test", tmp_path / "store", *options, "--flow"]
    assert command(*arguments, flow)[0] == 0
    assert Store.open(tmp_path / "store").spec == StoreSpec(expected, flow_stored=False)
    code, out, _ = command(*arguments, flow)
    assert code == 0
    assert out.startswith("0 videos prepared, 4 kept")
    code, _, err = command(*arguments, expected.method)
    assert code == 1
    assert "expected a store with flow in it, found one with frames only" in err.splitlines()[-1]
    code, _, err = command(*arguments, "on-the-fly:slow")
    assert code == 1
    assert "unknown flow method" in err.splitlines()[-1]
