"""The .mat format: files that are not MatConvNet nets, and the variants of how MATLAB stores values."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from helpers.matconvnet_nets import CONFIGS, a_net, change, insert, randomized, the, to_dagnn, write_dagnn
from stresnet.errors import CheckpointError
from stresnet.weights.matconvnet import read_matconvnet
from stresnet.weights.matconvnet.dagnn import Layer
from stresnet.weights.matconvnet.mat5 import MatFile
from stresnet.weights.matconvnet.read import from_dagnn

# ---- other files


def write_plain(path: Path, **variables: Any) -> Path:
    savemat(path, variables)
    return path


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file at .*absent\.mat: expected a MatConvNet \.mat file"):
        read_matconvnet(tmp_path / "absent.mat")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_matconvnet(tmp_path)


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a MATLAB 5 .mat file"),
        (b"PK\x03\x04" + bytes(200), "is not a MATLAB 5 .mat file"),
        (b"MATLAB 7.3 MAT-file, Platform".ljust(512, b" ") + b"\x89HDF\r\n\x1a\n", r"save\(file,'-struct','net'"),
        (b"\x89HDF\r\n\x1a\n" + bytes(900), "is a MATLAB 7.3 file"),
        (b"MATLAB 5.0 MAT-file", "is truncated"),
        (HEADER, "contains no DagNN .* nothing, perhaps truncated"),
        (HEADER + b"\xff" * 64, "is truncated"),
        (HEADER + b"\x0f\0\0\0\x40\0\0\0" + bytes(64), "is truncated or damaged"),
    ],
)  # fmt: skip
def test_other_files_raise(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.mat"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_matconvnet(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_files_raise(compressed: bool, tmp_path: Path) -> None:
    write_dagnn(tmp_path / "whole.mat", a_net("appearance"))
    if compressed:
        raw = {k: v for k, v in loadmat(tmp_path / "whole.mat").items() if not k.startswith("_")}
        for record in raw["layers"].flat:
            if record["block"].dtype.names is None:  # SciPy reads a struct without fields as something else
                record["block"] = {}
        savemat(tmp_path / "whole.mat", raw, do_compression=True)
    assert read_matconvnet(tmp_path / "whole.mat").config == CONFIGS["appearance"]
    content = (tmp_path / "whole.mat").read_bytes()
    rng = np.random.default_rng(0)
    lengths = {0, 1, 100, 128, 129, 136, len(content) - 1, *map(int, rng.integers(0, len(content), 60))}
    for length in lengths:
        (tmp_path / "cut.mat").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"truncated|not a MATLAB 5"):
            read_matconvnet(tmp_path / "cut.mat")


def test_error_lists_other_variables(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "imdb.mat", images=np.zeros((2, 3)), classes={"name": "x"})
    with pytest.raises(CheckpointError, match=r"no DagNN .*images \(double 2×3\), classes \(struct 1×1\): expected"):
        read_matconvnet(path)
    path = write_plain(tmp_path / "net.mat", net={"layers": np.zeros((0, 0))})
    with pytest.raises(CheckpointError, match="contains no DagNN"):
        read_matconvnet(path)


@pytest.mark.parametrize("inside", [False, True])
def test_simple_nets_raise(inside: bool, tmp_path: Path) -> None:
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = {"type": "conv"}, {"type": "relu"}
    content = {"layers": cell, "meta": {"a": 1.0}}
    path = write_plain(tmp_path / "simple.mat", **({"net": content} if inside else content))
    with pytest.raises(CheckpointError, match=r"SimpleNN.*dagnn\.DagNN\.fromSimpleNN"):
        read_matconvnet(path)


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def test_matlab_objects_raise(tmp_path: Path) -> None:
    """Read a DagNN that `save file net` wrote: an object, not a struct."""
    flags = element(6, struct.pack("<II", 17, 0))
    names = b"".join(element(1, text) for text in (b"net", b"MCOS", b"dagnn.DagNN"))
    inner = element(6, struct.pack("<II", 13, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"")
    inner += element(6, struct.pack("<I", 7))
    path, thing = tmp_path / "object.mat", element(14, flags + names + element(14, inner))
    path.write_bytes(HEADER + thing)
    with pytest.raises(CheckpointError, match=r"contains a MATLAB object.*net\.saveobj\(\)"):
        read_matconvnet(path)
    write_dagnn(tmp_path / "net.mat", a_net())  # a net beside it is still read
    path.write_bytes(HEADER + thing + (tmp_path / "net.mat").read_bytes()[128:])
    assert read_matconvnet(path).config == CONFIGS["st-resnet"]


# ---- variants of storage


def test_net_may_be_nested_and_have_unknown_fields(tmp_path: Path) -> None:
    net = a_net("st-mulnet")
    write_dagnn(tmp_path / "flat.mat", net)
    raw = {k: v for k, v in loadmat(tmp_path / "flat.mat", mat_dtype=True).items() if not k.startswith("_")}
    for record in raw["layers"].flat:
        if record["block"].dtype.names is None:
            record["block"] = {}
    raw["unheard"] = {"of": 1.0}
    state = {"layers": np.zeros((1, 1))}
    savemat(tmp_path / "nested.mat", {"net": raw, "state": state, "stats": np.zeros((2, 2))}, do_compression=True)
    nested, flat = read_matconvnet(tmp_path / "nested.mat"), read_matconvnet(tmp_path / "flat.mat")
    assert nested.config == flat.config
    for key, value in flat.weights.items():
        assert torch.equal(nested.weights[key], value), key


def test_shorthands_and_defaults_are_understood() -> None:
    net = a_net("st-mulnet")
    expected = from_dagnn(a_net("st-mulnet"))
    change(net, "conv1_spatial", pad=3.0, stride=2.0, hasBias=1.0, dilate=1.0)
    change(net, "conv1_temporal", pad=(3.0, 3.0), dilate=(1.0, 1.0))
    change(net, "res2a_branch2a_spatial", pad=0.0, stride=1.0, hasBias=0.0, opts=["cuDNN"])
    change(net, "pool5_spatial", block={"poolSize": 7.0, "method": "avg", "opts": ["CuDNN"]})
    change(net, "bn_conv1_spatial", block={})
    change(net, "res2a_relu_spatial", block={"leak": 0.0, "opts": []})
    net.params["conv1_bias_spatial"] = net.params["conv1_bias_spatial"].reshape(1, -1)
    net.params["bn_conv1_mult_spatial"] = net.params["bn_conv1_mult_spatial"].reshape(1, 1, -1)
    net.params["conv1_bias_temporal"] = net.params["conv1_bias_temporal"].astype(np.float64)
    found = from_dagnn(net)
    assert found == replace(expected, weights=found.weights)
    for key, value in expected.weights.items():
        assert torch.equal(found.weights[key], value), key


def test_missing_trailing_axes(tmp_path: Path) -> None:
    """MATLAB keeps no trailing axes of length 1: with one class, the classifier's filter is (1,1,in)."""
    config = CONFIGS["appearance"].replace(num_classes=1)
    model = randomized(config)
    net = to_dagnn(model)
    net.params["fc1000_filter"] = net.params["fc1000_filter"][..., 0]
    change(net, "fc1000", size=(1.0, 1.0, 128.0))
    write_dagnn(tmp_path / "one.mat", net)
    found = read_matconvnet(tmp_path / "one.mat")
    assert found.config == config
    assert torch.equal(found.weights["appearance.fc.weight"], model.state_dict()["appearance.fc.weight"])


