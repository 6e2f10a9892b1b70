"""The parameters of TV-L1 flow in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stresnet.flow.methods.method import Parameters


@dataclass(frozen=True)
class TVL1Parameters:
    """The parameters of TV-L1 flow, under OpenCV's names.

    The defaults are OpenCV's except for three, chosen by a comparison on known motions (``benchmarks/flow.py``). Scales
    go down to 16 px, so that larger motions are found. Two warps of 30 iterations replace five of up to 300. Nothing
    stops early, so that each pair takes the same time and no result depends on a threshold. (Larger steps between
    scales are faster, but lose motions of 10 px where content leaves the frame.)

    Attributes:
        tau: step of the dual variable, above 0; stable up to 0.25.
        lambda_: weight of the data term, above 0; smaller is smoother. OpenCV calls it lambda.
        theta: tightness of the coupling between the two terms, above 0.
        scales: maximum number of scales, at least 1; scales with a side below 16 px are skipped.
        warps: warps of the second frame by the flow, per scale, at least 1.
        epsilon: a warp ends when the root mean square change of the flow, checked every fifth iteration, falls to this
            many pixels. At 0, the default, it never ends early. Above 0, pairs are iterated one by one.
        inner_iterations: iterations per median filtering, at least 1.
        outer_iterations: median filterings per warp, at least 1.
        scale_step: size of a scale relative to the next finer one, between 0 and 1.
        median_filter: side of the median filter in pixels: 1 (none), 3 or 5.
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

    @classmethod
    def from_preset(cls, preset: Parameters) -> TVL1Parameters:
        """Return the parameters of a preset of `tvl1`."""
        values: dict[str, Any] = dict(preset)
        gamma = values.pop("gamma", 0.0)
        assert gamma == 0, "the term for changing illumination exists in OpenCV only"
        return cls(lambda_=values.pop("lambda"), **values)
