"""SHA-256 digests of files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from stresnet.errors import DownloadError


def sha256_of(path: Path) -> str:
    """Return the SHA-256 digest of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def normalized(sha256: str) -> str:
    """Return a digest or a prefix of one in lower case; raise a DownloadError unless it is "" or 8 to 64 hex digits."""
    digits = sha256.strip().lower()
    if digits and not re.fullmatch(r"[0-9a-f]{8,64}", digits):
        raise DownloadError(f"sha256: expected 8 to 64 hex digits, found {sha256!r}")
    return digits


def in_name(name: str) -> str:
    """Return the digest prefix in a file's name, such as 0676ba61 in resnet50-0676ba61.pth, or "".

    Digits without a letter are taken for a date or a number; about one true prefix in forty has no letter.
    """
    found = re.search(r"-([0-9a-f]{8,64})(\.[A-Za-z]\w*)+$", name)
    return found[1] if found and not found[1].isdigit() else ""
