"""The runtime of `.onnx` files: ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from stresnet.data.clips import Clip
from stresnet.errors import StresnetError
from stresnet.inference.exported import as_inputs, as_logits, digest_of, parse, require_file, unreadable
from stresnet.inference.runtime import ClipLogits
from stresnet.model.metadata import KEY

_ERRORS_ONLY = 3


class OnnxRuntime:
    """A `Runtime` in ONNX Runtime.

    Attributes:
        metadata: the metadata of the file.
        device: the CPU.
        numerics: such as ``onnxruntime fp32``.
    """

    device = "cpu"

    def __init__(self, path: Path) -> None:
        """Load a file.

        Raises:
            CheckpointError: it is not an exported model.
        """
        require_file(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leaves the cores to others
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base
            raise unreadable(path, error) from None
        self._path = path
        self.metadata = parse(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)
        self.numerics = f"onnxruntime {self.metadata.precision}"

    def digest(self) -> str:
        """Return a digest of the file."""
        return digest_of(self._path)

    def __call__(self, clips: Clip) -> ClipLogits:
        """Return the logits of a batch of clips."""
        return as_logits(self.metadata, self._session.run(None, as_inputs(self.metadata, clips)))


def open_file(path: Path, precision: str) -> OnnxRuntime:
    """Load a file.

    Raises:
        CheckpointError: it is not an exported model.
        StresnetError: the precision is not available.
    """
    if precision == "bf16":
        raise StresnetError("ONNX Runtime does not compute in bf16 on the CPU: use auto, or an OpenVINO model (.xml)")
    return OnnxRuntime(path)
