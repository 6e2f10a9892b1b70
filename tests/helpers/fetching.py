"""Data and errors for tests of fetching."""

from __future__ import annotations

import hashlib
import random

import pytest

from stresnet.errors import DownloadError
from stresnet.weights.fetch import fetch

DATA = random.Random(1).randbytes(3_000_000)
OTHER = random.Random(2).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


def fetch_error(source: str, **options: object) -> str:
    """Return the one-line error of fetching."""
    with pytest.raises(DownloadError) as caught:
        fetch(source, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)
