"""A local file for a name: a path, a URL, or a model on the hub."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stresnet.errors import DownloadError
from stresnet.weights.checksum import Record, expected_from, normalized, sha256_of, verify
from stresnet.weights.download import Progress, download
from stresnet.weights.hub_download import HubName, fetch_from_hub
from stresnet.weights.opening import require_host

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
_FILE_ENDINGS = (
    *(".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".mat", ".onnx", ".npz", ".zip", ".tar", ".gz"),
    *(".json", ".yaml", ".yml", ".csv", ".txt", ".parquet", ".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg"),
)


def is_remote(source: str) -> bool:
    """Whether a name is a URL (https://, hf://, s3:// …) or a model on the hub, such as timm/resnet50.tv_in1k.

    Without a scheme, owner/name is the hub's only where it can hardly be meant as a path: where nothing of that name
    is here, nor a folder `owner`, and it does not end as a file does. hf://owner/name always is.
    """
    if _SCHEME.match(source):
        return not source.lower().startswith("file://")
    if not _HUB_NAME.fullmatch(source) or source.lower().endswith(_FILE_ENDINGS):
        return False
    return not Path(source).exists() and not Path(source).parent.is_dir()


def fetch(source: str, *, sha256: str = "", cache: Path | None = None, progress: Progress | None = None) -> Path:
    """A local file for a name; what is not here is fetched once, and found in the cache from then on.

    - A path comes back as it is; a file there is only verified.
    - `owner/name` or `hf://owner/name[/file][@revision]` is a model on the hub (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE
      are heeded); without a file, its model.safetensors or else its only file of weights. It lies in the hub's own
      cache, shared with other programs, or below `cache` where one is given.
    - Any other URL (HTTP, or what fsspec knows) goes to the cache under its own name, and is resumed where an earlier
      call was cut off. A file once there is not asked for again; remove it to have it fetched anew.

    Args:
        source: the name.
        sha256: the file's digest, or 8 or more of its first hex digits, to be verified; a file whose name carries them,
            as torchvision's resnet50-0676ba61.pth does, is verified without.
        cache: folder of fetched files; default: see `cache_folder`.
        progress: told bytes done, and bytes in all (0 where unknown).

    Raises:
        DownloadError: it cannot be fetched, or is not the file expected (a fetched one is then removed).
    """
    wanted = normalized(sha256)
    if not is_remote(source):
        path = local(source)
        _verify_local(path, wanted)
        return path
    name = HubName.parse(source)
    if name is None:
        require_host(source)
        return _fetch_url(source, wanted, cache, progress)
    path = fetch_from_hub(name, cache, progress)
    if expected := wanted or expected_from(path.name):
        try:
            verify(source, sha256_of(path), expected)
        except DownloadError:
            path.resolve().unlink(missing_ok=True)  # the blob that the hub's cache links to
            path.unlink(missing_ok=True)
            raise
    return path


def cache_folder(cache: Path | None = None) -> Path:
    """Where fetched files are kept: as given, or $STRESNET_CACHE, or stresnet in $XDG_CACHE_HOME or ~/.cache."""
    if cache is None and (named := os.environ.get("STRESNET_CACHE")):
        cache = Path(named)
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "stresnet"
    return cache.expanduser()


def cached(url: str, cache: Path | None = None) -> Path | None:
    """The file of a URL if it has been fetched, without asking anyone; never that of a hub name."""
    if not is_remote(url) or HubName.parse(url):
        return None
    place = _place(url, cache)
    return place if place.is_file() else None


def _fetch_url(url: str, wanted: str, cache: Path | None, progress: Progress | None) -> Path:
    target = _place(url, cache)
    expected = wanted or expected_from(target.name)
    record = Record.read(target)
    if record and record.sha256.startswith(expected):
        return target  # without a lock: the cache may be one that only others write to
    try:
        return _fetch_locked(url, target, expected, progress)
    except OSError as error:  # of the network's, DownloadErrors have been made already
        raise DownloadError(
            f"{cache_folder(cache)}: nothing can be kept in this cache ({error.strerror or error}); set STRESNET_CACHE "
            "to a folder that can be written"
        ) from error


def _fetch_locked(url: str, target: Path, expected: str, progress: Progress | None) -> Path:
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if not target.is_file():
            download(url, target, progress)
        record = Record.read(target) or Record.make(target, url)
        try:
            verify(url, record.sha256, expected)
        except DownloadError:
            target.unlink()
            Record.place(target).unlink()
            raise
    return target


def _place(url: str, cache: Path | None) -> Path:
    """Where a URL's file lies: under its own name, in a folder of its own."""
    url = url.partition("#")[0]
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    # Names that no file system can hold, or only some.
    name = "".join(c if c.isprintable() and c not in '\\/:*?"<>|' else "_" for c in name)[-150:]
    return cache_folder(cache) / hashlib.sha256(url.encode()).hexdigest()[:16] / (name.lstrip(".") or "file")


def local(source: str) -> Path:
    """The path that a name which is not remote stands for."""
    from urllib.request import url2pathname  # takes longer to load than all of this module

    return Path(url2pathname(urlsplit(source).path) if source.lower().startswith("file://") else source)


def _verify_local(path: Path, wanted: str) -> None:
    if wanted:
        if not path.is_file():
            raise DownloadError(f"{path}: expected a file with sha256 {wanted}, found none")
        verify(str(path), sha256_of(path), wanted)
    elif (promised := expected_from(path.name)) and path.is_file():
        try:
            verify(str(path), sha256_of(path), promised)
        except DownloadError as error:
            raise DownloadError(
                f"{error}: its name promises another file; get it again, or rename it if {promised} is no digest"
            ) from None
