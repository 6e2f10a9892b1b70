"""The .flo files: known bytes, round trips, unknown vectors, damaged files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stresnet.errors import FlowFileError
from stresnet.flow import read_flo, write_flo

# Two columns, one row: (1, -2), then (0.5, 3). In IEEE 754: 1 = 0x3f800000, -2 = 0xc0000000, 0.5 = 0x3f000000,
# 3 = 0x40400000; the tag 202021.25 = 0x48454950, in bytes PIEH.
KNOWN = bytes.fromhex(
    "50494548 02000000 01000000"  # tag, width 2, height 1
    "0000803f 000000c0 0000003f 00004040"
)


def field(height: int = 5, width: int = 7) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((2, height, width)).astype(np.float32)


def failure(path: Path) -> str:
    with pytest.raises(FlowFileError) as error:
        read_flo(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_reads_and_writes_known_bytes(tmp_path: Path) -> None:
    path = tmp_path / "known.flo"
    path.write_bytes(KNOWN)
    flow = read_flo(path)
    assert flow.dtype == np.float32
    assert flow.flags.c_contiguous
    np.testing.assert_array_equal(flow, [[[1, 0.5]], [[-2, 3]]])
    write_flo(tmp_path / "ours.flo", flow)
    assert (tmp_path / "ours.flo").read_bytes() == KNOWN


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (7, 5), (64, 3)])
def test_round_trip_is_exact(tmp_path: Path, size: tuple[int, int]) -> None:
    flow = field(*size)
    flow.flat[0] = -0.0
    flow.flat[-1] = 1e9  # the largest known value
    write_flo(tmp_path / "a.flo", flow)
    assert read_flo(tmp_path / "a.flo").tobytes() == flow.tobytes()
    assert os.listdir(tmp_path) == ["a.flo"]


def test_pixels_are_stored_row_by_row_from_the_top(tmp_path: Path) -> None:
    flow = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    write_flo(tmp_path / "a.flo", flow)
    values = struct.unpack("<fii12f", (tmp_path / "a.flo").read_bytes())
    assert values[:3] == (202021.25, 3, 2)
    assert values[3:] == (0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11)  # u, v of each pixel in turn


def test_strided_views_are_written_in_their_order(tmp_path: Path) -> None:
    flow = field()
    write_flo(tmp_path / "a.flo", flow[:, ::-1, ::2])
    np.testing.assert_array_equal(read_flo(tmp_path / "a.flo"), flow[:, ::-1, ::2])


@pytest.mark.parametrize("value", [1.1e9, -1.1e9, 1e10, float("inf"), float("nan")])
def test_unknown_flow_is_nan(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.flo"
    path.write_bytes(KNOWN[:12] + struct.pack("<4f", 1, value, 0.5, 3))
    np.testing.assert_array_equal(read_flo(path), [[[np.nan, 0.5]], [[np.nan, 3]]])


def test_nan_is_written_as_middleburys_unknown_value(tmp_path: Path) -> None:
    flow = field(2, 2)
    flow[0, 1, 0] = np.nan  # one NaN component makes the vector unknown
    before = flow.copy()
    write_flo(tmp_path / "a.flo", flow)
    np.testing.assert_array_equal(flow, before)  # the argument is not modified
    u, v = struct.unpack_from("<2f", (tmp_path / "a.flo").read_bytes(), 12 + 8 * 2)
    assert u == v == pytest.approx(1e10)
    assert np.isnan(read_flo(tmp_path / "a.flo")).sum() == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a .flo file"),
        (b"PNG data", "found b'PNG '"),
        (b"HEIP" + KNOWN[4:], "big-endian"),
        (KNOWN[:9], "expected a header of 12 bytes, found 9"),
        (KNOWN[:12], "2x1 vectors take 28 bytes, found 12"),
        (KNOWN[:-1], "is truncated: 2x1 vectors take 28 bytes, found 27"),
        (KNOWN + b"\0", "has bytes after its end: 2x1 vectors take 28 bytes, found 29"),
        (KNOWN[:4] + struct.pack("<ii", 0, 5), "found 0x5"),
        (KNOWN[:4] + struct.pack("<ii", 5, -1), "found 5x-1"),
        (KNOWN[:4] + struct.pack("<ii", 2**31 - 1, 2**31 - 1), "found 2147483647x2147483647"),
        (KNOWN[:4] + struct.pack(">ii", 2, 1), "found 33554432x16777216"),
        (KNOWN[:4] + struct.pack("<ii", 99_999, 99_999), "is truncated"),  # before 80 GB are allocated
    ],
)
def test_damaged_files_raise_one_line_with_the_reason(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.flo").write_bytes(content)
    assert words in failure(tmp_path / "a.flo")


def test_a_missing_file_or_a_folder_raises(tmp_path: Path) -> None:
    assert "No such file" in failure(tmp_path / "no.flo")
    assert "directory" in failure(tmp_path)


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (np.zeros((3, 4, 2), np.float32), "found (3, 4, 2) float32"),
        (np.zeros((2, 4, 3)), "found (2, 4, 3) float64"),
        (np.zeros((2, 0, 3), np.float32), "found (2, 0, 3)"),
        (np.zeros((1, 2, 4, 3), np.float32), "found (1, 2, 4, 3)"),
        (np.full((2, 4, 3), np.inf, np.float32), "use NaN"),
        (np.full((2, 4, 3), -2e9, np.float32), "beyond ±1e+09 px"),
    ],
)
def test_flow_that_the_format_cannot_hold_raises(tmp_path: Path, flow: NDArray[np.float32], words: str) -> None:
    with pytest.raises(FlowFileError) as error:
        write_flo(tmp_path / "a.flo", flow)
    assert words in str(error.value)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FlowFileError, match=r"no/a.flo: cannot be written \(No such file or directory\)"):
        write_flo(tmp_path / "no" / "a.flo", field())
    write_flo(tmp_path / "a.flo", field())
    before = (tmp_path / "a.flo").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FlowFileError, match=r"a.flo: cannot be written \(No space left on device\)"):
        write_flo(tmp_path / "a.flo", 2 * field())
    assert (tmp_path / "a.flo").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.flo"]


def full(path: Path, data: bytes) -> int:
    with open(path, "wb") as file:
        file.write(data[:10])
    raise OSError(28, "No space left on device")
