"""``start``: starts containers, attaches to them or waits for them."""

from __future__ import annotations

from ketch.cli.commands.containers import timing, wait_healthy
from ketch.cli.each import each
from ketch.cli.options import wait_flag
from ketch.cli.options.flags import FlagSet
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context


def cmd_start(args: list[str], ctx: Context) -> int:
    """Start stopped containers, or one of them with its streams attached."""
    spec = FlagSet("start", "ketch start [OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers")
    spec.bool("attach", "a", "attach standard output and error").bool("interactive", "i", "attach standard input")
    spec.string("detach-keys", "", "keys that detach")
    wait_flag.add_flag(spec)
    timing.add_flag(spec)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    client = ctx.client()
    timeout_s = wait_flag.timeout_of(opts)
    if opts["timing"]:
        if opts["attach"] or opts["interactive"] or timeout_s is not None:
            raise InvalidArgument("conflicting options: --timing and -a, -i or --wait-healthy")
        return each(ctx, rest, lambda ref: timing.show(ctx, timing.start(ctx, ref)))
    if timeout_s is not None:
        if opts["attach"] or opts["interactive"]:
            raise InvalidArgument("conflicting options: --wait-healthy and -a or -i")
        return each(ctx, rest, lambda ref: wait_healthy.start(ctx, ref, timeout_s))
    if not (opts["attach"] or opts["interactive"]):
        return each(ctx, rest, lambda ref: client.request("POST", f"/containers/{ref}/start"))
    if len(rest) > 1:
        raise InvalidArgument("you cannot start and attach multiple containers at once")
    return _start_attached(ctx, rest[0], stdin=opts["interactive"], keys=opts["detach-keys"])


def _start_attached(ctx: Context, ref: str, *, stdin: bool, keys: str) -> int:
    from ketch.cli.commands.containers.run import exit_code, still_runs, wait_for
    from ketch.cli.session import Session, check_terminal

    client = ctx.client()
    facts = client.request("GET", f"/containers/{ref}/json").json()
    container, tty = facts["Id"], facts["Config"]["Tty"]
    stdin = stdin and facts["Config"]["OpenStdin"]
    check_terminal(tty, stdin)
    query = {"stream": True, "stdout": True, "stderr": True, "stdin": stdin, "detachKeys": keys or None}
    connection = client.hijack("POST", f"/containers/{container}/attach", query)
    waiting = wait_for(client, container, "removed" if facts["HostConfig"]["AutoRemove"] else "next-exit")
    client.request("POST", f"/containers/{container}/start")
    Session(
        connection,
        tty=tty,
        stdin=stdin,
        resize=lambda rows, cols: client.request("POST", f"/containers/{container}/resize", {"h": rows, "w": cols}),
        forward=lambda n: client.request("POST", f"/containers/{container}/kill", {"signal": str(n)}),
    ).run()
    if tty and still_runs(client, container):
        return 0
    return exit_code(waiting)
