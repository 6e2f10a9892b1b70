"""The table of networks, the papers' and the recipes': what each costs, how far it sees in time, what it reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from stresnet.model import Stream, STResNet, STResNetConfig
from stresnet.model.profile import flops_of, on_meta, parameters, temporal_reach_steps
from stresnet.recipes import load_recipe, packaged_recipes

CLASSES = 101
"""Of every row: UCF101's."""


@dataclass(frozen=True)
class Published:
    """What a paper reports, the mean over three splits, top-1 in %.

    Attributes:
        ucf101: on UCF101.
        hmdb51: on HMDB51.
        paper: where.
        recalled: those of the two figures that were recalled from the paper's text and found nowhere else since.
    """

    ucf101: float
    hmdb51: float
    paper: str
    recalled: tuple[str, ...] = ("ucf101", "hmdb51")


NIPS = "NIPS 2016, arXiv 1611.02155"
CVPR = "CVPR 2017"


@dataclass(frozen=True)
class ModelRow:
    """A network and what it costs.

    Attributes:
        name: what it is called.
        config: what it is.
        steps: T, time steps of the clip that `flops` are of.
        side_px: height and width of that clip.
        appearance_parameters: of the appearance stream; 0 where it is switched off.
        motion_parameters: of the motion stream; likewise.
        parameters: of the whole, learned link scales included.
        flops: of one forward pass over one clip: two for every multiply-add of convolutions and classifiers,
            zero padding counted as pixels.
        reach_steps: time steps that one temporal output sees, those beyond the clip's ends counted.
        recipes: the packaged recipes whose last stage trains this network (the number of classes aside).
        published: what the paper reports of it, if it does.
    """

    name: str
    config: STResNetConfig
    steps: int
    side_px: int
    appearance_parameters: int
    motion_parameters: int
    parameters: int
    flops: int
    reach_steps: int
    recipes: tuple[str, ...] = ()
    published: Published | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        published = None if self.published is None else vars(self.published)
        return values | {"config": self.config.to_dict(), "published": published}


@dataclass(frozen=True)
class _Network:
    name: str
    config: STResNetConfig
    steps: int = 5
    side_px: int = 224
    published: Published | None = None


_ST_RESNET = STResNetConfig(num_classes=CLASSES)
_ST_MULNET = _ST_RESNET.replace(temporal="inject", link="multiply", temporal_pool=(5, 1))

_PAPERS = (
    _Network(
        "two-stream fusion",
        _ST_RESNET.replace(temporal=None, link=None),
        published=Published(89.5, 60.6, NIPS),
    ),
    _Network("ST-ResNet-26", _ST_RESNET.replace(depth=26)),
    _Network("ST-ResNet-50", _ST_RESNET, published=Published(92.8, 65.6, NIPS)),
    _Network(
        "ST-ResNet*-50",
        _ST_RESNET.replace(temporal_pool=(5, 2)),
        steps=11,
        published=Published(93.4, 66.4, NIPS, recalled=("hmdb51",)),
    ),
    _Network("ST-ResNet-101", _ST_RESNET.replace(depth=101)),
    _Network("ST-ResNet-152", _ST_RESNET.replace(depth=152)),
    _Network("ST-MulNet-50", _ST_MULNET),
    # As the authors released it: the deep motion stream has temporal convolutions in conv2 and conv5 only.
    _Network(
        "ST-MulNet-50/152",
        _ST_MULNET.replace(layout="caffe", motion_depth=152, motion_temporal_layers=(2, 5)),
        published=Published(94.2, 68.9, CVPR),
    ),
)


def model_table() -> list[ModelRow]:
    """The papers' networks, then those that only a recipe trains; every row is counted, none is looked up."""
    trained = list(_recipe_networks())
    rows = [_row(network, _recipes_of(network, trained)) for network in _PAPERS]
    known = {name for row in rows for name in row.recipes}
    return rows + [_row(network, (network.name,)) for network in trained if network.name not in known]


def _row(network: _Network, recipes: Sequence[str]) -> ModelRow:
    config = network.config
    net = on_meta(config)
    return ModelRow(
        name=network.name,
        config=config,
        steps=network.steps,
        side_px=network.side_px,
        appearance_parameters=_of_stream(net, "appearance"),
        motion_parameters=_of_stream(net, "motion"),
        parameters=parameters(net),
        flops=flops_of(net, network.steps, network.side_px),
        reach_steps=temporal_reach_steps(config)[-1] + (config.temporal_pool[0] - 1 if config.temporal_pool else 0),
        recipes=tuple(recipes),
        published=network.published,
    )


def _of_stream(net: STResNet, stream: Stream) -> int:
    return parameters(net.get_submodule(stream)) if stream in net.config.streams else 0


def _recipe_networks() -> Iterator[_Network]:
    """What the last stage of each packaged recipe trains, under the recipe's name."""
    for name in packaged_recipes():
        recipe = load_recipe(name)
        last = recipe.stages[-1]
        yield _Network(name, last.network.with_classes(CLASSES), last.clips.steps, last.clips.crop_px)


def _recipes_of(network: _Network, trained: Sequence[_Network]) -> tuple[str, ...]:
    return tuple(
        other.name
        for other in trained
        if (_computed(other.config), other.steps, other.side_px)
        == (_computed(network.config), network.steps, network.side_px)
    )


def _computed(config: STResNetConfig) -> STResNetConfig:
    """The config without what only training sees."""
    return config.replace(dropout=0.0, motion_dropout=None, temporal_init="identity")
