"""Frames and flow extracted elsewhere: every layout, what may be odd about it, and what is not taken."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import simplejpeg

from helpers.jpeg_source import LAYOUTS, gray, pictures, write_jpegs
from helpers.motion import moving
from helpers.tiny import Command, one_line
from helpers.videos_in_memory import in_memory
from stresnet.data.catalog import Catalog, VideoRecord
from stresnet.data.datasets import read_catalog
from stresnet.data.import_jpegs import import_jpegs
from stresnet.data.jpeg_folders import find_pictures
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.store import Store, video_path
from stresnet.errors import StoreError, VideoError
from stresnet.flow import FlowSpec, dequantize_flow, estimate_flow, quantize_flow

SPEC = StoreSpec(FlowSpec("tvl1", short_side=48))
FRAMES_ONLY = StoreSpec(FlowSpec(preset="fast", short_side=48), flow_stored=False)


def imported(folder: Path, spec: StoreSpec = SPEC) -> PreparedVideo:
    return in_memory(partial(import_jpegs, "a/b", folder, spec))


def decoded(path: Path, kind: str = "GRAY") -> np.ndarray:
    return np.squeeze(simplejpeg.decode_jpeg(path.read_bytes(), kind))


@pytest.mark.parametrize("video", ["v_Archery_g01_c01", "Archery/v_g01 [1] & ü"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_taken_over_byte_by_byte(tmp_path: Path, layout: str, video: str) -> None:
    folder = write_jpegs(tmp_path, video, layout)
    clip = imported(folder)
    meta = clip.meta
    assert (meta.frames, meta.height, meta.width, meta.fps, meta.imported) == (14, 48, 64, 25.0, True)
    assert (meta.clipped_share, meta.truncated, meta.spec) == (None, False, SPEC)
    clip.verify()
    files = [[tmp_path / pattern.format(video, k) for k in range(1, 15)] for pattern in LAYOUTS[layout]]
    np.testing.assert_array_equal(clip.rgb(range(14)), np.stack([decoded(path, "RGB") for path in files[0]]))
    flow = np.stack([[decoded(u), decoded(v)] for u, v in zip(files[1][:13], files[2][:13], strict=True)])
    np.testing.assert_array_equal(clip.flow(range(13)), flow)
    np.testing.assert_array_equal(clip.flow([12, 0, 12]), flow[[12, 0, 12]])
    np.testing.assert_allclose(clip.times_sec, np.arange(14) / 25)
    assert np.abs(flow[:, 0].astype(int) - flow[:, 1]).mean() > 20  # u and v are told apart
    assert all(path.exists() for path in files[0])


def test_the_very_bytes_lie_in_the_store(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "jump/a", "authors")
    prepare(read_catalog(tmp_path, jpegs=True), tmp_path / "store", SPEC, from_jpegs=True, workers=1)
    rows = pa.ipc.open_file(video_path(tmp_path / "store", "jump/a")).get_batch(0)
    assert rows.schema.names == ["time_sec", "rgb", "u", "v"]
    for name, base, count in (("rgb", folder, 14), ("u", tmp_path / "u/jump/a", 13), ("v", tmp_path / "v/jump/a", 13)):
        files = sorted(base.iterdir())[:count]
        assert [value.as_py() for value in rows.column(name)][:count] == [path.read_bytes() for path in files]
    assert rows.column("u")[13].as_py() is None


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("fields", [13, 14])
def test_as_many_pictures_of_flow_as_frames_or_one_fewer(tmp_path: Path, fields: int, first: int) -> None:
    folder = write_jpegs(tmp_path, "a", fields=fields, first=first)
    clip = imported(folder)
    np.testing.assert_array_equal(clip.flow([0])[0, 0], decoded(folder / f"flow_x_{first:05}.jpg"))
    np.testing.assert_array_equal(clip.flow([12])[0, 1], decoded(folder / f"flow_y_{first + 12:05}.jpg"))
    with pytest.raises(IndexError):
        clip.flow([13])


def test_frames_alone_with_flow_on_the_fly(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "a", fields=0)
    clip = imported(folder, FRAMES_ONLY)
    expected = quantize_flow(estimate_flow(clip.rgb(range(14)), FRAMES_ONLY.flow), 20)
    np.testing.assert_array_equal(clip.flow([12, 3, 4]), expected[[12, 3, 4]])
    assert clip.meta.imported
    with pytest.raises(VideoError, match=r"expected one kind of flow_x_00001.jpg, x_00001.jpg in .*, found none in 14"):
        imported(folder)


def test_gray_frames_are_frames(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "a")
    for path in folder.glob("img_*"):
        path.write_bytes(gray(decoded(path)))
    rgb = imported(folder).rgb([3])
    np.testing.assert_array_equal(rgb[0, ..., 0], decoded(folder / "img_00004.jpg"))
    np.testing.assert_array_equal(rgb[0, ..., 0], rgb[0, ..., 2])


# ---------------------------------------------------------------- what is odd


def rename(folder: Path, old: str, new: str) -> None:
    (folder / old).rename(folder / new)


def shift(folder: Path, kind: str, by: int) -> None:
    for path in sorted(folder.glob(f"{kind}_*"), reverse=by > 0):
        path.rename(folder / f"{kind}_{int(path.stem[-5:]) + by:05}.jpg")


def other_size(folder: Path, name: str) -> None:
    rgb, flow = pictures(height=40)
    jpeg = simplejpeg.encode_jpeg(rgb[0], 90, "RGB", "444") if name.startswith("img") else gray(flow[0, 0])
    (folder / name).write_bytes(jpeg)


def cut(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing frame": (lambda f: remove(f, "img_00007.jpg"), "img_00007.jpg is missing, but later ones exist"),
    "missing step": (
        lambda f: remove(f, "flow_x_00007.jpg", "flow_y_00007.jpg"),
        "flow_x_00007.jpg is missing, but later ones exist",
    ),
    "missing start": (
        lambda f: remove(f, "img_00001.jpg"),
        "expected numbers that start at 0 or 1, found img_00002.jpg first",
    ),
    "u without v": (lambda f: remove(f, "flow_y_00009.jpg"), "flow_x_00009.jpg exists, flow_y_00009.jpg is missing"),
    "v without u": (lambda f: remove(f, "flow_x_00013.jpg"), "flow_y_00013.jpg exists, flow_x_00013.jpg is missing"),
    "no v at all": (
        lambda f: remove(f, *(f"flow_y_{k:05}.jpg" for k in range(1, 14))),
        "expected one kind of flow_y_00001.jpg, y_00001.jpg in FOLDER, found none in 27 files",
    ),
    "two kinds": (
        lambda f: shutil.copy(f / "flow_x_00001.jpg", f / "x_00001.jpg"),
        "expected one kind of flow_x_00001.jpg, x_00001.jpg in FOLDER, found flow_x_00001.jpg and x_00001.jpg",
    ),
    "the same number": (
        lambda f: shutil.copy(f / "img_00001.jpg", f / "img_001.jpg"),
        "img_00001.jpg and img_001.jpg have the same number; remove one",
    ),
    "flow from 0 on": (
        lambda f: (shift(f, "flow_x", -1), shift(f, "flow_y", -1)),
        "expected flow numbered from 1, like the frames, found 0",
    ),
    "too little flow": (
        lambda f: remove(f, *(f"flow_{a}_{k}.jpg" for a in "xy" for k in ("00012", "00013"))),
        "expected as many as frames or one fewer, found 11 pictures of flow for 14 frames",
    ),
    "too few frames": (lambda f: [remove(p.parent, p.name) for p in f.glob("*1?.jpg")], "9 frames found; at least 11"),
    "a smaller frame": (
        lambda f: other_size(f, "img_00005.jpg"),
        "img_00005.jpg is 64x40, the first frame 64x48; all pictures must have one size",
    ),
    "smaller flow": (
        lambda f: other_size(f, "flow_y_00001.jpg"),
        "flow_y_00001.jpg is 64x40, the first frame 64x48; all pictures must have one size",
    ),
    "flow in colour": (
        lambda f: shutil.copy(f / "img_00003.jpg", f / "flow_x_00003.jpg"),
        "flow_x_00003.jpg is in colour; flow must be gray levels, not a colour picture of it",
    ),
    "a frame cut off": (
        lambda f: cut(f, "img_00014.jpg"),
        "img_00014.jpg is damaged or not a JPEG (.*); extract",
    ),
    "flow cut off": (lambda f: cut(f, "flow_x_00002.jpg"), "flow_x_00002.jpg is damaged or not a JPEG (.*)"),
    "an empty file": (lambda f: (f / "img_00002.jpg").write_bytes(b""), "img_00002.jpg is damaged or not a JPEG (.*)"),
    "another format": (
        lambda f: (f / "img_00002.jpg").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)),
        "img_00002.jpg is damaged or not a JPEG (.*)",
    ),
    "a folder for a file": (
        lambda f: (remove(f, "img_00002.jpg"), (f / "img_00002.jpg").mkdir()),
        "img_00002.jpg cannot be read (Is a directory)",
    ),
    "other names": (
        lambda f: [rename(f, p.name, f"picture{p.stem[-5:]}.jpg") for p in f.glob("img_*")],
        "expected one kind of frame00001.jpg, img_00001.jpg, image_00001.jpg, 00001.jpg in FOLDER, found none in 40",
    ),
}


def as_pattern(message: str, folder: Path) -> str:
    """The message as a regular expression in which only .* means anything."""
    parts = message.replace("FOLDER", str(folder)).split(".*")
    return "^" + ".*".join(map(re.escape, [f"{folder}: {parts[0]}", *parts[1:]]))


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd_is_named_in_one_line(tmp_path: Path, case: str) -> None:
    folder = write_jpegs(tmp_path, "a")
    spoil, message = ODD[case]
    spoil(folder)
    with pytest.raises(VideoError, match=as_pattern(message, folder)) as error:
        imported(folder)
    assert "\n" not in str(error.value)


def test_flow_in_folders_of_its_own_is_named_by_where_it_is(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "v_1", "authors")
    (tmp_path / "v/v_1/frame000004.jpg").unlink()
    with pytest.raises(VideoError, match=r": u/v_1/frame000004.jpg exists, v/v_1/frame000004.jpg is missing$"):
        imported(folder)
    shutil.rmtree(tmp_path / "v")
    with pytest.raises(VideoError, match=r"expected pictures in .*/v/v_1 \(No such file or directory\)"):
        imported(folder)
    shutil.rmtree(tmp_path / "u")
    with pytest.raises(VideoError, match=r"expected its flow below .* in u and v, tvl1_flow/u and .*; found none of"):
        imported(folder)
    with pytest.raises(VideoError, match="expected a folder of JPEGs, found none"):
        find_pictures(tmp_path / "nowhere", flow=True)
    with pytest.raises(VideoError, match="expected a folder of JPEGs, found a file"):
        find_pictures(folder / "frame000001.jpg", flow=True)


def test_all_in_one_folder_below_one_of_the_known_names(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path / "frames", "a")  # ROOT itself is called frames
    assert len(find_pictures(folder, flow=True).u) == 13


def test_another_short_side_than_the_stores(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "a")
    with pytest.raises(
        VideoError, match="pictures are 64x48, but the store's short side is 256 px; import them into a store"
    ):
        imported(folder, StoreSpec(FlowSpec("tvl1")))


# ---------------------------------------------------------------- sources


def test_sources_of_folders(tmp_path: Path) -> None:
    for split, label, name in (("train", "jump", "a"), ("train", "wave", "b"), ("test", "jump", "c")):
        write_jpegs(tmp_path / "one folder", f"{split}/{label}/{name}")
        write_jpegs(tmp_path / "own folders", f"{split}/{label}/{name}", "authors")
    expected = [("jump", "test"), ("jump", "train"), ("wave", "train")]
    for root in ("one folder", "own folders"):
        catalog = read_catalog(tmp_path / root, jpegs=True)
        assert (catalog.name, catalog.classes, catalog.notes) == (root, ("jump", "wave"), ())
        assert [r.id for r in catalog.records] == ["test/jump/c", "train/jump/a", "train/wave/b"]
        assert [(r.label, r.split) for r in catalog.records] == expected
        assert all(Path(r.path).is_dir() for r in catalog.records)
    csv = tmp_path / "list.csv"
    csv.write_text("path,label\none folder/test/jump/c,jump\nown folders/jpegs_256/train/wave/b,wave\n")
    catalog = read_catalog(csv, jpegs=True)
    assert [note for note in catalog.notes if "missing" in note] == []
    summary = prepare(catalog, tmp_path / "store", SPEC, from_jpegs=True, workers=1)
    assert (summary.done, summary.failed) == (2, ())


def test_videos_without_class_folders_need_a_list(tmp_path: Path) -> None:
    write_jpegs(tmp_path, "v_1", "authors")
    expected = "expected class folders with folders of JPEGs, found 1 videos outside any folder: name their classes in"
    with pytest.raises(StoreError, match=expected):
        read_catalog(tmp_path, jpegs=True)
    with pytest.raises(StoreError, match=r"found no video at all but JPEGs \(import them with --from-jpegs\)"):
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
    # The ids are those of the files: a model trained on them knows its training videos in any form.
    assert [r.id for r in catalog.records] == [
        "Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g08_c01.avi",
        "Biking/v_Biking_g08_c01.avi",
    ]
    assert "1 of 3 listed videos are missing" in catalog.notes[0]
    summary = prepare(catalog, tmp_path / "store", SPEC, from_jpegs=True, workers=1)
    assert (summary.done, summary.frames) == (2, 28)
    assert summary.failed == (("Archery/v_Archery_g01_c01.avi", "expected a folder of JPEGs, found none"),)


# ---------------------------------------------------------------- the store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two good videos and one without v."""
    for seed, name in enumerate(("jump/a", "wave/b", "wave/c")):
        write_jpegs(tmp_path / "source", name, "authors", seed=seed)
    shutil.rmtree(tmp_path / "source" / "v" / "wave" / "c")
    return tmp_path / "source"


