"""Catalogs and stores of folders of JPEGs, and the meaning of imported flow."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from helpers.jpeg_source import gray, write_jpegs
from helpers.motion import moving
from helpers.tiny import Command, one_line
from helpers.videos_in_memory import in_memory
from stresnet.data.catalog import Catalog, VideoRecord
from stresnet.data.datasets import read_catalog
from stresnet.data.import_jpegs import import_jpegs
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.store import Store
from stresnet.errors import StoreError
from stresnet.flow import FlowSpec, dequantize_flow, estimate_flow

SPEC = StoreSpec(FlowSpec("tvl1", short_side=48))


def imported(folder: Path, spec: StoreSpec = SPEC) -> PreparedVideo:
    return in_memory(partial(import_jpegs, "a/b", folder, spec))


def decoded(path: Path, kind: str = "GRAY") -> np.ndarray:
    return np.squeeze(simplejpeg.decode_jpeg(path.read_bytes(), kind))


def test_catalogs_of_folders_of_jpegs(tmp_path: Path) -> None:
    for split, label, name in (("train", "jump", "a"), ("train", "wave", "b"), ("test", "jump", "c")):
        write_jpegs(tmp_path / "one folder", f"{split}/{label}/{name}")
        write_jpegs(tmp_path / "separate folders", f"{split}/{label}/{name}", "authors")
    expected = [("jump", "test"), ("jump", "train"), ("wave", "train")]
    for root in ("one folder", "separate folders"):
        catalog = read_catalog(tmp_path / root, jpegs=True)
        assert (catalog.name, catalog.classes, catalog.notes) == (root, ("jump", "wave"), ())
        assert [r.id for r in catalog.records] == ["test/jump/c", "train/jump/a", "train/wave/b"]
        assert [(r.label, r.split) for r in catalog.records] == expected
        assert all(Path(r.path).is_dir() for r in catalog.records)
    csv = tmp_path / "list.csv"
    csv.write_text("path,label\none folder/test/jump/c,jump\nseparate folders/jpegs_256/train/wave/b,wave\n")
    catalog = read_catalog(csv, jpegs=True)
    assert [note for note in catalog.notes if "missing" in note] == []
    summary = prepare(catalog, tmp_path / "store", SPEC, from_jpegs=True, workers=1)
    assert (summary.done, summary.failed) == (2, ())


def test_videos_without_class_folders_need_a_list(tmp_path: Path) -> None:
    write_jpegs(tmp_path, "v_1", "authors")
    expected = "expected class folders with folders of JPEGs or PNGs, found 1 videos outside any folder: name "
    with pytest.raises(StoreError, match=expected):
        read_catalog(tmp_path, jpegs=True)
    with pytest.raises(StoreError, match=r"found no video at all but pictures \(import them with --from-jpegs\)"):
        read_catalog(tmp_path)


@pytest.mark.parametrize("nested", [False, True])
def test_official_lists(tmp_path: Path, nested: bool) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    (lists / "trainlist01.txt").write_text("Archery/v_Archery_g08_c01.avi 1\nBiking/v_Biking_g08_c01.avi 2\n")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    for name in ("v_Archery_g08_c01", "v_Biking_g08_c01"):
        write_jpegs(tmp_path / "root", f"{name.split('_')[1]}/{name}" if nested else name, "authors")
    catalog = read_catalog(tmp_path / "root", dataset="ucf101", lists=lists, jpegs=True)
    # The ids are those of the video files, so a model recognises its training videos in either form.
    assert [r.id for r in catalog.records] == [
        "Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g08_c01.avi",
        "Biking/v_Biking_g08_c01.avi",
    ]
    assert "1 of 3 listed videos are missing" in catalog.notes[0]
    summary = prepare(catalog, tmp_path / "store", SPEC, from_jpegs=True, workers=1)
    assert (summary.done, summary.frames) == (2, 28)
    assert summary.failed == (("Archery/v_Archery_g01_c01.avi", "expected a folder of pictures, found none"),)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return two good videos and one without v."""
    for seed, name in enumerate(("jump/a", "wave/b", "wave/c")):
        write_jpegs(tmp_path / "source", name, "authors", seed=seed)
    shutil.rmtree(tmp_path / "source" / "v" / "wave" / "c")
    return tmp_path / "source"


def test_failures_are_recorded_and_changed_videos_prepared_again(root: Path, tmp_path: Path) -> None:
    def run() -> tuple[int, int, list[str]]:
        summary = prepare(read_catalog(root, jpegs=True), tmp_path / "store", SPEC, from_jpegs=True, workers=2)
        return summary.done, summary.kept, [name for name, _ in summary.failed]

    assert run() == (2, 0, ["wave/c"])
    assert run() == (0, 2, ["wave/c"])
    os.utime(root / "v/wave/b/frame000003.jpg", ns=(1, 2**62))  # its content is the same
    shutil.copy(root / "v/jump/a/frame000004.jpg", root / "v/jump/a/frame000003.jpg")
    shutil.copytree(root / "u/wave/c", root / "v/wave/c")
    assert run() == (2, 1, [])
    (root / "u/wave/b/frame000003.jpg").unlink()
    assert run() == (0, 2, ["wave/b"])
    shutil.rmtree(root / "jpegs_256/jump/a")  # sources may be deleted once they are imported
    records = tuple(VideoRecord(f"{c}/{n}", str(root / "jpegs_256" / c / n), c) for c, n in (("jump", "a"),))
    summary = prepare(Catalog("c", ("jump",), records), tmp_path / "store", SPEC, from_jpegs=True, workers=1)
    assert (summary.done, summary.kept) == (0, 1)
    # An imported video does not replace one that is prepared from a video file.
    summary = prepare(Catalog("c", ("jump",), records), tmp_path / "store", SPEC, workers=1)
    assert (summary.done, summary.kept, len(summary.failed)) == (0, 0, 1)


