"""Finding frames and flow that were extracted elsewhere: every layout, and files that are missing or not valid."""

from __future__ import annotations

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
from helpers.videos_in_memory import in_memory
from stresnet.data.datasets import read_catalog
from stresnet.data.import_jpegs import import_jpegs
from stresnet.data.jpeg_folders import find_pictures
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.store import video_path
from stresnet.errors import VideoError
from stresnet.flow import FlowSpec, estimate_flow, quantize_flow

SPEC = StoreSpec(FlowSpec("tvl1", short_side=48))
FRAMES_ONLY = StoreSpec(FlowSpec(preset="fast", short_side=48), flow_stored=False)


def imported(folder: Path, spec: StoreSpec = SPEC) -> PreparedVideo:
    return in_memory(partial(import_jpegs, "a/b", folder, spec))


def decoded(path: Path, kind: str = "GRAY") -> np.ndarray:
    return np.squeeze(simplejpeg.decode_jpeg(path.read_bytes(), kind))


@pytest.mark.parametrize("video", ["v_Archery_g01_c01", "Archery/v_g01 [1] & ü"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_imported_unchanged(tmp_path: Path, layout: str, video: str) -> None:
    folder = write_jpegs(tmp_path, video, layout)
    prepared = imported(folder)
    meta = prepared.meta
    assert (meta.frames, meta.height, meta.width, meta.fps, meta.imported) == (14, 48, 64, 25.0, True)
    assert (meta.clipped_share, meta.truncated, meta.spec) == (None, False, SPEC)
    prepared.verify()
    files = [[tmp_path / pattern.format(video, k) for k in range(1, 15)] for pattern in LAYOUTS[layout]]
    np.testing.assert_array_equal(prepared.rgb(range(14)), np.stack([decoded(path, "RGB") for path in files[0]]))
    flow = np.stack([[decoded(u), decoded(v)] for u, v in zip(files[1][:13], files[2][:13], strict=True)])
    np.testing.assert_array_equal(prepared.flow(range(13)), flow)
    np.testing.assert_array_equal(prepared.flow([12, 0, 12]), flow[[12, 0, 12]])
    np.testing.assert_allclose(prepared.times_sec, np.arange(14) / 25)
    assert np.abs(flow[:, 0].astype(int) - flow[:, 1]).mean() > 20  # u and v are not interchanged
    assert all(path.exists() for path in files[0])


def test_the_bytes_of_the_files_are_stored(tmp_path: Path) -> None:
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
def test_one_flow_picture_per_frame_or_one_fewer(tmp_path: Path, fields: int, first: int) -> None:
    folder = write_jpegs(tmp_path, "a", fields=fields, first=first)
    prepared = imported(folder)
    np.testing.assert_array_equal(prepared.flow([0])[0, 0], decoded(folder / f"flow_x_{first:05}.jpg"))
    np.testing.assert_array_equal(prepared.flow([12])[0, 1], decoded(folder / f"flow_y_{first + 12:05}.jpg"))
    with pytest.raises(IndexError):
        prepared.flow([13])


@pytest.mark.parametrize("by", [-1, 1])
def test_flow_numbered_otherwise_where_counts_leave_no_doubt(tmp_path: Path, by: int) -> None:
    folder = write_jpegs(tmp_path, "a")
    expected = imported(folder).flow(range(13))
    for kind in FLOW:
        shift(folder, kind, by)
    np.testing.assert_array_equal(imported(folder).flow(range(13)), expected)


@pytest.mark.parametrize("pattern", ["frame_{:010}", "img{:05}", "image{:04}"])
def test_other_names_of_frames(tmp_path: Path, pattern: str) -> None:
    folder = write_jpegs(tmp_path, "a")
    expected = imported(folder).rgb(range(14))
    for number in range(1, 15):
        rename(folder, f"img_{number:05}.jpg", f"{pattern.format(number)}.jpg")
    np.testing.assert_array_equal(imported(folder).rgb(range(14)), expected)


def test_pngs_are_encoded_as_the_store_encodes(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "jump/a")
    rgb, flow = pictures()
    for path in folder.iterdir():
        number = int(path.stem[-5:]) - 1
        picture = rgb[number] if path.name.startswith("img") else flow[number, int("_y" in path.name)]
        write_png(path.with_suffix(".png"), picture)
        path.unlink()
    write_png(folder / "img_00014.png", np.dstack([rgb[13], np.full((48, 64), 9, np.uint8)])[..., [3, 0, 1, 2]])  # BGRA
    (record,) = read_catalog(tmp_path, jpegs=True).records
    assert record.id == "jump/a"
    prepared = imported(Path(record.path), StoreSpec(SPEC.flow, 80))
    assert prepared.meta.imported
    jpeg = simplejpeg.encode_jpeg(rgb[3], 80, "RGB", "444")
    np.testing.assert_array_equal(prepared.rgb([3])[0], simplejpeg.decode_jpeg(jpeg))
    for stored, levels in zip(prepared.flow([3])[0], flow[3], strict=True):
        jpeg = simplejpeg.encode_jpeg(levels[..., None].copy(), 80, "GRAY", "Gray")
        np.testing.assert_array_equal(stored, simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0])
    assert np.abs(prepared.rgb([13])[0].astype(int) - rgb[13]).mean() < 3


def test_frames_only_with_flow_on_the_fly(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "a", fields=0)
    prepared = imported(folder, FRAMES_ONLY)
    expected = quantize_flow(estimate_flow(prepared.rgb(range(14)), FRAMES_ONLY.flow), 20)
    np.testing.assert_array_equal(prepared.flow([12, 3, 4]), expected[[12, 3, 4]])
    assert prepared.meta.imported
    with pytest.raises(VideoError, match=r"expected one kind of flow_x_00001.jpg, x_00001.jpg in .*, found none in 14"):
        imported(folder)


def test_gray_frames_are_accepted(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "a")
    for path in folder.glob("img_*"):
        path.write_bytes(gray(decoded(path)))
    rgb = imported(folder).rgb([3])
    np.testing.assert_array_equal(rgb[0, ..., 0], decoded(folder / "img_00004.jpg"))
    np.testing.assert_array_equal(rgb[0, ..., 0], rgb[0, ..., 2])


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


FLOW = ("flow_x", "flow_y")


def write_png(path: Path, picture: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[1].tobytes())


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


INVALID: dict[str, tuple[Callable[[Path], object], str]] = {
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
        lambda f: [(shift(f, a, -1), shutil.copy(f / f"{a}_00000.jpg", f / f"{a}_00013.jpg")) for a in FLOW],
        "expected flow from 1, like the frames, or 13 pictures, found 14 from 0",
    ),
    "flow from 3 on": (
        lambda f: [shift(f, a, 2) for a in FLOW],
        "expected numbers that start at 0 or 1 or 2, found flow_x_00003.jpg first",
    ),
    "v from 0 on": (lambda f: shift(f, "flow_y", -1), "flow_x_00013.jpg exists, flow_y_00013.jpg is missing"),
    "a PNG of 16 bits": (
        lambda f: (remove(f, "img_00002.jpg"), write_png(f / "img_00002.png", np.zeros((48, 64), np.uint16))),
        "img_00002.png is damaged or not a PNG of 8 bits (16 bits); extract it again",
    ),
    "a PNG cut off": (
        lambda f: (
            remove(f, "img_00002.jpg"),
            write_png(f / "img_00002.png", pictures()[0][0]),
            cut(f, "img_00002.png"),
        ),
        "img_00002.png is damaged or not a PNG of 8 bits (no picture); extract it again",
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
        "expected one kind of frame00001.jpg, frame_00001.jpg, img00001.jpg, .*, 00001.jpg in FOLDER, found none in 40",
    ),
}