def test_stale_sizes_of_blocks_are_noted() -> None:
    """The authors' scripts replace filters without updating the block; the toolbox uses the filter."""
    net = a_net()
    change(net, "conv1_temporal", size=(7.0, 7.0, 3.0, 4.0))
    change(net, "prediction_spatial", size=(1.0, 1.0, 128.0, 1000.0))
    found = from_dagnn(net)
    assert found.config == CONFIGS["st-resnet"]
    assert "conv1_temporal declares 7×7×3×4 but has a filter of 7×7×20×4, which was used" in found.notes
    assert any("prediction_spatial declares 1×1×128×1000" in note for note in found.notes)


def test_doubles_are_rounded_with_a_note() -> None:
    net = a_net()
    net.params["conv1_bias_spatial"] = net.params["conv1_bias_spatial"].astype(np.float64) + 1e-12
    assert "rounded to single precision: conv1_bias_spatial" in from_dagnn(net).notes


def test_epsilon_of_the_file_is_noted() -> None:
    net = a_net()
    change(net, "bn_conv1_spatial", epsilon=1e-4)
    assert any("0.0001" in note and "1e-05" in note for note in from_dagnn(net).notes)


# ---- ignored with a note


def test_layers_after_the_logits_are_ignored() -> None:
    net = a_net()
    insert(net, Layer("prob_spatial", "dagnn.SoftMax", ("prediction_spatial",), ("prob_spatial",)))
    insert(net, Layer("loss2", "dagnn.Loss", ("prob_spatial", "label"), ("o",), (), {"loss": "log"}))
    for suffix in ("_spatial", "temporal"):  # the authors' code gives both the same output
        classifier = f"prediction_{suffix.strip('_')}"
        block = {"loss": "classerror"}
        insert(net, Layer(f"err1_{suffix}", "dagnn.Loss", (classifier, "label"), ("error",), (), block))
    insert(net, Layer("smooth", "dagnn.LossSmoothL1", ("prediction_spatial", "prediction_temporal"), ("s",)))
    found = from_dagnn(net)
    assert found.config == CONFIGS["st-resnet"]
    (note,) = found.notes
    for name in ("prob_spatial (dagnn.SoftMax)", "loss2 (log)", "err1__spatial (classerror)", "smooth (dagnn.Loss"):
        assert name in note


