"""Features of videos as a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stresnet.atomic import replacing
from stresnet.errors import ScoreError
from stresnet.inference.embedding import Embedding


def write_embeddings(path: Path, videos: Iterable[tuple[str, Embedding]]) -> None:
    """Write the features of videos to a Parquet file: `video`, and a list of floats for each stream.

    Raises:
        ScoreError: there are none, or the file cannot be written.
    """
    rows = []
    for video, features in videos:
        streams = {"appearance": features.appearance, "motion": features.motion}
        rows.append({"video": video} | {name: values for name, values in streams.items() if values is not None})
    if not rows:
        raise ScoreError(f"{path}: there are no features to write")
    try:
        with replacing(path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows), temporary)
    except OSError as error:
        raise ScoreError(f"{path} cannot be written ({error.strerror or error})") from error
