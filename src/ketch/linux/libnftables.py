"""Commands to nftables, through the system's libnftables (libnftables(3), libnftables-json(5))."""

from __future__ import annotations

import ctypes
import json
import weakref
from ctypes import c_char_p, c_int, c_uint, c_void_p
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

_FUNCTIONS = {
    "nft_ctx_new": (c_void_p, c_uint),
    "nft_ctx_free": (None, c_void_p),
    "nft_ctx_buffer_output": (c_int, c_void_p),
    "nft_ctx_buffer_error": (c_int, c_void_p),
    "nft_ctx_get_output_buffer": (c_char_p, c_void_p),
    "nft_ctx_get_error_buffer": (c_char_p, c_void_p),
    "nft_ctx_output_set_flags": (None, c_void_p, c_uint),
    "nft_run_cmd_from_buffer": (c_int, c_void_p, c_char_p),
}
_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON


class Reply(NamedTuple):
    """The outcome of commands: ``code`` is 0, or ``error`` says why nothing was done."""

    code: int
    output: str
    error: str

    @property
    def reason(self) -> str:
        """The first line of the error."""
        return (self.error.strip().splitlines() or [f"code {self.code}"])[0]


class Nftables:
    """The tables of the network namespace of the thread that makes this object; not thread-safe.

    Raises OSError where there is no libnftables.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnftables.so.1")
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise OSError("libnftables makes no context")
        weakref.finalize(self, self._library.nft_ctx_free, self._context).atexit = False
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> Reply:
        """Run commands in nft(8)'s language, in one transaction."""
        return self._run(commands, 0)

    def list(self, what: dict[str, Any]) -> tuple[Reply, list[dict[str, Any]]]:
        """List objects, described as the command ``list`` takes them; none unless the reply's code is 0."""
        reply = self._run(json.dumps({"nftables": [{"list": what}]}), _JSON)
        return reply, json.loads(reply.output)["nftables"] if reply.code == 0 and reply.output else []

    def _run(self, commands: str, flags: int) -> Reply:
        self._library.nft_ctx_output_set_flags(self._context, flags)
        code = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        said = (self._library.nft_ctx_get_output_buffer, self._library.nft_ctx_get_error_buffer)
        return Reply(code, *((get(self._context) or b"").decode(errors="replace") for get in said))