def test_what_failed_is_recorded_and_what_changed_is_done_again(root: Path, tmp_path: Path) -> None:
    def run() -> tuple[int, int, list[str]]:
        summary = prepare(read_catalog(root, jpegs=True), tmp_path / "store", SPEC, from_jpegs=True, workers=2)
        return summary.done, summary.kept, [name for name, _ in summary.failed]

    assert run() == (2, 0, ["wave/c"])
    assert run() == (0, 2, ["wave/c"])
    os.utime(root / "v/jump/a/frame000003.jpg", ns=(1, 2**62))  # a picture of flow was made anew
    shutil.copytree(root / "u/wave/c", root / "v/wave/c")
    assert run() == (2, 1, [])
    (root / "u/wave/b/frame000003.jpg").unlink()
    assert run() == (0, 2, ["wave/b"])
    shutil.rmtree(root / "jpegs_256/jump/a")  # sources may be deleted once they are taken over
    records = tuple(VideoRecord(f"{c}/{n}", str(root / "jpegs_256" / c / n), c) for c, n in (("jump", "a"),))
    summary = prepare(Catalog("c", ("jump",), records), tmp_path / "store", SPEC, from_jpegs=True, workers=1)
    assert (summary.done, summary.kept) == (0, 1)
    # ... but a clip that was taken over is none that was prepared here.
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


