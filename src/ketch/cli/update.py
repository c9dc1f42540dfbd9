"""``update``: limits and the restart policy of containers that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.cli import run_flags
from ketch.cli.flags import FlagSet
from ketch.cli.lifecycle import each

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context

_STRINGS = "cpus cpuset-cpus cpuset-mems memory:m memory-reservation memory-swap restart"
_INTS = "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares:c pids-limit"


def flag_set() -> FlagSet:
    """Docker's flags of ``update``."""
    spec = FlagSet("update", "ketch update [OPTIONS] CONTAINER [CONTAINER...]", "Change containers that exist")
    for words, add in ((_STRINGS, spec.string), (_INTS, spec.int)):
        for word in words.split():
            name, _, short = word.partition(":")
            add(name, short)
    return spec


def cmd_update(args: list[str], ctx: Context) -> int:
    """Change containers, at once."""
    spec = flag_set()
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    body: dict[str, Any] = run_flags.limits(opts)
    for key, flag in (("CpusetCpus", "cpuset-cpus"), ("CpusetMems", "cpuset-mems")):
        body[key] = opts[flag]
    if opts["restart"]:
        body["RestartPolicy"] = run_flags.restart_policy(opts["restart"])

    def act(ref: str) -> None:
        answer = ctx.client().request("POST", f"/containers/{ref}/update", None, body).json()
        for warning in answer.get("Warnings") or ():
            ctx.warn(f"WARNING: {warning}")

    return each(ctx, rest, act)
