"""Return a local file for a path, a URL or a name on the Hugging Face hub."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from stresnet.errors import DownloadError, UnreachableError
from stresnet.progress import Progress
from stresnet.weights import digest, hub
from stresnet.weights.names import HubName, is_remote, local_path
from stresnet.weights.redirects import refuse_private_redirects

_VERSION = ("ETag", "etag", "Last-Modified", "LastModified", "md5Hash", "generation", "mtime", "modify", "created")
_BUSY = (408, 425, 429, 500, 502, 503, 504)
TIMEOUT_SEC = 30.0
RETRIES = 4  # in a row that bring no new bytes
WAIT_SEC = 1.0  # before the first of them, doubled for each that follows
MOST_SEC = 6 * 3600.0  # for one file, retries included
MOST_UNSTATED_BYTES = 4 * 10**9  # of a file whose size the server does not say


class _InterruptedTransfer(Exception):  # noqa: N818 - not an error yet: it is retried
    pass


def fetch(source: str, *, sha256: str = "", progress: Progress | None = None) -> Path:
    """Return a local file for a path, a hub name or any URL that fsspec reads; a download is cached and resumable.

    Args:
        source: the name, such as `weights.pth`, `owner/name` or `https://…`.
        sha256: the expected digest, or its first 8 hex digits or more; by default the one in the file's name, if any.
        progress: called with megabytes done and in total (0 if unknown).

    Raises:
        DownloadError: the file cannot be downloaded, or has another digest (a downloaded file is then removed).
        UnreachableError: the server cannot be reached.
    """
    expected = digest.normalized(sha256)
    if not (remote := is_remote(source)):
        path = local_path(source)
    elif name := HubName.parse(source):
        path = hub.download(name, progress=progress)
    else:
        path = _fetch_url(source, progress)
    wanted = expected or (digest.in_name(path.name) if path.is_file() else "")
    if wanted and not path.is_file():
        raise DownloadError(f"{path}: expected a file with sha256 {wanted}, found none")
    if wanted and not (found := digest.sha256_of(path)).startswith(wanted):
        if remote:
            path.resolve().unlink()  # the blob that a link in the hub's cache points to
            path.unlink(missing_ok=True)
        hint = "" if expected else " (from its name): download it again, or give its digest"
        raise DownloadError(f"{source}: expected sha256 {wanted}, found {found[: max(len(wanted), 16)]}{hint}")
    return path


def cache_folder() -> Path:
    """Return the folder of downloaded files: $STRESNET_CACHE, or stresnet in $XDG_CACHE_HOME or ~/.cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "stresnet"
    return Path(os.environ.get("STRESNET_CACHE") or default).expanduser()


def cached(url: str) -> Path | None:
    """Return the downloaded file of a URL, or None; always None for a hub name."""
    place = _place(url)
    return place if is_remote(url) and not HubName.parse(url) and place.is_file() else None


def _place(url: str) -> Path:
    """Return the place of a URL's file in the cache: its name, in a folder named after a digest of the URL."""
    url = url.partition("#")[0]
    name = unquote(url.partition("://")[2].partition("?")[0].partition("/")[2]).rstrip("/").rpartition("/")[2]
    name = "".join(c if c.isprintable() and c not in '\\/:*?"<>|' else "_" for c in name)[-150:].lstrip(".")
    return cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16] / (name or "file")


def _fetch_url(url: str, progress: Progress | None) -> Path:
    from filelock import FileLock

    target = _place(url)
    if target.is_file():
        return target  # without a lock: the cache may be read-only
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.is_file():
                _download(url, target, progress)
    except OSError as error:
        why = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or error
        hint = "set STRESNET_CACHE to a writable folder with enough space"
        raise DownloadError(f"{target.parent}: the download cannot be stored ({why}): {hint}") from error
    return target


def _download(url: str, target: Path, progress: Progress | None) -> None:
    """Download a file, retrying while bytes arrive; an interrupted download is kept and resumed by the next call."""
    failures, most, ends = 0, 0, time.monotonic() + MOST_SEC
    while failures <= RETRIES:
        if failures:
            time.sleep(WAIT_SEC * 2 ** (failures - 1))
        try:
            return _transfer(url, target, progress, ends)
        except (_InterruptedTransfer, UnreachableError) as error:
            there = sum(part.stat().st_size for part in target.parent.glob("*.part"))
            if isinstance(error, UnreachableError) and not most:
                raise
            failures, most, last = (failures + 1 if there <= most else 1), max(most, there), error
    raise DownloadError(f"{url}: {last}: run it again to resume") from last


