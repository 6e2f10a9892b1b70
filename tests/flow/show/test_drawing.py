"""Colours, arrows, legends and statistics of flow."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stresnet.flow import FlowStatistics, clipping_note, flow_to_rgb
from stresnet.flow.show.drawing import arrow_px, draw_arrows, draw_colours, enlarge, full_colour_px, side_by_side


def constant(u: float, v: float, height: int = 6, width: int = 8) -> NDArray[np.float32]:
    return np.stack([np.full((height, width), value, np.float32) for value in (u, v)])


# ---------------------------------------------------------------- colours


def published_wheel() -> NDArray[np.int64]:
    """Return the 55 colours of Baker et al. 2011 in the order of the benchmark's colour code."""
    rows: list[tuple[int, int, int]] = []
    rows += [(255, 255 * i // 15, 0) for i in range(15)]  # red to yellow
    rows += [(255 - 255 * i // 6, 255, 0) for i in range(6)]  # yellow to green
    rows += [(0, 255, 255 * i // 4) for i in range(4)]  # green to cyan
    rows += [(0, 255 - 255 * i // 11, 255) for i in range(11)]  # cyan to blue
    rows += [(255 * i // 13, 0, 255) for i in range(13)]  # blue to magenta
    rows += [(255, 0, 255 - 255 * i // 6) for i in range(6)]  # magenta to red
    return np.array(rows)


def test_colours_match_the_published_wheel() -> None:
    """From right (the benchmark's atan2(-v, -u) = -pi) over down (-pi / 2), left (0) and up."""
    angle = 2 * np.pi * np.arange(55) / 55
    directions = np.stack([np.cos(angle), np.sin(angle)])[:, None].astype(np.float32)
    found = flow_to_rgb(directions, 1.0)[0].astype(int)
    assert np.abs(found - published_wheel()).max() <= 1
    half = flow_to_rgb(directions, 2.0)[0].astype(int)  # halfway to white
    assert np.abs(half - (255 + published_wheel()) / 2).max() <= 1


@pytest.mark.parametrize(
    ("u", "v", "color"),
    [
        (1, 0, (255, 0, 0)),
        (0, 1, (255, 233.75, 0)),  # a quarter of 55 steps: 13.75 of the 15 from red to yellow
        (-1, 0, (0, 197.05, 255)),  # 27.5: 2.5 of the 11 from cyan to blue
        (0, -1, (102.98, 0, 255)),  # 41.25: 5.25 of the 13 from blue to magenta
        (0, 0, (255, 255, 255)),
        (np.nan, 1, (0, 0, 0)),
        (1, np.nan, (0, 0, 0)),
    ],
)
def test_colours_of_known_vectors(u: float, v: float, color: tuple[float, float, float]) -> None:
    assert flow_to_rgb(constant(u, v), 1.0)[2, 3] == pytest.approx(np.array(color), abs=0.6)


def test_colours_show_direction_and_speed() -> None:
    flow = np.zeros((2, 1, 6), np.float32)
    flow[:, 0, 1:] = np.array([(4, 0), (-4, 0), (2, 0), (40, 0), (0, 4)]).T
    still, right, left, half, fast, down = flow_to_rgb(flow, 4.0)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert right.tolist() == fast.tolist() == [255, 0, 0]
    assert half.tolist() == pytest.approx([255, 128, 128], abs=1)
    assert left[0] == 0  # opposite to red
    assert left[2] == 255
    assert len({tuple(colour) for colour in (right, left, down)}) == 3
    assert flow_to_rgb(flow, 4.0).dtype == np.uint8


def test_colours_change_gradually_around_the_wheel() -> None:
    angle = np.linspace(0, 2 * np.pi, 721)
    wheel = flow_to_rgb(np.stack([np.cos(angle), np.sin(angle)])[:, None].astype(np.float32), 1.0)[0].astype(int)
    assert np.abs(np.diff(wheel, axis=0)).max() <= 10  # no jump, the end meets the beginning


def test_invalid_arguments_raise() -> None:
    with pytest.raises(ValueError, match="max_px"):
        flow_to_rgb(np.zeros((2, 3, 3), np.float32), 0)
    with pytest.raises(ValueError, match=r"\(2,H,W\)"):
        flow_to_rgb(np.zeros((3, 3, 2), np.float32), 1)


# ---------------------------------------------------------------- statistics


def test_statistics_match_closed_form() -> None:
    found = FlowStatistics(bound_px=20.0)
    assert found.add(constant(3, 4))  # 48 vectors of 5 px
    assert not found.add(constant(0, -1))
    fast = constant(0, 0)
    fast[:, :3] = [[[30]], [[-40]]]  # 24 vectors of 50 px, 24 at rest
    assert found.add(fast)
    assert not found.add(fast)
    assert (found.steps, found.vectors, found.largest_step) == (4, 192, 2)
    assert found.mean_px == pytest.approx((48 * 5 + 48 * 1 + 2 * 24 * 50) / 192)
    assert found.clipped_share == pytest.approx(48 / 192)
    assert found.unknown_share == 0
    assert [found.percentile_px(p) for p in (0, 25.2, 50.5, 75.5, 100)] == [0, 1, 5, 50, 50]


def test_percentiles_match_numpy() -> None:
    fields = np.random.default_rng(0).gamma(2, 3, (5, 2, 40, 50)).astype(np.float32)
    found = FlowStatistics(bound_px=20.0)
    for field in fields:
        found.add(field)
    speed = np.hypot(fields[:, 0], fields[:, 1])
    for percent in (1, 50, 99, 100):
        assert found.percentile_px(percent) == pytest.approx(np.percentile(speed, percent), abs=1 / 256 + 1e-3)
    assert found.mean_px == pytest.approx(speed.mean(dtype=np.float64))


def test_unknown_vectors_have_no_speed() -> None:
    flow = constant(3, 4)
    flow[0, :3] = np.nan
    flow[1, 0] = np.nan
    found = FlowStatistics(bound_px=2.0)
    found.add(flow)
    assert found.unknown_share == pytest.approx(3 / 6)
    assert found.mean_px == pytest.approx(5)
    assert found.percentile_px(99) == pytest.approx(5, abs=1 / 256)
    empty = FlowStatistics(bound_px=2.0)
    assert not empty.add(constant(np.nan, 1))
    assert np.isnan(empty.mean_px)
    assert np.isnan(empty.percentile_px(99))
    assert (empty.largest_step, empty.unknown_share, FlowStatistics(2.0).clipped_share) == (-1, 1, 0)


def test_a_note_appears_above_five_per_cent_of_clipping() -> None:
    assert clipping_note("a.avi", 0.0, 20) is None
    assert clipping_note("a.avi", 0.05, 20) is None
    note = clipping_note("a.avi", 0.0512, 20)
    assert note is not None
    assert note.startswith("a.avi: 5.1 % of the flow is clipped at ±20 px/frame; use a larger --bound")
    assert "smaller --short-side" in note
    assert "\n" not in note


# ---------------------------------------------------------------- drawing


@pytest.mark.parametrize("turn_deg", range(0, 360, 30))
def test_an_arrow_points_along_the_flow(turn_deg: int) -> None:
    """One grid cell moves: its arrow starts at the cell's centre and has its head at the tip."""
    cell = 20  # of 12 along 240 px
    u, v = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    flow = np.zeros((2, 240, 320), np.float32)
    flow[:, 5 * cell : 6 * cell, 8 * cell : 9 * cell] = 4 * np.array([u, v])[:, None, None]
    frame = np.full((240, 320, 3), 90, np.uint8)
    drawn = draw_arrows(frame, flow, scale_px=4.0)
    assert drawn.shape == frame.shape
    y, x = np.nonzero((drawn[..., 0] > 160) & (drawn[..., 2] < 130))  # yellow
    dx, dy = x - (8.5 * cell - 0.5), y - (5.5 * cell - 0.5)
    along, across = dx * u + dy * v, dx * v - dy * u
    assert along.max() == pytest.approx(arrow_px(240, 320), abs=1.5)
    assert along.max() == pytest.approx(22, abs=1.5)
    assert along.min() == pytest.approx(0, abs=1.5)
    assert np.abs(across).max() < 7
    assert np.abs(across[along < 11]).max() <= 1.6  # the shaft is thin, the head wide
    assert np.abs(across[along > 11]).max() > 3.5
    assert (drawn != 90).any(axis=-1).sum() < 400  # nothing else is drawn


def test_arrow_length_is_proportional_to_the_mean_speed_of_the_cell() -> None:
    frame = np.zeros((240, 320, 3), np.uint8)

    def length(speed_px: float, scale_px: float) -> float:
        flow = np.zeros((2, 240, 320), np.float32)
        flow[0, 100:120, 160:170] = 2 * speed_px  # half of the cell: the mean is speed_px
        drawn = draw_arrows(frame, flow, scale_px)
        columns = np.nonzero(drawn.max(axis=(0, 2)) > 100)[0]
        return float(np.ptp(columns)) if len(columns) else 0.0

    assert length(8, 8) == pytest.approx(22, abs=2)
    assert length(4, 8) == pytest.approx(11, abs=2)
    assert length(80, 8) == pytest.approx(22, abs=2)  # higher speeds have the same length
    assert length(0.7, 8) == 0  # below a tenth: omitted


def test_unknown_flow_has_no_arrow_and_affects_no_other() -> None:
    flow = constant(4, 0, 240, 320)
    flow[:, :, :160] = np.nan
    flow[1, 100:105, 160:180] = np.nan  # part of a cell: the rest counts
    frame = np.zeros((240, 320, 3), np.uint8)
    drawn = draw_arrows(frame, flow, 4.0)
    assert not drawn[:, :165].any()
    np.testing.assert_array_equal(drawn[100:120, 160:220], drawn[60:80, 160:220])


def test_small_frames_are_enlarged_by_a_whole_factor() -> None:
    small = np.arange(32 * 40 * 3, dtype=np.uint32).reshape(32, 40, 3).astype(np.uint8)
    large = enlarge(small)
    assert large.shape == (256, 320, 3)
    np.testing.assert_array_equal(large[4::8, 4::8], small)
    np.testing.assert_array_equal(enlarge(large), large)
    assert enlarge(small[:, :1].repeat(1900, axis=1)).shape == (32, 1900, 3)  # at most 1920


@pytest.mark.parametrize("size", [(32, 32), (32, 640), (640, 32), (33, 47), (256, 341), (32, 1900), (1080, 1920)])
def test_panels_have_a_legend_if_it_fits(size: tuple[int, int]) -> None:
    flow = np.zeros((2, *size), np.float32)
    panel = draw_colours(flow, 120.0)
    assert panel.shape == enlarge(np.zeros((*size, 3), np.uint8)).shape
    drawn = np.nonzero((panel != 255).any(axis=-1))
    if len(drawn[0]) == 0:  # the width of the text depends on OpenCV's font
        assert min(panel.shape[:2]) < 100
    else:  # in the corner, inside the panel, and small
        assert [at.max() for at in drawn] == [side - 7 for side in panel.shape[:2]]
        assert min(at.min() for at in drawn) >= 0
        assert np.ptp(drawn[0]) * np.ptp(drawn[1]) < 0.6 * panel[..., 0].size
    assert draw_arrows(np.zeros((*size, 3), np.uint8), flow + 1, 1.0).shape == panel.shape


def test_the_legend_uses_the_colours_of_the_flow() -> None:
    panel = draw_colours(np.zeros((2, 256, 341), np.float32), 5.0).astype(int)
    rows, columns = (np.nonzero((panel != 255).any(axis=(1 - axis, 2)))[0] for axis in (0, 1))
    side = 56
    top, left = rows[0] + 6, (columns[0] + columns[-1] + 1 - side) // 2
    wheel = panel[top : top + side, left : left + side]
    for (x, y), color in {(55, 28): (255, 0, 0), (28, 55): (255, 234, 0), (0, 28): (0, 197, 255)}.items():
        assert np.abs(wheel[y, x] - color).max() < 15
    assert np.abs(wheel[28, 28] - 255).max() < 15


def test_captions_stay_below_their_panels_or_are_omitted() -> None:
    panels = [np.full((240, 240, 3), level, np.uint8) for level in (50, 100)]
    picture = side_by_side(panels, ["frame 3", "too long to fit at any size " * 3])
    plain = side_by_side(panels, ["", ""])
    assert picture.shape == plain.shape == (240 + 8 + 22, 2 * 240 + 3 * 8, 3)
    np.testing.assert_array_equal(picture[8:248, 8:248], panels[0])
    np.testing.assert_array_equal(picture[8:248, 256:496], panels[1])
    changed = np.nonzero((picture != plain).any(axis=-1))
    assert changed[0].min() > 248
    assert 8 <= changed[1].min() < changed[1].max() < 100  # the long one is omitted


@pytest.mark.parametrize(
    ("speed", "full"), [(0, 1), (0.9, 1), (np.nan, 1), (1, 1), (1.01, 1.2), (5.5, 6), (8.1, 10), (19.4, 20), (260, 300)]
)
def test_scales_are_round_numbers(speed: float, full: float) -> None:
    assert full_colour_px(speed) == full
