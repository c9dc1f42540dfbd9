"""The state of systemd itself: whether the machine goes down, or a user's last session ends."""

from __future__ import annotations

import os

from ketch.runtime.cgroups import delegation
from ketch.runtime.cgroups.systemd.bus import Bus

_BOOTED = "/run/systemd/system"  # sd_booted(3)
_ANSWER_S = 5.0


def stopping() -> bool:
    """Whether it stops everything that it manages (RuntimeFailure: it does not answer); False: there is none.

    It is asked on its own socket: the bus may have been stopped already.
    """
    if not delegation.users_runtime() and not os.path.isdir(_BOOTED):
        return False
    bus = Bus(_ANSWER_S, direct=True)
    try:
        return bool(bus.property("SystemState") == "stopping")
    finally:
        bus.close()
