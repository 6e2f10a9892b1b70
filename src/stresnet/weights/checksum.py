"""SHA-256 digests: computed, compared with what is expected, and remembered beside the file."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from stresnet.atomic import replacing
from stresnet.errors import DownloadError

LEAST_DIGITS = 8
"""A shorter prefix says too little; torchvision's names carry so many."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits; read only once where it was fetched and is unchanged since."""
    record = Record.read(path)
    return record.sha256 if record else _digest(path)


def normalized(sha256: str) -> str:
    """A digest or its beginning in lower case, or "".

    Raises:
        DownloadError: it is not 8 to 64 hex digits.
    """
    digits = sha256.strip().lower()
    if digits and not re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", digits):
        raise DownloadError(f"sha256: expected {LEAST_DIGITS} to 64 hex digits, found {sha256!r}")
    return digits


def expected_from(name: str) -> str:
    """The beginning of the digest that a file's name promises, such as 0676ba61 of resnet50-0676ba61.pth, or "".

    A run of digits without a letter is taken for a date or a number: of true beginnings, one in forty looks so.
    """
    found = re.search(rf"-([0-9a-f]{{{LEAST_DIGITS},64}})(\.[A-Za-z]\w*)+$", name)
    return found[1] if found and not found[1].isdigit() else ""


def verify(name: str, found: str, expected: str) -> None:
    """Raise a DownloadError unless a digest is, or begins with, the expected one."""
    if not found.startswith(expected):
        raise DownloadError(f"{name}: expected sha256 {expected}, found {found[: max(len(expected), 16)]}")


@dataclass(frozen=True)
class Record:
    """What is known of a fetched file, kept beside it.

    Attributes:
        url: where it came from.
        size: in bytes.
        sha256: of all of it.
        time: when it was fetched, in UTC.
        mtime_ns: of the file; a file that was touched since has to be read again.
    """

    url: str
    size: int
    sha256: str
    time: str
    mtime_ns: int

    @staticmethod
    def place(file: Path) -> Path:
        """Where the record of a file lies."""
        return file.with_name(f"{file.name}.fetched.json")

    @classmethod
    def read(cls, file: Path) -> Record | None:
        """The record of a file, if there is one and it is of the file as it is now."""
        try:
            record = cls(**json.loads(cls.place(file).read_text("utf-8")))
            status = file.stat()
        except (OSError, ValueError, TypeError):
            return None
        return record if (record.size, record.mtime_ns) == (status.st_size, status.st_mtime_ns) else None

    @classmethod
    def make(cls, file: Path, url: str) -> Record:
        """The record of a file that has just arrived, written beside it."""
        status = file.stat()
        fetched = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = cls(url, status.st_size, _digest(file), fetched, status.st_mtime_ns)
        with replacing(cls.place(file)) as temporary:
            temporary.write_text(json.dumps(asdict(record), indent=1), "utf-8")
        return record


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
