"""Train what one would use instead of ST-ResNet, on the same videos, crops and CPU minutes.

    python benchmarks/peers.py STORE GROUPS OUT [--only r3d] [--minutes 20] [--lr 0.03] [--start start.safetensors]

STORE is a prepared store, GROUPS a text file of the groups to hold out, one a line. Score files are written to OUT, for
`stresnet fuse`. Every network sees RGB clips only and is trained by SGD until it has used its minutes of processor
time, the last fifth at a tenth of the learning rate. It is then tested on the held-out videos, with clips of the
trained length and stride spread over each; the scores of the whole frame and of its mirror are averaged. Prints a
Markdown table. The best learning rate is chosen on the held-out videos themselves, which flatters these networks.

- `r3d`: 3D residual network of 18 layers, all filters 3×3×3, from scratch (Tran et al. 2018).
- `slow`: ResNet-50 of half width whose filters span three steps in conv4_x and conv5_x, from scratch (Feichtenhofer et
  al. 2019).
- `tsm`: the appearance stream from image weights, with an eighth of the channels of each unit's branch shifted one step
  forward and another back (Lin et al. 2019).
- `tsn`: the same without the shift: the average over sampled frames (Wang et al. 2016).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from stresnet.data.clips import ClipSampling, cut_clips
from stresnet.data.sampling import spread_clips, whole_frame
from stresnet.data.store import Store
from stresnet.data.training_clips import Sample, TrainingClips
from stresnet.evaluation.metrics import top_k_accuracy
from stresnet.evaluation.scores import ScoreTable
from stresnet.model import Preprocessing, STResNet, load_checkpoint
from stresnet.model.checkpoint import transfer_weights
from stresnet.model.config import LAYERS, STResNetConfig
from stresnet.training.memory import keeping_freed_memory
from stresnet.training.order import VideoOrder

BATCH_VIDEOS = 8
FLOW_STACK = 10  # centres are those around which the two-stream networks have a whole stack


class Peer(NamedTuple):
    """A network to train: how it is made, the clips it reads and the learning rates to try."""

    make: Callable[[int, Path | None], nn.Module]
    steps: int
    tau: tuple[int, int]
    rates: tuple[float, ...]


# From scratch


def conv3d(
    channels: int, out: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)
) -> nn.Module:
    padding = tuple(size // 2 for size in kernel)
    return nn.Sequential(nn.Conv3d(channels, out, kernel, stride, padding, bias=False), nn.BatchNorm3d(out))


class Residual3D(nn.Module):
    """A residual unit of the given convolutions, with a projection where the shape changes."""

    def __init__(self, channels: int, out: int, stride: tuple[int, int, int], *convolutions: nn.Module) -> None:
        super().__init__()
        layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU(inplace=True))]
        self.branch = nn.Sequential(*layers[:-1])
        same = channels == out and stride == (1, 1, 1)
        self.shortcut = nn.Identity() if same else conv3d(channels, out, (1, 1, 1), stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


class Net3D(nn.Module):
    """A stem, four layers of residual units and a classifier; `unit(channels, inner, stride, layer)` makes a unit."""

    def __init__(self, classes: int, stem: nn.Module, stem_channels: int, counts: tuple[int, ...], unit: Any) -> None:
        super().__init__()
        units: list[nn.Module] = [stem, nn.ReLU(inplace=True)]
        channels = stem_channels
        for index, count in enumerate(counts):
            for position in range(count):
                new, channels = unit(channels, index, first=position == 0)
                units.append(new)
        self.features = nn.Sequential(*units)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, classes)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the logits (B,K) of frames (B,3,T,H,W)."""
        return self.fc(self.dropout(self.features(rgb).mean((2, 3, 4))))


