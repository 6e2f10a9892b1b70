"""The order of training videos, and how often those of each class come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from stresnet.recipes import Balance

_EXPONENTS: dict[Balance, float] = {"none": 0.0, "sqrt": 0.5, "full": 1.0}


def epoch_iterations(videos: int, batch_videos: int) -> int:
    """Return the fewest iterations that cover all training videos."""
    return -(-videos // batch_videos)


def balancing_weights(labels: NDArray[np.int64], classes: int, balance: Balance) -> NDArray[np.float64] | None:
    """Return the weight of each class, (K,), or None if all weigh the same.

    The weights of all training videos have the mean 1. A class without training videos weighs 1.

    Args:
        labels: (N,), the class index of each training video.
        classes: K, the number of classes.
        balance: `full` gives each class the same weight in all, `sqrt` the square root of its number of videos.
    """
    if balance == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    weights = np.maximum(counts, 1) ** -_EXPONENTS[balance]
    weights *= len(labels) / (weights * counts).sum()
    weights[counts == 0] = 1
    return weights


class VideoOrder(Sampler[int]):
    """The order of training videos: pass after pass in a new random order, cut into epochs of whole batches.

    An epoch is the fewest iterations that cover a pass, so every batch is full. Item r·N + v is video v when it comes
    for the r-th time, counted from 0. The items of an epoch depend on (seed, epoch) alone, so a resumed run sees the
    same videos as an uninterrupted one.
    """

    def __init__(
        self,
        videos: int,
        batch_videos: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Create the order.

        Args:
            videos: N, the number of training videos.
            batch_videos: videos per iteration, over all devices.
            seed: seed of the random order.
            rank: index of this device.
            world: number of devices; each gets every `world`-th item.
            weights: (N,). If given, a pass draws N videos at random, each with a chance in proportion to its weight;
                by default each video comes once in every pass.
        """
        self.videos = videos
        self.epoch_items = epoch_iterations(videos, batch_videos) * batch_videos
        self.seed = seed
        self.rank, self.world = rank, world
        self.epoch = 0
        self._chances = None if weights is None else weights / weights.sum()
        self._pass, self._items = -1, np.empty(0, dtype=np.int64)
        self._times_drawn = np.zeros(videos, dtype=np.int64)  # up to that pass

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch to iterate over next; called by Lightning."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.epoch_items // self.world

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.epoch_items
        for position in range(start + self.rank, start + self.epoch_items, self.world):
            pass_index, place = divmod(position, self.videos)
            yield int(self._items_of(pass_index)[place])

    def _items_of(self, pass_index: int) -> NDArray[np.int64]:
        if pass_index < self._pass:
            self._pass, self._times_drawn = -1, np.zeros_like(self._times_drawn)
        while self._pass < pass_index:
            self._pass += 1
            self._items = self._draw(self._pass)
        return self._items

    def _draw(self, pass_index: int) -> NDArray[np.int64]:
        """Return the items of the pass that follows those drawn so far, (N,)."""
        rng = np.random.default_rng([self.seed, pass_index])
        if self._chances is None:
            return pass_index * self.videos + rng.permutation(self.videos)
        drawn = rng.choice(self.videos, self.videos, p=self._chances)
        items = np.empty(self.videos, dtype=np.int64)
        for place, video in enumerate(drawn):
            items[place] = self._times_drawn[video] * self.videos + video
            self._times_drawn[video] += 1
        return items
