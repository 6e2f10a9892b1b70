"""Explanations: evidence that adds up, links that are cut, maps that fall on what matters, and the files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.tiny import Command, one_line
from stresnet.data.store import Store
from stresnet.inference.explanation import Explanation, explain
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint, STResNet, load_checkpoint
from stresnet.model.layers import Link
from stresnet.training import Run


def of_network(run: Run, **changes: object) -> Checkpoint:
    """Return the tiny ST-ResNet with another, untrained network whose activations and logits are of order 1."""
    checkpoint = load_checkpoint(run.model_file("st-resnet"))
    torch.manual_seed(0)
    model = STResNet(checkpoint.model.config.replace(dropout=0.0, **changes))
    for stream in (model.appearance, model.motion):
        torch.nn.init.normal_(stream.fc.weight)
        torch.nn.init.normal_(stream.fc.bias)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(torch.randn(4, 3, 5, 32, 32), torch.randn(4, 2 * model.config.flow_stack, 5, 32, 32))
    return checkpoint.replace(model=model.eval())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temporal_pool": (5, 2)},
        {"link": "multiply", "temporal": "inject"},
        {"link_form": "residual", "link_scale": 0.5, "link_direction": "both"},
    ],
)
def test_evidence_and_biases_add_up_to_the_logit(run: Run, store: Store, changes: dict[str, object]) -> None:
    checkpoint = of_network(run, **changes)
    video = store.video(store.select("test")[0].record.id)
    scores = Recognizer(checkpoint).score(video, "center").fused
    label = checkpoint.classes[2]
    found = explain(checkpoint, video, label)
    assert found.label == label
    assert found.logit == pytest.approx(float(scores[2]), rel=1e-4, abs=1e-4)
    assert found.margin == pytest.approx(float(scores[2] - np.delete(scores, 2).max()), rel=1e-4, abs=1e-3)
    biases = [stream.fc.bias[2].item() for stream in (checkpoint.model.appearance, checkpoint.model.motion)]
    assert found.bias == pytest.approx(float(np.mean(biases)), abs=1e-3 * max(1, abs(found.logit)))
    assert {stream: len(steps) for stream, steps in found.steps.items()} == {"appearance": 5, "motion": 5}
    assert all(one.shape[0] == 5 and min(one.shape[1:]) >= 7 for one in found.maps.values())
    into = ["appearance", "motion"] if changes.get("link_direction") == "both" else ["appearance"]
    assert [(link.into, link.layer) for link in found.links] == [(s, layer) for layer in (2, 3, 4, 5) for s in into]


@pytest.mark.parametrize("form", ["published", "residual"])
def test_the_effect_of_a_link_is_what_changes_without_it(
    run: Run, store: Store, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = of_network(run, link_form=form)
    video = store.video(store.select("test")[0].record.id)
    found = explain(checkpoint, video, checkpoint.classes[0])
    cut = list(checkpoint.model.links["appearance"])[1]
    forward = Link.forward

    def without(link: Link, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return forward(link, x, torch.zeros_like(other) if link in closed else other)

    monkeypatch.setattr(Link, "forward", without)
    closed = [cut]
    alone = explain(checkpoint, video, checkpoint.classes[0])
    assert found.links[1].effect == pytest.approx(found.logit - alone.logit, rel=1e-4, abs=1e-5)
    assert abs(found.links[1].effect) > 1e-3
    assert np.abs(alone.links[1].where).max() == 0
    closed = list(checkpoint.model.links["appearance"])
    assert found.unlinked_margin == pytest.approx(explain(checkpoint, video, checkpoint.classes[0]).margin, rel=1e-4)


def test_where_is_the_first_order_effect_of_a_link(run: Run, store: Store) -> None:
    checkpoint = of_network(run, link_form="residual", link_scale=1e-4)
    video = store.video(store.select("test")[0].record.id)
    found = explain(checkpoint, video, checkpoint.classes[0])
    for link in found.links:
        assert float(link.where.sum()) == pytest.approx(link.effect, rel=0.05, abs=2e-5 * abs(found.logit))


def test_a_single_stream_has_no_links(run: Run, store: Store) -> None:
    found = Recognizer(run.model_file("motion")).explain(store.select("test")[0].record.path)
    assert (found.rgb, found.links, found.unlinked_margin) == (None, (), None)
    assert list(found.maps) == ["motion"]
    assert found.flow_px is not None
    assert found.flow_px.shape[1:] == (2, 32, 32)
    assert found.label == found.top[0][0]
    with pytest.raises(ValueError, match="expected one of the model's 4 classes, found 'golf'"):
        Recognizer(run.model_file("motion")).explain(store.select("test")[0].record.path, label="golf")


def test_predict_explains(command: Command, store: Store, run: Run, tmp_path: Path) -> None:
    videos = [entry.record.path for entry in store.select("test")[:2]]
    out_folder = tmp_path / "why [1]"
    code, out, err = command("predict", run.folder, *videos, tmp_path / "no.mp4", "--explain", out_folder, "--json")
    assert (code, err.splitlines()[-1].startswith(f"failed: {tmp_path / 'no.mp4'}: no such file")) == (1, True)
    found = json.loads(out)
    assert [one["video"] for one in found] == [str(video) for video in videos]
    page = Path(found[0]["page"]).read_text("utf-8")
    assert page.count("<img") == 6 * 5  # two streams and four links, five steps
    assert "http" not in page.replace("data:image", "")
    strip = cv2.imread(str(Path(found[0]["page"]).with_suffix(".jpg")))
    assert strip.shape == (6 * 32, 5 * 32, 3)
    written = json.loads(Path(found[0]["page"]).with_suffix(".json").read_text())
    assert written["links"] == found[0]["links"]
    options = ["--explain", out_folder, "--explain-class", "red_up_blue_down"]
    code, out, _ = command("predict", run.folder, videos[0], *options)
    assert (code, "red_up_blue_down" in one_line(out)) == (0, True)
    code, _, err = command("predict", run.folder, videos[0], "--explain", out_folder, "--explain-class", "golf")
    assert (code, "--explain-class: the model has no class 'golf'" in one_line(err)) == (2, True)


@pytest.mark.slow
def test_in_the_demo_evidence_falls_on_the_windows_and_links_decide(command: Command, tmp_path: Path) -> None:
    assert command("demo", tmp_path / "demo")[0] == 0
    recognizer = Recognizer(tmp_path / "demo" / "run" / "st-resnet" / "model.safetensors")
    found = [
        (recognizer.explain(video, label=video.parent.name), video)
        for video in sorted((tmp_path / "demo" / "videos" / "test").rglob("*.mp4"))[::8]
    ]
    inside = np.mean([_share_inside(explanation) for explanation, _ in found], axis=0)
    area = np.mean([_windows(explanation).mean() for explanation, _ in found])
    assert area < 0.45
    assert inside.min() > 0.65  # measured: 0.78 of the appearance stream's, 0.76 of the motion stream's
    assert min(explanation.margin for explanation, _ in found) > 0
    unlinked = [explanation.unlinked_margin for explanation, _ in found]
    assert abs(np.mean(unlinked)) < 0.2 * np.mean([explanation.margin for explanation, _ in found])


def _windows(explanation: Explanation) -> np.ndarray:
    """Return where the tinted windows of a generated video are, (T,H,W)."""
    tint = np.abs(explanation.rgb[..., 0].astype(int) - explanation.rgb[..., 2]) > 60
    return np.stack([cv2.dilate(cv2.erode(one.astype(np.uint8), np.ones((3, 3))), np.ones((5, 5))) for one in tint])


def _share_inside(explanation: Explanation) -> list[float]:
    """Return the share of the evidence for the class that lies in the windows, of each stream."""
    windows = torch.from_numpy(_windows(explanation)).float()
    shares = []
    for maps in explanation.maps.values():
        energy = F.interpolate(torch.from_numpy(maps).clamp(min=0)[None], windows.shape[1:], mode="bilinear")[0]
        shares.append(float((energy * windows).sum() / energy.sum()))
    return shares
