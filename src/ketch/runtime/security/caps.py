"""The capability sets of a container's process."""

from __future__ import annotations

from ketch.linux import caps
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from ketch.runtime.oci_types import OciCapabilities

    _Set = Literal["bounding", "effective", "inheritable", "permitted", "ambient"]


ADMIN = 1 << caps.NUMBERS["CAP_SYS_ADMIN"]
_SETS: tuple[_Set, ...] = ("bounding", "effective", "inheritable", "permitted", "ambient")


class Sets:
    """Five bit masks, cut down to what this process may give.

    A capability that it lacks or does not know is left out, as the specification has it; `validation.check` warns.
    """

    __slots__ = _SETS

    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int

    def __init__(self, document: OciCapabilities | None) -> None:
        available = caps.get()[1]
        given: OciCapabilities = document or {}
        for name in _SETS:
            wanted = caps.mask([cap for cap in given.get(name) or () if cap in caps.NUMBERS])
            setattr(self, name, wanted & available)

    def leave_to_execve(self) -> None:
        """Reduce an ordinary user's capabilities to those after execve, so that files are opened with its rights.

        Docker does the same; whoever writes numbers into ``process.user`` has chosen the sets for them.
        """
        self.effective = self.permitted = self.ambient


def limit_bounding(sets: Sets) -> None:
    """Drop the capabilities that the container must never regain from the bounding set; needs CAP_SETPCAP."""
    try:
        caps.drop_bounding(~sets.bounding)
    except OSError as e:
        raise failure("capabilities", "drop capabilities from the bounding set", e, "CAP_SETPCAP is needed") from e


def apply(sets: Sets, *, keep: int = 0) -> None:
    """Set the process's own sets; called after its user has changed, with PR_SET_KEEPCAPS in force.

    ``keep``: what stays permitted besides, for `raise_admin`.
    """
    try:
        caps.set_(sets.effective & sets.permitted, sets.permitted | keep, sets.inheritable)
        caps.set_ambient(sets.ambient & sets.permitted & sets.inheritable)
    except OSError as e:
        raise failure("capabilities", "set capabilities", e) from e


def raise_admin(sets: Sets) -> None:
    """Make CAP_SYS_ADMIN, kept by `apply`, effective until the next execve."""
    try:
        caps.set_(sets.effective & sets.permitted | ADMIN, sets.permitted | ADMIN, sets.inheritable)
    except OSError as e:
        raise failure("capabilities", "raise CAP_SYS_ADMIN for the seccomp filter", e) from e
