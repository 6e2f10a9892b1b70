"""Profile a network: its name, description, number of parameters and FLOPs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stresnet.model.config import LAYERS, Architecture, STResNetConfig

if TYPE_CHECKING:  # networks are named and described without PyTorch
    from torch import nn

    from stresnet.model.network import STResNet


def network_name(config: Architecture) -> str:
    """Return a network's name: `ST-ResNet*-50`, `ST-MulNet-50/152`, `two-stream ResNet-50`, `ResNet-26 (motion)`.

    Anything the papers have no name for is appended: `two-stream ResNet-50 with additive links`.
    """
    depths = dict.fromkeys(config.depth_of(stream) for stream in config.streams)
    depth = "/".join(map(str, depths))
    kinds = {("inflate", "add"): "ST-ResNet", ("inject", "multiply"): "ST-MulNet"}
    temporal = config.temporal if any(map(config.temporal_layers_of, config.streams)) else None
    ways = {"appearance_to_motion": " from appearance to motion", "both": " in both directions"}
    way = ways.get(config.link_direction, "")
    kind = kinds.get((temporal or "", config.link or ""))
    if kind is not None:
        star = "*" if config.temporal_pool is not None and kind == "ST-ResNet" else ""
        return f"{kind}{star}-{depth}{way and f' with links{way}'}"
    parts = [
        {"add": "additive links", "multiply": "multiplicative links"}[config.link] + way if config.link else "",
        {"inflate": "inflated", "inject": "injected"}[temporal] + " temporal convolutions" if temporal else "",
        "a temporal pool" if config.temporal_pool else "",
    ]
    more = " and ".join(part for part in parts if part)
    single = len(config.streams) == 1
    name = f"ResNet-{depth} ({config.streams[0]})" if single else f"two-stream ResNet-{depth}"
    return f"{name} with {more}" if more else name


def describe(config: Architecture) -> dict[str, str]:
    """Return the parts of a network in words: its streams, link, temporal convolutions, temporal pool and layout.

    Parts that the network does not have are left out.
    """
    inputs = {"appearance": "RGB frames", "motion": f"stacks of {config.flow_stack} optical-flow fields"}
    parts = {str(s): f"ResNet-{config.depth_of(s)} over {inputs[s]}" for s in config.streams}
    if config.conv1_channels != config.base_channels:
        parts["stem"] = f"{config.conv1_channels} channels after conv1"
    if len(config.streams) > 1:
        parts["link"] = _link(config)
    if any(map(config.temporal_layers_of, config.streams)):
        parts["temporal convolutions"] = _temporal(config)
    if config.temporal_pool:
        size, stride = config.temporal_pool
        parts["temporal pool"] = f"max over {size} time steps, stride {stride}, before the classifier"
    return parts | {"layout": config.layout}


def _link(config: Architecture) -> str:
    if config.link is None:
        return "none; the logits of the streams are averaged"
    direction = {
        "motion_to_appearance": "from motion to appearance",
        "appearance_to_motion": "from appearance to motion",
        "both": "in both directions",
    }[config.link_direction]
    kind = {"add": "additive", "multiply": "multiplicative"}[config.link]
    scaled = ", scaled by a learned factor per channel" if config.link_scale is not None else ""
    read = ", read after the ReLU" if config.link_form == "residual" else ""
    return f"{kind}, {direction}, at the input of the residual branch of each layer's second unit{read}{scaled}"


def _temporal(config: Architecture) -> str:
    kind = {
        "inflate": "the 1×1 convolutions of second units span three time steps",
        "inject": "second units have a further convolution over three time steps",
        None: "",
    }[config.temporal]
    layers = {s: ", ".join(f"conv{n}_x" for n in config.temporal_layers_of(s)) or "no layer" for s in config.streams}
    if len(set(layers.values())) == 1:
        return f"{kind}, in {next(iter(layers.values()))}"
    return f"{kind}, in " + " and ".join(f"{names} of {stream}" for stream, names in layers.items())


def parameters(module: nn.Module) -> int:
    """Return the number of learned parameters; running moments of batch norm are not counted."""
    return sum(p.numel() for p in module.parameters())


def flops_of(net: STResNet, steps: int, height_px: int, width_px: int) -> int:
    """Return the FLOPs of one forward pass over one clip, counted from shapes alone.

    Two for every multiply-add of convolutions and classifiers; batch norm, ReLU, pools and sums are not counted.

    Args:
        net: the network, on the meta device; unusable afterwards.
        steps: T.
        height_px, width_px: H, W.
    """
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):  # not counted, yet half of the time
                setattr(module, name, nn.Identity())
    rgb = torch.empty(1, 3, steps, height_px, width_px, device="meta")
    flow = torch.empty(1, 2 * net.config.flow_stack, steps, height_px, width_px, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(rgb, flow)
    return int(counter.get_total_flops())


def on_meta(config: STResNetConfig) -> STResNet:
    """Return a network on the meta device, whose weights have shapes but no values."""
    import torch

    from stresnet.model.initialization import without_drawing
    from stresnet.model.network import STResNet

    with torch.device("meta"), without_drawing():
        return STResNet(config).eval()


def temporal_reach_steps(config: Architecture) -> tuple[int, ...]:
    """Return how many time steps one output of conv2_x … conv5_x sees, in the stream that sees most.

    5, 9, 13 and 17 in ST-ResNet: two temporal convolutions in each second unit. A link passes on the reach of the
    stream that it comes from.
    """
    added = {"inflate": 4, "inject": 2}.get(config.temporal or "", 0)
    reach = dict.fromkeys(config.streams, 1)
    widest = []
    for layer in LAYERS:
        linked = {s: max(reach.values()) if config.links_into(s) else reach[s] for s in reach}
        reach = {s: linked[s] + (added if layer in config.temporal_layers_of(s) else 0) for s in reach}
        widest.append(max(reach.values()))
    return tuple(widest)
