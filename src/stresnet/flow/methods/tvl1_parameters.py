"""The parameters of TV-L1 flow in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from stresnet.errors import FlowSpecError


@dataclass(frozen=True)
class TVL1:
    """The parameters of TV-L1 flow, under OpenCV's names.

    The defaults are OpenCV's but for three, which a comparison on known motions led to (``benchmarks/flow.py``): scales
    go on down to 16 px, so that larger motions are found; two warps of 30 iterations take the place of five of up to
    300; and nothing stops early, so that each pair takes the same time and no result hangs on a threshold. (Larger
    steps between scales are faster, but lose motions of 10 px where the picture moves out of the frame.)

    Attributes:
        tau: step of the dual variable, above 0; stable up to 0.25.
        lambda_: weight of the data term, above 0; smaller is smoother. OpenCV calls it lambda.
        theta: how tightly the two terms are coupled, above 0.
        scales: the largest number of scales, at least 1; those with a side below 16 px are left out.
        warps: how often per scale the second frame is warped by the flow, at least 1.
        epsilon: a warp's iterations end when the flow's root mean square change falls below this many pixels; 0, the
            default, never. Looked at every fifth time. Above 0 pairs are iterated one by one.
        inner_iterations: per median filtering, at least 1.
        outer_iterations: median filterings per warp, at least 1.
        scale_step: size of a scale relative to the next finer one, between 0 and 1.
        median_filter: side of the median filter in pixels: 1 (none), 3 or 5.

    Raises:
        FlowSpecError: on any value outside the above.
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    scales: int = 16
    warps: int = 2
    epsilon: float = 0.0
    inner_iterations: int = 30
    outer_iterations: int = 1
    scale_step: float = 0.8
    median_filter: int = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name in ("scales", "warps", "inner_iterations", "outer_iterations", "median_filter")
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "whole number" if whole else "number"
                raise FlowSpecError(f"TV-L1's {field.name} must be a {kind}, found {value!r}")
            allowed = "at least 1" if whole else "at least 0" if field.name == "epsilon" else "above 0"
            if not (1 if whole else 0) <= value < math.inf or (value == 0 and allowed == "above 0"):
                raise FlowSpecError(f"TV-L1's {field.name} must be {allowed}, found {value}")
        if self.scale_step >= 1:
            raise FlowSpecError(f"TV-L1's scale_step must be below 1, found {self.scale_step}")
        if self.median_filter not in (1, 3, 5):
            raise FlowSpecError(f"TV-L1's median_filter must be 1, 3 or 5, found {self.median_filter}")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, float | str]) -> TVL1:
        """Returns what a flow specification's parameters say (``FlowSpec.parameters``).

        Raises:
            FlowSpecError: a name or a value that is not allowed. Of OpenCV's, gamma (a term for changing
                illumination) is not built: it must be 0.
        """
        values = {("lambda_" if name == "lambda" else name): value for name, value in parameters.items()}
        if values.pop("gamma", 0) != 0:
            raise FlowSpecError(f"TV-L1's gamma must be 0, found {parameters['gamma']}: it is built in OpenCV's only")
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise FlowSpecError(f"unknown parameters of TV-L1: {', '.join(unknown)}")
        return cls(**values)  # type: ignore[arg-type]  # checked at run time
