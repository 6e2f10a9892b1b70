"""Redirects from a public address into a private network, which a download must not follow."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING

from stresnet.errors import DownloadError

if TYPE_CHECKING:
    from aiohttp import ClientSession, TraceConfig, TraceRequestRedirectParams
    from yarl import URL


def refuse_private_redirects() -> TraceConfig:
    """Return what makes an aiohttp session raise a DownloadError on a redirect into a private network.

    An address that is itself private may redirect to any other: whoever gives it asks for that.
    """
    from aiohttp import TraceConfig
    from yarl import URL

    async def check(_: ClientSession, __: SimpleNamespace, redirect: TraceRequestRedirectParams) -> None:
        target = redirect.url.join(URL(redirect.response.headers.get("Location", "")))
        if await _is_private(target) and not await _is_private(redirect.url):
            raise DownloadError(
                f"{redirect.url}: redirects to {target.host}, an address of a private network: give that URL itself "
                "if you trust it"
            )

    tracing = TraceConfig()
    tracing.on_request_redirect.append(check)
    return tracing


async def _is_private(url: URL) -> bool:
    """Return whether the host of a URL has an address that is not reachable from everywhere."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, None, type=socket.SOCK_STREAM)
    except OSError:  # unknown: following it will fail too
        return False
    return not all(ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)
