"""The registry of flow methods: one file and one entry for each.

Importing it loads neither OpenCV nor PyTorch: methods import what they need when they are first used.
"""

from __future__ import annotations

from stresnet.flow.methods import dis, farneback, motion_vectors, raft, tvl1
from stresnet.flow.methods.method import MIN_SIDE_PX, FlowMethod, PictureEstimator

METHODS: dict[str, FlowMethod] = {
    method.name: method for method in (dis.METHOD, tvl1.METHOD, farneback.METHOD, motion_vectors.METHOD, raft.METHOD)
}
"""All flow methods by name."""


def methods_help() -> str:
    """Return the names and summaries of all methods, for help texts."""
    return ", ".join(f"{method.name} ({method.summary})" for method in METHODS.values())


def presets_help() -> str:
    """Return the presets of the methods that have several, for help texts."""
    several = (method for method in METHODS.values() if len(method.presets) > 1)
    return "; ".join(f"{method.name}: {_choices(method)}" for method in several)


def _choices(method: FlowMethod) -> str:
    return ", ".join(f"{name} (default)" if name == method.default_preset else name for name in method.presets)


__all__ = ["METHODS", "MIN_SIDE_PX", "FlowMethod", "PictureEstimator", "methods_help", "presets_help"]
