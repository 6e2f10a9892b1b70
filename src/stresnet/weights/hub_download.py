"""Models on the Hugging Face hub, by its own client, which keeps them in its own cache."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from stresnet.errors import DownloadError
from stresnet.weights.download import Progress, UnreachableError
from stresnet.weights.opening import reason

TIMEOUT_SEC = 15.0
_NAME = re.compile(
    r"(?:hf://)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>[^@]+))?(?:@(?P<last>.+))?",
)


@dataclass(frozen=True)
class HubName:
    """What of the hub is meant.

    Attributes:
        repo: owner/name.
        file: in that repository; "" for its weights.
        revision: branch, tag or commit; None for the newest.
    """

    repo: str
    file: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, source: str) -> HubName | None:
        """The parts of `[hf://]owner/name[/file][@revision]`, or None where it is another kind of URL.

        Raises:
            DownloadError: it begins with hf:// and goes on otherwise.
        """
        found = _NAME.fullmatch(source)
        if found:
            return cls(found["repo"], found["file"] or "", found["revision"] or found["last"])
        if source.startswith("hf://"):
            raise DownloadError(f"{source}: expected hf://owner/name[/file][@revision]")
        return None

    def __str__(self) -> str:
        return self.repo + (f"/{self.file}" if self.file else "") + (f"@{self.revision}" if self.revision else "")


def fetch_from_hub(name: HubName, cache: Path | None, progress: Progress | None = None) -> Path:
    """The local copy of a file on the hub, or of a repository's weights; an older copy where there is no network.

    Args:
        name: what is meant.
        cache: its copies lie in `hub` below this folder; None for the hub's own cache.
        progress: told bytes done, and bytes in all.

    Raises:
        DownloadError: there is no such repository, revision or file, or it may not be read.
        UnreachableError: the hub does not answer, and no copy is here.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    place = str(cache.expanduser() / "hub") if cache else os.environ.get("HF_HUB_CACHE")
    endpoint = _endpoint()
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return _copy_of(name, place, "HF_HUB_OFFLINE is set")
    try:
        # Asked first, even where the file is named: this fails at once where there is no network, and the download
        # only after half a minute of tries.
        listing = HfApi(endpoint).model_info(name.repo, revision=name.revision, timeout=TIMEOUT_SEC)
        file = _choose(name, [s.rfilename for s in listing.siblings or []])
        bar = _forwarding(progress)
        path = hf_hub_download(
            name.repo, file, revision=name.revision, endpoint=endpoint, cache_dir=place, tqdm_class=bar
        )
        return Path(path)
    except HFValidationError as error:
        raise DownloadError(f"{name}: no name on the hub ({reason(error)})") from error
    except HfHubHTTPError as error:
        if error.response.status_code < 500 and error.response.status_code != 429:
            _refuse(name, error, endpoint)
        return _copy_of(name, place, f"{endpoint} answers with status {error.response.status_code}")
    except _transport_errors() as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DownloadError(f"{name}: no space left on the disk; set HF_HOME to a folder with more") from error
        return _copy_of(name, place, f"cannot reach {endpoint} ({reason(error)})")


def _transport_errors() -> tuple[type[Exception], ...]:
    """What a broken transfer may raise; the hub's client passes on errors of the HTTP library that its version uses."""
    from huggingface_hub.errors import HfHubHTTPError

    http = tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return OSError, RuntimeError, *http


def _endpoint() -> str:
    """As the hub's client has it; but that reads the variable only once, when it is loaded."""
    from huggingface_hub.constants import ENDPOINT

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT


def _choose(name: HubName, files: Sequence[str]) -> str:
    """The file that is meant: the one named, model.safetensors, or the only one of weights."""
    if name.file in files:
        return name.file
    weights = [f for f in files if f.lower().endswith((".safetensors", ".bin", ".pth", ".pt", ".mat"))]
    if name.file:
        raise DownloadError(f"{name}: no such file in {name.repo}; its weights: {', '.join(weights) or 'none'}")
    safe = [f for f in weights if f.lower().endswith(".safetensors")]
    for candidates in (["model.safetensors"], safe, ["pytorch_model.bin"], weights):
        if len(there := [f for f in candidates if f in weights]) == 1:
            return there[0]
    if not weights:
        raise DownloadError(f"{name}: expected a file of weights in this repository, found none")
    raise DownloadError(
        f"{name}: expected one file of weights, found {', '.join(weights)}; name one: hf://{name.repo}/{weights[0]}"
    )


def _copy_of(name: HubName, place: str | None, why: str) -> Path:
    """The copy from an earlier time, of the same revision."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name.repo, revision=name.revision, cache_dir=place, local_files_only=True))
        files = [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()]
        return folder / _choose(name, files)
    except (LocalEntryNotFoundError, DownloadError):
        raise UnreachableError(f"{name}: {why}, and no copy of it is here") from None


def _refuse(name: HubName, error: Any, endpoint: str) -> NoReturn:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status, login = error.response.status_code, "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, GatedRepoError):
        why = f"the repository is gated; accept its terms at {endpoint}/{name.repo}, then {login}"
    elif isinstance(error, RevisionNotFoundError):
        why = f"the repository has no revision {name.revision}"
    elif isinstance(error, RepositoryNotFoundError):
        why = f"no such repository on the hub, or a private one ({status}); check the name, or {login}"
    elif status in (401, 403):
        why = f"the hub refuses access ({status}); {login}"
    else:
        why = f"the hub answers with status {status} for {error.response.url}"
    raise DownloadError(f"{name}: {why}") from error


def _forwarding(progress: Progress | None) -> Any:
    """A class of progress bars for the hub's client that prints nothing, and tells `progress` instead."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Forwarding(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if progress:
                progress(int(self.n), int(self.total or 0))

        def update_transfer(self, n: float) -> None:
            """Bytes on the wire, of which the client has a second bar where a class lacks this; not shown."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            """Likewise."""

    return Forwarding