def test_sign_and_scale_are_those_of_the_extractors(tmp_path: Path) -> None:
    """Extracted as denseflow does, 255 (v + bound) / (2 bound) of OpenCV's flow, x to the right and y down."""
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
    clip = imported(tmp_path, StoreSpec(FlowSpec(short_side=64, bound_px=20)))
    found = dequantize_flow(clip.flow(range(11)), 20)
    np.testing.assert_allclose(np.median(found, axis=(0, 2, 3)), [3, -2], atol=0.15)
    again = estimate_flow(clip.rgb(range(12)), FlowSpec(short_side=64))
    assert np.abs(found - again)[..., 16:-16, 16:-16].mean() < 0.2


def test_real_pictures(shared: Path, tmp_path: Path) -> None:
    """Pictures of somebody's, bound 20: repeated, as eleven are needed.

    Their frames and their flow do not belong together, so nothing of its sign or scale can be seen in them.
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
    clip = imported(folder, StoreSpec(FlowSpec("tvl1", short_side=240)))
    flow = clip.flow(range(11))
    for k in range(11):
        for axis, name in enumerate("xy"):
            np.testing.assert_array_equal(flow[k, axis], decoded(sample / f"{name}_{k % 5 + 1:05}.jpg"))
    np.testing.assert_array_equal(clip.rgb([7])[0], decoded(sample / "img_00002.jpg", "RGB"))
    assert abs(np.median(flow) - 128) <= 2  # rest, where most of it is
