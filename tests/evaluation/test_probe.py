"""Linear probes: the classifier by hand, and probes of trained and initial models."""

from __future__ import annotations

import json

import pytest
import torch

from helpers.tiny import Command
from stresnet.data.store import Store
from stresnet.evaluation.probe import WEIGHT_DECAYS, _fitted, probe
from stresnet.model import load_checkpoint
from stresnet.training import Run


def test_the_classifier_separates_classes_whatever_the_scale_of_features() -> None:
    torch.manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.randn(90, 5)
    features[:, 0] = 1000 + 40 * (labels - 1) + torch.rand(90)
    logits = _fitted(features[:60], labels[:60], 1e-3, 3)(features[60:])
    assert (logits.argmax(1) == labels[60:]).all()


def test_a_strong_penalty_leaves_the_frequencies_of_the_classes() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2)
    logits = _fitted(torch.randn(8, 4), labels, 1e6, 2)(torch.randn(3, 4))
    torch.testing.assert_close(logits.softmax(1)[:, 0], torch.full((3,), 0.75), rtol=0, atol=1e-3)


def test_evaluate_probes(command: Command, run: Run, store: Store) -> None:
    code, out, err = command("evaluate", run.folder, store.root, "--probe", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [(one["features"], one["dimensions"]) for one in found] == [
        ("appearance", 128),
        ("motion", 128),
        ("fused", 256),
    ]
    assert all(one["weight_decay"] in WEIGHT_DECAYS and one["top1"][0] * 4 % 1 == 0 for one in found)
    code, out, _ = command("evaluate", run.model_file("motion"), store.root, "--probe")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["linear", "motion"])


def test_an_initial_model_is_probed_on_the_stores_flow(run: Run, store: Store) -> None:
    initial = load_checkpoint(run.model_file("appearance")).replace(store_spec={}, recipe={})
    (found,) = probe(initial, store)
    (trained,) = probe(run.model_file("appearance"), store)
    assert found.dimensions == trained.dimensions == 128
    assert found.top1.value == pytest.approx(trained.top1.value)
