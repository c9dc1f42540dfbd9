"""Resource limits (setrlimit(2)): the spec's explicit ones, or a clear error."""

from __future__ import annotations

import resource

from ketch.errors import RuntimeFailure
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciRlimit


_NAMES = "AS CORE CPU DATA FSIZE MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK"
_RESOURCES = {f"RLIMIT_{name}": getattr(resource, f"RLIMIT_{name}", -1) for name in _NAMES.split()}
_RESOURCES |= {"RLIMIT_LOCKS": 10, "RLIMIT_RTTIME": 15}  # not in the resource module (asm-generic/resource.h)
_INFINITY = (1 << 64) - 1


# The soft limit of open files that a container starts with: the daemon raises its own, which is nobody else's.  A
# program that closes all that it might have open would take minutes with a million.
soft_files: int | None = None


def apply(limits: list[OciRlimit]) -> None:
    """Set every limit on the calling process; raising a hard limit needs CAP_SYS_RESOURCE."""
    if soft_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for limit in limits:
        name = limit.get("type") or ""
        soft, hard = _value(limit.get("soft", 0)), _value(limit.get("hard", 0))
        number = _RESOURCES.get(name)
        if number is None:
            raise RuntimeFailure(f"wrong rlimit value: {name}", step="rlimits")
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as e:
            raise _refused(number, limit, e) from e


def raise_hard(limits: list[OciRlimit]) -> None:
    """Raise the hard limits that `apply` is going to set, while this process may, before it enters a user namespace."""
    for limit in limits:
        number = _RESOURCES.get(limit.get("type") or "")
        if number is None:
            continue  # `apply` refuses it
        hard = _value(limit.get("hard", 0))
        soft, present = resource.getrlimit(number)
        if present != -1 and (hard == -1 or hard > present):
            try:
                resource.setrlimit(number, (soft, hard))
            except (OSError, ValueError) as e:
                raise _refused(number, limit, e) from e


def _refused(number: int, limit: OciRlimit, error: Exception) -> RuntimeFailure:
    soft, hard = _value(limit.get("soft", 0)), _value(limit.get("hard", 0))
    current = resource.getrlimit(number)[1]
    reason = error if isinstance(error, OSError) and error.errno else PermissionError(1, str(error))
    hint = f"the hard limit here is {_show(current)} and raising it needs CAP_SYS_RESOURCE"
    return failure("rlimits", f"set rlimit `{limit.get('type')}` to {_show(soft)}:{_show(hard)}", reason, hint)


def _value(limit: int) -> int:
    return -1 if limit >= _INFINITY or limit < 0 else limit


def _show(limit: int) -> str:
    return "unlimited" if limit < 0 else str(limit)
