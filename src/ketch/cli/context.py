"""The context of a command: the daemon's address, its client, and the streams to print on."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ketch import places, printable

if TYPE_CHECKING:
    from typing import TextIO

    from ketch.client.http import Client
    from ketch.errors import KetchError


class Context:
    """One run of the command line; ``client()`` is made at first use."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._client: Client | None = None
        self.out: TextIO = sys.stdout
        self.err: TextIO = sys.stderr

    @property
    def host(self) -> str:
        """The daemon's address: ``--host``, KETCH_HOST, DOCKER_HOST, or the default socket."""
        named = self._host or os.environ.get("KETCH_HOST") or os.environ.get("DOCKER_HOST")
        return named or places.answering().host

    @property
    def chosen(self) -> bool:
        """Whether the user named a daemon (then none is started on their behalf)."""
        return bool(self._host or os.environ.get("KETCH_HOST") or os.environ.get("DOCKER_HOST"))

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
        self.warn(f"ketch: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))

    def warn(self, text: str) -> None:
        """Print a line on standard error, without control characters."""
        self.err.write(printable.lines(text) + "\n")
        self.err.flush()
