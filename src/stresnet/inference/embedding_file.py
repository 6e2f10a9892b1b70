"""Features of videos as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stresnet.atomic import replacing
from stresnet.errors import ScoreError
from stresnet.inference.embedding import Embedding

Row = tuple[str, tuple[float, float] | None, Embedding]
"""A video, the start and end of a window in seconds, or None for the whole video, and the features."""


def write_embeddings(path: Path, rows: Sequence[Row]) -> None:
    """Write features to a Parquet file: `video`, a list of floats for each stream, and `start` and `end` of windows.

    Raises:
        ScoreError: the file cannot be written.
    """
    values = []
    for video, window, features in rows:
        streams = {"appearance": features.appearance, "motion": features.motion}
        times = {} if window is None else dict(zip(("start", "end"), window, strict=True))
        values.append({"video": video, **times, **{name: f for name, f in streams.items() if f is not None}})
    try:
        with replacing(path) as temporary:
            pq.write_table(pa.Table.from_pylist(values), temporary)
    except OSError as error:
        raise ScoreError(f"{path} cannot be written ({error.strerror or error})") from error
