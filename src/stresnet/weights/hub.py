"""The client of the Hugging Face hub: download files, publish models.

A published model is three files: `model.safetensors`, the checkpoint, which alone is read back; `README.md`, the model
card (see `stresnet.weights.model_card`); and `config.json`, which the hub counts downloads by.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stresnet.atomic import replacing
from stresnet.errors import CheckpointError, DownloadError, StresnetError, UnreachableError
from stresnet.progress import Progress
from stresnet.weights.names import HubName

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from stresnet.model import Checkpoint

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
TIMEOUT_SEC = 15.0
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def checkpoint_file(model: Path) -> Path:
    """Return the checkpoint file of a run folder or of a folder that `save_folder` wrote; a file is returned unchanged.

    Raises:
        CheckpointError: the folder has no checkpoint.
    """
    if not model.is_dir():
        return model
    if not (model / MODEL).is_file():
        raise CheckpointError(
            f"{model} has no {MODEL}: expected a checkpoint, or the folder of a run with a trained stage"
        )
    return model / MODEL


def download(
    name: HubName,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return the local copy of a file on the hub; the cached copy is used if the hub cannot be reached.

    Args:
        name: the file. Without one, the repository's model.safetensors or else its only file of weights.
        token: of the hub; None for the one logged in with, False for none.
        cache_dir: folder of the downloaded files; by default the hub's cache, shared with other programs.
        force_download: download again what is in the cache.
        local_files_only: use only what is in the cache.
        progress: called with megabytes done and in total.

    Raises:
        DownloadError: the repository, revision or file does not exist, or access is denied.
        UnreachableError: the hub cannot be reached, and the file is not in the cache.
    """
    from huggingface_hub import HfApi

    with _hub_errors(name.repo, name.revision):
        api = HfApi(token=token)
        files = None if local_files_only else _list_files(api, name, required=force_download)
        if files is None:
            return _cached(name, cache_dir)
        chosen = choose(name, files)
        options: dict[str, Any] = {"revision": name.revision, "cache_dir": cache_dir, "force_download": force_download}
        if chosen == MODEL and CONFIG in files:
            api.hf_hub_download(name.repo, CONFIG, **options)  # for the hub's count of downloads
        bar = _progress_bar(progress, f"downloading {name} (MB)")
        return Path(api.hf_hub_download(name.repo, chosen, tqdm_class=bar, **options))


def choose(name: HubName, files: Sequence[str]) -> str:
    """Return the file of a repository that a name stands for.

    Raises:
        DownloadError: there is no such file, or no file is named and there are several or none of weights.
    """
    if name.file in files:
        return name.file
    weights = [f for f in files if f.lower().endswith((".safetensors", ".bin", ".pth", ".pt", ".mat"))]
    found = ", ".join(weights) or "none"
    if name.file:
        raise DownloadError(f"{name.repo} has no {name.file}; its files of weights: {found}")
    safe = [f for f in weights if f.lower().endswith(".safetensors")]
    for candidates in ([MODEL], safe, ["pytorch_model.bin"], weights):
        if len(there := [f for f in candidates if f in weights]) == 1:
            return there[0]
    hint = f": choose one, such as hf://{name.repo}/{weights[0]}" if weights else ""
    raise DownloadError(f"{name}: expected one file of weights, found {found}{hint}")


