"""Train an ST-ResNet on a prepared store with a plain PyTorch loop, without recipes or Lightning.

stresnet prepare videos/ store/ --short-side 128
python examples/train_loop.py store/ model.safetensors
stresnet predict model.safetensors new.mp4
"""

import argparse

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from stresnet import STResNet, STResNetConfig
from stresnet.data.clips import ClipSampling
from stresnet.data.store import Store
from stresnet.data.training_clips import CenteredClips, TrainingClips
from stresnet.model import Checkpoint, Preprocessing, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("model", help="the .safetensors file to write")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--crop-px", type=int, default=112)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    store = Store.open(options.store)
    model = STResNet(STResNetConfig(num_classes=len(store.classes), depth=26, width=options.width)).to(device)
    preprocessing = Preprocessing(crop_px=options.crop_px)
    sampling = ClipSampling(steps=5, tau=(2, 10), crop_px=options.crop_px)
    training = TrainingClips(store, store.select("train"), sampling, model.config, seed=0)
    testing = CenteredClips(store, store.select("test"), sampling, model.config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)

    def logits_of(batch):
        """Return the logits of both streams, each (B,T′,K)."""
        inputs = [batch[name].to(device) for name in ("rgb", "flow", "flow_scale")]
        return model(*preprocessing.normalize(*inputs))

    for epoch in range(options.epochs):
        # Item i is a clip of video i mod N, drawn from (seed, i): new indices give new clips of the same videos.
        order = (epoch * len(training) + torch.randperm(len(training))).tolist()
        model.train()
        for batch in DataLoader(training, batch_size=8, sampler=order, num_workers=options.workers):
            appearance, motion = logits_of(batch)
            labels = batch["label"].to(device)
            loss = F.cross_entropy(appearance.mean(1), labels) + F.cross_entropy(motion.mean(1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    model.eval()
    with torch.inference_mode():
        batches = DataLoader(testing, batch_size=8)
        right = sum((logits_of(batch).fused.argmax(1).cpu() == batch["label"]).sum().item() for batch in batches)
    print(f"test accuracy: {right} of {len(testing)}")
    checkpoint = Checkpoint(
        model=model, classes=store.classes, preprocessing=preprocessing, store_spec=store.spec.to_dict()
    )
    save_checkpoint(options.model, checkpoint)


if __name__ == "__main__":
    main()
