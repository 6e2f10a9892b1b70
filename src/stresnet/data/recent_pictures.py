"""The newest frames of a stream, and the flow between them, as a prepared video would hold them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from stresnet.data.encode_rows import flow_jpeg, frame_jpeg
from stresnet.data.prepared_video import StoreSpec
from stresnet.data.sampling import Indices
from stresnet.errors import VideoError
from stresnet.flow.codec import quantize_flow
from stresnet.flow.estimate import iter_flow

Levels = NDArray[np.uint8]


class RecentPictures:
    """The newest frames and flow fields of a stream: the bits that preparing a video of these frames would store.

    Attributes:
        frames: number of frames so far; the newest is `frames` - 1.
    """

    def __init__(self, spec: StoreSpec, flow_stack: int) -> None:
        """Begin a stream.

        Args:
            spec: flow, size and quality.
            flow_stack: L, the flow fields of a step, of which as many are kept; 0 if no flow is needed.

        Raises:
            VideoError: the flow is that of a codec.
        """
        if flow_stack and spec.flow.from_codec:
            raise VideoError(f"flow by {spec.flow.name} is read from coded videos: use a model of another flow method")
        self.frames = 0
        self._spec = spec
        # Flow that is not stored is computed from frames that are.
        self._from_stored = flow_stack > 0 and not spec.flow_stored
        # The stack around frame t ends with the flow to frame t + L - L//2, see `stack_around`.
        self._pictures: deque[NDArray[np.uint8]] = deque(maxlen=flow_stack - flow_stack // 2 + 1)
        self._fields: deque[Levels] = deque(maxlen=flow_stack)

    def push(self, rgb: NDArray[np.uint8]) -> None:
        """Add a frame, (H,W,3) uint8, scaled to the short side of the spec, and of the same size as those before."""
        picture = self._through_jpeg(rgb) if self._from_stored else rgb
        if self._fields.maxlen and self._pictures:
            self._fields.append(self._levels(next(iter_flow((self._pictures[-1], picture), self._spec.flow))))
        self._pictures.append(picture)
        self.frames += 1

    def rgb(self, indices: Indices) -> NDArray[np.uint8]:
        """Return frames, (n,H,W,3) uint8, of those that are kept."""
        pictures = _those(self._pictures, indices, self.frames)
        return np.stack([p if self._from_stored else self._through_jpeg(p) for p in pictures])

    def flow(self, indices: Indices) -> Levels:
        """Return flow levels, (n,2,H,W) uint8, of the fields that are kept."""
        return np.stack(_those(self._fields, indices, self.frames - 1))

    def _through_jpeg(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return cast(NDArray[np.uint8], simplejpeg.decode_jpeg(frame_jpeg(picture, self._spec.jpeg_quality), "RGB"))

    def _levels(self, field: NDArray[np.float32]) -> Levels:
        if self._from_stored:
            return quantize_flow(field, self._spec.flow.bound_px)
        u_above_v = simplejpeg.decode_jpeg(flow_jpeg(field, self._spec), "GRAY")
        return cast(Levels, u_above_v.reshape(field.shape))


def _those(kept: deque[NDArray[np.uint8]], indices: Iterable[int], count: int) -> list[NDArray[np.uint8]]:
    """Return items of a stream by their indices, of which the newest is `count` - 1."""
    first = count - len(kept)
    assert all(first <= index < count for index in indices)
    return [kept[index - first] for index in indices]
