"""``attach``: joins the standard streams to a running container's."""

from __future__ import annotations

from ketch.cli.commands.containers.run import exit_code, still_runs, wait_for
from ketch.cli.options.flags import FlagSet
from ketch.cli.session import Session, check_terminal
from ketch.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context


def cmd_attach(args: list[str], ctx: Context) -> int:
    """Join a running container's streams; returns its exit code, or 0 after the detach keys."""
    spec = FlagSet("attach", "ketch attach [OPTIONS] CONTAINER", "Attach to a running container")
    spec.string("detach-keys", "", "keys that detach").bool("no-stdin", "", "do not attach standard input")
    spec.bool("sig-proxy", "", "pass signals on to the process", default=True)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    client = ctx.client()
    facts = client.request("GET", f"/containers/{rest[0]}/json").json()
    if not facts["State"]["Running"]:
        raise Conflict("cannot attach to a stopped container, start it first", hint=f"ketch start -ai {rest[0]}")
    if facts["State"]["Paused"]:
        raise Conflict("cannot attach to a paused container, unpause it first", hint=f"ketch unpause {rest[0]}")
    stdin = facts["Config"]["OpenStdin"] and not opts["no-stdin"]
    return join(ctx, facts, stdin=stdin, keys=opts["detach-keys"], proxy=opts["sig-proxy"])


def join(ctx: Context, facts: dict[str, object], *, stdin: bool, keys: str, proxy: bool) -> int:
    """Attach to the container that ``facts`` (an inspect answer) describes, until it ends or the user detaches."""
    client, container = ctx.client(), str(facts["Id"])
    tty = bool(facts["Config"]["Tty"])  # type: ignore[index]
    check_terminal(tty, stdin)
    query = {"stream": True, "stdout": True, "stderr": True, "stdin": stdin, "detachKeys": keys or None}
    connection = client.hijack("POST", f"/containers/{container}/attach", query)
    waiting = wait_for(client, container, "")
    Session(
        connection,
        tty=tty,
        stdin=stdin,
        resize=lambda rows, cols: client.request("POST", f"/containers/{container}/resize", {"h": rows, "w": cols}),
        forward=(lambda n: client.request("POST", f"/containers/{container}/kill", {"signal": str(n)}))
        if proxy
        else None,
    ).run()
    if tty and still_runs(client, container):
        return 0
    return exit_code(waiting)
