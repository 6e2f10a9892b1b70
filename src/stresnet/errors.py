"""The errors a user can cause, each with one line that says what to do about it."""

from __future__ import annotations


class StresnetError(ValueError):
    """Something outside the program is wrong; the message is one line for the person who can mend it."""


class VideoError(StresnetError):
    """A video cannot be read, or is too short to be used."""


class FlowSpecError(StresnetError):
    """Two flow specifications that must agree do not, or one is not valid."""


class FlowFileError(StresnetError):
    """A file of optical flow is not what it should be, or cannot be written."""


class StoreError(StresnetError):
    """A source of videos or a prepared store is not what it should be."""


class CheckpointError(StresnetError):
    """A weight file does not hold what the model needs."""


class DownloadError(StresnetError):
    """A file cannot be fetched, or is not the file it should be."""


class UnreachableError(DownloadError):
    """A server cannot be reached."""


class RecipeError(StresnetError):
    """A recipe is not valid, or cannot be run as asked."""


class ScoreError(StresnetError):
    """Score tables cannot be read, or do not belong together."""
