"""Interruption of long copies by the end of the process that makes them."""

from __future__ import annotations

from ketch.errors import Unavailable


class Interruption:
    """A switch that whoever copies much looks at now and then.  May be used from any thread."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> None:
        """Make every `check` fail from now on."""
        self._begun = True

    def check(self) -> None:
        """Raise Unavailable when the process is about to end."""
        if self._begun:
            raise Unavailable("copy files of the image: the daemon is stopping", hint="try again when it runs")
