"""Show frames of high dynamic range as an ordinary screen does.

Without this, PQ and HLG look flat to a network that was trained on ordinary videos. FFmpeg's filters for it need zimg,
which PyAV's builds lack, and swscale computes a table for seconds and cuts highlights off. So the formulas of the
standards are here: SMPTE ST 2084 and ITU-R BT.2100 from signal to light, BT.2087 for the primaries, BT.1886 back to a
signal. Reference white is 203 cd/m² (BT.2408), so an ordinary video that was made into HDR comes out as it was, but for
its brightest parts, which make room for highlights of up to 1000 cd/m².
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from numpy.typing import NDArray

_WHITE_NITS = 203.0
_PEAK = 1000.0 / _WHITE_NITS
_KNEE = 0.75
"""Light up to this, where 1 is that of reference white, is not compressed."""

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_GAMMA = 2.4
_HLG_SYSTEM_GAMMA = 1.2  # of a screen of 1000 cd/m²

_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
_BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)

HDR = {ColorTrc.SMPTE2084.value: "PQ", ColorTrc.ARIB_STD_B67.value: "HLG"}
"""Names of the transfer functions of high dynamic range."""


def hdr_name(picture: VideoFrame) -> str | None:
    """Return the name of the transfer function of a picture of high dynamic range; None for any other picture."""
    return HDR.get(int(picture.color_trc))


def hdr_matrix(picture: VideoFrame) -> dict[str, Any]:
    """Return the options of the conversion to RGB, which takes a picture that names no matrix for one of BT.601."""
    return {"src_colorspace": Colorspace.BT2020} if int(picture.colorspace) == _UNSPECIFIED else {}


def tone_mapped(rgb: NDArray[np.uint16], picture: VideoFrame) -> NDArray[np.uint8]:
    """Return a frame as an ordinary screen shows it.

    Args:
        rgb: (H, W, 3), the signal of a picture of high dynamic range, 0 to 65535.
        picture: the picture, which says what the signal means.

    Returns:
        (H, W, 3) uint8.
    """
    name = HDR[int(picture.color_trc)]
    light = _light_of_signal(name)[rgb]
    if name == "HLG":
        light *= np.power(light @ _LUMA_2020, _HLG_SYSTEM_GAMMA - 1)[..., None] * np.float32(_PEAK)
    if picture.color_primaries == ColorPrimaries.BT2020:
        light = np.maximum(light @ _BT2020_TO_BT709.T, 0)
    brightest = light.max(axis=2, keepdims=True)
    light *= _compressed(brightest) / np.maximum(brightest, np.float32(1e-6))
    signal: NDArray[np.uint8] = _signal_of_light()[np.rint(light * np.float32(_STEPS)).astype(np.uint16)]
    return signal


_STEPS = 65535


@cache
def _light_of_signal(name: str) -> NDArray[np.float32]:
    """Return the light of each signal of 16 bits: of the screen for PQ, 1 at reference white; of the scene for HLG."""
    signal = np.arange(_STEPS + 1) / _STEPS
    if name == "PQ":
        root = signal ** (1 / 78.84375)
        nits = 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light = nits / _WHITE_NITS
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light.astype(np.float32)


@cache
def _signal_of_light() -> NDArray[np.uint8]:
    """Return the signal of 8 bits of each of 65,536 steps of light from 0 to 1."""
    return np.rint(255 * (np.arange(_STEPS + 1) / _STEPS) ** (1 / _GAMMA)).astype(np.uint8)


def _compressed(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return light of 0 to the peak as light of 0 to 1: unchanged up to the knee, then along a smooth hyperbola."""
    above = np.clip(light, _KNEE, _PEAK) - _KNEE
    room, most = 1 - _KNEE, _PEAK - _KNEE
    curvature = 1 / room - 1 / most
    return np.minimum(light, _KNEE) + above / (1 + np.float32(curvature) * above)
