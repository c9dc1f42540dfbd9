"""Protection from web pages: requests that a browser may have sent for one are refused on TCP listeners.

A browser lets any page send requests to this machine, loopback included: the page cannot read the answer, but a
container would run.  It says on whose behalf it asks: in ``Origin``, and in ``Sec-Fetch-Site`` where there is no
``Origin`` (`<img src=…>`).  A page whose own name was made to point at this machine (DNS rebinding) is of the same
origin, and is known by that name in ``Host``.  Clients of the API send neither, or an address.

Unix sockets are out of a browser's reach and are not asked.  Behind TLS the certificate binds the name, but a browser
that holds a client's certificate shows it for any page: there the origin counts, and ``Host`` does not.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

from ketch.errors import PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from aiohttp import web

    Listener = Literal["unix", "tcp", "tls"]

_OWN_FETCHES = ("", "none", "same-origin")
_HOST = re.compile(r"(\[[0-9a-f:.]+(?:%[\w.-]+)?\]|[\w.-]*)(?::\d*)?", re.IGNORECASE | re.ASCII)


class WebPages:
    """The check of one daemon; ``names`` are those by which its clients know it, beside the machine's own."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {name.lower().rstrip(".") for name in (*names, os.uname().nodename)}

    def check(self, request: web.BaseRequest, listener: Listener) -> None:
        """Raise PermissionDenied for a request that a browser has, or may have, sent for a web page."""
        if listener == "unix":
            return
        if listener == "tcp":
            self.check_host(request)
        self.check_origin(request)

    def check_host(self, request: web.BaseRequest) -> None:
        """Raise PermissionDenied for a request under a name that a page on the internet may have."""
        hosts = request.headers.getall("Host", [])
        host = hosts[0] if hosts else ""
        if not (len(hosts) <= 1 and self._is_known(host)):
            raise PermissionDenied(
                f"request for host `{host[:100]}`: this daemon does not go by that name",
                hint="use an address, or start ketchd with --tcp-name NAME",
            )

    def check_origin(self, request: web.BaseRequest) -> None:
        """Raise PermissionDenied for a request on behalf of a page of another origin."""
        headers = request.headers
        host = headers.get("Host", "")
        for origin in headers.getall("Origin", []):
            if origin.partition("://")[2].lower() != host.lower():
                raise PermissionDenied(f"request of a web page from `{origin[:100]}`: pages may not use this API")
        if headers.get("Sec-Fetch-Site", "").lower() not in _OWN_FETCHES:
            raise PermissionDenied("request of a web page from another site: pages may not use this API")

    def _is_known(self, host: str) -> bool:
        """Whether no page on the internet can have this host name: an address, our own, or one without a dot."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        return "." not in name or name in self._names or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
