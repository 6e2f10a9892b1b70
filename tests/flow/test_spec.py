"""The flow specification: validation, digests, serialisation."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from stresnet.errors import FlowSpecError
from stresnet.flow import FlowSpec
from stresnet.flow.methods import METHODS

ALL_SPECS = [FlowSpec(method.name, preset) for method in METHODS.values() for preset in method.presets]


def name(spec: FlowSpec) -> str:
    return f"{spec.method}-{spec.preset}"


def test_every_field_changes_the_digest() -> None:
    spec = FlowSpec()
    others = [
        replace(spec, preset="fast"),
        replace(spec, method="tvl1", preset=""),
        replace(spec, method="farneback", preset=""),
        replace(spec, short_side=128),
        replace(spec, bound_px=15.0),
        replace(spec, subtract_median=True),
    ]
    names = {"method", "preset", "short_side", "bound_px", "subtract_median"}
    assert {field.name for field in fields(spec)} == names
    digests = {spec.digest(), *(other.digest() for other in others)}
    assert len(digests) == 7
    assert all(len(digest) == 12 and set(digest) <= set("0123456789abcdef") for digest in digests)


def test_a_parameter_of_the_preset_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = FlowSpec().digest()
    presets = METHODS["dis"].presets
    monkeypatch.setitem(presets, "medium", {**presets["medium"], "patch_stride": 4})
    assert FlowSpec().digest() != before


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        (FlowSpec(), "32861cae4871"),
        (FlowSpec(preset="ultrafast"), "403cae4ee018"),
        (FlowSpec(preset="fast"), "31484c12e3e3"),
        (FlowSpec("tvl1"), "0a65208f1d80"),
        (FlowSpec("farneback"), "a46f06d90e9f"),
        (FlowSpec(short_side=128, bound_px=10), "e435fafa8d60"),
        (FlowSpec("tvl1", "fast"), "20765da8da51"),
        (FlowSpec("mv"), "f10518aeff2e"),
        (FlowSpec("raft"), "5f644760fdd1"),
        (FlowSpec("raft", "small"), "87bb0250cf24"),
        (FlowSpec(subtract_median=True), "ccbb6cdb9987"),
    ],
)
def test_digests_are_those_of_existing_stores(spec: FlowSpec, digest: str) -> None:
    """Prepared stores and checkpoints hold the digest. A change would make them unusable."""
    assert spec.digest() == digest
    assert FlowSpec(bound_px=20).digest() == FlowSpec(bound_px=20.0).digest()


def test_the_default_preset_depends_on_the_method() -> None:
    assert FlowSpec().preset == "medium"
    assert FlowSpec("tvl1").preset == "default"
    assert FlowSpec("farneback") == FlowSpec("farneback", "default")
    assert FlowSpec("mv").preset == "default"
    assert FlowSpec("raft").preset == "large"
    assert [spec.method for spec in ALL_SPECS if spec.from_codec] == ["mv"]


@pytest.mark.parametrize("spec", ALL_SPECS, ids=name)
def test_a_round_trip_through_a_dict_is_exact(spec: FlowSpec) -> None:
    spec = replace(spec, short_side=112, bound_px=8.5)
    assert FlowSpec.from_dict(spec.to_dict()) == spec
    assert set(spec.to_dict()) == {"method", "preset", "short_side", "bound_px"}  # the fields of the first version
    spec = replace(spec, subtract_median=True)
    assert FlowSpec.from_dict(spec.to_dict()) == spec
    assert spec.to_dict()["subtract_median"] is True
    assert "median subtracted" in str(spec)
    assert FlowSpec.from_dict({"method": spec.method, "preset": spec.preset}).short_side == 256


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"methid": "dis"}, "'methid'"),
        ({"method": "brox"}, "dis, tvl1, farneback, mv, raft"),
        ({"preset": "default"}, "ultrafast, fast, medium"),
        ({"method": "tvl1", "preset": "medium"}, "expected one of default"),
        ({"short_side": 31}, "at least 32"),
        ({"short_side": 256.0}, "whole number"),
        ({"short_side": True}, "whole number"),
        ({"bound_px": 0}, "above 0"),
        ({"bound_px": float("nan")}, "above 0"),
        ({"bound_px": "20"}, "above 0"),
        ({"subtract_median": 1}, "true or false"),
        ({"method": "raft", "preset": "medium"}, "expected one of large, small"),
        ({"method": ["dis"]}, "unknown flow method ['dis']"),
        ({"preset": {}}, "unknown flow preset {}"),
    ],
)
def test_invalid_specifications_raise(values: dict[str, object], words: str) -> None:
    with pytest.raises(FlowSpecError) as error:
        FlowSpec.from_dict(values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_require_same_prints_both_specifications() -> None:
    FlowSpec().require_same(FlowSpec.from_dict(FlowSpec().to_dict()), "the model and the store")
    with pytest.raises(FlowSpecError) as error:
        FlowSpec().require_same(FlowSpec("tvl1", short_side=128), "the model and the store")
    message = str(error.value)
    assert "the model and the store" in message
    assert "dis/medium short_side=256" in message
    assert "tvl1/default short_side=128" in message
    assert "\n" not in message
