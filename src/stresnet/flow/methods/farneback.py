"""Farnebäck's polynomial expansion (2003), by OpenCV."""

from __future__ import annotations

from typing import Any, cast

from stresnet.flow.methods.method import FlowMethod, Parameters, PictureEstimator, pairwise


def _load(preset: str, parameters: Parameters) -> PictureEstimator:
    import cv2

    options = {
        "pyr_scale": parameters["pyramid_scale"],
        "levels": parameters["levels"],
        "winsize": parameters["window"],
        "iterations": parameters["iterations"],
        "poly_n": parameters["poly_n"],
        "poly_sigma": parameters["poly_sigma"],
        "flags": cv2.OPTFLOW_FARNEBACK_GAUSSIAN if parameters["gaussian_window"] else 0,
    }
    return pairwise(lambda first, second: cast(Any, cv2).calcOpticalFlowFarneback(first, second, None, **options))


METHOD = FlowMethod(
    name="farneback",
    summary="polynomial expansion",
    presets={
        # The values of OpenCV's example, with a Gaussian window.
        "default": {
            "pyramid_scale": 0.5,
            "levels": 5,
            "window": 13,
            "iterations": 10,
            "poly_n": 5,
            "poly_sigma": 1.1,
            "gaussian_window": 1,
        },
    },
    on_the_fly=True,
    from_pictures=_load,
)
