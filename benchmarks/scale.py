"""Measure how opening a store, checking for leaks, scoring and preparing grow with the number of videos.

    python benchmarks/scale.py [--index 100 … 1000000] [--scores 100 … 100000] [--prepare 100 … 100000]

Each row is measured in a process of its own, without decoding videos or running a network: the index is made up, the
logits (three sets of 400 classes) are random, and preparing a video makes a link to one that is ready. So what is left
is the bookkeeping. Times are processor time of the process, so other work on the machine hardly counts; the worker of
prepare is not included. MB is the growth of the peak memory beyond that after the imports. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

CLASSES = tuple(f"class_{k:03}" for k in range(400))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, nargs="*", default=[10**n for n in range(2, 7)], metavar="ROWS")
    parser.add_argument("--scores", type=int, nargs="*", default=[10**n for n in range(2, 6)], metavar="ROWS")
    parser.add_argument("--prepare", type=int, nargs="*", default=[10**n for n in range(2, 6)], metavar="ROWS")
    parser.add_argument("--measure", nargs=3, metavar=("WHAT", "ROWS", "FOLDER"), help="for internal use")
    options = parser.parse_args()
    if options.measure:
        what, rows, folder = options.measure
        print(json.dumps(MEASURES[what](int(rows), Path(folder))))
        return
    for what in ("index", "scores", "prepare"):
        header = False
        for rows in getattr(options, what):
            with tempfile.TemporaryDirectory() as folder:
                if what == "index":
                    measured("make index", rows, folder)
                values = measured(what, rows, folder)
            if not header:
                print(f"\n| rows | {' | '.join(values)} |\n|---|{'---|' * len(values)}")
                header = True
            print(f"| {rows} | {' | '.join(f'{v:.3g}' for v in values.values())} |", flush=True)


def measured(what: str, rows: int, folder: str) -> dict[str, float]:
    """Return what a measurement prints in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, str(rows), folder]
    values: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return values


def video_id(row: int) -> str:
    return f"{CLASSES[row % 400]}/v_{CLASSES[row % 400]}_g{row % 25:02}_c{row:07}.avi"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


# ---------------------------------------------------------------- the index


