"""Generated videos whose classes cannot be recognised by either stream alone.

Each video has two fixed windows, one tinted red, one blue. A random texture drifts in each, and the two drift in
opposite directions. The class is which colour drifts which way:

* A single RGB frame shows the colours but no motion, so it carries no information about the class (25 %).
* Flow shows the motions but no colours, so it determines the axis only (50 %), and so does late fusion.
* A link that carries the motion to the location of the colour determines the class.

This holds by construction:

* The texture of a window is noise with a finite memory. Frames ``MEMORY_FRAMES`` or more apart are independent, so no
  network can match RGB frames that far apart. Neighbouring frames correlate at cos 30° = 0.87.
* The four directions are the four quarter turns of the same texture, whose distribution is invariant under quarter
  turns, so a frame has the same distribution in every class. Drift is by whole pixels, without interpolation or blur.
* The tints add nothing to gray = 0.299 R + 0.587 G + 0.114 B, from which flow is computed.
* Everything else is drawn independently of the class: one seed gives the same scene in all classes.

Mirroring a video changes its class (left becomes right), so train without mirrors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.errors import StoreError
from stresnet.media import write_video
from stresnet.progress import Progress

Split = Literal["train", "test"]
Pixels = NDArray[np.float32]

CLASSES: tuple[str, ...] = (
    "red_down_blue_up",
    "red_left_blue_right",
    "red_right_blue_left",
    "red_up_blue_down",
)
"""The four classes in the order of their labels, which is alphabetical."""

_SPLITS: tuple[Split, ...] = ("train", "test")
# Quarter turns (counter-clockwise, as np.rot90) from a drift to the right to the drift of red; blue takes two more.
_RED_QUARTER_TURNS = (3, 2, 0, 1)

# Each frame sums five noise fields. Of all kernels of that length, half a sine wave correlates most at lag 1.
MEMORY_FRAMES = 5
_MEMORY = np.sin(np.pi * np.arange(1, MEMORY_FRAMES + 1) / (MEMORY_FRAMES + 1))
_MEMORY /= np.sqrt(np.sum(_MEMORY**2))

_GRAY_RGB = np.array([0.299, 0.587, 0.114])
_TEXTURE_GRAY = 96.0  # mean level; with the spread below, no tinted channel comes near 0 or 255
_TEXTURE_STD = 24.0
_TEXTURE_SPREAD = 48.0
_FINE_SIGMA_PX, _COARSE_SIGMA_PX = 0.9, 2.2
_PAD_PX = 8  # margin that keeps the borders out of the blurs above
_MARGIN_PX = 4  # margin around the frame for the shake of the camera


@dataclass(frozen=True)
class SyntheticSpec:
    """Sizes and strengths of a generated data set.

    Attributes:
        width, height: frame size in px, even.
        frames: frames per video.
        fps: frames per second.
        train_per_class: training videos per class.
        test_per_class: test videos per class.
        window_px: side of the two square windows in px.
        drift_px: drift of the textures, whole px per frame.
        pan_px: maximum speed of the background, px per frame.
        shake_px: standard deviation of the camera shake in px.
        noise_std: standard deviation of the sensor noise in gray levels.
        quality_crf: H.264 constant rate factor; 0 is lossless, 18 visually so.
    """

    width: int = 80
    height: int = 64
    frames: int = 44
    fps: float = 25.0
    train_per_class: int = 100
    test_per_class: int = 40
    window_px: int = 26
    drift_px: int = 3
    pan_px: float = 0.8
    shake_px: float = 0.7
    noise_std: float = 2.5
    quality_crf: int = 14

    def __post_init__(self) -> None:
        """Raise unless two windows fit side by side.

        Raises:
            StoreError: the frame is too small for the windows or of odd size, or a count is not positive.
        """
        if min(self.frames, self.window_px, self.drift_px, self.train_per_class, self.test_per_class) < 1:
            raise StoreError("frames, window_px, drift_px and the videos per class must be at least 1")
        if self.width % 2 or self.height % 2:
            raise StoreError(f"width and height must be even for the video codec, not {self.width} x {self.height}")
        if self.width < 2 * self.window_px + 8 or self.height < self.window_px + 6:
            raise StoreError(
                f"two windows of {self.window_px} px need frames of at least {2 * self.window_px + 8} x "
                f"{self.window_px + 6} px, not {self.width} x {self.height}: make window_px smaller"
            )


def render_video(label: int, seed: int, spec: SyntheticSpec, *, split: Split) -> NDArray[np.uint8]:
    """Return the frames of one video, (T,H,W,3) uint8 RGB.

    The same arguments give the same frames. The same seed with another label gives the same scene (background,
    positions, camera, noise, textures) with other directions of drift.

    Args:
        label: index into ``CLASSES``.
        seed: any non-negative integer.
        spec: sizes and strengths.
        split: ``train`` or ``test``; their backgrounds come from different families.
    """
    rng = np.random.default_rng([seed, _SPLITS.index(split)])
    scene = _background(rng, spec, split)
    corners = _window_corners(rng, spec)
    textures = [_drifting_texture(rng, spec) for _ in corners]
    for (top, left), texture, tint, turns in zip(corners, textures, _tints(rng), (0, 2), strict=True):
        turned = np.rot90(texture, _RED_QUARTER_TURNS[label] + turns, axes=(1, 2))
        side = slice(top, top + spec.window_px), slice(left, left + spec.window_px)
        scene[:, side[0], side[1]] = turned[..., None] + tint
    return _film(rng, scene, spec)


def write_dataset(
    folder: Path,
    spec: SyntheticSpec,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Path:
    """Write a data set as ``folder/{train,test}/<class>/<class>_0001.mp4`` and so on.

    Existing videos are kept, so calling this again resumes an interrupted call.

    Args:
        folder: created if missing.
        spec: sizes and strengths.
        seed: determines every video; two seeds have no video in common.
        progress: called after every video.

    Returns:
        ``folder``.

    Raises:
        StoreError: the folder has a data set of another spec or seed, or something else, in it.
        VideoError: a video cannot be written.
    """
    _claim(folder, spec, seed)
    videos = [
        (split, label, number)
        for split, per_class in zip(_SPLITS, (spec.train_per_class, spec.test_per_class), strict=True)
        for number in range(1, per_class + 1)
        for label in range(len(CLASSES))
    ]
    for done, (split, label, number) in enumerate(videos, start=1):
        path = folder / split / CLASSES[label] / f"{CLASSES[label]}_{number:04d}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = render_video(label, video_seed(seed, label, number), spec, split=split)
            write_video(path, frames, fps=spec.fps, quality_crf=spec.quality_crf)
        if progress is not None:
            progress("generating videos", done, len(videos))
    return folder


def video_seed(seed: int, label: int, number: int) -> int:
    """Return the seed of one video of a data set. Seeds are distinct, so no scene occurs in two classes."""
    return int(np.random.SeedSequence([seed, label, number]).generate_state(1, np.uint64)[0])


def _claim(folder: Path, spec: SyntheticSpec, seed: int) -> None:
    """Mark a folder as having this data set; raise if it has another data set or other files."""
    wanted = json.dumps({"seed": seed, **asdict(spec)}, indent=1, sort_keys=True)
    mark, partial = folder / "synthetic.json", folder / "synthetic.json.part"
    try:
        if mark.is_file():
            if mark.read_text(encoding="utf-8") != wanted:
                raise StoreError(f"{folder} has videos made with other settings: choose another folder or delete it")
            return
        folder.mkdir(parents=True, exist_ok=True)
        if any(entry != partial for entry in folder.iterdir()):
            raise StoreError(f"{folder} is not empty: generate the videos into a new folder")
        partial.write_text(wanted, encoding="utf-8")
        os.replace(partial, mark)
    except OSError as problem:
        raise StoreError(f"cannot write the generated videos to {folder}: {problem}") from problem


def _tints(rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Return the tints added to gray in the red and the blue window, (3,) each; they do not change the gray value."""
    strength = rng.uniform(0.8, 1.0, size=2)
    tints = []
    for channel, excess in ((0, 98.0 * strength[0]), (2, 102.0 * strength[1])):
        others = -excess * _GRAY_RGB[channel] / (1.0 - _GRAY_RGB[channel])
        tint = np.full(3, others, dtype=np.float32)
        tint[channel] = excess
        tints.append(tint)
    return tints[0], tints[1]


