"""TV-L1 (Zach, Pock and Bischof 2007), the family that the paper's flow belongs to: by OpenCV, or in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from stresnet.errors import FlowSpecError
from stresnet.flow.methods.method import Flow, FlowMethod, Parameters, Picture, PictureEstimator, pairwise

_COMPILE_AFTER_PX = 64 * 340 * 256  # as long as compiling takes on a CPU, where it does not change a bit of the flow
_MAX_PAIRS = {"cpu": 16, "cuda": 64}


def _load(preset: str, parameters: Parameters) -> PictureEstimator:
    return _load_torch(parameters) if preset == "fast" else _load_opencv(parameters)


def _load_opencv(parameters: Parameters) -> PictureEstimator:
    import cv2

    _require_available("default", parameters)
    tvl1 = cast(Any, cv2).optflow.DualTVL1OpticalFlow_create()
    tvl1.setTau(parameters["tau"])
    tvl1.setLambda(parameters["lambda"])
    tvl1.setTheta(parameters["theta"])
    tvl1.setScalesNumber(parameters["scales"])
    tvl1.setWarpingsNumber(parameters["warps"])
    tvl1.setEpsilon(parameters["epsilon"])
    tvl1.setInnerIterations(parameters["inner_iterations"])
    tvl1.setOuterIterations(parameters["outer_iterations"])
    tvl1.setScaleStep(parameters["scale_step"])
    tvl1.setGamma(parameters["gamma"])
    tvl1.setMedianFiltering(parameters["median_filter"])
    return pairwise(lambda first, second: tvl1.calc(first, second, None))


def _load_torch(parameters: Parameters) -> PictureEstimator:
    import numpy as np
    import torch
    from torch.utils.data import get_worker_info

    from stresnet.flow.methods import tvl1_torch

    # Data loader processes leave the GPU to the training; forked ones could not use it.
    on_gpu = torch.cuda.is_available() and get_worker_info() is None
    device = torch.device("cuda" if on_gpu else "cpu")
    params = tvl1_torch.TVL1Parameters.from_preset(parameters)
    computed_px = 0

    def compute(pictures: Sequence[Picture]) -> Flow:
        nonlocal computed_px
        gray = torch.from_numpy(np.stack(pictures)).to(device)
        compiled = device.type == "cpu" and computed_px >= _COMPILE_AFTER_PX
        computed_px += gray[1:].numel()
        return tvl1_torch.tvl1(gray[:-1], gray[1:], params, compiled=compiled).cpu().numpy()

    return PictureEstimator(compute, max_pairs=_MAX_PAIRS[device.type])


def _require_available(preset: str, parameters: Parameters) -> None:
    import cv2

    if preset == "default" and not hasattr(cv2, "optflow"):
        raise FlowSpecError(
            "flow tvl1/default needs OpenCV's contrib modules, which the installed OpenCV lacks; reinstall "
            "opencv-contrib-python-headless, or choose --preset fast"
        )


METHOD = FlowMethod(
    name="tvl1",
    summary="the paper's, slow",
    presets={
        # OpenCV's defaults.
        "default": {
            "tau": 0.25,
            "lambda": 0.15,
            "theta": 0.3,
            "scales": 5,
            "warps": 5,
            "epsilon": 0.01,
            "inner_iterations": 30,
            "outer_iterations": 10,
            "scale_step": 0.8,
            "gamma": 0.0,
            "median_filter": 5,
        },
        # In PyTorch, on a schedule of this project: more scales, fewer warps and iterations.
        "fast": {
            "tau": 0.25,
            "lambda": 0.15,
            "theta": 0.3,
            "scales": 16,
            "warps": 2,
            "epsilon": 0.0,
            "inner_iterations": 30,
            "outer_iterations": 1,
            "scale_step": 0.8,
            "median_filter": 5,
        },
    },
    on_the_fly=True,
    from_pictures=_load,
    require_available=_require_available,
)
