"""Optical flow: how it is specified, computed, stored and shown."""

from stresnet.flow.codec import clipped_share, dequantize_flow, mirror_flow, quantize_flow
from stresnet.flow.estimate import estimate_flow, flow_of, iter_flow, require_method
from stresnet.flow.show.colors import flow_to_rgb
from stresnet.flow.show.flo import read_flo, write_flo
from stresnet.flow.show.statistics import FlowStatistics, clipping_note
from stresnet.flow.spec import FlowSpec

__all__ = [
    "FlowSpec",
    "FlowStatistics",
    "clipped_share",
    "clipping_note",
    "dequantize_flow",
    "estimate_flow",
    "flow_of",
    "flow_to_rgb",
    "iter_flow",
    "mirror_flow",
    "quantize_flow",
    "read_flo",
    "require_method",
    "write_flo",
]
