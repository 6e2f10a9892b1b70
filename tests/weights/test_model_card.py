"""Model cards: their header, text and limits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from stresnet.data.store import Store
from stresnet.evaluation import evaluate
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint, Preprocessing, STResNet, STResNetConfig
from stresnet.training import Run
from stresnet.weights.model_card import model_card

SCORE = {
    "store": "park|1",
    "split": "test",
    "protocol": "dense25",
    "videos": 48,
    "top1": [0.8125, 0.6875, 0.9167],
    "mean_class": [0.8, 0.67, 0.9],
}


def section(card: str, name: str) -> str:
    return card.split(f"\n## {name}\n\n")[1].split("\n\n## ")[0].strip()


def described(**changes: Any) -> Checkpoint:
    """Return a model with complete metadata."""
    config = STResNetConfig(num_classes=3, depth=26, width=0.0625, temporal_pool=(5, 2))
    recipe = {"name": "own_recipe", "stages": [{"name": "motion"}, {"name": "both"}]}
    flow = {"method": "tvl1", "preset": "default", "short_side": 128, "bound_px": 20.0}
    found = Checkpoint(
        model=STResNet(config).eval(),
        classes=("TurnLeft", "wave_hand", "jump"),
        preprocessing=Preprocessing(crop_px=112),
        store_spec={"flow": flow, "flow_digest": "of another version", "jpeg_quality": 95},
        stage="both",
        recipe=recipe,
        training={"store": "park|1", "videos": 132, "iterations": 3120, "minutes": 12.34},
        test_groups=("anna", "ben"),
        scores=(SCORE, SCORE | {"protocol": "center", "top1": [0.75, 0.6, 0.85]}),
        version="0.1.0",
    )
    return found.replace(**changes)


def test_card_header() -> None:
    text = model_card(described(), repo="me/net", license="mit")
    card = ModelCard(text)
    assert str(card) == text, "as the hub's client writes it"
    assert card.data.library_name == "stresnet"
    assert card.data.pipeline_tag == "video-classification"
    assert card.data.license == "mit"
    assert {"action-recognition", "st-resnet"} <= set(card.data.tags)
    assert card.data.metrics == ["accuracy"]
    assert card.data.model_name == "ST-ResNet*-26 trained on park|1"
    found = [(r.dataset_name, r.dataset_split, r.metric_name, r.metric_value) for r in card.data.eval_results]
    assert found == [
        ("park|1", "test", "top-1 accuracy, dense25", 0.8125),
        ("park|1", "test", "mean class accuracy, dense25", 0.8),
        ("park|1", "test", "top-1 accuracy, center", 0.75),
        ("park|1", "test", "mean class accuracy, center", 0.8),
    ]


def test_card_text() -> None:
    card = model_card(described(), repo="me/net")
    assert "\n# ST-ResNet\\*-26 trained on park\\|1\n" in card
    assert 'from_pretrained("me/net")' in section(card, "Use")
    assert "stresnet predict model.safetensors" in section(card, "Use")
    network = section(card, "Network")
    assert "| Motion | ResNet-26 over stacks of 10 optical-flow fields |" in network
    assert "| Link | additive, from motion to appearance, at the input of the residual branch" in network
    assert "span three time steps, in conv2_x, conv3_x, conv4_x, conv5_x |" in network
    assert "| Temporal pool | max over 5 time steps, stride 2, before the classifier |" in network
    assert section(card, "Actions") == "TurnLeft, wave\\_hand, jump."
    assert section(card, "Training").splitlines()[2:] == [
        "| Videos | 132 of park\\|1 |",
        "| Held out | anna, ben |",
        "| Recipe | own\\_recipe: motion, then both |",
        "| This stage | both, 3120 iterations, 12.3 minutes |",
        "| Frames | short side 128 px, crops of 112 px |",
        "| Flow | tvl1 (default), clipped at ±20 px |",
        "| Software | stresnet 0.1.0 |",
    ]
    scores = section(card, "Scores")
    assert "| 48 of park\\|1, test | dense25 | 81.2 (68.8 – 91.7) | 80.0 (67.0 – 90.0) |" in scores
    assert scores.endswith("None of these videos was a training video, judging by the content of their files.")
    limits = section(card, "Limits")
    for limit in ("do not rely on it for TurnLeft", "at least 11 frames", "132 videos, 44 per action", "±12 points"):
        assert limit in limits
    assert section(card, "Licence") == "Not specified."
    assert "\nlicense:" not in card
    assert "1611.02155" in section(card, "Citation")


def test_card_of_a_model_with_little_metadata() -> None:
    source = {"source": "net_1.mat", "sha256": "ab" * 32}
    card = model_card(
        described(scores=(), training=source, recipe={}, store_spec={}, test_groups=(), stage="", version="")
    )
    assert "model-index" not in card
    assert "# ST-ResNet\\*-26\n" in card
    assert section(card, "Scores") == "Not evaluated: this checkpoint has no scores."
    assert section(card, "Training").splitlines()[2:] == [
        "| Videos | unknown |",
        "| Recipe | unknown |",
        f"| Converted from | net\\_1.mat, SHA-256 {'ab' * 32} |",
        "| Flow | unknown |",
    ]
    assert "was trained on" not in section(card, "Limits")
    assert str(ModelCard(card)) == card


def test_card_limits() -> None:
    unmirrored = described(preprocessing=Preprocessing(mirror=False), scores=(SCORE | {"top1": [0.9] * 3},))
    limits = section(model_card(unmirrored), "Limits")
    assert "left from right" not in limits
    assert "uncertain" not in limits
    neutral = section(model_card(described(classes=("Cleft", "upright bow", "copyrighting"))), "Limits")
    assert "it cannot distinguish left from right." in neutral
    sided = described(classes=("wave right", "turn_clockwise", "spinCounterclockwise"))
    assert "do not rely on it for wave right, turn\\_clockwise, spinCounterclockwise." in model_card(sided)
    trained_on = model_card(described(scores=(SCORE, SCORE | {"split": "train"})))
    assert "judging by the content of their files, except for split train." in trained_on


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"link": None, "temporal": None}, "| Link | none; the logits of the streams are averaged |"),
        ({"link": None, "streams": ("motion",)}, "| Motion | ResNet-26 over stacks of 10 optical-flow fields |"),
        (
            {"link": "multiply", "temporal": "inject"},
            "second units have a further convolution over three time steps",
        ),
        (
            {"link_direction": "both", "link_scale": 0.1},
            "additive, in both directions, at the input of the",
        ),
        (
            {"motion_temporal_layers": (2, 5)},
            "in conv2_x, conv3_x, conv4_x, conv5_x of appearance and conv2_x, conv5_x of motion |",
        ),
        ({"motion_depth": 50}, "| Motion | ResNet-50 over"),
    ],
)
def test_card_describes_the_network(changes: dict[str, Any], expected: str) -> None:
    config = STResNetConfig(num_classes=3, depth=26, width=0.0625).replace(**changes)
    card = model_card(described(model=STResNet(config).eval()))
    assert expected in section(card, "Network")
    assert ("Multiplier" in section(card, "Citation")) is (config.link == "multiply")
    assert ("Flow must be computed" in card) is ("motion" in config.streams)


def test_class_names_cannot_break_the_card() -> None:
    classes = ("a|b", "--- x", "*bold*\n# heading")
    card = model_card(described(classes=classes, training={"store": "a: b\n---\n# c", "videos": 3}, scores=()))
    assert ModelCard(card).data.library_name == "stresnet"
    assert card.count("\n# ") == 1
    assert "a\\|b, --- x, \\*bold\\* # heading." in card
    many = model_card(
        described(
            classes=tuple(f"c{k}" for k in range(101)),
            model=STResNet(STResNetConfig(num_classes=101, depth=26, width=0.0625)),
        )
    )
    assert section(many, "Actions").endswith("c11 and 89 more; config.json lists them all.")


def test_card_has_the_scores_of_an_evaluation(run: Run, store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    evaluate(copy, store, tmp_path / "report", examples=1)
    recognizer = Recognizer(copy / "model.safetensors")
    (score,) = recognizer.checkpoint.scores
    assert score["store"] == "Vidéos à moi [1]"
    card = model_card(recognizer.checkpoint)
    assert f"| {score['videos']} of Vidéos à moi \\[1\\], test | dense25 | " in card
    assert "trained on Vidéos à moi [1]\n" in card.split("---")[1]
