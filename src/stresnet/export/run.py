"""Export a checkpoint to an ONNX or OpenVINO file, and check it before it takes its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stresnet.data.store import Store
from stresnet.errors import CheckpointError, StresnetError
from stresnet.export.check import Comparison, compare
from stresnet.export.clips import LabelledClip, generated, held_out, of_training
from stresnet.inference.runtime import EXPORTED, Runtime, open_runtime
from stresnet.model import Checkpoint
from stresnet.progress import Progress

TOLERANCE = 1e-4
"""Largest relative difference from PyTorch's logits in float32."""
CHECKED_VIDEOS, JUDGED_VIDEOS = 32, 512
"""Held-out videos that an export is compared with PyTorch on, and that int8 is compared with float32 on."""
ACCURACY_LOSS, SPEED_GAIN = 0.01, 1.5
"""int8 may lose this share of right classes, and must be this many times as fast as the file in bf16 or float32."""

Source = Callable[[int], Iterable[LabelledClip]]


@dataclass(frozen=True, repr=False)
class Export:
    """What was exported.

    Attributes:
        out: the file; an `.xml` file has its weights in the `.bin` file beside it.
        precision: `fp32`, or `int8`.
        megabytes: size of what was written.
        comparisons: with PyTorch, and of int8 with the same runtime in floating point.
        notes: what to know, one sentence each.
    """

    out: Path
    precision: str
    megabytes: float
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "out": str(self.out),
            "precision": self.precision,
            "megabytes": self.megabytes,
            "comparisons": [one.to_dict() for one in self.comparisons],
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"Export({str(self.out)!r}, {self.precision}, {self.megabytes:.1f} MB)"


def export(
    model: str | Path | Checkpoint,
    out: str | Path,
    *,
    int8: bool = False,
    calibrate: Store | None = None,
    progress: Progress | None = None,
) -> Export:
    """Export a network, from the bytes of clips to logits, and compare it with the network in PyTorch.

    The file is written only if float32 logits differ by at most `TOLERANCE`. With `int8` it is kept in float32 unless
    int8 loses at most `ACCURACY_LOSS` of top-1 on held-out videos and is `SPEED_GAIN` times as fast.

    Args:
        model: a checkpoint file, the folder of a run, or a loaded checkpoint.
        out: the file to write, `.onnx` or `.xml`.
        int8: whether to quantise.
        calibrate: store of the training videos, for quantising and for real clips to compare on. Without one, clips are
            generated.
        progress: called as the work goes on.

    Raises:
        CheckpointError: the model cannot be read or exported, or the file cannot be written.
        StresnetError: a library is not installed, or `int8` is without a store.
    """
    out = Path(out)
    require_possible(out, int8=int8, calibrate=calibrate)
    reference = open_runtime(model, "cpu", "fp32")
    checkpoint = reference.metadata
    assert isinstance(checkpoint, Checkpoint)
    if not checkpoint.store_spec:
        raise CheckpointError("the checkpoint is an initial model: train it first, with stresnet train --init")
    source: Source = partial(generated, checkpoint) if calibrate is None else partial(held_out, checkpoint, calibrate)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
            return _export(reference, Path(folder), out, source, calibrate if int8 else None, progress)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror or error})") from None


def require_possible(out: Path, *, int8: bool, calibrate: object | None) -> None:
    """Raise unless a file can be exported. Call it before anything is computed.

    Raises:
        CheckpointError: the file's ending is none of a runtime.
        StresnetError: a library is not installed, or `int8` is without a store.
    """
    if out.suffix not in EXPORTED:
        raise CheckpointError(f"{out}: expected a file that ends in one of {', '.join(EXPORTED)}")
    if int8 and calibrate is None:
        raise StresnetError("--int8 needs training videos to calibrate on: give their store with --calibrate")
    needed = ["onnx", "onnxscript", {".onnx": "onnxruntime", ".xml": "openvino"}[out.suffix]]
    for library in [*needed, "nncf"] if int8 else needed:
        try:
            import_module(library)
        except ImportError:
            raise StresnetError(f"export needs {library}: pip install 'stresnet[export]'") from None


def _export(
    reference: Runtime, folder: Path, out: Path, source: Source, calibrate: Store | None, progress: Progress | None
) -> Export:
    from stresnet.export import network

    checkpoint = reference.metadata
    assert isinstance(checkpoint, Checkpoint)
    is_onnx = out.suffix == ".onnx"
    write = network.write_onnx if is_onnx else network.write_openvino
    if progress:
        progress("tracing the network", 0, 0)
    proto = network.trace(checkpoint)
    graph = proto if is_onnx else network.as_openvino(proto)
    file = folder / out.name
    write(file, graph, network.exported_metadata(checkpoint, "fp32"))
    exported = open_runtime(file, "cpu", "fp32")
    comparisons = [compare(exported, reference, source(CHECKED_VIDEOS), progress)]
    if not comparisons[0].error <= TOLERANCE:
        raise CheckpointError(f"{out} was not written: its logits differ from PyTorch's ({comparisons[0]})")
    fastest = open_runtime(file)
    if fastest.numerics != exported.numerics:
        comparisons.append(compare(fastest, reference, source(CHECKED_VIDEOS), progress))
    if calibrate is None:
        return _placed(file, out, "fp32", comparisons)
    from stresnet.export.quantize import CALIBRATION_VIDEOS, quantize

    if progress:
        progress("quantising", 0, 0)
    clips = [one.clips for one in of_training(checkpoint, calibrate, CALIBRATION_VIDEOS)]
    small = folder / f"int8{out.suffix}"
    write(small, quantize(graph, checkpoint, clips), network.exported_metadata(checkpoint, "int8"))
    judged = compare(open_runtime(small), fastest, source(JUDGED_VIDEOS), progress)
    comparisons.append(judged)
    if reason := _too_bad(judged):
        return _placed(file, out, "fp32", comparisons, f"the file is in fp32: int8 {reason}")
    return _placed(small, out, "int8", comparisons)


def _too_bad(judged: Comparison) -> str:
    """Return why int8 is not worth it, or an empty text."""
    if judged.accuracy is not None and judged.accuracy_against is not None:
        lost, of = judged.accuracy_against - judged.accuracy, "top-1"
    else:
        lost, of = 1 - judged.agreement, "the decisions"
    if lost > ACCURACY_LOSS:
        return f"loses {100 * lost:.1f} points of {of} (at most {100 * ACCURACY_LOSS:g})"
    if judged.speed < SPEED_GAIN:
        return f"is {judged.speed:.2f} × as fast as {judged.against} (at least {SPEED_GAIN:g})"
    return ""


def _placed(file: Path, out: Path, precision: str, comparisons: list[Comparison], *notes: str) -> Export:
    """Move the files of a model to their place."""
    size = 0
    for written, place in ((file.with_suffix(".bin"), out.with_suffix(".bin")), (file, out)):
        if written.is_file():
            size += written.stat().st_size
            os.replace(written, place)
    return Export(out, precision, size / 1e6, tuple(comparisons), notes)
