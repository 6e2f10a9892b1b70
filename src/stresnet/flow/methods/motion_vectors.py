"""The motion vectors that a video was coded with, as flow: coarse, at almost the speed of decoding.

An encoder searches for the cheapest prediction, not for the true motion: on plain surfaces its vectors are arbitrary. A
vector stands for 8 to 16 pixels. Blocks coded without reference (new content, key frames) have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from stresnet.errors import FlowSpecError
from stresnet.flow.methods.method import Flow, FlowMethod, Parameters

if TYPE_CHECKING:
    from stresnet.media.video import Frame


def _fields(frames: Iterable[Frame], parameters: Parameters) -> Iterator[Flow]:
    """Yield the flow from each frame to the next, (2, H, W) float32; one field fewer than frames.

    A frame without vectors, such as a key frame, repeats the field before. The first field is zero in that case.

    Raises:
        FlowSpecError: a frame was read without motion vectors.
    """
    import numpy as np

    from stresnet.flow.methods.dense_field import dense_field

    field: Flow | None = None
    for index, frame in enumerate(frames):
        if frame.motion_vectors is None:
            raise FlowSpecError(
                f"flow mv needs frames with motion vectors, found none at frame {index}; "
                "read them with iter_frames(path, motion_vectors=True)"
            )
        height, width = frame.rgb.shape[:2]
        if field is None:
            field = np.zeros((2, height, width), np.float32)
            continue
        if len(frame.motion_vectors) > 0:
            field = dense_field(
                frame.motion_vectors,
                height,
                width,
                cell_px=int(parameters["cell_px"]),
                smoothing_cells=float(parameters["smoothing_cells"]),
            )
        else:
            field = field.copy()
        yield field


METHOD = FlowMethod(
    name="mv",
    summary="the codec's motion vectors",
    # Vectors are painted on a grid, which is smoothed by half a macroblock.
    presets={"default": {"cell_px": 8, "smoothing_cells": 1.0}},
    from_vectors=_fields,
)