def test_dropout_of_rate_zero_is_ignored() -> None:
    net = a_net()
    insert(
        net, Layer("drop1", "dagnn.DropOut", ("pool5_spatial",), ("d1",), (), {"rate": 0.0}), between="pool5_spatial"
    )
    insert(net, Layer("drop2", "dagnn.DropOut", ("d1",), ("d2",), (), {"rate": 0.0}), between="d1")
    found = from_dagnn(net)
    assert found.config == CONFIGS["st-resnet"]
    assert "ignored drop1 (dagnn.DropOut of rate 0)" in found.notes


@pytest.mark.parametrize("listed", [False, True])
def test_missing_bias_is_zero(listed: bool) -> None:
    """Caffe's ResNet-101 and -152 have no bias in conv1; the toolbox ignores one that is listed."""
    net = a_net("st-mulnet")
    expected = from_dagnn(a_net("st-mulnet")).weights
    for layer in ("conv1_spatial", "prediction_temporal", "res3b_branch2b_relu_temporal_Time"):
        filters, bias = net.layers[the(net, layer)].params
        change(net, layer, hasBias=0.0, params=(filters, bias) if listed else (filters,))
        if not listed:
            del net.params[bias]
    found = from_dagnn(net)
    zero = {"appearance.conv1.bias", "motion.fc.bias", "motion.layer2.1.temporal.bias"}
    assert {key for key, value in found.weights.items() if not torch.equal(value, expected[key])} == zero
    assert not any(found.weights[key].any() for key in zero)
    assert "conv1_spatial has no bias: conv1_bias_spatial is zero" in found.notes


def test_scale_without_bias_is_read() -> None:
    net = a_net("scaled both ways")
    for layer in (2, 3, 4, 5):
        name = f"res{layer}a_relu_spatial_scale"
        change(net, name, hasBias=False, params=(f"{name}_f",))
        del net.params[f"{name}_b"]
    net.params["res2a_relu_temporal_scale_b"] = np.zeros((1, 1), np.float32)
    found = from_dagnn(net)
    factor = a_net("scaled both ways").params["res3a_relu_spatial_scale_f"]
    np.testing.assert_array_equal(found.weights["links.appearance.1.scale"].flatten(), factor.flatten())


# ---- the format, against SciPy's reader


def as_scipy(value: Any) -> Any:
    """Convert a value that SciPy read to what `mat5` returns."""
    if isinstance(value, np.ndarray) and value.dtype.names is not None:
        records = tuple({n: as_scipy(record[n]) for n in value.dtype.names} for record in value.ravel(order="F"))
        return records[0] if len(records) == 1 else records
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [as_scipy(item) for item in value.ravel(order="F")]
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        rows = [str(row) for row in value.ravel()]
        return rows[0] if len(rows) == 1 else rows or ""
    return value


