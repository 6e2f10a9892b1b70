"""Dense inverse search (Kroeger et al. 2016), by OpenCV."""

from __future__ import annotations

from typing import Any, cast

from stresnet.flow.methods.method import Flow, FlowMethod, Parameters, Picture, PictureEstimator, pairwise


def _load(preset: str, parameters: Parameters) -> PictureEstimator:
    import cv2

    dis = cast(Any, cv2).DISOpticalFlow_create(cast(Any, cv2).DISOPTICAL_FLOW_PRESET_MEDIUM)

    def pair(first: Picture, second: Picture) -> Flow:
        # Set for every pair: on pictures below about 90 px OpenCV changes the scales of the object for good, and the
        # flow would depend on the pairs before.
        dis.setFinestScale(parameters["finest_scale"])
        dis.setPatchSize(parameters["patch_size"])
        dis.setPatchStride(parameters["patch_stride"])
        dis.setGradientDescentIterations(parameters["gradient_descent_iterations"])
        dis.setVariationalRefinementIterations(parameters["variational_refinement_iterations"])
        flow: Flow = dis.calc(first, second, None)
        return flow

    return pairwise(pair)


METHOD = FlowMethod(
    name="dis",
    summary="fast, close to TV-L1",
    presets={
        # OpenCV's presets. The flow is computed at 1 / 2^finest_scale of the size, then enlarged.
        "ultrafast": {
            "finest_scale": 2,
            "patch_size": 8,
            "patch_stride": 4,
            "gradient_descent_iterations": 12,
            "variational_refinement_iterations": 0,
        },
        "fast": {
            "finest_scale": 2,
            "patch_size": 8,
            "patch_stride": 4,
            "gradient_descent_iterations": 16,
            "variational_refinement_iterations": 5,
        },
        "medium": {
            "finest_scale": 1,
            "patch_size": 8,
            "patch_stride": 3,
            "gradient_descent_iterations": 25,
            "variational_refinement_iterations": 5,
        },
    },
    default_preset="medium",
    on_the_fly=True,
    from_pictures=_load,
)