def save_folder(folder: Path, checkpoint: Checkpoint, *, repo: str = "owner/name", license: str = "") -> None:
    """Write a checkpoint, its config.json and its model card to a folder; an existing model card is kept.

    Args:
        folder: created if it does not exist.
        checkpoint: the model.
        repo: `owner/name`, for the example in the model card.
        license: of the weights, as the hub abbreviates it, such as `mit`; "" if unknown.

    Raises:
        CheckpointError: the files cannot be written; the folder is unchanged then.
    """
    from stresnet.model import save_checkpoint
    from stresnet.model.profile import network_name
    from stresnet.weights.model_card import LIBRARY, model_card

    config = {
        "library_name": LIBRARY,
        "library_version": checkpoint.version,
        "architecture": network_name(checkpoint.model.config),
        "config": checkpoint.model.config.to_dict(),
        "classes": checkpoint.classes,
    }
    texts = {CONFIG: json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
    if not (folder / CARD).exists():
        texts[CARD] = model_card(checkpoint, repo=repo, license=license)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as renames:  # all three at the end, when everything is written
            for name, text in texts.items():
                temporary = renames.enter_context(replacing(folder / name))
                temporary.write_bytes(text.encode("utf-8", "backslashreplace"))  # class names may not be valid Unicode
            save_checkpoint(folder / MODEL, checkpoint)
    except OSError as error:
        why = "not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror or error
        raise CheckpointError(f"{folder} cannot be written ({why}): fix that, or choose another folder") from None


def push(
    repo: str,
    checkpoint: Checkpoint,
    *,
    commit_message: str,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    license: str = "",
) -> str:
    """Upload a checkpoint, its config.json and its model card, and return the URL of the commit.

    Args:
        repo: `owner/name`; created if it does not exist.
        checkpoint: the model.
        commit_message: of the upload.
        private: whether a new repository is private; by default the owner's setting.
        token: of the hub; None for the one logged in with.
        branch: created if it does not exist; by default main.
        create_pr: open a pull request instead of committing.
        license: of the weights, as the hub abbreviates it, such as `mit`; "" if unknown.

    Raises:
        CheckpointError: the hub cannot be reached or rejects the upload.
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory() as folder, _hub_errors(repo, branch, CheckpointError):
        save_folder(Path(folder), checkpoint, repo=repo, license=license)
        api = HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        if branch:
            api.create_branch(repo, branch=branch, exist_ok=True)
        options: dict[str, Any] = {"commit_message": commit_message, "revision": branch, "create_pr": create_pr}
        return str(api.upload_folder(repo_id=repo, folder_path=folder, **options))


def _list_files(api: HfApi, name: HubName, *, required: bool) -> list[str] | None:
    """Return the files of a repository; None if the hub cannot be reached, unless they are required.

    This fails at once without a network, where a download retries for half a minute.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        listing = api.model_info(name.repo, revision=name.revision, timeout=TIMEOUT_SEC)
    except _transport_errors() as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 503
        if required or (status < 500 and status != 429):
            raise
        return None
    return [file.rfilename for file in listing.siblings or []]


def _cached(name: HubName, cache_dir: str | Path | None) -> Path:
    """Return the cached copy of a file."""
    from huggingface_hub import constants, snapshot_download

    try:
        folder = Path(snapshot_download(name.repo, revision=name.revision, cache_dir=cache_dir, local_files_only=True))
        return folder / choose(name, [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()])
    except (FileNotFoundError, DownloadError):
        raise UnreachableError(
            f"{name}: the hub at {constants.ENDPOINT} cannot be reached, and the file is not in the cache: check the "
            "network and try again"
        ) from None


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a failed request, which include those of the HTTP library that the hub's client uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return OSError, RuntimeError, *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))


@contextmanager
def _hub_errors(repo: str, revision: str | None, kind: type[StresnetError] = DownloadError) -> Iterator[None]:
    """Turn whatever the hub's client raises into one line."""
    from huggingface_hub.errors import EntryNotFoundError

    expected: tuple[type[Exception], ...] = (ValueError, EntryNotFoundError, *_transport_errors())
    try:
        yield
    except StresnetError:
        raise
    except expected as error:
        raise kind(f"{repo}: {_reason(error, repo, revision)}") from error


def _reason(error: Exception, repo: str, revision: str | None) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        case HFValidationError():
            return "not a folder, and not a name on the hub: expected a folder or owner/name"
        case GatedRepoError():
            return f"access to the repository is gated: accept its terms at {constants.ENDPOINT}/{repo}, then {LOGIN}"
        case RevisionNotFoundError():
            return f"the repository has no revision {revision}: choose one of its branches, tags or commits"
        case RepositoryNotFoundError():
            return f"not found on the hub, or private ({status}): check the name, or {LOGIN}"
        case _ if status in (401, 403):
            return f"the hub denies access ({status}): {LOGIN}"
        case _ if status is not None:
            return f"the hub answers with status {status}: {text:.200}"
        case ValueError():  # such as a licence that it does not know
            return f"the hub rejects it: {text}"
        case OSError(errno=errno.ENOSPC):
            return "no space left on the disk: free some, or set HF_HOME to a folder with more"
        case OSError(errno=int(), strerror=str(why)) if not isinstance(error, ConnectionError):
            return f"{why}: fix that and try again"
        case _:
            return f"the hub at {constants.ENDPOINT} cannot be reached ({text:.200}): check the network and try again"


def _progress_bar(progress: Progress | None, activity: str) -> Any:
    """Return a class of progress bars for the hub's client that prints nothing and calls `progress` instead."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if progress:
                progress(activity, int(self.n) // 10**6, int(self.total or 0) // 10**6)

        def update_transfer(self, n: float) -> None:
            """Ignore bytes on the wire, which the client shows in a second bar."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            """Ignore the text of the second bar."""

    return Bar
