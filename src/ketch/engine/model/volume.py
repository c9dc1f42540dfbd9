"""Record of a volume."""

from __future__ import annotations

import msgspec

ANONYMOUS = "com.docker.volume.anonymous"  # the label that Docker's daemon gives volumes whose name nobody chose


class Volume(msgspec.Struct, kw_only=True):
    """One volume; ``created`` in ns, ``options`` as `local_driver` says.

    ``anonymous``: nobody chose its name, or it was made with the label `ANONYMOUS`.
    ``mountpoint`` is where its directory is now: the row may have been written when the data root was elsewhere.
    ``pending``: it is being made with, or removed after, this container (an id) or is being removed by itself; one that
    is found so at a start goes, unless a container refers to it.
    """

    name: str
    mountpoint: str
    created: int
    driver: str = "local"
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    anonymous: bool = False
    pending: str = ""
