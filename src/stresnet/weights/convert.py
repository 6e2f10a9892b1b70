"""Weights from elsewhere: released MATLAB files become models, image networks become a two-stream start."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

import stresnet
from stresnet.data.prepared_video import StoreSpec
from stresnet.errors import CheckpointError
from stresnet.flow import FlowSpec
from stresnet.model import Checkpoint, STResNet, STResNetConfig, save_checkpoint
from stresnet.weights.image_weights import (
    ImageWeights,
    has_ending,
    image_of,
    init_from_images,
    is_checkpoint,
    read_image_weights,
)
from stresnet.weights.matconvnet import Imported, read_matconvnet

IMAGENET_CLASSES = 1000
_NUMBERED = re.compile(r"([0-9]{1,9})\s+(\S.*)")
MOST_CLASSES = 100_000
MOST_BYTES = 10**7
"""Of a file of class names; more is another file given by mistake."""

# The released code numbers HMDB51's classes by a list of its own, sorted but for these (cnn_setup_data.m).
RELEASED_BEFORE = {"kick_ball": "kick", "sword_exercise": "sword"}

RELEASED_SPEC = StoreSpec(FlowSpec("tvl1"))
"""How the released networks' videos were prepared: TV-L1 flow at short side 256, clipped to ±20 px."""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion made.

    Attributes:
        out: the file written.
        lines: what was found and what went where, a line each.
    """

    out: Path
    lines: tuple[str, ...]


def convert(source: str | Path, out: str | Path, *, classes: str = "") -> ConversionReport:
    """Convert a weight file to a checkpoint.

    - A released `.mat` (one stream or two, ST-ResNet or ST-MulNet) becomes a model, ready for `predict`.
    - An image network, `.pth`, `.safetensors` or `.mat`, becomes a two-stream start for `train --init`: both streams
      filled, neither linked nor grown over time yet, as each stage of a recipe does that itself.

    Args:
        source: the file.
        out: the `.safetensors` file to write.
        classes: a file of class names, one a line, with or without UCF101's numbers before them; or, for an image
            network, their number; or the folder of HMDB51's lists.

    Raises:
        CheckpointError: if the source cannot be read or expressed, the class names do not fit, or `out` exists.
    """
    source, out = Path(source), Path(out)
    require_possible(out, classes)
    if not source.is_file():
        found = "a folder" if source.is_dir() else "nothing"
        raise CheckpointError(f"no weights at {source}: give a .mat, .pth or .safetensors file, found {found} there")
    if is_checkpoint(source):
        raise CheckpointError(f"{source} is already a stresnet checkpoint: use it directly")
    if has_ending(source, ".mat"):
        imported = read_matconvnet(source)
        config = imported.config
        image = config.streams == ("appearance",) and config.temporal is None
        if not image or config.num_classes != IMAGENET_CLASSES:
            return _released(imported, source, out, classes)
        return _two_stream_start(image_of(imported, source), out, classes)
    return _two_stream_start(read_image_weights(source), out, classes)


def require_possible(out: Path, classes: str, expected: int = 0) -> None:
    """Refuse what no source could be turned into, before it is downloaded.

    Args:
        out: the file to write.
        classes: as `convert` takes it.
        expected: how many classes a released network tells apart; 0 where that is not known.

    Raises:
        CheckpointError: if `out` exists, has another ending or cannot be made, or the class names are none.
    """
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} exists already: remove it, or name another file")
    if not has_ending(out, ".safetensors"):
        raise CheckpointError(f"{out} must end in .safetensors")
    folder = next(place for place in out.absolute().parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "cannot be written to" if folder.is_dir() else "is no folder"
        raise CheckpointError(f"{out} cannot be made, as {folder} {why}: name another file")
    if classes and (expected or _count(classes) is None):
        _names(classes, expected)


def _released(imported: Imported, source: Path, out: Path, classes: str) -> ConversionReport:
    config = imported.config
    model = STResNet(config)
    model.load_state_dict(imported.weights)
    model.eval()
    lines = [_in_words(config), *imported.notes]
    names = imported.classes or tuple(f"class {k + 1}" for k in range(config.num_classes))
    if classes:
        names = _names(classes, config.num_classes)
    elif not imported.classes:
        lines.append("the file has no class names: give them with --classes, such as UCF101's classInd.txt")
    checkpoint = Checkpoint(
        model=model,
        classes=names,
        preprocessing=imported.preprocessing,
        store_spec=RELEASED_SPEC.to_dict(),
        stage="released",
        training={"source": source.name, "sha256": _sha256(source)},
        version=stresnet.__version__,
    )
    lines.append(f"flow: {RELEASED_SPEC.flow}, as the released networks were trained")
    save_checkpoint(out, checkpoint)
    return ConversionReport(out, tuple(lines))


def _two_stream_start(image: ImageWeights, out: Path, classes: str) -> ConversionReport:
    if not classes:
        raise CheckpointError(f"{image.source} is an image network: say with --classes how many actions to start for")
    count = _count(classes)
    names = _names(classes) if count is None else tuple(f"class {k + 1}" for k in range(count))
    if len(names) < 2:
        raise CheckpointError(f"expected at least two classes to tell apart, found {len(names)}: give --classes more")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the classifiers'
        model = _two_streams(image, len(names))
    lines = init_from_images(model, image)
    source = Path(image.source)
    checkpoint = Checkpoint(
        model=model.eval(),
        classes=names,
        preprocessing=image.preprocessing,
        store_spec={},  # it has seen no video
        stage="start",
        training={"source": source.name, "sha256": _sha256(source)},
        version=stresnet.__version__,
    )
    save_checkpoint(out, checkpoint)
    lines.append("a start, not a recogniser: train it with `stresnet train … --init FILE`")
    return ConversionReport(out, tuple(lines))


def _two_streams(image: ImageWeights, classes: int) -> STResNet:
    shape = {"depth": image.depth, "width": image.width, "layout": image.layout}
    return STResNet(STResNetConfig.from_dict({"num_classes": classes, "link": None, "temporal": None, **shape}))


def _count(classes: str) -> int | None:
    """The number of classes, where that is what was given rather than a file of names."""
    if not (classes.isascii() and classes.isdigit()):
        return None
    if not 2 <= (count := int(classes[:9])) <= MOST_CLASSES:
        raise CheckpointError(f"expected 2 to {MOST_CLASSES} classes to tell apart, found --classes {classes}")
    return count


def _names(file: str, expected: int = 0) -> tuple[str, ...]:
    """Class names from a file of one a line, `Archery` or `3 Archery`, or from a folder of HMDB51's lists."""
    path = Path(file)
    if _count(file) is not None:
        raise CheckpointError(f"--classes {file}: the network has its classes; give a file of their names, or nothing")
    if path.is_dir():
        names = [p.name.removesuffix("_test_split1.txt") for p in path.glob("*_test_split1.txt")]
        names.sort(key=lambda name: (RELEASED_BEFORE.get(name, name), name not in RELEASED_BEFORE))
        if not names:
            raise CheckpointError(
                f"{path} holds no <class>_test_split1.txt of HMDB51: give UCF101's classInd.txt itself"
            )
    else:
        names = _listed(path)
    if not names:
        raise CheckpointError(f"{path}: expected a class name on each line, found an empty file")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise CheckpointError(f"{path}: expected each class name once, found {twice[0]!r} twice; remove one")
    if expected and len(names) != expected:
        raise CheckpointError(
            f"{path} names {len(names)} classes, but the network tells {expected} apart: give its own"
        )
    return tuple(names)


