"""``--wait-healthy``: the flag and its timeout."""

from __future__ import annotations

from ketch.cli.options import quantities
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.options.flags import FlagSet, Options

_FLAG = "wait-healthy"


def add_flag(spec: FlagSet) -> None:
    """``--wait-healthy[=TIMEOUT]``."""
    spec.optional(_FLAG, "return when it is healthy (or runs, without a healthcheck); with a timeout: 30s, 5m")


def timeout_of(opts: Options) -> float | None:
    """Seconds, 0 for no limit; None when the flag was not given (InvalidArgument)."""
    if _FLAG not in opts.given:
        return None
    text = opts[_FLAG]
    seconds = quantities.duration(f"{text}s" if text.isdecimal() else text, f"--{_FLAG}") / 1e9 if text else 0.0
    if text and not seconds:
        raise InvalidArgument(
            f"invalid --{_FLAG} `{text}`: no time at all", hint="leave the value out to wait for ever"
        )
    return seconds
