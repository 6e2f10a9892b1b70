"""Recognise the action in videos with an exported model, in a process that does not load PyTorch.

stresnet export run/ model.onnx
python examples/without_torch.py model.onnx new.mp4
"""

from __future__ import annotations

import sys
import time

from stresnet import Recognizer


def main(model: str, videos: list[str]) -> None:
    """Print the most likely class of each video, and what starting took."""
    start = time.perf_counter()
    recognizer = Recognizer(model)
    print(f"{recognizer}: ready after {time.perf_counter() - start:.1f} s")
    for video in videos:
        prediction = recognizer.predict(video)
        print(f"{video}: {prediction.label} {prediction.probability:.1%}")
    assert "torch" not in sys.modules


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
