"""Image weights: the initialisation of both streams, and unusable files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helpers.hostile import Trap
from helpers.networks import bits, error_of, network, single
from helpers.torchvision_names import BASE, Weights, image_weights
from stresnet.model import STResNet
from stresnet.weights.image_weights import init_from_images, read_image_weights

torch.set_num_threads(1)

NARROW = "width 0.125 in the torchvision layout"


def write_weights(folder: Path, values: Weights, ending: str) -> Path:
    path = folder / f"image.{ending}"
    if ending == "safetensors":
        save_file(values, path)
    else:
        torch.save(values, path)
    return path


def load_image_weights(net: STResNet, path: Path) -> list[str]:
    return init_from_images(net, read_image_weights(path))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("layout", ["torchvision", "caffe"])
def test_image_weights_start_both_streams(tmp_path: Path, ending: str, layout: str) -> None:
    image = image_weights(conv1_bias=layout == "caffe")
    net = network(layout=layout)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    load_image_weights(net, write_weights(tmp_path, image, ending))
    after = net.state_dict()
    for key, value in after.items():
        name = key.split(".", 1)[1]
        if name.startswith("fc."):
            assert value.equal(before[key]), f"{key} must keep its random start"
        elif key == "motion.conv1.weight":
            mean = (image[name][:, 0] + image[name][:, 1] + image[name][:, 2]) / 3
            assert value.shape == (BASE, 4, 7, 7)
            for channel in range(4):
                assert torch.allclose(value[:, channel], mean, atol=1e-6)
        elif value.shape[2:] == (3, 1):
            for tap in range(3):
                assert value[:, :, tap, 0].equal(image[name][:, :, 0, 0] / 3)
        else:
            assert value.equal(image[name]), key


def test_image_weights_without_classifier_or_step_counts_are_enough(tmp_path: Path) -> None:
    image = {k: v for k, v in image_weights().items() if not k.startswith("fc.") and "num_batches" not in k}
    net = single("appearance")
    load_image_weights(net, write_weights(tmp_path, image, "safetensors"))
    assert net.appearance.layer4[1].bn3.bias.equal(image["layer4.1.bn3.bias"])


@pytest.mark.parametrize(
    ("image", "changes", "expected"),
    [
        ({"units": (3, 4, 6, 3)}, {}, f"is a ResNet-50 of {NARROW}, but the appearance stream is a ResNet-26 of "),
        ({}, {"depth": 50}, f"is a ResNet-26 of {NARROW}, but the appearance stream is a ResNet-50 of {NARROW}: "),
        (
            {},
            {"motion_depth": 50},
            f"is a ResNet-26 of {NARROW}, but the motion stream is a ResNet-50 of {NARROW}: ",
        ),
        (
            {"base": 16},
            {},
            f"of width 0.25 in the torchvision layout, but the appearance stream is a ResNet-26 of {NARROW}",
        ),
        (
            {},
            {"layout": "caffe"},
            "of width 0.125 in the caffe layout: use other weights, or change the network",
        ),
        ({"conv1_bias": True}, {}, f"in the caffe layout, but the appearance stream is a ResNet-26 of {NARROW}: use"),
    ],
)
def test_weights_of_another_network_raise(
    tmp_path: Path, image: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    net = network(**changes)
    before = bits(net.state_dict())
    message = error_of(load_image_weights, net, write_weights(tmp_path, image_weights(**image), "pth"))
    assert expected in message
    assert str(tmp_path / "image.pth") in message
    assert bits(net.state_dict()) == before


def test_pickled_code_does_not_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for number, write in enumerate((torch.save, lambda value, path: path.write_bytes(pickle.dumps(value)))):
        path = tmp_path / f"trap{number}.pth"
        write({**image_weights(), "conv1.weight": Trap(sprung)}, path)
        assert "cannot be read" in error_of(load_image_weights, network(), path)
        assert not sprung.exists()
    pickle.loads((tmp_path / "trap1.pth").read_bytes())
    assert sprung.exists()  # the trap works


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    net = network()
    assert "none.pth does not exist" in error_of(load_image_weights, net, tmp_path / "none.pth")
    for ending in ("pth", "safetensors"):
        noise = tmp_path / f"noise.{ending}"
        noise.write_bytes(b"no weights at all" * 100)
        assert f"noise.{ending}" in error_of(load_image_weights, net, noise)
    torch.save({"state_dict": image_weights()}, tmp_path / "wrapped.pth")
    assert "state dict" in error_of(load_image_weights, net, tmp_path / "wrapped.pth")
