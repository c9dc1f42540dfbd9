"""Files of the page, and the headers that protect it."""

from __future__ import annotations

import os
import re

from aiohttp import web

from ketch.errors import NotFound

_ROOT = os.path.join(os.path.dirname(__file__), "static")
_NAME = re.compile(r"([a-z]+/)?[a-z]+\.(css|html|js|svg)")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page is made of its own files, no text becomes a program, and nobody shows it in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # a token stands in an address
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def answer(name: str, status: int = 200) -> web.Response:
    """A file of the page (NotFound)."""
    path = os.path.join(_ROOT, name)
    if not (_NAME.fullmatch(name) and os.path.isfile(path)):
        raise NotFound(f"the page has no file `{name[:100]}`")
    kind = _TYPES[os.path.splitext(name)[1]]
    with open(path, "rb") as f:  # small, and in the disk's cache
        return web.Response(body=f.read(), status=status, headers={**HEADERS, "Content-Type": kind})
