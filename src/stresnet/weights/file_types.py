"""Identify a mislabelled file by its magic bytes."""

from __future__ import annotations

from pathlib import Path

_MAGIC = {
    b"matlab ": "it is a MATLAB file: rename it to end in .mat",
    b"pk\x03\x04": "it is a zip file, as PyTorch writes: rename it to end in .pth, or unpack it",
    b"\x80": "it is a pickle, as PyTorch writes: rename it to end in .pth",
    b"version https://git-lfs": "it is a Git LFS pointer: fetch the file itself with `git lfs pull`",
    b"<!doctype": "it is a web page: download the file itself",
    b"<html": "it is a web page: download the file itself",
}
_EXPECTED = {".mat": (b"matlab ",), ".safetensors": ()}


def explain(path: Path, default: str) -> str:
    """Return why a file cannot be read and what to do, from its first bytes; `default` if they match its ending."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        return default
    if not head:
        return "it is empty: copy or download it again"
    ending = path.suffix.lower()
    for magic, explanation in _MAGIC.items():
        if head.lower().startswith(magic) and magic not in _EXPECTED.get(ending, (b"pk\x03\x04", b"\x80")):
            return explanation
    if head[8:10] == b'{"' and ending != ".safetensors":
        return "it is a safetensors file: rename it to end in .safetensors"
    return default
