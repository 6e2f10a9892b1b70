"""A recogniser on the Hugging Face hub, or in a folder laid out as there.

Three files: `model.safetensors`, the checkpoint as training wrote it, which alone is read back; `README.md`, the model
card, see `stresnet.weights.model_card`; and `config.json`, which the hub counts downloads by and people read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stresnet.atomic import replacing
from stresnet.errors import CheckpointError, StresnetError
from stresnet.model import Checkpoint, save_checkpoint
from stresnet.model.checkpoint import first_line
from stresnet.model.profile import network_name
from stresnet.weights.model_card import LIBRARY, model_card

__all__ = ["CONFIG", "MODEL", "download", "explained", "model_card", "save_folder"]

MODEL = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
TIMEOUT_SEC = 15.0
_LOGIN = "log in with `hf auth login`, or give a token"

# The hub's client passes on the errors of the HTTP library that its version uses; its own derive from them.
_TRANSPORT = cast(type[Exception], HfHubHTTPError.__bases__[0])


def save_folder(folder: Path, checkpoint: Checkpoint, card: str) -> None:
    """Write a checkpoint, its config.json and its card to a folder, all of them or none; a card that is there stays.

    Raises:
        CheckpointError: if they cannot be written.
    """
    config = {
        "library_name": LIBRARY,
        "library_version": checkpoint.version,
        "architecture": network_name(checkpoint.model.config),
        "config": checkpoint.model.config.to_dict(),
        "classes": checkpoint.classes,
    }
    texts = {CONFIG: json.dumps(config, indent=2, ensure_ascii=False) + "\n", CARD: card}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as renaming:  # once all is written, the checkpoint too
            for name, text in texts.items():
                if name == CONFIG or not (folder / name).exists():
                    temporary = renaming.enter_context(replacing(folder / name))
                    temporary.write_bytes(text.encode("utf-8", "backslashreplace"))  # names of files need not be text
            save_checkpoint(folder / MODEL, checkpoint)
    except OSError as error:
        why = "it is no folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror or error
        raise CheckpointError(f"{folder} cannot be written ({why}): mend that, or name another folder") from None


def download(
    repo: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The checkpoint file of a folder, or of a repository on the hub; where there is no network, an earlier copy.

    Args:
        repo: a local folder, or `owner/name`.
        revision: branch, tag or commit; None for the newest.
        token: the hub's; None for the one logged in with, False for none.
        cache_dir: where copies lie; None for the hub's own cache.
        force_download: fetch it anew.
        local_files_only: ask no one, take the copy from an earlier time.

    Raises:
        CheckpointError: there is no such folder or repository, it holds no checkpoint, or it cannot be had.
    """
    place = Path(repo)
    if place.is_file():
        raise CheckpointError(f"{repo} is a file: give its folder, or load the file with Recognizer({repo!r})")
    if place.is_dir():
        if not (place / MODEL).is_file():
            raise CheckpointError(f"{repo} holds no {MODEL}: give a folder that save_pretrained or training wrote")
        return place / MODEL
    api = HfApi(token=token)

    def fetch(file: str, here_only: bool = False) -> Path:
        return Path(
            api.hf_hub_download(
                repo,
                file,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=here_only,
            )
        )

    with explained(repo, revision):
        files = None if local_files_only else _files(api, repo, revision, required=force_download)
        if files is None:
            return fetch(MODEL, here_only=True)
        if MODEL not in files:
            found = ", ".join(files[:3]) + (" …" if len(files) > 3 else "")
            raise CheckpointError(
                f"{repo} holds no {MODEL} but {found or 'nothing'}: give a repository that push_to_hub made"
            )
        if CONFIG in files:
            fetch(CONFIG)  # what the hub counts
        return fetch(MODEL)


def _files(api: HfApi, repo: str, revision: str | None, *, required: bool) -> list[str] | None:
    """The names of a repository's files; None where the hub cannot be reached, unless it must be.

    Asked first, as this fails at once where there is no network, and a download only after half a minute of tries.
    """
    try:
        listing = api.model_info(repo, revision=revision, timeout=TIMEOUT_SEC)
    except (OSError, _TRANSPORT) as error:
        if required or (isinstance(error, HfHubHTTPError) and error.response.status_code < 500):
            raise
        return None
    return [file.rfilename for file in listing.siblings or []]


@contextmanager
def explained(repo: str, revision: str | None = None) -> Iterator[None]:
    """Says in one line what keeps the hub's client from reading or writing a repository.

    Raises:
        CheckpointError: for whatever the client raises.
    """
    try:
        yield
    except StresnetError:
        raise
    except (OSError, RuntimeError, ValueError, EntryNotFoundError, _TRANSPORT) as error:
        raise CheckpointError(f"{repo}: {_reason(error, repo, revision)}") from error


def _reason(error: Exception, repo: str, revision: str | None) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    match error:
        case HFValidationError():
            return "no folder here, and no name on the hub: give a folder, or owner/name"
        case GatedRepoError():
            return f"the repository is gated: accept its terms at {constants.ENDPOINT}/{repo}, then {_LOGIN}"
        case RevisionNotFoundError():
            return f"the repository has no revision {revision}: give one of its branches, tags or commits"
        case RepositoryNotFoundError():
            return f"no folder here, and no repository on the hub or a private one: check the name, or {_LOGIN}"
        case LocalEntryNotFoundError():
            return f"the hub at {constants.ENDPOINT} was not reached, and no copy is here: connect once to fetch it"
        case _ if status in (401, 403):
            return f"the hub refuses access ({status}): {_LOGIN}"
        case _ if status is not None:
            return f"the hub answers with status {status}: {first_line(error)}"
        case ValueError():  # such as a card whose licence it does not know
            return f"the hub does not take it: {' '.join(str(error).split())}"
        case OSError(errno=int(), strerror=str(why)) if not isinstance(error, ConnectionError):
            return f"{why}: mend that and try again"
        case _:
            return f"the hub at {constants.ENDPOINT} cannot be reached ({first_line(error)}): try again"
