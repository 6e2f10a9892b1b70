"""Tell by its header whether a file is encrypted, where FFmpeg only finds it damaged."""

from __future__ import annotations

from pathlib import Path

DECRYPT = "encrypted; decrypt it with the program that it is meant for"
"""What is wrong with an encrypted file, and what to do."""

_HEADER_BYTES = 1 << 16
_TS_PACKET = 188
_ASF = bytes.fromhex("3026B2758E66CF11A6D900AA0062CE6C")
_ASF_ENCRYPTION = tuple(
    map(bytes.fromhex, ("FBB3112223BDD211B4B700A0C955FC6E", "14E68A292226174CB935DAE07EE9289C"))  # and extended
)


def is_encrypted(path: Path) -> bool:
    """Return whether a WMV file has protected content, or most packets of a transport stream are scrambled."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if header.startswith(_ASF):
        size = int.from_bytes(header[16:24], "little")
        return any(mark in header[:size] for mark in _ASF_ENCRYPTION)
    marks = header[: -_TS_PACKET + 1 : _TS_PACKET]
    if marks and set(marks) == {0x47}:
        flags = header[3::_TS_PACKET][: len(marks)]
        return 2 * sum(flag >> 7 for flag in flags) > len(flags)
    return False
