"""The order of training videos: permutations, resuming, devices, and balanced classes."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest

from stresnet.recipes import Balance
from stresnet.training.order import VideoOrder, balancing_weights


def epochs(videos: int, batch: int, count: int, seed: int = 0, rank: int = 0, world: int = 1) -> list[list[int]]:
    order, found = VideoOrder(videos, batch, seed, rank, world), []
    for epoch in range(count):
        order.set_epoch(epoch)
        found.append(list(order))
        assert len(found[-1]) == len(order)
    return found


def test_every_pass_is_a_new_permutation_and_every_batch_is_full() -> None:
    found = epochs(10, 4, 5)
    assert [len(epoch) for epoch in found] == [12] * 5  # three batches cover ten videos
    items = list(chain(*found))
    passes = [items[p * 10 : (p + 1) * 10] for p in range(6)]
    for p, a_pass in enumerate(passes):
        assert sorted(a_pass) == list(range(p * 10, (p + 1) * 10))
    assert len({tuple(i % 10 for i in a_pass) for a_pass in passes}) == 6


@pytest.mark.parametrize(("videos", "batch"), [(8, 8), (3, 8), (17, 4)])
def test_epochs_of_few_or_indivisible_numbers_of_videos(videos: int, batch: int) -> None:
    items = list(chain(*epochs(videos, batch, 4)))
    assert len(items) % batch == 0
    whole = len(items) // videos * videos
    assert sorted(items[:whole]) == list(range(whole))
    assert len(set(items)) == len(items)


def test_a_resumed_epoch_sees_what_an_uninterrupted_run_saw() -> None:
    whole = epochs(10, 4, 5)
    order = VideoOrder(10, 4, 0)
    order.set_epoch(3)
    assert list(order) == whole[3]
    assert list(order) == whole[3]
    assert epochs(10, 4, 5, seed=1) != whole


def test_devices_share_every_batch() -> None:
    alone = epochs(10, 4, 5)
    for world in (2, 4):
        ranks = [epochs(10, 4, 5, rank=rank, world=world) for rank in range(world)]
        for epoch in range(5):
            share = 4 // world
            for step in range(3):
                together = [i for rank in ranks for i in rank[epoch][step * share : (step + 1) * share]]
                assert sorted(together) == sorted(alone[epoch][step * 4 : step * 4 + 4])


# Balance


@pytest.mark.parametrize(("balance", "shares"), [("none", [2, 8]), ("sqrt", [10 / 3, 20 / 3]), ("full", [5, 5])])
def test_weights_share_out_the_videos_among_classes(balance: Balance, shares: list[float]) -> None:
    labels = np.array([0] * 2 + [2] * 8)
    weights = balancing_weights(labels, 3, balance)
    found = np.ones(3) if weights is None else weights
    assert [found[0] * 2, found[2] * 8] == pytest.approx(shares)
    assert found[1] == 1  # no videos


def test_a_balanced_pass_draws_rare_classes_as_often_and_never_the_same_clip_twice() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = balancing_weights(labels, 2, "full")
    assert weights is not None
    order = VideoOrder(100, 10, seed=0, weights=weights[labels])
    items = []
    for epoch in range(20):
        order.set_epoch(epoch)
        items += list(order)
    drawn = Counter(int(labels[item % 100]) for item in items)
    assert 900 < drawn[0] < 1100  # 1000 of 2000, standard deviation 22
    assert len(set(items)) == 2000
    times = Counter(item % 100 for item in items)
    assert all(set(items) >= {r * 100 + video for r in range(n)} for video, n in times.items())
    order.set_epoch(7)
    assert list(order) == items[700:800]
    resumed = VideoOrder(100, 10, seed=0, weights=weights[labels])
    resumed.set_epoch(7)
    assert list(resumed) == items[700:800]
