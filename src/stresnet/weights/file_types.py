"""What a file holds that cannot be read as its name says: by its first bytes, for an error to say what to do."""

from __future__ import annotations

from pathlib import Path

_KINDS = {
    b"MATLAB ": "it is a MATLAB file: give it the ending .mat",
    b"PK\x03\x04": "it is a zip file, as PyTorch writes: give it the ending .pth, or unpack it",
    b"\x80": "it is a pickle, as PyTorch writes: give it the ending .pth",
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself, with `git lfs pull`",
    b"<!doctype": "it is a web page: download the file itself",
    b"<html": "it is a web page: download the file itself",
}
_OF_ENDING = {".mat": (b"MATLAB ",), ".pth": (b"PK\x03\x04", b"\x80"), ".safetensors": ()}


def advice(path: Path, otherwise: str) -> str:
    """What an unreadable file is and what to do; `otherwise` where it may be what its ending says."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        return otherwise
    if not head:
        return "it is empty: copy or download it again"
    own = _OF_ENDING.get(path.suffix.lower(), _OF_ENDING[".pth"])
    for start, said in _KINDS.items():
        if start not in own and head.lower().startswith(start.lower()):
            return said
    if head[8:10] == b'{"' and path.suffix.lower() != ".safetensors":
        return "it is a safetensors file: give it the ending .safetensors"
    return otherwise