def assert_equal(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs), (ours, theirs)
    if isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, strict=True)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key, value in ours.items():
            assert_equal(value, theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
    else:
        assert ours == theirs


@pytest.mark.parametrize("compressed", [False, True])
def test_values_are_read_as_scipy_reads_them(compressed: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cell = np.empty((2, 2), object)
    cell[:] = [["a", np.zeros((0, 3))], [{"deep": {"x": 1.0, "y": "ü🐻"}}, np.arange(3.0)[None]]]
    records = np.empty((1, 3), [("name", object), ("v", object)])
    for index in range(3):
        records[0, index] = (f"n{index}", rng.standard_normal((2, index, 2)))
    values: dict[str, Any] = {name: rng.integers(0, 100, (2, 3, 2)).astype(name) for name in (
        "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bool"
    )}  # fmt: skip
    values |= {"cell": cell, "records": records, "rows": np.array(["ab ", "cde"]), "empty": "", "inf": np.inf}
    savemat(tmp_path / "values.mat", values, do_compression=compressed)
    theirs = loadmat(tmp_path / "values.mat", mat_dtype=True)
    file = MatFile(tmp_path / "values.mat")
    assert list(file.variables) == list(values)
    for name in values:
        assert_equal(file[name], as_scipy(theirs[name]))


def test_what_decompresses_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savemat(tmp_path / "bomb.mat", {"net": {"zeros": np.zeros((1000, 1000))}}, do_compression=True)
    assert (tmp_path / "bomb.mat").stat().st_size < 20_000
    assert MatFile(tmp_path / "bomb.mat")["net"]["zeros"].size == 10**6
    monkeypatch.setattr("stresnet.weights.matconvnet.mat5.MOST_BYTES", 1 << 20)
    with pytest.raises(CheckpointError, match=r"a compressed variable of more than 1 MB"):
        MatFile(tmp_path / "bomb.mat")["net"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_compact_storage_and_byte_order(order: str, tmp_path: Path) -> None:
    """Integers of class double stored as bytes, as MATLAB does; names within tags; either byte order."""

    def part(kind: int, content: bytes) -> bytes:
        if 0 < len(content) <= 4:
            tag = struct.pack(f"{order}I", len(content) << 16 | kind)
            return tag + content.ljust(4, b"\0")
        return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)

    def matrix(what: int, name: bytes, content: bytes) -> bytes:
        head = part(6, struct.pack(f"{order}II", what, 0)) + part(5, struct.pack(f"{order}ii", 1, 3))
        body = head + part(1, name) + content
        return struct.pack(f"{order}II", 14, len(body)) + body

    header = b"MATLAB 5.0 MAT-file".ljust(124) + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI")
    path = tmp_path / "compact.mat"
    path.write_bytes(
        header
        + matrix(6, b"d", part(2, bytes((1, 2, 3))))
        + matrix(7, b"a_longer_name", part(3, struct.pack(f"{order}hhh", -1, 0, 300)))
        + matrix(7, b"s", part(7, struct.pack(f"{order}fff", 0.5, 1, 2)))
        + matrix(4, b"t", part(4, "aü→".encode("utf-16-le" if order == "<" else "utf-16-be")))
    )
    file = MatFile(path)
    np.testing.assert_array_equal(file["d"], np.array([[1.0, 2.0, 3.0]]), strict=True)
    np.testing.assert_array_equal(file["a_longer_name"], np.array([[-1, 0, 300]], np.float32), strict=True)
    np.testing.assert_array_equal(file["s"], np.array([[0.5, 1, 2]], np.float32), strict=True)
    assert file["t"] == "aü→"


def test_damage_never_crashes(tmp_path: Path) -> None:
    """One flipped bit in the layers raises a CheckpointError or changes a value; it never raises anything else."""
    path = tmp_path / "net.mat"
    write_dagnn(path, a_net("appearance"))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    lines = []
    for at in rng.integers(128, 60_000, 200):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_matconvnet(path)
        except CheckpointError as error:
            lines.append(str(error))
    assert len(lines) > 50
    assert not any("\n" in line for line in lines)