def test_on_the_command_line(command: Command, root: Path, tmp_path: Path) -> None:
    arguments = ["prepare", root, tmp_path / "store", "--from-jpegs", "--workers", "1"]
    for incomplete in ([], ["--flow", "tvl1"], ["--bound", "20"]):
        code, _, err = command(*arguments, *incomplete)
        assert code == 2
        assert "--from-jpegs needs --flow and --bound, which the files do not record" in one_line(err)
    assert not (tmp_path / "store").exists()
    code, out, err = command(*arguments, "--flow", "tvl1", "--bound", "15", "--json")
    assert code == 1
    assert json.loads(out)["done"] == 2
    spec = FlowSpec("tvl1", short_side=48, bound_px=15)
    assert f"note: assuming the flow is {spec}; the files do not record it" in err.splitlines()
    failure = err.splitlines()[-1]
    assert failure.startswith("failed: expected pictures in ")
    assert failure.endswith("/v/wave/c (No such file or directory)")
    assert Store.open(tmp_path / "store").spec == StoreSpec(spec)
    code, _, err = command(*arguments, "--flow", "tvl1", "--bound", "15", "--short-side", "64")
    assert code == 1
    assert "flow differs between the store" in err.splitlines()[-1]
    arguments[2] = tmp_path / "frames"
    assert command(*arguments, "--flow", "on-the-fly")[0] == 0
    assert Store.open(tmp_path / "frames").spec == StoreSpec(FlowSpec(short_side=48), flow_stored=False)
    for path in (root / "jpegs_256").rglob("*1.jpg"):
        path.write_bytes(b"")
    code, _, err = command(*arguments, "--flow", "on-the-fly")
    assert code == 1
    assert "jump/a: frame000001.jpg is damaged or not a JPEG" in err.splitlines()[-1]


def test_sign_and_scale_are_those_of_common_extractors(tmp_path: Path) -> None:
    """denseflow stores OpenCV's flow as 255 (v + bound) / (2 bound), x to the right and y down."""
    frames = moving(3, -2, 64, 96, count=12)
    for k, frame in enumerate(frames, 1):
        (tmp_path / f"img_{k:05}.jpg").write_bytes(simplejpeg.encode_jpeg(frame, 95, "RGB", "444"))
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    for k in range(1, 12):
        flow = dis.calc(grays[k - 1], grays[k], None)
        for axis, name in enumerate("xy"):
            levels = np.rint(255 * (flow[..., axis] + 20) / 40).clip(0, 255).astype(np.uint8)
            (tmp_path / f"flow_{name}_{k:05}.jpg").write_bytes(gray(levels))
    prepared = imported(tmp_path, StoreSpec(FlowSpec(short_side=64, bound_px=20)))
    found = dequantize_flow(prepared.flow(range(11)), 20)
    np.testing.assert_allclose(np.median(found, axis=(0, 2, 3)), [3, -2], atol=0.15)
    again = estimate_flow(prepared.rgb(range(12)), FlowSpec(short_side=64))
    assert np.abs(found - again)[..., 16:-16, 16:-16].mean() < 0.2


def test_real_pictures(shared: Path, tmp_path: Path) -> None:
    """Import pictures extracted elsewhere with bound 20, repeated because eleven are needed.

    Their frames and flow do not belong together, so sign and scale cannot be checked.
    """
    sample = shared / "flow_sample"
    if not sample.is_dir():
        pytest.skip(f"no extracted flow at {sample}")
    folder = tmp_path / "a"
    folder.mkdir()
    for k in range(12):
        shutil.copy(sample / f"img_{k % 6 + 1:05}.jpg", folder / f"img_{k + 1:05}.jpg")
        for axis in "xy":
            shutil.copy(sample / f"{axis}_{k % 5 + 1:05}.jpg", folder / f"{axis}_{k + 1:05}.jpg")
    prepared = imported(folder, StoreSpec(FlowSpec("tvl1", short_side=240)))
    flow = prepared.flow(range(11))
    for k in range(11):
        for axis, name in enumerate("xy"):
            np.testing.assert_array_equal(flow[k, axis], decoded(sample / f"{name}_{k % 5 + 1:05}.jpg"))
    np.testing.assert_array_equal(prepared.rgb([7])[0], decoded(sample / "img_00002.jpg", "RGB"))
    assert abs(np.median(flow) - 128) <= 2  # the median vector is zero
