"""A remote file opened at an offset, over HTTP or whatever fsspec knows, together with which version of it that is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote, urlsplit, urlunsplit

from stresnet import __version__
from stresnet.errors import DownloadError

TIMEOUT_SEC = 30.0
"""Of connecting, and of every wait for more."""

_BUSY = (408, 425, 429, 500, 502, 503, 504)
_TIMES = ("LastModified", "last_modified", "mtime", "modify", "updated", "created")
_TAGS = ("ETag", "etag", "md5Hash", "checksum", "generation")


class Interrupted(Exception):  # noqa: N818 - no error yet: the download is tried again
    """A transfer broke off, or the server is busy; the message says how."""


class Unreached(Interrupted):
    """No connection came about."""


class NoSuchOffset(Exception):  # noqa: N818 - an answer, not an error
    """The file is shorter than the offset asked for."""


@dataclass(frozen=True)
class Version:
    """What tells one version of a remote file from another; each is None or "" where the server does not say."""

    size: int | None = None
    tag: str = ""
    modified: str = ""

    def continues(self, other: Version) -> bool:
        """Whether both are surely the same version, so that one's bytes may follow the other's."""
        if self.size != other.size or (not self.tag and not self.modified):
            return False
        return (self.tag, self.modified) == (other.tag, other.modified)


@dataclass(frozen=True)
class Body:
    """The bytes of a remote file from `start` on, which is 0 where the server cannot begin elsewhere."""

    stream: IO[bytes]
    start: int
    version: Version

    def read(self, size: int) -> bytes:
        """At most so many bytes; b"" at the end.

        Raises:
            Interrupted: the connection broke.
        """
        try:
            return self.stream.read(size)
        except Exception as error:  # of any library below; whatever it is, the transfer did not end well
            raise Interrupted(f"the connection broke ({reason(error)})") from error


def open_at(url: str, start: int) -> AbstractContextManager[Body]:
    """A context manager that yields the Body of a URL, from byte `start` on where the server can do that.

    Raises:
        DownloadError: there is no such file, or it may not be read.
        Interrupted: the server is busy, or (Unreached) does not answer.
        NoSuchOffset: `start` is behind the file's end.
    """
    return _open_http(url, start) if urlsplit(url).scheme in ("http", "https") else _open_other(url, start)


def require_host(url: str) -> None:
    """Raise a DownloadError where the host of a URL, or its port, can be none."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")
        possible = host.isprintable() and " " not in host and bool(host or parts.scheme not in ("http", "https"))
    except ValueError:  # a UnicodeError is one, and others say less than the name itself
        possible = False
    if not possible:
        found = url.partition("://")[2].partition("/")[0]
        raise DownloadError(f"{url}: expected the name of a server after ://, found {found!r}; check the address")


def reason(error: BaseException) -> str:
    """An error of a library in a few words."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return reason(inner)
    text = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
    return str(text or inner or type(error).__name__)


# ---------------------------------------------------------------- HTTP
# By the standard library: fsspec asks for ranges too, but does not tell which version of the file answered.


@contextmanager
def _open_http(url: str, start: int) -> Iterator[Body]:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    headers = {"User-Agent": f"stresnet/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(_quoted(url), headers=headers), timeout=TIMEOUT_SEC)
    except HTTPError as error:
        with error:
            raise _refusal(url, error.code) from None
    except (OSError, HTTPException, UnicodeError) as error:  # URLError and a time-out are OSErrors
        raise Unreached(f"cannot reach {urlsplit(url).hostname} ({reason(error)})") from error
    with response:
        yield _http_body(url, response, response.headers, response.status)


def _http_body(url: str, stream: IO[bytes], headers: Mapping[str, str], status: int) -> Body:
    kind, path = headers.get("Content-Type", ""), urlsplit(url).path
    if kind.startswith("text/html") and not path.endswith((".html", ".htm")):
        raise DownloadError(f"{url}: expected a file, found a web page; give the address of the file itself")
    start, size = 0, headers.get("Content-Length", "")
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        if not found:
            raise DownloadError(f"{url}: the server sent a part without saying which")
        start, size = int(found[1]), found[2]
    version = Version(int(size) if size.isdigit() else None, headers.get("ETag", ""), headers.get("Last-Modified", ""))
    return Body(stream, start, version)


def _refusal(url: str, code: int) -> Exception:
    if code == 416:
        return NoSuchOffset()
    if code in _BUSY:
        return Interrupted(f"the server is busy ({code})")
    if code in (404, 410):
        return DownloadError(f"{url}: no such file on the server ({code}); check the address")
    if code in (401, 403):
        hint = "; give it as hf://owner/name/file, after `hf auth login`" if _is_hub(url) else ""
        return DownloadError(f"{url}: the server refuses access ({code}){hint}")
    return DownloadError(f"{url}: the server answers with status {code}")


def _is_hub(url: str) -> bool:
    return urlsplit(url).hostname in ("huggingface.co", "hf.co")


def _quoted(url: str) -> str:
    """The URL as HTTP wants it: spaces and letters beyond ASCII escaped, what is escaped already left alone."""
    scheme, host, path, query, _ = urlsplit(url)
    safe = "%/:=&?+!$,;'@()*~"
    ascii_host = host if host.isascii() else host.encode("idna").decode()
    return urlunsplit((scheme, ascii_host, quote(path, safe), quote(query, safe), ""))


# ---------------------------------------------------------------- anything else


@contextmanager
def _open_other(url: str, start: int) -> Iterator[Body]:
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(url)
        info = files.info(path)
        stream = files.open(path, "rb")
        stream.seek(start)
    except FileNotFoundError:
        raise DownloadError(f"{url}: no such file; check the address") from None
    except PermissionError as error:
        raise DownloadError(f"{url}: access is refused ({reason(error)})") from error
    except ImportError as error:  # fsspec names the package to install
        raise DownloadError(f"{url}: {reason(error)}") from error
    except (ConnectionError, TimeoutError) as error:
        raise Unreached(f"cannot reach {urlsplit(url).hostname} ({reason(error)})") from error
    except Exception as error:  # each of fsspec's file systems has errors of its own
        raise DownloadError(f"{url}: cannot be opened ({reason(error)})") from error
    with stream:
        yield Body(stream, start, Version(info.get("size"), _first(info, _TAGS), _first(info, _TIMES)))


def _first(info: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((str(info[name]) for name in names if info.get(name)), "")