def make_index(rows: int, folder: Path) -> dict[str, float]:
    """Write a store without videos, a quarter of whose rows are test videos."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stresnet.data.index import FILE_SCHEMA
    from stresnet.data.store import StoreSpec, write_header
    from stresnet.flow.spec import FlowSpec

    random = np.random.default_rng(0)
    ids = sorted(map(video_id, range(rows)))
    columns = {
        "id": ids,
        "path": [f"/data/videos/{name}" for name in ids],
        "label": [name.partition("/")[0] for name in ids],
        "split": random.choice(["train", "train", "train", "test"], rows),
        "group": random.choice([f"g{k}" for k in range(25)], rows),
        "frames": random.integers(50, 300, rows),
        "height": np.full(rows, 256),
        "width": random.choice([320, 341, 455], rows),
        "fps": random.choice([25.0, 29.97, 30.0], rows),
        "bytes": random.integers(10**6, 10**7, rows),
        "reason": random.choice(["", "", "", "", "no frame decodes"], rows),
        "truncated": random.random(rows) < 0.01,
        "clipped_share": random.random(rows),
        "start_sec": np.zeros(rows),
        "end_sec": np.full(rows, np.inf),
        "content": np.arange(1, rows + 1, dtype=np.uint64),
    }
    write_header(folder, StoreSpec(FlowSpec()), CLASSES, "benchmark")
    table = pa.table([pa.array(columns[f.name], f.type) for f in FILE_SCHEMA], schema=FILE_SCHEMA)
    pq.write_table(table, folder / "index.parquet", row_group_size=65_536)
    return {}


def measure_index(rows: int, folder: Path) -> dict[str, float]:
    """Open the store, select videos, and look for all of its content among that of as many training videos."""
    from stresnet.data.copies import videos_among
    from stresnet.data.store import Store

    before = peak_mb()
    open_s, store = seconds(lambda: Store.open(folder))
    open_mb = peak_mb() - before
    select_s, _ = seconds(lambda: store.select("test"))
    groups_s, _ = seconds(lambda: store.with_test_groups(["g1"]).select("test"))
    find_s, _ = seconds(lambda: [store.entries.find(video_id(row)) for row in range(0, rows, rows // 100)])
    others = [f"{rows + row + 1:016x}" for row in range(rows)]
    leaks_s, seen = seconds(lambda: videos_among(others, store.entries))
    assert not seen
    return {
        "open s": open_s,
        "open MB": open_mb,
        "select s": select_s,
        "test groups s": groups_s,
        "find µs": 1e4 * find_s,
        "leak check s": leaks_s,
    }


# ---------------------------------------------------------------- scores


def measure_scores(rows: int, folder: Path) -> dict[str, float]:
    """Score made-up videos with one model that has both streams, write the file of scores, and a report on it."""
    from stresnet.data.catalog import VideoRecord
    from stresnet.data.store import Entries, Store, StoreEntry, StoreSpec
    from stresnet.evaluation.report import Report, ReportRow, write_report
    from stresnet.evaluation.scoring import SplitScorer
    from stresnet.flow.spec import FlowSpec
    from stresnet.inference.prediction import VideoScores
    from stresnet.model import STResNet, STResNetConfig

    random = np.random.default_rng(0)

    class RandomScorer(SplitScorer):
        def _score(self, recognizer: Any, protocol: str, name: str, start: int, chunk: Sequence[StoreEntry]) -> Any:
            streams = random.normal(size=(len(chunk), 2, 400)).astype(np.float32)
            return [(entry, VideoScores(*pair)) for entry, pair in zip(chunk, streams, strict=True)]

    entries = Entries.of(
        StoreEntry(VideoRecord(video_id(row), f"/data/{video_id(row)}", CLASSES[row % 400], "test"))
        for row in range(rows)
    )
    store = Store(folder, StoreSpec(FlowSpec()), CLASSES, "benchmark", entries)
    model = STResNet(STResNetConfig(num_classes=400, width=0.125))
    recognizer: Any = SimpleNamespace(
        checkpoint=SimpleNamespace(model=model, preprocessing="", recipe="", stage=""), classes=CLASSES
    )
    scorer = RandomScorer(store, entries, folder / ".parts")
    before = peak_mb()
    score_s, (parts,) = seconds(lambda: scorer.score(recognizer, {"dense25": "model"}))
    merge_s, scores = seconds(lambda: scorer.merge(parts, folder / "scores.parquet"))
    report = Report("benchmark", "", [ReportRow(scores)], [], {}, 1 / 400, {})
    report_s, _ = seconds(lambda: write_report(folder / "report", report))
    return {
        "score into parts s": score_s,
        "write file s": merge_s,
        "report s": report_s,
        "MB": peak_mb() - before,
        "file MB": scores.path.stat().st_size / 1e6,
    }


# ---------------------------------------------------------------- preparing


def link_to(template: Path, root: Path, records: Any, spec: Any, from_jpegs: bool) -> Any:
    """Stands in for preparing a video; runs in a worker."""
    from stresnet.data.prepare import _entry
    from stresnet.data.prepared_video import PreparedVideo
    from stresnet.data.store import video_path

    path = video_path(root, records[0].id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(template)
    return [_entry(records[0], PreparedVideo.open(path).meta, path.stat().st_size)]


def measure_prepare(rows: int, folder: Path) -> dict[str, float]:
    """Prepare links to one video from class folders, then again when all are ready."""
    from stresnet.data import prepare as module
    from stresnet.data.encode_video import encode_video
    from stresnet.data.prepared_video_writer import write_prepared_video
    from stresnet.data.store import StoreSpec
    from stresnet.flow.spec import FlowSpec
    from stresnet.media import write_video

    def frames() -> Iterator[np.ndarray]:
        yield from np.zeros((12, 32, 32, 3), np.uint8)

    source, template = folder / "source.mp4", folder / "template.arrow"
    spec = StoreSpec(FlowSpec(preset="ultrafast", short_side=32))
    write_video(source, frames(), fps=25)
    write_prepared_video(template, partial(encode_video, "video", source, spec))
    for name in CLASSES:
        (folder / "videos" / name).mkdir(parents=True)
    for row in range(rows):
        (folder / "videos" / video_id(row).replace(".avi", ".mp4")).symlink_to(source)
    module._prepare_file = partial(link_to, template)  # type: ignore[assignment]
    before = peak_mb()
    first_s, first = seconds(lambda: module.prepare(folder / "videos", folder / "store", spec, workers=1))
    again_s, again = seconds(lambda: module.prepare(folder / "videos", folder / "store", spec, workers=1))
    assert (first.done, again.kept) == (rows, rows), (first, again)
    return {"new: ms a video": 1e3 * first_s / rows, "kept: ms a video": 1e3 * again_s / rows, "MB": peak_mb() - before}


MEASURES: dict[str, Callable[[int, Path], dict[str, float]]] = {
    "make index": make_index,
    "index": measure_index,
    "scores": measure_scores,
    "prepare": measure_prepare,
}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
