"""Flow as bytes, and mirrored flow."""

from __future__ import annotations

import numpy as np
import pytest

from stresnet.errors import FlowSpecError
from stresnet.flow import clipped_share, dequantize_flow, mirror_flow, quantize_flow


@pytest.mark.parametrize("bound_px", [20.0, 7.5, 1.0])
def test_quantisation_error_is_at_most_half_a_level(bound_px: float) -> None:
    flow = np.random.default_rng(0).uniform(-bound_px, bound_px, (3, 2, 50, 60)).astype(np.float32)
    levels = quantize_flow(flow, bound_px)
    assert levels.dtype == np.uint8
    assert levels.shape == flow.shape
    back = dequantize_flow(levels, bound_px)
    assert back.dtype == np.float32
    assert np.abs(back - flow).max() <= bound_px / 255 * (1 + 1e-5)
    assert np.abs(back - flow).max() > 0.9 * bound_px / 255


def test_every_level_is_kept_by_a_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantize_flow(dequantize_flow(levels, 20.0), 20.0), levels)


def test_levels_of_known_flows() -> None:
    flow = np.array([-20, 20, 0, -0.0, -1000, 1000, 0.1, -0.1, -np.inf], np.float32)
    before = flow.copy()
    assert quantize_flow(flow, 20.0).tolist() == [0, 255, 128, 128, 0, 255, 128, 127, 0]
    np.testing.assert_array_equal(flow, before)  # the argument is not modified
    np.testing.assert_allclose(dequantize_flow(np.array([0, 255, 128], np.uint8), 20.0), [-20, 20, 20 / 255], atol=1e-5)


def test_nan_raises() -> None:
    flow = np.zeros((2, 4, 5), np.float32)
    flow[0, 1, 1] = np.nan
    with pytest.raises(FlowSpecError, match="found 1 NaN"):
        quantize_flow(flow, 20.0)


def test_mirroring_flips_x_negates_u_and_is_its_own_inverse() -> None:
    flow = np.random.default_rng(0).standard_normal((3, 2, 5, 7)).astype(np.float32)
    flow[0, :, 0, 0] = [0.0, -0.0]
    mirrored = mirror_flow(flow)
    np.testing.assert_array_equal(mirrored[:, 0], -flow[:, 0, :, ::-1])
    np.testing.assert_array_equal(mirrored[:, 1], flow[:, 1, :, ::-1])
    assert mirrored.dtype == flow.dtype
    assert mirror_flow(mirrored).tobytes() == flow.tobytes()
    np.testing.assert_array_equal(mirror_flow(flow[0]), mirrored[0])


def test_clipped_share_counts_vectors_not_components() -> None:
    flow = np.zeros((2, 2, 4, 5), np.float32)
    flow[0, 0, 0, 0] = 21  # u only
    flow[0, 1, 0, 1] = -21  # v only
    flow[1, :, 2, 2] = 21  # both: one vector
    flow[1, 0, 3, 3] = 20  # on the bound: not clipped
    assert clipped_share(flow, 20.0) == pytest.approx(3 / 40)
    assert clipped_share(flow[0], 20.0) == pytest.approx(2 / 20)
