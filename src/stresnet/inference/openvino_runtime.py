"""The runtime of `.xml` files with their weights in `.bin`: OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino

from stresnet.data.clips import Clip
from stresnet.errors import StresnetError
from stresnet.inference.exported import as_inputs, as_logits, digest_of, parse, require_file, unreadable
from stresnet.inference.runtime import ClipLogits
from stresnet.model.metadata import KEY


class OpenvinoRuntime:
    """A `Runtime` in OpenVINO.

    Attributes:
        metadata: the metadata of the file.
        device: the CPU.
        numerics: such as ``openvino bf16``.
    """

    device = "cpu"

    def __init__(self, path: Path, precision: str = "auto") -> None:
        """Load a file.

        Args:
            path: the `.xml` file; its weights are in the `.bin` file beside it.
            precision: what the operations that are not int8 compute in: `fp32`, `bf16`, or `auto`: bf16 where it is
                native.

        Raises:
            CheckpointError: it is not an exported model.
            StresnetError: the precision is not available.
        """
        self._files = (path, path.with_suffix(".bin"))
        for file in self._files:
            require_file(file)
        core = openvino.Core()
        try:
            model = core.read_model(path)
            text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        except RuntimeError as error:
            raise unreadable(path, error) from None
        self.metadata = parse(text, path)
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not native:
            raise StresnetError("this CPU does not compute in bf16: use auto")
        rest = "bf16" if native and precision != "fp32" else "fp32"
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[rest]}
        self._net = core.compile_model(model, "CPU", hints)
        self.numerics = f"openvino {rest}" if self.metadata.precision == "fp32" else f"openvino int8 {rest}"

    def digest(self) -> str:
        """Return a digest of the files."""
        return digest_of(*self._files)

    def __call__(self, clips: Clip) -> ClipLogits:
        """Return the logits of a batch of clips."""
        request = self._net.create_infer_request()  # one is not for several threads
        outputs = request.infer(as_inputs(self.metadata, clips))
        return as_logits(self.metadata, [outputs[stream] for stream in self.metadata.config.streams])


_HINTS = {"fp32": "f32", "bf16": "bf16"}


def open_file(path: Path, precision: str) -> OpenvinoRuntime:
    """Load a file, see `OpenvinoRuntime`."""
    return OpenvinoRuntime(path, precision)
