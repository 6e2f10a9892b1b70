"""Convert weight files: released MATLAB files become models, image weights become a two-stream start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from stresnet.data.store import Store, StoreSpec
from stresnet.errors import CheckpointError
from stresnet.flow import FlowSpec
from stresnet.model import STREAMS, Checkpoint, STResNet, save_checkpoint
from stresnet.model.profile import describe, network_name
from stresnet.progress import Progress
from stresnet.weights.calibration import FRAMES, calibrate, sample_frames
from stresnet.weights.class_names import class_count, numbered_names, read_class_names
from stresnet.weights.digest import sha256_of
from stresnet.weights.image_weights import (
    UNSTATED,
    ImageFormat,
    ImageWeights,
    has_ending,
    image_weights_of,
    init_from_images,
    is_checkpoint,
    read_image_weights,
    require_no_record,
)
from stresnet.weights.matconvnet import Imported, read_matconvnet

IMAGENET_CLASSES = 1000

RELEASED_SPEC = StoreSpec(FlowSpec("tvl1"))
"""How the videos of the released networks were prepared: TV-L1 flow at short side 256 px, clipped to ±20 px."""


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion.

    Attributes:
        out: the file written.
        lines: what was found and how it was used.
    """

    out: Path
    lines: tuple[str, ...]


def convert(
    source: str | Path,
    out: str | Path,
    *,
    classes: str = "",
    image_format: ImageFormat = UNSTATED,
    frames_of: Store | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert a weight file to a checkpoint.

    - A released `.mat` file (one or two streams, ST-ResNet or ST-MulNet) becomes a model, ready for `predict`.
    - Image weights, `.pth`, `.safetensors` or `.mat`, become a two-stream start for `train --init`. Its streams have no
      links and no temporal convolutions; each stage of a recipe adds its own.

    Args:
        source: the file.
        out: the `.safetensors` file to write.
        classes: a file of class names, one per line, or the folder of HMDB51's lists; for image weights also their
            number.
        image_format: what a `.pth` or `.safetensors` file of image weights does not say about its network.
        frames_of: a store on whose frames the batch-norm moments of image weights are measured; required if batch norm
            was folded. Leaves the function of the network as it is.
        progress: called with the frames done.

    Raises:
        CheckpointError: the source cannot be read or is not such a network, the class names do not fit, or `out`
            exists or cannot be written.
        StoreError: the store has no usable training video.
    """
    source, out = Path(source), Path(out)
    require_possible(out, classes)
    if not source.is_file():
        found = "a folder" if source.is_dir() else "nothing"
        raise CheckpointError(f"{source}: expected a .mat, .pth or .safetensors file, found {found}")
    if is_checkpoint(source):
        raise CheckpointError(f"{source} is already a stresnet checkpoint: use it directly")
    if not has_ending(source, ".mat"):
        image = read_image_weights(source, image_format)
    else:
        require_no_record(source, image_format)
        imported = read_matconvnet(source)
        config = imported.config
        if config.streams != ("appearance",) or config.temporal or config.num_classes != IMAGENET_CLASSES:
            if frames_of is not None:
                raise CheckpointError(f"{source} is not an image network: leave --calibrate out")
            return _released_model(imported, source, out, classes)
        image = image_weights_of(imported, source)
    names = _start_classes(source, classes)
    if frames_of is None:
        return _two_stream_start(image, out, names)
    measured = f"batch norm: moments measured on {FRAMES} frames of {frames_of.root}"
    return _two_stream_start(calibrate(image, sample_frames(frames_of, progress)), out, names, measured)


def require_possible(out: Path, classes: str, expected: int = 0) -> None:
    """Raise unless a conversion could succeed, whatever the source. Call it before a download.

    Args:
        out: the file to write.
        classes: as for `convert`.
        expected: number of classes of a released network; 0 if unknown.

    Raises:
        CheckpointError: `out` exists, has another ending or cannot be written, or the class names cannot be used.
    """
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} already exists: remove it, or choose another file")
    if not has_ending(out, ".safetensors"):
        raise CheckpointError(f"{out} must end in .safetensors")
    folder = next(place for place in out.absolute().parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "is not writable" if folder.is_dir() else "is not a folder"
        raise CheckpointError(f"{out} cannot be written, because {folder} {why}: choose another file")
    if classes and (expected or class_count(classes) is None):
        read_class_names(classes, expected)


def _released_model(imported: Imported, source: Path, out: Path, classes: str) -> ConversionReport:
    config = imported.config
    model = STResNet(config)
    model.load_state_dict(imported.weights)
    lines = [network_name(config), *(f"{part}: {text}" for part, text in describe(config).items()), *imported.notes]
    names = imported.classes or numbered_names(config.num_classes)
    if classes:
        names = read_class_names(classes, config.num_classes)
    elif not imported.classes:
        lines.append("the file has no class names: give them with --classes, such as UCF101's classInd.txt")
    checkpoint = Checkpoint(
        model=model.eval(),
        classes=names,
        preprocessing=imported.preprocessing,
        store_spec=RELEASED_SPEC.to_dict(),
        stage="released",
        training={"source": source.name, "sha256": sha256_of(source)},
    )
    lines.append(f"flow: {RELEASED_SPEC.flow}, as the released networks were trained")
    save_checkpoint(out, checkpoint)
    return ConversionReport(out, tuple(lines))


def _start_classes(source: Path, classes: str) -> tuple[str, ...]:
    """Return the class names of a start from image weights.

    Raises:
        CheckpointError: none or only one are given, or they cannot be read.
    """
    if not classes:
        raise CheckpointError(f"{source} has image weights: give the class names, or their number, with --classes")
    count = class_count(classes)
    names = read_class_names(classes) if count is None else numbered_names(count)
    if len(names) < 2:
        raise CheckpointError(f"expected at least two classes, found {len(names)} in --classes {classes}")
    return names


def _two_stream_start(image: ImageWeights, out: Path, names: tuple[str, ...], *notes: str) -> ConversionReport:
    source = Path(image.source)
    config = image.network.replace(streams=STREAMS).with_classes(len(names))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for the classifiers
        model = STResNet(config)
    lines = [*init_from_images(model, image), *notes]
    checkpoint = Checkpoint(
        model=model.eval(),
        classes=names,
        preprocessing=image.preprocessing,
        store_spec={},  # it has not been trained on videos
        stage="start",
        training={"source": source.name, "sha256": sha256_of(source)},
    )
    save_checkpoint(out, checkpoint)
    lines.append("this is an initial model, not a trained one: use it with `stresnet train … --init FILE`")
    return ConversionReport(out, tuple(lines))
