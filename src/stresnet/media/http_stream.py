"""Streams by HTTP: opened by Python, which verifies certificates and tells what a server answers."""

from __future__ import annotations

from http.client import HTTPMessage, HTTPResponse
from typing import IO, cast
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import (
    BaseHandler,
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPRedirectHandler,
    Request,
    build_opener,
)


def without_password(url: str) -> str:
    """Return a URL without user name and password, to be shown.

    Raises:
        ValueError: the URL is invalid.
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class HttpStream:
    """The body of an answer, as a file for PyAV.

    Attributes:
        content_type: in lower case and without parameters.
        ends: whether the server has said how long the body is, so that its end is not an interruption.
    """

    def __init__(self, url: str, timeout_sec: float) -> None:
        """Send the request; a user name and password are taken from the URL.

        Args:
            url: begins with ``http://`` or ``https://``.
            timeout_sec: how long to wait for an answer, and later for more data.

        Raises:
            OSError: the server cannot be reached, or answers with an error.
            ValueError: the URL is invalid.
        """
        parts, bare = urlsplit(url), without_password(url)
        passwords = HTTPPasswordMgrWithDefaultRealm()
        if parts.username is not None:
            passwords.add_password(None, bare, unquote(parts.username), unquote(parts.password or ""))
        opener = build_opener(
            HTTPBasicAuthHandler(passwords), HTTPDigestAuthHandler(passwords), _Refused(), _SameHost()
        )
        try:
            self._response = cast(HTTPResponse, opener.open(bare, timeout=timeout_sec))
        except HTTPError as error:
            error.close()
            raise
        self.content_type = self._response.headers.get_content_type()
        self.ends = self._response.length is not None

    def read(self, count: int) -> bytes:
        """Return what has come, up to `count` bytes; empty at the end."""
        return self._response.read1(count)

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


class _Refused(BaseHandler):
    """Closes an answer that asks for a password, before the handlers that may ask again with one."""

    handler_order = HTTPDigestAuthHandler.handler_order - 1

    def http_error_401(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> None:
        fp.close()


class _SameHost(HTTPRedirectHandler):
    """Follows redirects within a host only: whoever names a host does not ask for others in the same network."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            raise HTTPError(newurl, code, f"redirects to {without_password(newurl)}: give that URL itself", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
