"""Scores on disk that are larger than memory should hold: written, measured and fused in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stresnet.evaluation.scores import (
    BATCH_VIDEOS,
    STREAMS,
    Floats,
    Ints,
    Scores,
    ScoreTable,
    concatenate,
    read_about,
    reading,
    writing,
)


class ScoreFile(Scores):
    """Scores in a file that `write_scores` wrote. Each use of ids or logits reads the file.

    Attributes:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file.

        Raises:
            ScoreError: the file is missing, is not a Parquet file, or does not hold scores.
        """
        self.path = Path(path)
        with reading(self.path) as file:
            about = read_about(file.schema_arrow)
            self._names = file.schema_arrow.names
            self.name, self.protocol, self.classes = about["name"], about["protocol"], tuple(about["classes"])
            self.numerics = about["numerics"]

    def batches(self, streams: Sequence[str] = STREAMS) -> Iterator[ScoreTable]:
        columns = [n for n in self._names if n not in STREAMS or n == "logits" or n in streams]
        with reading(self.path) as file:
            for batch in file.iter_batches(BATCH_VIDEOS, columns=columns, use_threads=False):
                yield ScoreTable.from_arrow(pa.Table.from_batches([batch]))

    def take(self, rows: Sequence[int]) -> ScoreTable:
        with reading(self.path) as file:
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            ends = list(accumulate(sizes))
            groups = np.searchsorted(ends, rows, side="right")
            tables = [
                ScoreTable.from_arrow(file.read_row_group(g)).take([row - ends[g] + sizes[g]])
                for row, g in zip(rows, groups.tolist(), strict=True)
            ]
        return concatenate(tables, self.name)

    @property
    def labels(self) -> Ints:  # type: ignore[override]
        return self.outcomes.labels

    @property
    def video_ids(self) -> tuple[str, ...]:  # type: ignore[override]
        with reading(self.path) as file:
            return tuple(file.read(["video_id"]).column(0).to_pylist())

    @property
    def logits(self) -> Floats:  # type: ignore[override]
        return np.concatenate([table.logits for table in self.batches(())])

    @property
    def appearance(self) -> Floats | None:  # type: ignore[override]
        return self._stream("appearance")

    @property
    def motion(self) -> Floats | None:  # type: ignore[override]
        return self._stream("motion")

    def _stream(self, stream: str) -> Floats | None:
        if stream not in self._names:
            return None
        return np.concatenate([getattr(table, stream) for table in self.batches((stream,))])


def write_scores(path: Path, tables: Iterable[ScoreTable]) -> ScoreFile:
    """Write tables of different videos one after another to one file, atomically; memory holds one of them.

    Args:
        path: the file; missing folders are created.
        tables: at least one, all of the same name, protocol, classes and streams.

    Raises:
        ScoreError: the file cannot be written, or a table cannot be read.
    """
    with writing(path) as temporary, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for table in tables:
            rows = table.to_arrow()
            writer = writer or stack.enter_context(pq.ParquetWriter(temporary, rows.schema, use_dictionary=False))
            writer.write_table(rows)
    return ScoreFile(path)
