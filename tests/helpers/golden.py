"""Reference numbers that refactoring must not change: logits, losses, stored pictures, converted weights.

They are recorded in `golden.json` together with the machine that computed them. On that kind of machine they must come
out bit for bit; elsewhere, where other vector instructions sum in another order, to a tolerance.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from helpers import dagnn_files as files
from helpers import dagnn_surgery as surgery
from stresnet.cli.demo import run_demo
from stresnet.cli.display import Bar
from stresnet.data.clips import ClipSampling
from stresnet.data.store import Store
from stresnet.evaluation.metrics import top_k_accuracy
from stresnet.model import STResNet, STResNetConfig
from stresnet.recipes import Optimisation, load_recipe, packaged_recipes
from stresnet.training import train
from stresnet.weights.matconvnet import read_matconvnet

FILE = Path(__file__).with_name("golden.json")

NETWORKS: dict[str, dict[str, Any]] = {
    "appearance": {"streams": ("appearance",), "link": None, "temporal": None},
    "motion": {"streams": ("motion",), "link": None, "temporal": None},
    "no links": {"link": None},
    "add": {},
    "multiply": {"link": "multiply"},
    "inject": {"temporal": "inject", "temporal_init": "average"},
    "pool": {"temporal_pool": (5, 2)},
    "caffe": {"layout": "caffe"},
    "both ways, scaled": {"link_direction": "both", "link_scale": 0.1},
    "st-mulnet": {"link": "multiply", "temporal": "inject", "temporal_pool": (5, 1), "motion_temporal_layers": (2, 5)},
}
"""The kinds of network, as they differ from a narrow ST-ResNet-26."""

RELEASED = {
    "st-resnet*": lambda: surgery.pool_time(surgery.st_resnet(*_streams())),
    "st-mulnet": lambda: surgery.st_mulnet(*_streams()),
}
"""Files in the released format."""


def machine() -> dict[str, str]:
    """Return the hardware and libraries on which the last bits depend."""
    cpu = next((line for line in _cpuinfo() if line.startswith("flags")), "")
    return {
        "processor": platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "flags": _digest([" ".join(sorted(cpu.split()))])[:16],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []


def logits() -> dict[str, list[float]]:
    """Return the logits of each kind of network on one batch, appearance before motion."""
    found = {}
    for name, fields in NETWORKS.items():
        torch.manual_seed(0)
        net = STResNet(STResNetConfig(num_classes=4, **{"depth": 26, "width": 0.125, **fields}))
        draw = torch.Generator().manual_seed(1)
        rgb, flow = (torch.randn(2, channels, 9, 64, 64, generator=draw) for channels in (3, 20))
        with torch.no_grad():
            net.train()(rgb, flow)  # moves the moments of batch norm off their start
            out = net.eval()(rgb, flow)
        found[name] = torch.cat([s.flatten() for s in out if s is not None]).tolist()
    return found


def losses(store: Store, folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return the losses and final weights of the first iterations of each stage of a packaged recipe, made narrow."""
    changes = [
        *("*.network.width=0.0625", "*.clips.crop_px=64", "*.optimisation.precision=32-true"),
        *("*.optimisation.batch_videos=8", "*.optimisation.sub_batch_videos=4"),
        "*.optimisation.schedule=[{lr: 0.001, iterations: 2}, {lr: 0.0001, iterations: 2}]",
    ]
    recipe = load_recipe(name, changes)
    init = {}
    if any("imagenet" in stage.starts_from for stage in recipe.stages):
        init["imagenet"] = _image_weights(folder / "image.safetensors")
    run = train(store, folder / "run", recipe, init=init, workers=0)
    return {
        stage.name: {
            "loss": run.curves(stage.name)["loss"],
            "weights": _digest_weights(run.model_file(stage.name)),
        }
        for stage in recipe.stages
    }


def recipe_values(name: str) -> dict[str, dict[str, Any]]:
    """Return the network, clips and optimisation of each stage of a packaged recipe, for UCF101's 9537 videos."""
    recipe = load_recipe(name)
    return {
        stage.name: {
            "starts_from": list(stage.starts_from),
            "network": json.loads(json.dumps(stage.network.with_classes(101).to_dict())),
            "clips": stage.clips.to_dict(),
            "optimisation": _optimisation(stage.optimisation) | {"seed": recipe.seed},
        }
        for stage in recipe.stages
    }


def with_new_fields(recorded: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return recorded recipe values, completed by the defaults of fields that were added since."""
    return {
        name: values
        | {
            "network": STResNetConfig.from_dict(values["network"]).to_dict(),
            "clips": ClipSampling.from_dict(values["clips"]).to_dict(),
        }
        for name, values in recorded.items()
    }


def _optimisation(o: Optimisation) -> dict[str, Any]:
    return {
        "batch": [o.batch_videos, o.sub_batch_videos],
        "rates": [[phase.lr, phase.total_iterations(9537, o.batch_videos)] for phase in o.schedule],
        "loss": [o.loss, o.consensus],
        "momentum": o.momentum,
        "weight_decay": o.weight_decay,
        "precision": o.precision,
    }


def pictures(store: Store) -> dict[str, dict[str, Any]]:
    """Return a digest and the mean level of the frames and flow of each prepared video."""
    found = {}
    for entry in store.select():
        video = store.video(entry.record.id)
        rgb, flow = video.rgb(np.arange(entry.frames)), video.flow(np.arange(entry.frames - 1))
        found[entry.record.id] = {
            "rgb": _digest([rgb.tobytes()]),
            "flow": _digest([flow.tobytes()]),
            "rgb_mean": float(rgb.mean()),
            "flow_mean": float(flow.mean()),
        }
    return found


def conversions(folder: Path) -> dict[str, str]:
    """Return a digest of the weights converted from each file in the released format; the only arithmetic is σ² − ε."""
    return {
        name: _digest_state(read_matconvnet(files.write(folder / f"{name[:6]}.mat", make())).weights)
        for name, make in RELEASED.items()
    }


def _streams() -> tuple[Any, Any]:
    return surgery.appearance(50, 4, 101), surgery.motion(50, 4, 101)


def _image_weights(path: Path) -> Path:
    """Write random weights of a narrow ResNet-50 under torchvision's names."""
    torch.manual_seed(2)
    single = STResNetConfig(num_classes=4, width=0.0625, streams=("appearance",), link=None, temporal=None)
    state = STResNet(single).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k.removeprefix("appearance."): v for k, v in state.items() if ".fc." not in k}, path)
    return path


def _digest_weights(path: Path) -> str:
    from safetensors.torch import load_file

    return _digest_state(load_file(path))


def _digest_state(state: dict[str, Tensor]) -> str:
    return _digest(x for key in sorted(state) for x in (key, state[key].contiguous().numpy().tobytes()))


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def record(store: Store, folder: Path) -> None:
    """Write `golden.json` anew."""
    values = {
        "machine": machine(),
        "logits": logits(),
        "losses": {name: losses(store, folder / name, name) for name in packaged_recipes()},
        "recipes": {name: recipe_values(name) for name in packaged_recipes()},
        "pictures": pictures(store),
        "conversions": conversions(folder),
        "demo": load().get("demo", {}) if FILE.is_file() else {},  # takes minutes: recorded by hand
    }
    FILE.write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def load() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return values


def demo(folder: Path) -> dict[str, float]:
    """Return the demo's table: top-1 accuracy of each row, in single precision. Takes minutes."""
    with Bar() as bar:
        evaluation = run_demo(folder, bar, ["precision=32-true"])
    return {row.table.name: top_k_accuracy(row.table, 1).value for row in evaluation.rows}