def as_pattern(message: str, folder: Path) -> str:
    """Return a regular expression of the message, in which only .* is special."""
    parts = message.replace("FOLDER", str(folder)).split(".*")
    return "^" + ".*".join(map(re.escape, [f"{folder}: {parts[0]}", *parts[1:]]))


@pytest.mark.parametrize("case", INVALID)
def test_invalid_files_are_named_in_one_line(tmp_path: Path, case: str) -> None:
    folder = write_jpegs(tmp_path, "a")
    spoil, message = INVALID[case]
    spoil(folder)
    with pytest.raises(VideoError, match=as_pattern(message, folder)) as error:
        imported(folder)
    assert "\n" not in str(error.value)


def test_messages_name_separate_flow_folders(tmp_path: Path) -> None:
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
    with pytest.raises(VideoError, match="expected a folder of pictures, found none"):
        find_pictures(tmp_path / "nowhere", flow=True)
    with pytest.raises(VideoError, match="expected a folder of pictures, found a file"):
        find_pictures(folder / "frame000001.jpg", flow=True)


def test_one_folder_for_all_below_a_folder_named_frames(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path / "frames", "a")  # ROOT itself is named frames
    assert len(find_pictures(folder, flow=True).u) == 13


def test_pictures_of_another_short_side_are_rejected(tmp_path: Path) -> None:
    folder = write_jpegs(tmp_path, "a")
    with pytest.raises(
        VideoError, match="pictures are 64x48, but the store's short side is 256 px; import them into a store"
    ):
        imported(folder, StoreSpec(FlowSpec("tvl1")))
