"""Optical flow: specify, compute, quantise, draw and store it.

Names are loaded on first use: OpenCV takes a noticeable time to import, and `FlowSpec` does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stresnet.lazy import lazy

if TYPE_CHECKING:
    from stresnet.flow.codec import clipped_share as clipped_share
    from stresnet.flow.codec import dequantize_flow as dequantize_flow
    from stresnet.flow.codec import mirror_flow as mirror_flow
    from stresnet.flow.codec import quantize_flow as quantize_flow
    from stresnet.flow.estimate import estimate_flow as estimate_flow
    from stresnet.flow.estimate import flow_of as flow_of
    from stresnet.flow.estimate import iter_flow as iter_flow
    from stresnet.flow.estimate import require_available as require_available
    from stresnet.flow.show.colors import flow_to_rgb as flow_to_rgb
    from stresnet.flow.show.flo import read_flo as read_flo
    from stresnet.flow.show.flo import write_flo as write_flo
    from stresnet.flow.show.statistics import FlowStatistics as FlowStatistics
    from stresnet.flow.show.statistics import clipping_note as clipping_note
    from stresnet.flow.spec import FlowSpec as FlowSpec

_HOME = {
    "FlowSpec": "spec",
    "FlowStatistics": "show.statistics",
    "clipped_share": "codec",
    "clipping_note": "show.statistics",
    "dequantize_flow": "codec",
    "estimate_flow": "estimate",
    "flow_of": "estimate",
    "flow_to_rgb": "show.colors",
    "iter_flow": "estimate",
    "mirror_flow": "codec",
    "quantize_flow": "codec",
    "read_flo": "show.flo",
    "require_available": "estimate",
    "write_flo": "show.flo",
}
__all__ = list(_HOME)

__getattr__ = lazy(__name__, _HOME)
