"""The table of networks, those of the papers and of the recipes: size, cost, temporal reach, published accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from stresnet.model import Stream, STResNet, STResNetConfig
from stresnet.model.profile import flops_of, on_meta, parameters, temporal_reach_steps
from stresnet.recipes import load_recipe, packaged_recipes

CLASSES = 101
"""Number of classes of every row, that of UCF101."""

SOURCE = "NIPS 2016, arXiv 1611.02155"
"""Where the published accuracies are from."""


@dataclass(frozen=True)
class ModelRow:
    """A network and its cost.

    Attributes:
        name: its name.
        config: its description.
        steps: T, the time steps of the clip to which `flops` refers.
        side_px: height and width of that clip.
        appearance_parameters: number of parameters of the appearance stream; 0 if it is switched off.
        motion_parameters: the same for the motion stream.
        parameters: number of parameters of the network, including learned link scales.
        flops: of a forward pass over one clip: two per multiply-add of convolutions and classifiers, counting zero
            padding as pixels.
        reach_steps: time steps that one temporal output depends on, including those beyond the ends of the clip.
        recipes: the packaged recipes whose last stage trains this network, whatever the number of classes.
        published_ucf101: published top-1 accuracy on UCF101 in %, mean of three splits, if confirmed.
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
    published_ucf101: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON types."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"config": self.config.to_dict(), "recipes": list(self.recipes)}


@dataclass(frozen=True)
class _Network:
    name: str
    config: STResNetConfig
    steps: int = 5
    side_px: int = 224
    published_ucf101: float | None = None


_ST_RESNET = STResNetConfig(num_classes=CLASSES)
_ST_MULNET = _ST_RESNET.replace(temporal="inject", link="multiply", temporal_pool=(5, 1))

_PAPERS = (
    _Network("two-stream fusion", _ST_RESNET.replace(temporal=None, link=None)),
    _Network("ST-ResNet-26", _ST_RESNET.replace(depth=26)),
    _Network("ST-ResNet-50", _ST_RESNET),
    _Network("ST-ResNet*-50", _ST_RESNET.replace(temporal_pool=(5, 2)), steps=11, published_ucf101=93.4),
    _Network("ST-ResNet-101", _ST_RESNET.replace(depth=101)),
    _Network("ST-ResNet-152", _ST_RESNET.replace(depth=152)),
    _Network("ST-MulNet-50", _ST_MULNET),
    # Released code: the deep motion stream has temporal convolutions in conv2 and conv5 only.
    _Network(
        "ST-MulNet-50/152",
        _ST_MULNET.replace(layout="caffe", motion_depth=152, motion_temporal_layers=(2, 5)),
    ),
)


def model_table() -> list[ModelRow]:
    """Return the networks of the papers, then those that only a recipe trains, with all costs counted."""
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
        appearance_parameters=_stream_parameters(net, "appearance"),
        motion_parameters=_stream_parameters(net, "motion"),
        parameters=parameters(net),
        flops=flops_of(net, network.steps, network.side_px, network.side_px),
        reach_steps=temporal_reach_steps(config)[-1] + (config.temporal_pool[0] - 1 if config.temporal_pool else 0),
        recipes=tuple(recipes),
        published_ucf101=network.published_ucf101,
    )


def _stream_parameters(net: STResNet, stream: Stream) -> int:
    return parameters(net.get_submodule(stream)) if stream in net.config.streams else 0


def _recipe_networks() -> Iterator[_Network]:
    """Yield the network that the last stage of each packaged recipe trains, under the recipe's name."""
    for name in packaged_recipes():
        recipe = load_recipe(name)
        last = recipe.stages[-1]
        yield _Network(name, last.network.with_classes(CLASSES), last.clips.steps, last.clips.crop_px)


def _recipes_of(network: _Network, trained: Sequence[_Network]) -> tuple[str, ...]:
    return tuple(
        other.name
        for other in trained
        if (_inference_config(other.config), other.steps, other.side_px)
        == (_inference_config(network.config), network.steps, network.side_px)
    )


def _inference_config(config: STResNetConfig) -> STResNetConfig:
    """Return the config without the fields that matter in training only."""
    return config.replace(dropout=0.0, motion_dropout=None, temporal_init="identity", inflate_init="average")
