"""The context of a command: the daemon's address, its client, and the streams to print on."""

from __future__ import annotations

import os
import sys

from ketch import places, printable
from ketch.cli import colours
from ketch.client import addresses, contexts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from ketch.client.addresses import Tls
    from ketch.client.http import Client
    from ketch.errors import KetchError


class Context:
    """One run of the command line; ``client()`` is made at first use."""

    def __init__(self, host: str = "", context: str = "", tls: Tls | None = None) -> None:
        self._host = host
        self._context = context
        self._tls = tls
        self._client: Client | None = None
        self.out: TextIO = sys.stdout
        self.err: TextIO = sys.stderr

    @property
    def host(self) -> str:
        """The daemon's address, as the flags, the environment or the context in use name it; else the socket's.

        A text, or a `client.addresses.Address` where TLS is spoken.
        """
        if self.context == contexts.DEFAULT:
            return self.default_host()
        return contexts.address(self.context)

    def default_host(self) -> str:
        """The address without a context: ``--host``, KETCH_HOST, DOCKER_HOST, or the default socket."""
        return addresses.trusted(self._named() or places.answering().host, self._tls)

    def _named(self) -> str:
        return addresses.written_out(self._host) or addresses.named()

    @property
    def host_is_given(self) -> str:
        """The flag or variable that names a host, which counts more than a context in use; empty without one."""
        if self._host:
            return "--host"
        return next((name for name in ("KETCH_HOST", "DOCKER_HOST") if os.environ.get(name)), "")

    @property
    def context(self) -> str:
        """The name of the context in use (InvalidArgument: Docker's settings cannot be read)."""
        if self._context:
            return self._context
        return contexts.DEFAULT if self._named() else contexts.current()

    @property
    def chosen(self) -> bool:
        """Whether the user named a daemon (then none is started on their behalf)."""
        return bool(self._named()) or self.context != contexts.DEFAULT

    def client(self) -> Client:
        """The connection to the daemon."""
        if self._client is None:
            from ketch.client.http import Client

            self._client = Client(self.host)
        return self._client

    def is_ketch(self) -> bool:
        """Whether the daemon is ketchd."""
        return self.client().request("GET", "/_ping").headers.get("server", "").startswith("Ketch")

    def only_ketch(self, what: str, why: str) -> None:
        """Raise Unimplemented unless the daemon is Ketch, as another one would ignore ``what``."""
        from ketch.errors import Unimplemented

        if not self.is_ketch():
            raise Unimplemented(f"{what}: the daemon is not ketchd, and {why}")

    def print(self, text: str = "") -> None:
        """Print a line on standard output, as `show` does."""
        self.show(text + "\n")

    def show(self, text: str) -> None:
        """Write text to standard output, on a terminal without control characters."""
        self.out.write(printable.lines(text) if self.out.isatty() else text)

    def complain(self, error: KetchError) -> None:
        """Print an error that does not end the command, with its hint, on standard error."""
        self.err.write(colours.complaint(error, self.err))
        self.err.flush()

    def warn(self, text: str) -> None:
        """Print a line on standard error, without control characters."""
        self.err.write(colours.remark(text, self.err) + "\n")
        self.err.flush()
