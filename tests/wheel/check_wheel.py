"""Install a built wheel in a clean environment, outside the checkout, and use it as a new user would.

Dependencies are not pinned: the newest versions that the wheel's ranges allow are installed. Run by `make test-wheel`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
REAL_VIDEOS = ROOT.parent / "shared" / "clips" / "ucf101"
"""Real videos beside the checkout, of which one is predicted if they are there."""
VIDEOS = """
from pathlib import Path

from stresnet.data.synthetic import SyntheticSpec, write_dataset

spec = SyntheticSpec(width=48, height=32, frames=26, window_px=16, train_per_class=2, test_per_class=1)
write_dataset(Path("videos"), spec, seed=0)
"""
TINY = ["network.width=0.0625", "clips.crop_px=32", "*.optimisation.schedule=[{lr: 0.01, iterations: 1}]"]
"""Changes to the recipe `demo` that let a stage train in seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter to install the wheel for")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stresnet-wheel-") as folder:
        return check(arguments.wheel.resolve(), arguments.python, Path(folder))


def check(wheel: Path, interpreter: str, folder: Path) -> int:
    """Return 0 if the wheel works or the interpreter is skipped. A failing command raises."""
    try:
        run([interpreter, "-m", "venv", "venv"], folder)
    except (FileNotFoundError, subprocess.CalledProcessError):
        print(f"SKIPPED {interpreter}: it cannot create an environment")
        return 0
    python = folder / "venv" / "bin" / "python"
    if reason := torch_too_large(python, folder):
        print(f"SKIPPED {interpreter}: {reason}")
        return 0
    run([python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, "torch"], folder)
    run([python, "-m", "pip", "install", "--quiet", wheel], folder)
    use(python, wheel, folder)
    print(f"PASSED {interpreter}: {wheel.name}")
    return 0


def torch_too_large(python: Path, folder: Path) -> str:
    """Return why torch should not be installed for this interpreter, or an empty string."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or os.environ.get("ALLOW_CUDA_TORCH"):
        return ""
    probe = ["pip", "install", "--quiet", "--dry-run", "--no-deps", "--report", "torch.json", "--only-binary", ":all:"]
    run([python, "-m", *probe, "--constraint", CONSTRAINTS, "torch"], folder)
    (torch,) = json.loads((folder / "torch.json").read_text("utf-8"))["install"]
    version = torch["metadata"]["version"]
    if "+cpu" in version:
        return ""
    return f"pip would install torch {version}, a CUDA build of gigabytes; set ALLOW_CUDA_TORCH=1 to install it"


def use(python: Path, wheel: Path, folder: Path) -> None:
    """Prepare, train and predict with the installed command."""
    stresnet = python.parent / "stresnet"
    where = run([python, "-c", "import stresnet; print(stresnet.__file__)"], folder)
    assert Path(where.strip()).is_relative_to(folder.resolve()), f"imported from {where}, not from the wheel"
    assert run([stresnet, "--version"], folder).split() == ["stresnet", wheel.name.split("-")[1]]
    assert "predict" in run([stresnet, "--help"], folder)
    print(run([python, "-c", "import av, torch; print('av', av.__version__, 'torch', torch.__version__)"], folder))
    run([python, "-c", VIDEOS], folder)
    run([stresnet, "prepare", "videos", "store", "--short-side", "32", "--workers", "1"], folder)
    changes = [argument for change in TINY for argument in ("--set", change)]
    run([stresnet, "train", "store", "run", "--recipe", "demo", "--workers", "0", *changes], folder)
    videos = sorted((folder / "videos" / "test").rglob("*.mp4"))
    classes = {video.parent.name for video in videos}
    real = sorted(REAL_VIDEOS.rglob("*.avi"))[:1]
    answer = json.loads(run([stresnet, "predict", "run", *videos, *real, "--json"], folder))
    assert len(answer) == 4 + len(real)
    for found in answer:
        assert {action["label"] for action in found["top"]} == classes, found
        assert abs(sum(action["probability"] for action in found["top"]) - 1) < 1e-3, found


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command in `folder`, away from the checkout, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    print("$", *[str(part) for part in command][:8], flush=True)
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
