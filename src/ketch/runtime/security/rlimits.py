"""Resource limits (setrlimit(2)): the spec's explicit ones, or a clear error."""

from __future__ import annotations

from errno import EPERM

from ketch.errors import RuntimeFailure
from ketch.linux.syscall import buffer, c_int, c_void_p, failed, function
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciRlimit


# In the kernel's order: the number of a resource is its place (include/uapi/asm-generic/resource.h).
_KERNEL_ORDER = """
    CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
NUMBERS = {f"RLIMIT_{name}": number for number, name in enumerate(_KERNEL_ORDER.split())}
_INFINITY = (1 << 64) - 1
_getrlimit = function("getrlimit", c_int, c_void_p)
_setrlimit = function("setrlimit", c_int, c_void_p)


# The soft limit of open files that a container starts with: the daemon raises its own, which is nobody else's.  A
# program that closes all that it might have open would take minutes with a million.
soft_files: int | None = None


def get(number: int) -> tuple[int, int]:
    """The soft and the hard limit of the calling process; -1 is none."""
    limits = buffer(16)  # struct rlimit: two unsigned longs
    if _getrlimit(number, limits) < 0:
        raise failed("getrlimit")
    soft, hard = (int.from_bytes(limits.raw[at : at + 8], "little") for at in (0, 8))
    return -1 if soft == _INFINITY else soft, -1 if hard == _INFINITY else hard


def set_(number: int, soft: int, hard: int) -> None:
    """Set the soft and the hard limit of the calling process."""
    if _setrlimit(number, b"".join((limit & _INFINITY).to_bytes(8, "little") for limit in (soft, hard))) < 0:
        raise failed("setrlimit")


def apply(limits: list[OciRlimit]) -> None:
    """Set every limit on the calling process; raising a hard limit needs CAP_SYS_RESOURCE."""
    if soft_files is not None:
        files = NUMBERS["RLIMIT_NOFILE"]
        set_(files, soft_files, get(files)[1])
    for limit in limits:
        name = limit.get("type") or ""
        soft, hard = _value(limit.get("soft", 0)), _value(limit.get("hard", 0))
        number = NUMBERS.get(name)
        if number is None:
            raise RuntimeFailure(f"wrong rlimit value: {name}", step="rlimits")
        try:
            set_(number, soft, hard)
        except OSError as e:
            raise _refused(number, limit, e) from e


def raise_hard(limits: list[OciRlimit]) -> None:
    """Raise the hard limits that `apply` is going to set, while this process may, before it enters a user namespace."""
    for limit in limits:
        number = NUMBERS.get(limit.get("type") or "")
        if number is None:
            continue  # `apply` refuses it
        hard = _value(limit.get("hard", 0))
        soft, present = get(number)
        if present != -1 and (hard == -1 or hard > present):
            try:
                set_(number, soft, hard)
            except OSError as e:
                raise _refused(number, limit, e) from e


def _refused(number: int, limit: OciRlimit, error: OSError) -> RuntimeFailure:
    soft, hard = _value(limit.get("soft", 0)), _value(limit.get("hard", 0))
    current = get(number)[1]
    hint = f"the hard limit here is {_show(current)} and raising it needs CAP_SYS_RESOURCE"
    if error.errno != EPERM:
        hint = "the soft limit is at most the hard one"
    return failure("rlimits", f"set rlimit `{limit.get('type')}` to {_show(soft)}:{_show(hard)}", error, hint)


def _value(limit: int) -> int:
    return -1 if limit >= _INFINITY or limit < 0 else limit


def _show(limit: int) -> str:
    return "unlimited" if limit < 0 else str(limit)
