"""Feed an ST-ResNet from a data set of your own: here class folders of videos, decoded on the fly, without a store.

python examples/own_dataset.py videos/train
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stresnet import FlowSpec, STResNet, STResNetConfig, estimate_flow, read_video
from stresnet.data.sampling import middle_centers, stack_around
from stresnet.flow import quantize_flow
from stresnet.model import Preprocessing


class VideoFolder(Dataset[tuple[Tensor, Tensor, int]]):
    """Yields `rgb` (3,T,H,W), `flow` (2L,T,H,W) and the label: one clip from the middle of each video."""

    def __init__(
        self, root: Path, *, steps: int = 5, tau: int = 4, flow_stack: int = 10, short_side: int = 128
    ) -> None:
        self.files = sorted(root.glob("*/*.mp4"))
        self.classes = sorted({file.parent.name for file in self.files})
        self.steps, self.tau, self.flow_stack = steps, tau, flow_stack
        self.spec = FlowSpec(preset="fast", short_side=short_side)
        self.preprocessing = Preprocessing()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        file = self.files[index]
        frames = read_video(file, short_side=self.spec.short_side).frames  # (N,H,W,3) uint8
        levels = quantize_flow(estimate_flow(frames, self.spec), self.spec.bound_px)  # (N-1,2,H,W) uint8

        centers = middle_centers(len(frames), self.flow_stack, self.steps, (self.tau, self.tau))  # (T,)
        stacks = levels[stack_around(centers, self.flow_stack)]  # (T,L,2,H,W)
        stacks = stacks.reshape(self.steps, 2 * self.flow_stack, *stacks.shape[-2:])
        rgb, flow = self.preprocessing.normalize(
            torch.from_numpy(np.ascontiguousarray(frames[centers]))[None],
            torch.from_numpy(stacks)[None],
            torch.ones(1, 2),
        )
        assert rgb is not None
        assert flow is not None
        return rgb[0], flow[0], self.classes.index(file.parent.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="a folder of class folders of .mp4 files, all of one size")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=float, default=0.25)
    options = parser.parse_args()

    videos = VideoFolder(options.videos)
    model = STResNet(STResNetConfig(num_classes=len(videos.classes), depth=26, width=options.width))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for epoch in range(options.epochs):
        for rgb, flow, labels in DataLoader(videos, batch_size=4, shuffle=True):
            appearance, motion = model(rgb, flow)  # (B,T′,K) each
            loss = F.cross_entropy(appearance.mean(1), labels) + F.cross_entropy(motion.mean(1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
