"""Exported flow of videos in known motion, in every format."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.motion import SIZE, SPEC, film, shift
from stresnet.errors import VideoError
from stresnet.flow import FlowSpec, flow_to_rgb, read_flo
from stresnet.flow.show.drawing import enlarge
from stresnet.flow.show.export import DrawingStyle, export_flow
from stresnet.flow.show.reader import Segment
from stresnet.media.video import read_video


def about_centre(turn_rad: float = 0.0, growth: float = 1.0) -> Callable[[int], NDArray[np.float64]]:
    """Return a motion about the centre. Positive turns are clockwise on the screen, as y points down."""
    x, y = (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2

    def motion(t: int) -> NDArray[np.float64]:
        c, s = growth**t * np.cos(turn_rad * t), growth**t * np.sin(turn_rad * t)
        return np.array([[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y]])

    return motion


def mean_radius() -> float:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return float(np.hypot(x - (SIZE[1] - 1) / 2, y - (SIZE[0] - 1) / 2).mean())


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of six frames, 0.2 s, whose content moves right by 3 px per frame; read-only."""
    return film(tmp_path_factory.mktemp("vidéos [1]") / "right.mp4", shift(3, 0))


# ---------------------------------------------------------------- known motions


@pytest.mark.parametrize(
    ("motion", "mean_px"),
    [
        (shift(3, -2), np.hypot(3, 2)),
        (shift(0, 0), 0),
        (about_centre(turn_rad=0.04), 2 * np.sin(0.02) * mean_radius()),  # chords
        (about_centre(growth=1.05), 0.05 * mean_radius()),
    ],
)
def test_statistics_of_known_motions(
    tmp_path: Path, motion: Callable[[int], NDArray[np.float64]], mean_px: float
) -> None:
    reader = export_flow(film(tmp_path / "a.mp4", motion), tmp_path / "a.npz", SPEC)
    assert (len(reader.times_sec), reader.size, reader.statistics.steps) == (6, SIZE, 5)
    assert reader.statistics.mean_px == pytest.approx(mean_px, abs=0.08 * mean_px + 0.01)
    if mean_px == np.hypot(3, 2):
        assert reader.statistics.percentile_px(50) == pytest.approx(mean_px, abs=0.05)


def panels(picture: NDArray[np.uint8], count: int) -> list[NDArray[np.uint8]]:
    """Return the panels of a picture, in RGB."""
    width = (picture.shape[1] - 8) // count - 8
    return [picture[8:-22, 8 + i * (width + 8) : 8 + i * (width + 8) + width] for i in range(count)]


def read_png(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1])


def test_a_png_of_a_zoom_shows_outward_motion(tmp_path: Path) -> None:
    """Red on the right, violet at the top, blue on the left."""
    export_flow(
        film(tmp_path / "a.mp4", about_centre(growth=1.05)), tmp_path / "a.png", SPEC, style=DrawingStyle(scale_px=3.0)
    )
    frame, colours, arrows = panels(read_png(tmp_path / "a.png"), 3)
    assert frame.shape == colours.shape == arrows.shape == (288, 384, 3)  # three times as large
    middle = colours[144, 192].astype(int)
    assert middle.min() > 225  # at rest
    for (y, x), (u, v) in {(144, 340): (1, 0), (24, 192): (0, -1), (144, 44): (-1, 0)}.items():
        color = flow_to_rgb(np.array([[[u]], [[v]]], np.float32), 1.0)[0, 0]
        found = colours[y - 6 : y + 6, x - 6 : x + 6].mean(axis=(0, 1))
        missing, expected = 255 - found, 255.0 - color
        cosine = missing @ expected / np.linalg.norm(missing) / np.linalg.norm(expected)
        assert cosine > 0.97, (found, color)
    assert (frame != arrows).any(axis=-1).mean() > 0.02


def test_the_step_with_the_largest_motion_is_selected(tmp_path: Path) -> None:
    places = [0, 1, 2, 7, 8, 9]  # the largest step is from frame 2 to 3
    video = film(tmp_path / "a.mp4", lambda t: shift(places[t], 0)(1))
    reader = export_flow(video, tmp_path / "a.flo", SPEC)
    assert reader.statistics.largest_step == 2
    assert reader.largest_sec == pytest.approx(2 / 25)
    largest = read_flo(tmp_path / "a.flo")
    assert np.median(largest[0]) == pytest.approx(5, abs=0.1)
    reader = export_flow(video, tmp_path / "b.flo", SPEC, segment=Segment(at_sec=0.05))
    assert reader.times_sec == pytest.approx([1 / 25, 2 / 25])
    assert np.median(read_flo(tmp_path / "b.flo")[0]) == pytest.approx(1, abs=0.1)
    export_flow(video, tmp_path / "all.npz", SPEC)
    with np.load(tmp_path / "all.npz") as file:
        np.testing.assert_array_equal(file["flow"][2], largest)


@pytest.mark.parametrize("spec", [SPEC, FlowSpec("mv", short_side=96)], ids=["dis", "mv"])
def test_a_step_does_not_depend_on_the_segment(tmp_path: Path, spec: FlowSpec) -> None:
    """This includes the steps of key frames, which have no motion vectors and repeat the field before."""
    video = film(tmp_path / "a.mp4", shift(3, 1), count=9, g="4", bf="0", refs="1")
    export_flow(video, tmp_path / "a.npz", spec)
    with np.load(tmp_path / "a.npz") as file:
        flow = file["flow"]
    assert np.abs(np.median(flow[2:], axis=(0, 2, 3)) - [3, 1]).max() < 0.3
    for index in range(8):
        export_flow(video, tmp_path / "at.flo", spec, segment=Segment(at_sec=index / 25 + 0.01))
        export_flow(video, tmp_path / "from.flo", spec, segment=Segment(from_sec=index / 25 - 0.01, max_frames=2))
        for name in ("at.flo", "from.flo"):
            np.testing.assert_array_equal(read_flo(tmp_path / name), flow[index])