def _drifting_texture(rng: np.random.Generator, spec: SyntheticSpec) -> Pixels:
    """Return a texture that drifts to the right and is gradually renewed, (T,window,window) gray levels.

    Each frame is the weighted sum of ``MEMORY_FRAMES`` noise fields that move by ``drift_px`` per frame. At each frame,
    one field enters and one leaves.
    """
    side, half, drift = spec.window_px, MEMORY_FRAMES // 2, spec.drift_px
    noise = _smooth_noise(rng, spec.frames + 2 * half, side, side + 2 * half * drift)
    texture = np.zeros((spec.frames, side, side), dtype=np.float32)
    for weight, lag in zip(_MEMORY, range(-half, half + 1), strict=True):
        start = (half + lag) * drift
        texture += np.float32(weight) * noise[half + lag :][: spec.frames, :, start : start + side]
    texture *= np.float32(_TEXTURE_STD)
    np.clip(texture, -_TEXTURE_SPREAD, _TEXTURE_SPREAD, out=texture)
    texture += np.float32(_TEXTURE_GRAY)
    return texture


def _smooth_noise(rng: np.random.Generator, fields: int, height: int, width: int) -> Pixels:
    """Return independent noise fields, (N,H,W) of zero mean and unit variance, of fine grain and coarse blobs.

    Their distribution is stationary, and invariant under quarter turns: pixels affected by the borders are cut off.
    """
    white = rng.standard_normal((fields, height + 2 * _PAD_PX, width + 2 * _PAD_PX), dtype=np.float32)
    out = np.empty((fields, height, width), dtype=np.float32)
    size = 2 * _PAD_PX + 1
    fine, coarse = (cv2.getGaussianKernel(size, sigma) for sigma in (_FINE_SIGMA_PX, _COARSE_SIGMA_PX))
    kernel = fine @ fine.T / np.sum(fine**2) + coarse @ coarse.T / np.sum(coarse**2)
    gain = np.float32(1.0 / np.sqrt(np.sum(kernel**2)))
    inside = slice(_PAD_PX, -_PAD_PX)
    for field, into in zip(white, out, strict=True):
        blurred = cv2.sepFilter2D(field, -1, fine, fine) / np.float32(np.sum(fine**2))
        blurred += cv2.sepFilter2D(field, -1, coarse, coarse) / np.float32(np.sum(coarse**2))
        into[:] = gain * blurred[inside, inside]
    return out