def _listed(path: Path) -> list[str]:
    lines = _lines(path)
    numbered = {number: found for number, line in lines.items() if (found := _NUMBERED.fullmatch(line))}
    if not numbered:
        return list(lines.values())
    if bare := [number for number in lines if number not in numbered]:
        with_number = next(iter(numbered))
        raise CheckpointError(
            f"{path}: expected a number before every class name or before none; line {bare[0]}, {lines[bare[0]]!r}, "
            f"has none, but line {with_number}, {lines[with_number]!r}, has: number them all from 1, or none"
        )
    order = sorted((int(found[1]), found[2]) for found in numbered.values())
    for expected, (number, _) in enumerate(order, 1):
        if number != expected:
            raise CheckpointError(
                f"{path}: expected classes numbered 1 to {len(order)}, each once; found {number} in place of {expected}"
            )
    return [name for _, name in order]


def _lines(path: Path) -> dict[int, str]:
    """The lines of a file of class names that are not blank, by their number."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise CheckpointError(f"{path}: expected a file of class names, found more than {MOST_BYTES} bytes")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise CheckpointError(
            f"class names {path} cannot be read: {error.strerror}; give a file of them, or for image weights a number"
        ) from None
    except UnicodeDecodeError:
        raise CheckpointError(f"class names {path} are no text in UTF-8: give a file of one name a line") from None
    lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    for number, line in lines.items():
        if any(c < " " for c in line.replace("\t", " ")):
            raise CheckpointError(
                f"{path}: expected a class name on each line, found control characters in line {number}"
            )
    commas = [number for number, line in lines.items() if re.match(r"[0-9]+\s*[,;]", line)]
    if commas and len(commas) >= len(lines) - 1:  # a table, with a header or without
        raise CheckpointError(
            f"{path}: expected `3 Archery` or `Archery` on each line, found {lines[commas[0]]!r} in line {commas[0]}: "
            "number from 1, with a blank after the number and no header, or leave the numbers out"
        )
    return lines


def _in_words(config: STResNetConfig) -> str:
    depths = " and ".join(f"ResNet-{config.depth_of(s)} for {s}" for s in config.streams)
    links = {"add": "links that add", "multiply": "links that multiply", None: "no links"}[config.link]
    if config.link:
        links += f" {config.link_direction.replace('_', ' ')}"
    over_time = {"inflate": "inflated", "inject": "injected", None: "no"}[config.temporal] + " temporal convolutions"
    pool = (
        f"max pool over {config.temporal_pool[0]} steps, stride {config.temporal_pool[1]}"
        if config.temporal_pool
        else ""
    )
    parts = [depths, f"{config.layout} layout", links, over_time, pool, f"{config.num_classes} classes"]
    return ", ".join(part for part in parts if part)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
