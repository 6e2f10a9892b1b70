"""Read, probe and write videos.

Names are loaded on first use: PyAV takes a noticeable time to import, and `FrameSpec` and `Limits` do not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stresnet.lazy import lazy

if TYPE_CHECKING:
    from stresnet.media.frame_spec import FrameSpec as FrameSpec
    from stresnet.media.in_memory import video_in_memory as video_in_memory
    from stresnet.media.limits import Limits as Limits
    from stresnet.media.motion_vectors import CODECS_WITH_VECTORS as CODECS_WITH_VECTORS
    from stresnet.media.motion_vectors import MOTION_VECTOR as MOTION_VECTOR
    from stresnet.media.video import VIDEO_EXTENSIONS as VIDEO_EXTENSIONS
    from stresnet.media.video import Frame as Frame
    from stresnet.media.video import FrameReader as FrameReader
    from stresnet.media.video import Video as Video
    from stresnet.media.video import VideoInfo as VideoInfo
    from stresnet.media.video import iter_frames as iter_frames
    from stresnet.media.video import probe as probe
    from stresnet.media.video import read_video as read_video
    from stresnet.media.write import write_frames as write_frames
    from stresnet.media.write import write_video as write_video

_HOME = {
    "CODECS_WITH_VECTORS": "motion_vectors",
    "Frame": "video",
    "FrameReader": "video",
    "FrameSpec": "frame_spec",
    "Limits": "limits",
    "MOTION_VECTOR": "motion_vectors",
    "VIDEO_EXTENSIONS": "video",
    "Video": "video",
    "VideoInfo": "video",
    "iter_frames": "video",
    "probe": "video",
    "read_video": "video",
    "video_in_memory": "in_memory",
    "write_frames": "write",
    "write_video": "write",
}
__all__ = list(_HOME)

__getattr__ = lazy(__name__, _HOME)