def r3d(classes: int, start: Path | None, width: int = 32) -> nn.Module:
    def unit(channels: int, index: int, *, first: bool) -> tuple[nn.Module, int]:
        inner = width * 2**index
        stride = (2, 2, 2) if first and index > 0 else (1, 1, 1)
        two = conv3d(channels, inner, (3, 3, 3), stride), conv3d(inner, inner, (3, 3, 3))
        return Residual3D(channels, inner, stride, *two), inner

    return Net3D(classes, conv3d(3, width, (3, 7, 7), (1, 2, 2)), width, (2, 2, 2, 2), unit)


def slow(classes: int, start: Path | None, width: int = 32) -> nn.Module:
    def unit(channels: int, index: int, *, first: bool) -> tuple[nn.Module, int]:
        inner = width * 2**index
        stride = (1, 2, 2) if first and index > 0 else (1, 1, 1)
        reach = 3 if index >= 2 else 1
        three = (
            conv3d(channels, inner, (reach, 1, 1)),
            conv3d(inner, inner, (1, 3, 3), stride),
            conv3d(inner, 4 * inner, (1, 1, 1)),
        )
        return Residual3D(channels, 4 * inner, stride, *three), 4 * inner

    stem = nn.Sequential(conv3d(3, width, (1, 7, 7), (1, 2, 2)), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))
    return Net3D(classes, stem, width, (3, 4, 6, 3), unit)


# From image weights


class Frames(nn.Module):
    """The appearance stream over frames, averaged; with `shift`, a unit's branch also sees the steps beside its own."""

    def __init__(self, classes: int, start: Path | None, *, shift: bool) -> None:
        super().__init__()
        if start is None:
            raise SystemExit("tsm and tsn start from image weights: give --start FILE")
        source = load_checkpoint(start)
        single = {"streams": ("appearance",), "link": None, "temporal": None, "dropout": 0.5}
        self.net = STResNet(STResNetConfig(**dict(source.model.config) | single | {"num_classes": classes}))
        transfer_weights(self.net, [source.model.state_dict()], new_classifier=True)
        for unit in (unit for layer in LAYERS for unit in self.net.appearance.layer(layer) if shift):
            unit.conv1.register_forward_pre_hook(lambda module, args: (shifted(*args), *args[1:]))

    def forward(self, rgb: Tensor) -> Tensor:
        return self.net(rgb).fused


def shifted(x: Tensor, steps: int) -> Tensor:
    """Return (B·T,C,H,W) with the first eighth of the channels one step later and the second eighth one earlier."""
    clips, part = x.unflatten(0, (-1, steps)), x.shape[1] // 8
    later = F.pad(clips[:, :-1, :part], (0, 0, 0, 0, 0, 0, 1, 0))
    earlier = F.pad(clips[:, 1:, part : 2 * part], (0, 0, 0, 0, 0, 0, 0, 1))
    return torch.cat([later, earlier, clips[:, :, 2 * part :]], 2).flatten(0, 1)


