"""``stop``, ``restart``, ``kill``, ``rm``, ``wait``, ``rename``, ``pause`` and ``unpause``."""

from __future__ import annotations

from ketch.cli.each import each
from ketch.cli.options.flags import FlagSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context


def _verb(name: str, summary: str, *flags: str) -> FlagSet:
    spec = FlagSet(name, f"ketch {name} [OPTIONS] CONTAINER [CONTAINER...]", summary)
    if "time" in flags:
        spec.int("time", "t", "seconds to wait before killing").int("timeout", "", "the same as --time")
        spec.string("signal", "s", "signal to send")
    return spec


def cmd_stop(args: list[str], ctx: Context) -> int:
    """Stop running containers."""
    return _stop_like("stop", "Stop one or more running containers", args, ctx)


def cmd_restart(args: list[str], ctx: Context) -> int:
    """Stop and start containers."""
    return _stop_like("restart", "Restart one or more containers", args, ctx)


def _stop_like(verb: str, summary: str, args: list[str], ctx: Context) -> int:
    spec = _verb(verb, summary, "time")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    timeout = opts["time"] if opts["time"] is not None else opts["timeout"]
    query = {"t": None if timeout is None else str(timeout), "signal": opts["signal"] or None}
    return each(ctx, rest, lambda ref: ctx.client().request("POST", f"/containers/{ref}/{verb}", query))


def cmd_kill(args: list[str], ctx: Context) -> int:
    """Send a signal to containers."""
    spec = _verb("kill", "Kill one or more running containers").string("signal", "s", "signal to send", default="KILL")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    query = {"signal": opts["signal"]}
    return each(ctx, rest, lambda ref: ctx.client().request("POST", f"/containers/{ref}/kill", query))


def cmd_rm(args: list[str], ctx: Context) -> int:
    """Remove containers."""
    spec = _verb("rm", "Remove one or more containers").bool("force", "f", "also running ones (SIGKILL)")
    spec.bool("volumes", "v", "also their anonymous volumes").bool("link", "l", "remove a link")
    from ketch.cli import dry_run

    dry_run.add_flags(spec)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    dry_run.check_format(opts)
    query = {"force": opts["force"], "v": opts["volumes"], "link": opts["link"]}
    if opts["dry-run"]:
        return dry_run.run(ctx, [("DELETE", f"/containers/{ref}", query) for ref in rest], opts)
    return each(
        ctx,
        rest,
        lambda ref: ctx.client().request("DELETE", f"/containers/{ref}", query),
        missing_is_fine=opts["force"],
    )


def cmd_wait(args: list[str], ctx: Context) -> int:
    """Print exit codes when containers have ended."""
    spec = _verb("wait", "Block until one or more containers stop, then print their exit codes")
    _, rest = spec.parse(args)
    spec.arguments(rest, 1)

    def act(ref: str) -> Any:
        return ctx.client().request("POST", f"/containers/{ref}/wait").json()["StatusCode"]

    return each(ctx, rest, act, lambda _ref, code: str(code))


def cmd_rename(args: list[str], ctx: Context) -> int:
    """Give a container another name."""
    spec = FlagSet("rename", "ketch rename CONTAINER NEW_NAME", "Rename a container")
    _, rest = spec.parse(args)
    spec.arguments(rest, 2, 2)
    ctx.client().request("POST", f"/containers/{rest[0]}/rename", {"name": rest[1]})
    return 0


def cmd_pause(args: list[str], ctx: Context) -> int:
    """Freeze containers."""
    return _simple("pause", "Pause all processes within one or more containers", args, ctx)


def cmd_unpause(args: list[str], ctx: Context) -> int:
    """Thaw frozen containers."""
    return _simple("unpause", "Unpause all processes within one or more containers", args, ctx)


def _simple(verb: str, summary: str, args: list[str], ctx: Context) -> int:
    spec = _verb(verb, summary)
    _, rest = spec.parse(args)
    spec.arguments(rest, 1)
    return each(ctx, rest, lambda ref: ctx.client().request("POST", f"/containers/{ref}/{verb}"))
