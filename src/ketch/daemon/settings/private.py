"""Settings of a private daemon, the engine of programs that share a state directory: all of them come from its path.

Nothing of it is where another daemon's is, so that any number of them can run.  Its networks are made when a container
wants one, for most want none.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def of(directory: str) -> dict[str, Any]:
    """The settings for a state directory, unless others are given."""
    state = os.path.realpath(directory)
    name = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    return {
        "private": state,
        "data_root": f"{state}/data",
        "exec_root": f"{state}/run",
        "hosts": [f"unix://{state}/ketch.sock"],
        "pidfile": f"{state}/ketchd.pid",
        "cgroup_parent": f"/ketch-{name}",
        "bridge": "none",
        "group": "",
        "log_level": "warn",
    }
