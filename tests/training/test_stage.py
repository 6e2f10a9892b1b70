"""One stage of training: loss, multipliers, learning rates, data order, and accumulated sub-batches."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from stresnet.model import Preprocessing, StreamLogits, STResNet
from stresnet.recipes import Optimisation, Recipe, parse_recipe
from stresnet.training.stage import StageTraining, clip_loss, parameter_groups

torch.set_num_threads(1)


def recipe(**changes: Any) -> Recipe:
    """Return a recipe of one linked stage of a tiny network, 8 videos per iteration in sub-batches of 2."""
    network = {"depth": 26, "width": 1 / 16, "layout": "caffe", "flow_stack": 2}
    schedule = [{"lr": 0.1, "epochs": 2.5}, {"lr": 0.01, "iterations": 3}, {"lr": 0.002, "epochs": 0.001}]
    stage = {
        "name": "st",
        "network": network | changes.get("network", {}),
        "clips": {"steps": 3, "tau": [1, 2], "crop_px": 32},
        "optimisation": {"batch_videos": 8, "sub_batch_videos": 2, "schedule": schedule}
        | changes.get("optimisation", {}),
    }
    return parse_recipe({"name": "mine", "stages": [stage]}, "mine")


def training(seed: int = 0, videos: int = 20, labels: list[int] | None = None, **changes: Any) -> StageTraining:
    r = recipe(**changes)
    torch.manual_seed(seed)
    net = STResNet(r.stages[0].network.with_classes(5))
    return StageTraining(net, r.stages[0], Preprocessing(crop_px=32), np.array(labels or [0] * videos), seed=0)


# Loss


def by(loss: str, **changes: Any) -> Optimisation:
    return recipe(optimisation={"loss": loss, **changes}).stages[0].optimisation


def logits_of(*, outputs: int = 4) -> tuple[StreamLogits, Tensor]:
    rng = torch.Generator().manual_seed(0)
    appearance, motion = (torch.randn(3, outputs, 5, generator=rng, dtype=torch.float64) * 3 for _ in range(2))
    return StreamLogits(appearance, motion), torch.tensor([4, 0, 2])


def by_hand(streams: list[Tensor], labels: Tensor) -> float:
    """Return the cross entropies summed over streams and temporal outputs, divided by the number of videos."""
    total = 0.0
    for stream in streams:
        for b, label in enumerate(labels.tolist()):
            for t in range(stream.shape[1]):
                scores = stream[b, t]
                total += (scores.exp().sum().log() - scores[label]).item()
    return total / len(labels)


def test_loss_is_the_sum_over_streams_and_outputs_per_video() -> None:
    logits, labels = logits_of()
    found = clip_loss(logits, labels, by("sum")).item()
    assert found == pytest.approx(by_hand(list(logits), labels), rel=1e-5)
    alone = clip_loss(StreamLogits(None, logits.motion), labels, by("sum")).item()
    assert alone == pytest.approx(by_hand([logits.motion], labels), rel=1e-5)


def test_joint_loss_is_one_softmax_of_the_summed_logits() -> None:
    logits, labels = logits_of()
    found = clip_loss(logits, labels, by("joint")).item()
    assert found == pytest.approx(by_hand([logits.appearance + logits.motion], labels), rel=1e-5)


def test_loss_doubles_with_twice_the_outputs() -> None:
    logits, labels = logits_of()
    twice = StreamLogits(*(torch.cat([s, s], 1) for s in logits))
    for kind in ("sum", "joint"):
        once = clip_loss(logits, labels, by(kind)).item()
        assert clip_loss(twice, labels, by(kind)).item() == pytest.approx(2 * once, rel=1e-5)


def test_loss_is_computed_in_float32_under_half_precision() -> None:
    logits, labels = logits_of()
    half = StreamLogits(*(s.bfloat16() for s in logits))
    assert clip_loss(half, labels, by("sum")).dtype == torch.float32


def test_smoothed_labels_and_weighted_classes_enter_the_loss() -> None:
    logits, labels = logits_of(outputs=1)
    alone = StreamLogits(logits.appearance, None)
    assert logits.appearance is not None
    losses = -logits.appearance[:, 0].log_softmax(1)  # (B,K)
    own = losses[range(3), labels]
    smoothed = clip_loss(alone, labels, by("sum", label_smoothing=0.2)).item()
    assert smoothed == pytest.approx((0.8 * own + 0.2 * losses.mean(1)).mean().item(), rel=1e-5)
    weights = torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float32)
    weighted = clip_loss(alone, labels, by("sum"), weights).item()
    assert weighted == pytest.approx((own * weights[labels]).mean().item(), rel=1e-5)


def test_training_weighs_classes_as_its_recipe_says() -> None:
    module = training(optimisation={"class_weights": "full"}, labels=[0] * 4 + [1])
    assert module.class_weights is not None
    assert module.class_weights.tolist() == pytest.approx([0.625, 2.5, 1, 1, 1])
    assert "class_weights" not in module.state_dict()


# Multipliers


def multipliers(net: nn.Module) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in net.named_parameters()}
    groups = parameter_groups(net, 5e-4)
    assert Counter(id(p) for g in groups for p in g["params"]) == Counter(list(names)), "each parameter exactly once"
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


def test_rate_and_decay_multipliers() -> None:
    r = recipe(network={"link_scale": 0.1})
    found = multipliers(STResNet(r.stages[0].network.with_classes(5)))
    filters, doubled, shift = (1.0, 5e-4), (2.0, 0.0), (1.0, 0.0)
    expected = {
        "appearance.conv1.weight": filters,
        "motion.conv1.bias": doubled,
        "motion.layer2.1.conv1.weight": filters,  # over time
        "appearance.layer1.0.downsample.0.weight": filters,
        "appearance.layer1.0.downsample.1.weight": doubled,
        "appearance.layer1.0.downsample.1.bias": shift,
        "motion.layer4.1.bn3.weight": doubled,
        "motion.layer4.1.bn3.bias": shift,
        "appearance.fc.weight": filters,
        "appearance.fc.bias": doubled,
        "links.appearance.0.scale": doubled,
    }
    assert {name: found[name] for name in expected} == expected
    norms = {n for n in found if ".bn" in n or "downsample.1" in n}
    assert {n for n, m in found.items() if m == shift} == {n for n in norms if n.endswith("bias")}
    assert {n for n, m in found.items() if m == filters} == {n for n in found if n.endswith("weight")} - norms


# Learning rates


def test_each_rate_is_held_for_its_iterations_and_the_last_one_beyond() -> None:
    module = training(videos=20)  # 2.5 passes of 20 videos in 8s: 6 iterations; then 3; then at least 1
    assert module.total_iterations == 10
    assert [module.lr_at(iteration) for iteration in range(12)] == [0.1] * 6 + [0.01] * 3 + [0.002] * 3


def test_a_rate_falls_along_a_cosine_within_its_own_phase() -> None:
    phases = [{"lr": 0.1, "iterations": 2}, {"lr": 0.08, "final_lr": 0.04, "iterations": 4}]
    module = training(optimisation={"schedule": phases})
    falling = [0.06 + 0.02 * math.cos(math.pi * part / 4) for part in range(5)]  # the last value ends the training
    assert [module.lr_at(iteration) for iteration in range(7)] == pytest.approx([0.1, 0.1, *falling])
    assert module.lr_at(6) == pytest.approx(0.04)


def test_warming_up_grows_to_the_rate_of_the_schedule() -> None:
    phases = [{"lr": 0.1, "iterations": 3}, {"lr": 0.2, "iterations": 3}]
    module = training(videos=16, optimisation={"schedule": phases, "warmup_epochs": 2})  # 4 iterations of 8 videos
    assert [module.lr_at(i) for i in range(6)] == pytest.approx([0.02, 0.04, 0.06, 0.16, 0.2, 0.2])


def test_optimizer_is_plain_momentum_at_the_multiplied_rate() -> None:
    module = training(optimisation={"momentum": 0.85, "weight_decay": 0.01})
    setup = module.configure_optimizers()
    optimizer, schedule = setup["optimizer"], setup["lr_scheduler"]["scheduler"]
    assert setup["lr_scheduler"]["interval"] == "step"
    assert type(optimizer) is torch.optim.SGD
    assert {(g["momentum"], g["nesterov"], g["dampening"]) for g in optimizer.param_groups} == {(0.85, False, 0)}
    found = []
    for _ in range(10):
        found.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert found == [[r, 2 * r, r] for r in [0.1] * 6 + [0.01] * 3 + [0.002]]


def test_adamw_decays_filters_apart_from_the_gradient() -> None:
    module = training(optimisation={"optimizer": "adamw", "momentum": 0.8, "weight_decay": 0.5})
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.AdamW
    assert {g["betas"] for g in optimizer.param_groups} == {(0.8, 0.999)}
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.1, 0.5), (0.2, 0), (0.1, 0)]
    for parameter in module.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    conv, norm = module.model.appearance.conv1.weight, module.model.appearance.layer1[0].bn1.weight
    before = conv.detach().clone(), norm.detach().clone()
    optimizer.step()
    torch.testing.assert_close(conv.detach(), before[0] * (1 - 0.1 * 0.5))
    assert norm.equal(before[1])


# An iteration


def samples(count: int) -> list[dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(0)

    def bytes_of(*shape: int) -> Tensor:
        return torch.randint(0, 256, (3, *shape), generator=rng, dtype=torch.uint8)

    scale = torch.tensor([-1.0, 0.8])
    return [
        {"rgb": bytes_of(32, 32, 3), "flow": bytes_of(4, 32, 32), "flow_scale": scale, "label": torch.tensor(n % 5)}
        for n in range(count)
    ]


def after_an_iteration(sub_batch: int, clips: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the weights after Lightning trained one iteration on these clips, with batch norm in evaluation mode."""
    module = training().double().eval()
    module.preprocessing = DoublePreprocessing(crop_px=32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*num_workers.*|.*does not have many workers.*")
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=1,
            precision="64-true",
            accumulate_grad_batches=len(clips) // sub_batch,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(clips, batch_size=sub_batch))
    assert trainer.global_step == 1
    return module.model.state_dict()


class DoublePreprocessing(Preprocessing):
    def normalize(self, *inputs: Any) -> Any:
        return tuple(x.double() for x in super().normalize(*inputs))


def test_sub_batches_accumulate_to_the_iteration_of_the_whole_batch() -> None:
    clips = samples(8)
    whole = after_an_iteration(8, clips)
    for sub_batch in (4, 2):
        parts = after_an_iteration(sub_batch, clips)
        assert max((parts[k] - whole[k]).abs().max().item() for k in whole) < 1e-10

    # and that iteration is plain SGD on the loss of all eight videos
    module = training().double().eval()
    before = {k: v.clone() for k, v in module.model.state_dict().items()}
    batch = torch.utils.data.default_collate(clips)
    rgb, flow = DoublePreprocessing().normalize(batch["rgb"], batch["flow"], batch["flow_scale"])
    clip_loss(module.model(rgb, flow), batch["label"], by("sum")).backward()
    moved = 0.0
    multiplied = multipliers(module.model)
    for name, parameter in module.model.named_parameters():
        rate, decay = multiplied[name]
        expected = before[name] - 0.1 * rate * (parameter.grad + decay * before[name])
        assert (whole[name] - expected).abs().max() < 1e-6, name
        moved = max(moved, (expected - before[name]).abs().max().item())
    assert moved > 1e-3


def test_consensus_is_the_loss_of_the_mean_over_time() -> None:
    labels = torch.tensor([0, 2])
    logits = StreamLogits(torch.randn(2, 4, 3), torch.randn(2, 4, 3))
    means = [s.mean(1) for s in logits if s is not None]
    expected = sum(torch.nn.functional.cross_entropy(m, labels) for m in means)
    torch.testing.assert_close(clip_loss(logits, labels, by("sum", consensus=True)), expected)
    assert not torch.isclose(clip_loss(logits, labels, by("sum")), torch.as_tensor(expected))
