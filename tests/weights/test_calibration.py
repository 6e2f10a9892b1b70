"""Calibrated image weights: the function stays, the moments are those of the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers.formula import randomized
from helpers.networks import error_of, single
from helpers.tiny import Command, one_line
from helpers.torchvision_names import Weights, image_weights
from stresnet.data.store import Store
from stresnet.model import Preprocessing, STResNet, load_checkpoint
from stresnet.weights.calibration import FRAMES, calibrate, sample_frames
from stresnet.weights.image_weights import ImageFormat, ImageWeights, init_from_images, read_image_weights

torch.set_num_threads(1)

FORMS = ("complete", "complete, with biases", "no variance", "folded")


def trained(layout: str = "caffe") -> STResNet:
    """Return an image network with random moments, and 12 channels after conv1 in place of 8."""
    return randomized(single("appearance", layout=layout, stem_channels=12)).float()


def weights_of(net: STResNet, form: str = "complete") -> Weights:
    """Return the weights of an image network, without classifier, in one of the forms in which they are published."""
    found = {k.removeprefix("appearance."): v.clone() for k, v in net.state_dict().items() if ".fc." not in k}
    for name, norm in net.appearance.named_modules():
        if not isinstance(norm, nn.BatchNorm2d) or form == "complete":
            continue
        conv = name[:-1] + "0" if name.endswith("downsample.1") else name.replace("bn", "conv")
        bias = found.setdefault(f"{conv}.bias", torch.zeros(norm.num_features))
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        if form == "complete, with biases":
            bias += 0.5
            found[f"{name}.running_mean"] += 0.5
        elif form == "no variance":
            found[f"{name}.weight"] = scale
            del found[f"{name}.running_var"]
        else:
            found[f"{conv}.weight"] *= scale[:, None, None, None]
            found[f"{conv}.bias"] = norm.bias.detach() + (bias - norm.running_mean) * scale
            for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                del found[f"{name}.{part}"]
    return found


def frames(count: int = 4, size: tuple[int, int] = (64, 96)) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def read(folder: Path, weights: Weights, image_format: ImageFormat) -> ImageWeights:
    save_file(weights, folder / "image.safetensors")
    return read_image_weights(folder / "image.safetensors", image_format)


def logits(net: STResNet, preprocessing: Preprocessing, rgb: NDArray[np.uint8]) -> Tensor:
    x, _ = preprocessing.normalize(torch.from_numpy(rgb)[:, None], None, torch.ones(len(rgb), 2))
    with torch.no_grad():
        return net(x).fused


def deviation(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def restored(image: ImageWeights, classifier_of: STResNet) -> STResNet:
    net = STResNet(classifier_of.config)
    init_from_images(net, image)
    net.appearance.fc = classifier_of.appearance.fc
    return net.eval()


@pytest.mark.parametrize("layout", ["caffe", "torchvision"])
@pytest.mark.parametrize("form", FORMS)
def test_calibration_keeps_the_function_and_measures_the_moments(tmp_path: Path, form: str, layout: str) -> None:
    net, pictures = trained(layout), frames()
    image = calibrate(read(tmp_path, weights_of(net, form), ImageFormat(layout)), pictures)
    found = restored(image, net)
    before = logits(net, image.preprocessing, pictures)
    assert before.std(0).min() > 1e-3 * before.abs().max()  # it depends on the picture
    assert deviation(logits(found, image.preprocessing, pictures), before) < 1e-5
    if form == "folded":
        assert not torch.allclose(found.appearance.bn1.running_var, net.appearance.bn1.running_var, rtol=0.1)
    # with exactly these moments, normalising by the statistics of the batch changes nothing
    assert deviation(logits(found.train(), image.preprocessing, pictures), before) < 1e-4
    assert deviation(logits(net.train(), image.preprocessing, pictures), before) > 0.1


def test_moments_are_those_of_all_positions_of_frames_of_any_size(tmp_path: Path) -> None:
    net = trained()
    pictures = [*frames(3, (40, 64)), *frames(1, (64, 48))]
    image = calibrate(read(tmp_path, weights_of(net, "folded"), ImageFormat("caffe")), pictures)
    net.appearance.conv1.bias.data.zero_()
    scale = net.appearance.bn1.weight / (net.appearance.bn1.running_var + 1e-5).sqrt()  # folded into the filters
    seen = []
    for picture in pictures:
        x, _ = image.preprocessing.normalize(torch.from_numpy(picture)[None, None], None, torch.ones(1, 2))
        seen.append((net.appearance.conv1(x[:, :, 0]) * scale[:, None, None]).detach().transpose(0, 1).flatten(1))
    values = torch.cat(seen, 1).double()  # (C, positions)
    assert torch.allclose(image.weights["bn1.running_mean"].double(), values.mean(1), rtol=1e-4, atol=1e-4)
    assert torch.allclose(image.weights["bn1.running_var"].double(), values.var(1, correction=0), rtol=1e-4)


def test_command_starts_from_folded_weights_that_read_bgr(tmp_path: Path, store: Store, command: Command) -> None:
    net, out = trained(), tmp_path / "start.safetensors"
    published = weights_of(net, "folded")
    published["conv1.weight"] = published["conv1.weight"].flip(1)  # B, G, R
    save_file(published, tmp_path / "image.safetensors")
    convert = ("convert", tmp_path / "image.safetensors", out, "--classes", 4, "--layout", "caffe")
    code, _, error = command(*convert)
    assert code == 1
    assert "--calibrate STORE" in one_line(error)
    code, shown, _ = command(
        *convert, "--calibrate", store.root, "--channels", "bgr", "--mean", 104, 117, 123, "--std", 1, 2, 4
    )
    assert code == 0
    assert "ResNet-26 of width 0.125, with 12 channels after conv1, in the caffe layout: " in shown
    assert f"moments measured on {FRAMES} frames of {store.root}" in " ".join(shown.split())
    start = load_checkpoint(out)
    assert start.model.config.stem_channels == 12
    assert start.preprocessing == Preprocessing(
        rgb_mean=(123.0, 117.0, 104.0), rgb_std=(4.0, 2.0, 1.0), flow_std=7 / 3, crop_px=224, mirror=True
    )
    start.model.appearance.fc = net.appearance.fc
    x, _ = start.preprocessing.normalize(torch.from_numpy(frames())[:, None], None, torch.ones(4, 2))
    with torch.no_grad():
        assert deviation(start.model.appearance(x), net.appearance(x)) < 1e-5


def test_frames_are_the_same_at_each_call_and_from_all_training_videos(store: Store) -> None:
    first, second = list(sample_frames(store)), list(sample_frames(store))
    assert len(first) == FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({frame.tobytes() for frame in first}) > 2 * len(store.select("train"))


def test_unusable_weights_raise(tmp_path: Path, store: Store, command: Command) -> None:
    folded = weights_of(trained(), "folded")
    assert "which hides its layout" in error_of(read, tmp_path, folded, ImageFormat())
    partial = weights_of(trained(), "no variance") | {"bn1.running_var": torch.ones(12)}
    image = read(tmp_path, partial, ImageFormat("caffe"))
    assert "layer1.0.bn1.running_var is missing" in error_of(calibrate, image, frames())
    image = read(tmp_path, folded, ImageFormat("caffe"))
    assert "no batch-norm variances" in error_of(init_from_images, trained(), image)
    del folded["layer2.0.conv2.weight"]
    image = read(tmp_path, folded, ImageFormat("caffe"))
    assert "layer2.0.conv2.weight is missing" in error_of(calibrate, image, frames())
    save_file(image_weights(), tmp_path / "r.safetensors")
    code, _, error = command("convert", tmp_path / "r.safetensors", tmp_path / "o.safetensors", "--std", 1, 0, 1)
    assert (code, "three positive numbers" in " ".join(error.split())) == (2, True)


def test_a_file_that_records_its_format_accepts_no_other(tmp_path: Path) -> None:
    path = tmp_path / "r.mat"
    path.write_bytes(b"")
    message = error_of(read_image_weights, path, ImageFormat(channels="bgr"))
    assert message == f"{path} records its layout and preprocessing: leave --layout, --channels, --mean and --std out"