def _transfer(url: str, target: Path, progress: Progress | None, ends: float) -> None:
    """Download what is missing of a file. The name of its part depends on the remote version, so none are mixed."""
    files, path, info = _connect(url)
    size, version = info.get("size"), [info.get(key) for key in _VERSION]
    part = target.with_name(f"{hashlib.sha256(str([size, *version]).encode()).hexdigest()[:16]}.part")
    for outdated in set(target.parent.glob("*.part")) - {part}:
        outdated.unlink()
    there = part.stat().st_size if part.is_file() else 0
    start = there if size is not None and there <= size and any(version) else 0
    if size is not None and shutil.disk_usage(part.parent).free < size - start:
        raise OSError(errno.ENOSPC, "No space left on device")
    if not (start and start == size):
        remote, start = _open(url, files, path, size, start)
        with remote, part.open("ab" if start else "wb") as file:
            while chunk := _read(remote):
                file.write(chunk)
                if size is None and file.tell() > MOST_UNSTATED_BYTES:
                    part.unlink()
                    raise DownloadError(
                        f"{url}: the server sent more than {MOST_UNSTATED_BYTES / 1e9:g} GB without saying how much "
                        "there is: download the file by other means and give its path"
                    )
                if time.monotonic() > ends:
                    raise DownloadError(
                        f"{url}: only {file.tell() / 1e6:.0f} MB arrived in {MOST_SEC / 3600:g} hours: run it again to "
                        "resume"
                    )
                if progress:
                    progress(f"downloading {target.name} (MB)", file.tell() // 10**6, (size or 0) // 10**6)
            file.flush()
            os.fsync(file.fileno())
            if size is not None and file.tell() != size:
                raise _InterruptedTransfer(f"the connection ended after {file.tell()} of {size} bytes")
    os.replace(part, target)


def _connect(url: str) -> tuple[Any, str, dict[str, Any]]:
    """Return the file system of a URL, the path on it, and what it reports of the file."""
    if url.lower().startswith("local://") or "::" in re.sub(r"\[[^/]*", "", url):  # chained, perhaps to a local file
        raise DownloadError(f"{url}: expected the URL of a remote file: give the path of a local one")
    try:
        from fsspec.core import url_to_fs

        options = {}
        if url.lower().startswith("http"):
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=None, sock_connect=TIMEOUT_SEC, sock_read=TIMEOUT_SEC)
            guards = [refuse_private_redirects()]
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True, "trace_configs": guards}}
        files, path = url_to_fs(url, **options)
        files.invalidate_cache()
        info = files.info(path)
    except Exception as error:  # each file system has its own errors
        raise _open_error(url, error) from error
    if info.get("mimetype") == "text/html" and not path.endswith((".html", ".htm")):
        raise DownloadError(f"{url}: expected a file, found a web page: give the URL of the file itself")
    return files, path, info


def _open(url: str, files: Any, path: str, size: int | None, start: int) -> tuple[Any, int]:
    """Open a remote file at byte `start`, and return it and where it starts: 0 if a server cannot start elsewhere."""
    try:
        if not url.lower().startswith("http"):
            remote = files.open(path, "rb")
            remote.seek(start)
            return remote, start
        headers = {"Range": f"bytes={start}-"} if start else {}
        remote = files.open(path, "rb", block_size=0, size=size, headers=headers)  # streamed in one request
        return remote, start if remote.r.status == 206 else 0
    except Exception as error:
        raise _open_error(url, error) from error


def _read(remote: Any) -> bytes:
    try:
        return bytes(remote.read(1 << 20))
    except Exception as error:
        raise _InterruptedTransfer(f"the connection broke ({error or type(error).__name__})") from error


def _open_error(url: str, error: Exception) -> Exception:
    """Return the error to raise for a file that cannot be opened."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if isinstance(cause, DownloadError):
        return cause
    status, reason = getattr(cause, "status", None), " ".join(str(cause).split()) or type(cause).__name__
    if status in _BUSY:
        return _InterruptedTransfer(f"the server is busy ({status})")
    if status in (401, 403) or isinstance(cause, PermissionError):
        return DownloadError(f"{url}: access is denied ({status or reason})")
    if status in (404, 410) or (isinstance(cause, FileNotFoundError) and not status):
        return DownloadError(f"{url}: no such file on the server: check the address")
    if isinstance(error, ImportError):  # fsspec names the package to install
        return DownloadError(f"{url}: {error}")
    if status is not None or isinstance(cause, ValueError):
        return DownloadError(f"{url}: cannot be opened ({reason})")
    return UnreachableError(f"{url}: cannot be reached ({reason}): check the network")