def _window_corners(rng: np.random.Generator, spec: SyntheticSpec) -> list[tuple[int, int]]:
    """Return (top, left) of the red and the blue window in the scene with its margin; the windows do not touch."""
    first, gap = _MARGIN_PX + 2, spec.window_px + 3
    tops = first + spec.height - 4 - spec.window_px
    lefts = first + spec.width - 4 - spec.window_px
    while True:
        top = rng.integers(first, tops, size=2, endpoint=True)
        left = rng.integers(first, lefts, size=2, endpoint=True)
        if abs(top[1] - top[0]) >= gap or abs(left[1] - left[0]) >= gap:
            return [(int(top[0]), int(left[0])), (int(top[1]), int(left[1]))]


def _background(rng: np.random.Generator, spec: SyntheticSpec, split: Split) -> Pixels:
    """Return a textured plane that pans at a constant speed, (T,H+2m,W+2m,3) with the margin m."""
    height, width = spec.height + 2 * _MARGIN_PX, spec.width + 2 * _MARGIN_PX
    reach = int(np.ceil(spec.pan_px * spec.frames)) + 2
    families = (_clouds, _cells) if split == "train" else (_waves, _planks)
    gray = families[rng.integers(2)](rng, height + 2 * reach, width + 2 * reach)
    low, high = rng.uniform(30, 90), rng.uniform(130, 200)
    # A gradient between two dull colours, neither as red nor as blue as the windows.
    colors = np.array([low, high])[:, None] + rng.uniform(-22, 22, size=(2, 3))
    plane = (colors[0] + gray[..., None] * (colors[1] - colors[0])).astype(np.float32)
    angle, speed = rng.uniform(0, 2 * np.pi), spec.pan_px * rng.uniform(0.25, 1.0)
    steps = (np.arange(spec.frames) - spec.frames / 2)[:, None] * speed * np.array([np.cos(angle), np.sin(angle)])
    return _follow([plane] * spec.frames, reach - steps, height, width)


