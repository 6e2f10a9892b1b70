"""Properties that go together with the class: Kruskal and Wallis' epsilon squared, and what is odd in one video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.planted import SPEC
from stresnet.data.catalog import VideoRecord
from stresnet.data.store import Entries, Store, StoreEntry
from stresnet.doctor.differences import association, differences
from stresnet.doctor.survey import Survey


def entries_of(classes: Sequence[Sequence[float]], groups: Sequence[str] = ()) -> Entries:
    """Return videos with frame rates, given for each class; and the group of each, if there are any."""
    rows = [(f"class{k:02}", fps) for k, rates in enumerate(classes) for fps in rates]
    return Entries.of(
        StoreEntry(VideoRecord(f"{n:04}", "", label, "train", groups[n] if groups else ""), 20, 48, 64, fps, content=n)
        for n, (label, fps) in enumerate(rows)
    )


def effect(classes: Sequence[Sequence[float]], groups: Sequence[str] = ()) -> float:
    entries = entries_of(classes, groups)
    found = association(entries, entries.column("fps").to_numpy())
    assert found is not None
    return found.effect


def by_hand(classes: Sequence[Sequence[float]]) -> float:
    """Epsilon squared as the adjusted share of the variance of the ranks between classes, in plain loops."""
    values = [v for members in classes for v in members]
    rank = {v: np.mean([i for i, w in enumerate(sorted(values)) if w == v]) for v in values}
    ranks = [[rank[v] for v in members] for members in classes]
    mean = np.mean([r for members in ranks for r in members])
    between = sum(len(members) * (np.mean(members) - mean) ** 2 for members in ranks)
    total = sum((r - mean) ** 2 for members in ranks for r in members)
    n, k = len(values), len(classes)
    return float(((n - 1) * between / total - (k - 1)) / (n - k))


def test_a_property_that_the_class_determines() -> None:
    assert effect([[15.0] * 5, [30.0] * 5]) == pytest.approx(1)
    assert effect([[30.0] * 6] * 19 + [[25.0] * 6]) == pytest.approx(1)


def test_epsilon_squared_is_that_of_ranks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        classes = [rng.choice([15.0, 24.0, 25.0, 30.0], rng.integers(3, 9)).tolist() for _ in range(4)]
        assert effect(classes) == pytest.approx(by_hand(classes))


def test_chance_gives_no_finding() -> None:
    rng = np.random.default_rng(1)
    effects = [effect([rng.normal(25, 3, 8).tolist() for _ in range(10)]) for _ in range(40)]
    assert abs(np.mean(effects)) < 0.02
    assert max(effects) < 0.25


def test_videos_of_one_class_and_group_count_once() -> None:
    rates = [[15.0] * 10 + [30.0], [30.0] * 10 + [15.0]]
    assert effect(rates) > 0.6
    assert effect(rates, ["a"] * 10 + ["b"] + ["c"] * 10 + ["d"]) < 0.01


def test_one_value_has_no_association() -> None:
    entries = entries_of([[25.0] * 5] * 3)
    assert association(entries, entries.column("fps").to_numpy()) is None


def findings_of(entries: Entries) -> list[str]:
    labels = tuple(sorted(entries.distinct("label")))
    survey = Survey(Store(Path("store"), SPEC, labels, "videos", entries), frozenset(), True)
    return [f"{finding.kind} {len(finding.videos)}: {finding.message}" for finding in differences(survey)]


def test_messages_name_the_extremes() -> None:
    (message,) = findings_of(entries_of([[30.0] * 8, [15.0] * 8, [29.97] * 8]))
    assert message.startswith(
        "shortcut 0: frame rate and class go together, from 15 fps ('class01') to 30 fps ('class00')"
    )
    assert "ε² = 1.00" in message


@pytest.mark.parametrize(("rate", "odd"), [(15.0, 1), (16.6, 1), (20.0, 0), (37.4, 0), (37.5, 1), (60.0, 1)])
def test_a_rare_value_far_from_the_median_is_odd(rate: float, odd: int) -> None:
    found = findings_of(entries_of([[25.0] * 10, [25.0] * 9 + [rate]]))
    assert [message.split(":")[0] for message in found] == ["odd 1"] * odd


def test_values_that_are_not_rare_are_not_odd() -> None:
    mixed = [25.0, 50.0] * 10
    assert findings_of(entries_of([mixed, mixed])) == []
