"""``exec``: a further process in a running container."""

from __future__ import annotations

import os

from ketch.cli.options.flags import FlagSet
from ketch.cli.session import Session, check_terminal, window
from ketch.errors import KetchError, ProgramNotExecutable, ProgramNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context


def flag_set() -> FlagSet:
    """The flags of ``exec``; `run`'s table is not used, as its import would delay every exec."""
    usage = "ketch exec [OPTIONS] CONTAINER COMMAND [ARG...]"
    spec = FlagSet("exec", usage, "Execute a command in a running container", interspersed=False)
    spec.bool("detach", "d", "run it in the background").string("detach-keys", "", "keys that detach")
    spec.list("env", "e", "set an environment variable").list("env-file", "", "set those of a file")
    spec.bool("interactive", "i", "keep standard input open").bool("privileged", "", "give it all privileges")
    spec.bool("tty", "t", "give it a terminal").string("user", "u", "name or id, with :GROUP")
    return spec.string("workdir", "w", "where it starts")


def cmd_exec(args: list[str], ctx: Context) -> int:
    """Run a command in a running container; returns its exit code."""
    spec = flag_set()
    opts, rest = spec.parse(args)
    spec.arguments(rest, 2)
    if not opts["detach"]:
        check_terminal(opts["tty"], opts["interactive"])
    from ketch.cli.options.key_value import environment

    client = ctx.client()
    body = {
        "AttachStdin": opts["interactive"] and not opts["detach"],
        "AttachStdout": not opts["detach"],
        "AttachStderr": not opts["detach"],
        "Tty": opts["tty"],
        "Cmd": rest[1:],
        "Env": environment(opts),
        "User": opts["user"],
        "WorkingDir": opts["workdir"],
        "Privileged": opts["privileged"],
        "DetachKeys": opts["detach-keys"],
    }
    if opts["tty"] and os.isatty(1):
        body["ConsoleSize"] = list(window())
    exec_id = client.request("POST", f"/containers/{rest[0]}/exec", None, body).json()["Id"]
    start = {"Detach": opts["detach"], "Tty": opts["tty"], "ConsoleSize": body.get("ConsoleSize")}
    if opts["detach"]:
        try:
            client.request("POST", f"/exec/{exec_id}/start", None, start)
        except (ProgramNotFound, ProgramNotExecutable) as e:  # nobody has seen the program end: no code of its own
            raise KetchError(e.message, hint=e.hint) from e
        return 0
    connection = client.hijack("POST", f"/exec/{exec_id}/start", None, start)
    Session(
        connection,
        tty=opts["tty"],
        stdin=opts["interactive"],
        resize=lambda rows, cols: client.request("POST", f"/exec/{exec_id}/resize", {"h": rows, "w": cols}),
    ).run()
    answer = client.request("GET", f"/exec/{exec_id}/json").json()
    return int(answer["ExitCode"] or 0)