def _film(rng: np.random.Generator, scene: Pixels, spec: SyntheticSpec) -> NDArray[np.uint8]:
    """Return the scene as filmed by a shaking camera with a noisy sensor, (T,H,W,3) uint8."""
    jolts = rng.standard_normal((spec.frames + 8, 2))
    smooth = cv2.getGaussianKernel(9, 2.0)[:, 0]
    path = np.stack([np.convolve(jolts[:, axis], smooth, mode="valid") for axis in (0, 1)], axis=1)
    path *= spec.shake_px / np.sqrt(np.sum(smooth**2))
    path = np.clip(path, -_MARGIN_PX + 1, _MARGIN_PX - 1) + _MARGIN_PX
    seen = _follow(scene, path, spec.height, spec.width)
    seen += np.float32(spec.noise_std) * rng.standard_normal((*seen.shape[:3], 1), dtype=np.float32)
    levels: NDArray[np.uint8] = np.clip(np.rint(seen, out=seen), 0, 255, out=seen).astype(np.uint8)
    return levels


def _follow(images: Sequence[Pixels] | Pixels, corners: NDArray[np.float64], height: int, width: int) -> Pixels:
    """Return the part of each image whose top left corner is at (x, y), interpolated, (T,height,width,3)."""
    parts = np.empty((len(corners), height, width, 3), dtype=np.float32)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    for image, (x, y), part in zip(images, corners, parts, strict=True):
        move = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
        cv2.warpAffine(image, move, (width, height), dst=part, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return parts


def _clouds(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return noise of several scales, (H,W), 0 to 1."""
    gray = np.zeros((height, width), dtype=np.float32)
    for cell in (4, 8, 16, 32):
        grid = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
        gray += np.float32(cell**0.6) * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return _unit(gray)


def _cells(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a mosaic of cells around random points, with dark joints, (H,W), 0 to 1."""
    seeds = np.ones((height, width), dtype=np.uint8)
    count = height * width // 120
    seeds[rng.integers(height, size=count), rng.integers(width, size=count)] = 0
    distance, names = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shades = rng.uniform(0.3, 1.0, size=int(names.max()) + 1).astype(np.float32)
    return _unit(shades[names] - 0.04 * distance)


def _waves(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return crossing waves of random lengths and directions, (H,W), 0 to 1."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    gray = np.zeros((height, width), dtype=np.float32)
    for _ in range(6):
        angle, length, phase = rng.uniform(0, 2 * np.pi), rng.uniform(8, 30), rng.uniform(0, 2 * np.pi)
        gray += np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase).astype(np.float32)
    return _unit(gray)


def _planks(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a heap of planks that lie across each other, (H,W), 0 to 1."""
    gray = np.full((height, width), 0.5, dtype=np.float32)
    for _ in range(height * width // 90):
        center = (rng.uniform(0, width), rng.uniform(0, height))
        plank = (center, (rng.uniform(12, 30), rng.uniform(4, 9)), rng.uniform(0, 180))
        cv2.fillPoly(gray, [np.rint(cv2.boxPoints(plank)).astype(np.int32)], float(rng.uniform()))
    return _unit(gray)


def _unit(gray: Pixels) -> Pixels:
    """Return the image scaled to the range 0 to 1."""
    stretched: Pixels = (gray - gray.min()) / (gray.max() - gray.min())
    return stretched