# ---------------------------------------------------------------- files


def test_an_mp4_shows_frames_beside_colours(right: Path, tmp_path: Path) -> None:
    reader = export_flow(right, tmp_path / "a.mp4", SPEC, style=DrawingStyle(scale_px=3.0))
    found = read_video(tmp_path / "a.mp4")
    assert found.frames.shape == (5, 288 + 8 + 22, 2 * 384 + 3 * 8, 3)
    assert (found.fps, reader.info.fps) == (25, 25)
    source = read_video(right)
    for step, picture in enumerate(found.frames):
        frame, colours = panels(picture, 2)
        assert np.abs(frame.astype(int) - enlarge(source.frames[step])).mean() < 6
        assert np.abs(np.median(colours[:150, 60:-60], axis=(0, 1)) - (255, 0, 0)).max() < 25  # red: to the right
    export_flow(right, tmp_path / "b.mp4", SPEC, style=DrawingStyle(arrows=True))
    plain, drawn = panels(found.frames[2], 2)[0], panels(read_video(tmp_path / "b.mp4").frames[2], 2)[0]
    assert (np.abs(plain.astype(int) - drawn).max(axis=-1) > 60).mean() > 0.03


def test_the_scale_of_an_mp4_is_sampled_from_the_whole_video(tmp_path: Path) -> None:
    """Only the last fifth of 100 frames moves, by 4 px and finally by 1 px, a quarter of the scale."""
    places = [0] * 80 + [4 * i for i in range(1, 20)] + [77]
    video = film(tmp_path / "a.mp4", lambda t: shift(places[t], 0)(1), count=100, size=(48, 64))
    reported: list[tuple[str, int, int]] = []
    export_flow(video, tmp_path / "b.mp4", FlowSpec(short_side=48), progress=lambda *a: reported.append(a))
    assert reported[:100] == [("finding the scale", n, 100) for n in range(1, 101)]
    assert reported[100:] == [("computing flow", n, 100) for n in range(1, 101)]
    last = panels(read_video(tmp_path / "b.mp4").frames[-1], 2)[1]
    assert np.median(last[:150, :250], axis=(0, 1)) == pytest.approx([255, 191, 191], abs=15)  # of red


def test_an_npz_holds_flow_times_and_specification(right: Path, tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    export_flow(right, tmp_path / "a.npz", SPEC, segment=Segment(from_sec=0.03), progress=lambda *a: reported.append(a))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["flow", "fps", "spec", "times_sec"]
        assert (file["flow"].shape, file["flow"].dtype) == ((4, 2, *SIZE), np.float32)
        assert np.median(file["flow"], axis=(0, 2, 3)) == pytest.approx([3, 0], abs=0.05)
        assert file["times_sec"] == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2])
        assert float(file["fps"]) == 25
        assert FlowSpec.from_dict(json.loads(str(file["spec"]))) == SPEC
    assert reported[0] == ("counting frames", 1, 5)
    assert reported[-1] == ("computing flow", 5, 5)
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None


def test_flo_files_in_a_folder_are_named_by_their_first_frame(right: Path, tmp_path: Path) -> None:
    segment = Segment(from_sec=0.07, to_sec=0.16)
    export_flow(right, f"{tmp_path}/flow/", SPEC, segment=segment)
    assert sorted(os.listdir(tmp_path / "flow")) == ["000002.flo"]  # frames 2 and 3, at 0.08 and 0.12 s
    (tmp_path / "empty").mkdir()
    export_flow(right, f"{tmp_path}/empty/", SPEC, segment=Segment(max_frames=4))
    assert sorted(os.listdir(tmp_path / "empty")) == ["000000.flo", "000001.flo", "000002.flo"]
    export_flow(right, tmp_path / "a.npz", SPEC)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(read_flo(tmp_path / "flow" / "000002.flo"), file["flow"][2])
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "empty", "flow"]


def test_memory_does_not_grow_with_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a step is drawn, at most a few frames after it have been read."""
    from stresnet.flow.show import export

    video = film(tmp_path / "a.mp4", shift(1, 0), count=30)
    read = drawn = 0

    def count(activity: str, done: int, total: int, detail: str = "") -> None:
        nonlocal read
        read = done

    def draw(panels: Any, captions: Any) -> NDArray[np.uint8]:
        nonlocal drawn
        drawn += 1
        assert read <= drawn + 9
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(export, "side_by_side", draw)
    export_flow(video, tmp_path / "b.mp4", SPEC, style=DrawingStyle(scale_px=1.0), progress=count)
    assert (read, drawn) == (30, 29)


@pytest.mark.parametrize("out", ["a.mp4", "a.png", "a.npz", "a.flo", "a/"])
def test_a_failed_export_keeps_the_old_file(
    right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    """The failure comes at the last step. No temporary file remains."""
    from stresnet.flow.show import reader

    before = b"old content"
    if out != "a/":
        (tmp_path / out).write_bytes(before)
    flow_of = reader.flow_of

    def failing(*arguments: Any) -> Any:
        yield from list(flow_of(*arguments))[:-1]
        raise VideoError("the disk was pulled out")

    monkeypatch.setattr(reader, "flow_of", failing)
    with pytest.raises(VideoError, match="pulled out"):
        export_flow(right, f"{tmp_path}/{out}", SPEC, style=DrawingStyle(scale_px=1.0))
    assert os.listdir(tmp_path) == ([] if out == "a/" else [out])
    assert out == "a/" or (tmp_path / out).read_bytes() == before
