"""A clean set of small videos, and one with a fault of each kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from helpers.video_files import encode
from stresnet.data.prepared_video import StoreSpec
from stresnet.flow import FlowSpec

SPEC = StoreSpec(FlowSpec(short_side=48, bound_px=4.0))
CLASSES = ("clap", "run", "wave")
_FRAMES = 24


def drifting(
    seed: int, frames: int = _FRAMES, speed: int = 1, size: tuple[int, int] = (48, 64)
) -> list[NDArray[np.uint8]]:
    """Return pictures of a smooth texture that drifts to the left, by some pixels at each step."""
    rng = np.random.default_rng(seed)
    height, width = size
    big = rng.integers(0, 255, (height // 8 + 1, (width + speed * frames) // 8 + 2, 3)).astype(np.float32)
    big = big.repeat(8, axis=0).repeat(8, axis=1)
    big = (big + np.roll(big, 4, 0) + np.roll(big, 4, 1) + np.roll(big, (4, 4), (0, 1))) / 4
    return [np.ascontiguousarray(big[:height, t * speed : t * speed + width].astype(np.uint8)) for t in range(frames)]


def write_clean(folder: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write five training and two test videos of each class, and return the folder."""
    for number, label in enumerate(classes):
        for split, count in (("train", 5), ("test", 2)):
            (folder / split / label).mkdir(parents=True)
            for k in range(count):
                seed = 100 * number + k + (50 if split == "test" else 0)
                write_video(folder / split / label / f"{k}.mp4", drifting(seed))
    return folder


def write_video(path: Path, pictures: list[NDArray[np.uint8]], fps: int = 25) -> Path:
    """Write a video that is small and quick to encode, with its header first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return encode(path, pictures, fps=fps, preset="ultrafast", crf="12", mux={"movflags": "faststart"})


def write_planted(folder: Path) -> dict[str, set[tuple[str, ...]]]:
    """Write a set with faults into a folder, and return the videos of each finding that it must give, by kind."""
    train = write_clean(folder, (*CLASSES, "Wave")) / "train"
    for k in range(7):
        write_video(folder / ("train" if k < 5 else "test") / "slow" / f"{k}.mp4", drifting(500 + k), fps=10)
    write_video(train / "once" / "0.mp4", drifting(600))
    shutil.copyfile(train / "run" / "0.mp4", train / "wave" / "renamed.mp4")
    shutil.copyfile(train / "clap" / "1.mp4", folder / "test" / "clap" / "renamed.mp4")
    shutil.copyfile(train / "clap" / "2.mp4", train / "clap" / "again.mp4")
    whole = write_video(train / "run" / "cut.mp4", drifting(601, 48)).read_bytes()
    (train / "run" / "cut.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    write_video(train / "wave" / "still.mp4", drifting(602, 1) * _FRAMES)
    write_video(train / "run" / "short.mp4", drifting(603, 5))
    (train / "run" / "text.mp4").write_text("not a video at all\n" * 40)
    write_video(train / "run" / "tall.mp4", drifting(604, size=(144, 48)))
    write_video(train / "clap" / "fast.mp4", drifting(605, speed=7))
    (train / "broken").mkdir()
    (train / "broken" / "empty.mp4").touch()
    return {
        "empty_class": {("train/broken/empty.mp4",)},
        "leak": {("test/clap/renamed.mp4", "train/clap/1.mp4")},
        "unusable": {("train/broken/empty.mp4",), ("train/run/short.mp4",), ("train/run/text.mp4",)},
        "truncated": {("train/run/cut.mp4",)},
        "conflicting_copies": {("train/run/0.mp4", "train/wave/renamed.mp4")},
        "similar_names": {()},
        "untested_class": {("train/once/0.mp4",)},
        "rare_class": {("train/once/0.mp4",)},
        "shortcut": {()},
        "odd": {("train/run/tall.mp4",)},
        "still": {("train/wave/still.mp4",)},
        "clipped": {("train/clap/fast.mp4",)},
        "copies": {("train/clap/2.mp4", "train/clap/again.mp4")},
    }