PEERS = {
    "r3d": Peer(r3d, 16, (1, 2), (0.1, 0.03, 0.01)),
    "slow": Peer(slow, 8, (2, 4), (0.1, 0.03, 0.01)),
    "tsm": Peer(partial(Frames, shift=True), 5, (2, 6), (2e-3, 1e-3, 5e-4)),
    "tsn": Peer(partial(Frames, shift=False), 3, (2, 8), (2e-3, 1e-3, 5e-4)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("groups", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=PEERS, action="append")
    parser.add_argument("--lr", type=float, action="append", help="instead of the learning rates of each network")
    parser.add_argument("--minutes", type=float, default=20, help="of processor time, for each learning rate")
    parser.add_argument("--crop-px", type=int, default=112)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="image weights, see real_actions.py")
    arguments = parser.parse_args()
    groups = tuple(arguments.groups.read_text("utf-8").splitlines())
    store = Store.open(arguments.store).with_test_groups(groups)
    print("| network | learning rate | clips seen | training accuracy | top-1 | 95 % |")
    print("|---|---|---|---|---|---|")
    with keeping_freed_memory():
        for name in arguments.only or PEERS:
            for rate in arguments.lr or PEERS[name].rates:
                print(run(name, store, rate, arguments), flush=True)


def run(name: str, store: Store, rate: float, arguments: argparse.Namespace) -> str:
    """Train and test a network; return its row of the table."""
    torch.manual_seed(arguments.seed)
    peer = PEERS[name]
    model = peer.make(len(store.classes), arguments.start)
    preprocessing = (
        load_checkpoint(arguments.start).preprocessing
        if arguments.start
        else Preprocessing.of_layout("torchvision", crop_px=arguments.crop_px, mirror=True)
    )
    network = STResNetConfig(num_classes=len(store.classes), streams=("appearance",), link=None, temporal=None)
    sampling = ClipSampling(steps=peer.steps, tau=peer.tau, color_jitter=0.2, crop_px=arguments.crop_px)
    clips = TrainingClips(store, store.select("train"), sampling, network, arguments.seed)
    seen, accuracy = fit(model, batches(clips, arguments.seed), preprocessing, rate, arguments.minutes)
    table = test(f"{name} {rate:g}", model, store, preprocessing, peer, arguments.crop_px)
    table.write(arguments.out / f"scores-{name}-{rate:g}.parquet")
    top1 = top_k_accuracy(table, 1)
    interval = f"{100 * top1.low:.1f}–{100 * top1.high:.1f}"
    return f"| {name} | {rate:g} | {seen} | {100 * accuracy:.0f} | {100 * top1.value:.1f} | {interval} |"


def batches(clips: TrainingClips, seed: int) -> Iterator[Sample]:
    order = VideoOrder(len(clips), BATCH_VIDEOS, seed)
    while True:
        yield from DataLoader(clips, BATCH_VIDEOS, sampler=order)
        order.set_epoch(order.epoch + 1)


def fit(
    model: nn.Module, clips: Iterator[Sample], preprocessing: Preprocessing, rate: float, minutes: float
) -> tuple[int, float]:
    """Train for some minutes of processor time; return the clips seen and the accuracy on the last 400 of them."""
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    hits: list[bool] = []
    started = time.process_time()
    model.train()
    while (used := (time.process_time() - started) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = rate if used < 0.8 else rate / 10
        batch = next(clips)
        rgb, _ = preprocessing.normalize(batch["rgb"], None, batch["flow_scale"])
        logits = model(rgb)
        optimizer.zero_grad()
        F.cross_entropy(logits, batch["label"]).backward()
        optimizer.step()
        hits += (logits.argmax(1) == batch["label"]).tolist()
    return len(hits), float(np.mean(hits[-400:]))


@torch.no_grad()
def test(
    name: str, model: nn.Module, store: Store, preprocessing: Preprocessing, peer: Peer, crop_px: int
) -> ScoreTable:
    """Return the scores of the held-out videos."""
    model.eval()
    logits = []
    entries = list(store.select("test"))
    for entry in entries:
        crop = whole_frame(entry.height, entry.width, crop_px)
        size = (max(crop.height, crop_px), max(crop.width, crop_px))
        centers = spread_clips(entry.frames, FLOW_STACK, peer.steps, peer.tau, 3)
        video = store.video(entry.record.id)
        clips = cut_clips(video, centers, crop, size, flow_stack=FLOW_STACK, streams=("appearance",))
        rgb, _ = preprocessing.normalize(torch.from_numpy(clips["rgb"]), None, torch.from_numpy(clips["flow_scale"]))
        logits.append(((model(rgb) + model(rgb.flip(-1))) / 2).mean(0).numpy())
    ids = tuple(entry.record.id for entry in entries)
    labels = np.array([store.classes.index(entry.record.label) for entry in entries])
    return ScoreTable(name, "dense", store.classes, ids, labels, np.stack(logits))


if __name__ == "__main__":
    main()
