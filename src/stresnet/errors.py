"""Errors that users can cause. Each message is one line: what is wrong, what was expected, what to do."""

from __future__ import annotations


class StresnetError(ValueError):
    """Base of all errors that users can cause."""


class VideoError(StresnetError):
    """A video cannot be read or is too short."""


class FlowSpecError(StresnetError):
    """A flow specification is invalid, or two that must be equal differ."""


class FlowFileError(StresnetError):
    """A file of optical flow is invalid or cannot be written."""


class StoreError(StresnetError):
    """A source of videos or a prepared store is invalid."""


class CheckpointError(StresnetError):
    """A checkpoint or weight file is invalid or does not fit the network."""


class DownloadError(StresnetError):
    """A file cannot be downloaded, or is not the expected file."""


class UnreachableError(DownloadError):
    """A server cannot be reached."""


class RecipeError(StresnetError):
    """A recipe or study is invalid, or cannot be trained as requested."""


class ScoreError(StresnetError):
    """Score tables are invalid, cannot be read or written, or do not match."""
