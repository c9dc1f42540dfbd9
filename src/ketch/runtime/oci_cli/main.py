"""``ketch-runtime``: the OCI runtime command line, as containerd's shim, Podman and CRI-O call it.

Options and output follow runc's, which those callers were written for.  No argparse: it would cost more time
than starting a container's process does.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

from ketch import stdio
from ketch.errors import InvalidArgument, KetchError, RuntimeFailure
from ketch.notation import booleans
from ketch.runtime import documents
from ketch.runtime.failure import reason
from ketch.runtime.oci_cli import state as states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ketch.runtime.oci_types import OciProcess

    _Options = dict[str, Any]
else:
    _Options = dict

DEFAULT_ROOT = "/run/ketch-runtime"
_USAGE = """\
usage: ketch-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND …

  create [--bundle DIR] [--console-socket PATH] [--pid-file FILE] [--preserve-fds N] ID
  start ID
  run [-d] [--bundle DIR] [--console-socket PATH] [--pid-file FILE] [--keep] ID
  exec [-d] [-t] [--process FILE] [--cwd DIR] [--env N=V] [--user U] [--console-socket PATH] [--pid-file FILE] ID [ARGS]
  state ID               kill [--all] ID [SIGNAL]     delete [--force] ID
  list [-q] [-f json]    ps [-f json] ID              pause ID    resume ID
  update [--resources FILE|-] ID                      events --stats ID
  features               spec [--bundle DIR]
"""


class CommandOptions(_Options):
    """Parsed options by long name; absent ones are missing."""


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code is the container's for ``run`` and ``exec`` in the foreground."""
    args = sys.argv[1:] if argv is None else argv
    _forget_parent()
    settings: CommandOptions = CommandOptions()
    try:
        settings, rest = parse(args, _GLOBAL, interspersed=False)
        if settings.get("version"):
            stdio.write(f"ketch-runtime version {_version()}\nspec: {states.OCI_VERSION}\n")
            return 0
        if settings.get("help") or not rest or rest[0] == "help":
            stdio.write(_USAGE)
            return 0
        command = _COMMANDS.get(rest[0])
        if command is None:
            raise InvalidArgument(f"unknown command `{rest[0]}`", hint="see `ketch-runtime --help`")
        function, flags, interspersed = command
        options, operands = parse(rest[1:], flags, interspersed=interspersed)
        options["root"] = settings.get("root") or DEFAULT_ROOT
        return function(options, operands)
    except KetchError as e:
        return _fail(settings, e.message, e.hint)
    except stdio.OutputError as e:
        return _fail(settings, str(e), None)
    except OSError as e:
        return _fail(settings, f"{e.filename or 'system call'}: {reason(e)}", None)


def _forget_parent() -> None:
    """Reset the umask, the signal mask and the disposition of SIGCHLD that the caller left."""
    os.umask(0o022)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)


def parse(args: list[str], flags: dict[str, str], *, interspersed: bool) -> tuple[CommandOptions, list[str]]:
    """Split options from operands.

    ``flags`` maps every accepted spelling without dashes to "bool:NAME", "value:NAME" or "list:NAME".  Without
    ``interspersed`` everything after the first operand is one.
    """
    options, operands, index = CommandOptions(), [], 0
    while index < len(args):
        arg = args[index]
        index += 1
        if arg == "--":
            operands += args[index:]
            break
        if not arg.startswith("-") or arg == "-":
            operands.append(arg)
            if not interspersed:
                operands += args[index:]
                break
            continue
        name, equals, value = arg.lstrip("-").partition("=")
        kind, _, target = flags.get(name, "").partition(":")
        if not kind:
            raise InvalidArgument(f"unknown option `{arg}`", hint="see `ketch-runtime --help`")
        if kind == "bool":
            options[target] = booleans.parse(value) if equals else True
            if options[target] is None:
                raise InvalidArgument(f"option `{arg}`: `{value}` is neither true nor false")
            continue
        if not equals:
            if index >= len(args):
                raise InvalidArgument(f"option `{arg}` needs a value")
            value = args[index]
            index += 1
        if kind == "list":
            options.setdefault(target, []).append(value)
        else:
            options[target] = value
    return options, operands


def _create(options: CommandOptions, operands: list[str]) -> int:
    _, master_fd = _do_create(options, operands)
    if master_fd >= 0:
        raise InvalidArgument("create container with a terminal", hint="give --console-socket, or use `run`")
    return 0


def _start(options: CommandOptions, operands: list[str]) -> int:
    from ketch.runtime.oci_cli import lifecycle

    lifecycle.start(_state_of(options, operands))
    return 0


def _run(options: CommandOptions, operands: list[str]) -> int:
    from ketch.runtime.oci_cli import lifecycle, relay

    state, master_fd = _do_create(options, operands)
    try:
        lifecycle.start(state)
    except BaseException:
        lifecycle.delete(state, force=True)
        raise
    if options.get("detach"):
        return 0
    relay.forward_signals(state.pid)
    code = relay.relay(master_fd, state.pid) if master_fd >= 0 else relay.wait(state.pid)
    if not options.get("keep"):
        lifecycle.delete(state, force=True)
    return code


def _exec(options: CommandOptions, operands: list[str]) -> int:
    if not operands:
        raise InvalidArgument("a container id is missing")
    from ketch.runtime.oci_cli import creation, relay

    state = states.load(options["root"], operands[0])
    process = _exec_process(options, operands[1:], state)
    pid, master_fd = creation.enter(
        state,
        process,
        console_socket=options.get("console-socket", ""),
        pid_file=options.get("pid-file", ""),
        preserve_fds=int(options.get("preserve-fds", 0)),
    )
    if options.get("detach"):
        return 0
    relay.forward_signals(pid)
    return relay.relay(master_fd, pid) if master_fd >= 0 else relay.wait(pid)


def _exec_process(options: CommandOptions, args: list[str], state: states.RuntimeState) -> OciProcess:
    """The process object: from --process, else the container's own with the command line's changes."""
    if options.get("process"):
        with open(options["process"], "rb") as file:
            document: OciProcess = _json(file.read(), options["process"])
        from ketch.runtime import spec
        from ketch.runtime.validation import check

        check.check_process(document)
        spec.check_process(document)
        return document
    from ketch.runtime import spec

    process = spec.load(state.bundle)["process"]
    process["terminal"] = bool(options.get("tty"))
    process.pop("consoleSize", None)
    if args:
        process["args"] = args
    if options.get("cwd"):
        process["cwd"] = options["cwd"]
    process["env"] = [*(process.get("env") or []), *options.get("env", [])]
    if options.get("user"):
        process["user"] = {"username": options["user"]}
    if options.get("no-new-privs"):
        process["noNewPrivileges"] = True
    return process


def _json(data: bytes, name: str) -> Any:
    try:
        return documents.loads(data)
    except (ValueError, RecursionError) as e:
        raise RuntimeFailure(f"read `{name}`: {e}", step="config") from e


def _state(options: CommandOptions, operands: list[str]) -> int:
    _print_json(_state_of(options, operands).oci())
    return 0


def _kill(options: CommandOptions, operands: list[str]) -> int:
    if not 1 <= len(operands) <= 2:
        raise InvalidArgument("kill takes a container id and a signal")
    from ketch.notation import signals
    from ketch.runtime.oci_cli import lifecycle

    name = operands[1] if len(operands) > 1 else "SIGTERM"
    number = signals.parse(name)
    if number is None:
        raise InvalidArgument(f"unknown signal `{name}`", hint="use e.g. KILL, SIGTERM or 15")
    lifecycle.kill(states.load(options["root"], operands[0]), number, everyone=bool(options.get("all")))
    return 0


def _delete(options: CommandOptions, operands: list[str]) -> int:
    from ketch.runtime.oci_cli import lifecycle

    force = bool(options.get("force"))
    if force and operands and lifecycle.find(options["root"], operands[0]) is None:
        return 0
    lifecycle.delete(_state_of(options, operands), force=force)
    return 0


def _list(options: CommandOptions, _operands: list[str]) -> int:
    found = [state.oci() for state in states.load_all(options["root"])]
    if options.get("format") == "json":
        _print_json(found)
    elif options.get("quiet"):
        stdio.write("".join(f"{state['id']}\n" for state in found))
    else:
        lines = []
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        rows += [(s["id"], str(s["pid"]), s["status"], s["bundle"], s["created"]) for s in found]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        for row in rows:
            line = "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            lines.append(line.rstrip() + "\n")
        stdio.write("".join(lines))
    return 0


def _ps(options: CommandOptions, operands: list[str]) -> int:
    cgroup = _state_of(options, operands[:1]).cgroup()
    pids = cgroup.pids() if cgroup is not None else []
    if options.get("format") == "json":
        _print_json(pids)
    else:
        stdio.write("".join(f"{pid}\n" for pid in pids))
    return 0


def _freeze(frozen: bool) -> Callable[[CommandOptions, list[str]], int]:
    def command(options: CommandOptions, operands: list[str]) -> int:
        _cgroup(options, operands).freeze(frozen)
        return 0

    return command


def _update(options: CommandOptions, operands: list[str]) -> int:
    source = options.get("resources", "-")
    if source == "-":
        resources = _json(sys.stdin.buffer.read(), "stdin")
    else:
        with open(source, "rb") as file:
            resources = _json(file.read(), source)
    from ketch.runtime import spec

    spec.check_texts(resources, "resources")
    _cgroup(options, operands).update(resources)
    return 0


def _events(options: CommandOptions, operands: list[str]) -> int:
    state = _state_of(options, operands)
    _print_json({"type": "stats", "id": state.id, "data": _cgroup(options, operands).stats()})
    return 0


def _features(_options: CommandOptions, _operands: list[str]) -> int:
    from ketch.runtime.oci_cli import features

    _print_json(features.document())
    return 0


def _spec(options: CommandOptions, _operands: list[str]) -> int:
    import json

    from ketch.runtime.oci_cli import features

    path = os.path.join(options.get("bundle", "."), "config.json")
    with open(path, "x", encoding="utf-8") as file:
        json.dump(features.example(), file, indent=2)
        file.write("\n")
    return 0


def _do_create(options: CommandOptions, operands: list[str]) -> tuple[states.RuntimeState, int]:
    if len(operands) != 1:
        raise InvalidArgument("exactly one container id is needed")
    from ketch.runtime.oci_cli import creation

    return creation.create(
        options["root"],
        operands[0],
        options.get("bundle", "."),
        console_socket=options.get("console-socket", ""),
        pid_file=options.get("pid-file", ""),
        preserve_fds=int(options.get("preserve-fds", 0)),
    )


def _state_of(options: CommandOptions, operands: list[str]) -> states.RuntimeState:
    if len(operands) != 1:
        raise InvalidArgument("exactly one container id is needed")
    return states.load(options["root"], operands[0])


def _cgroup(options: CommandOptions, operands: list[str]) -> Any:
    state = _state_of(options, operands)
    cgroup = state.cgroup()
    if cgroup is None:
        raise InvalidArgument(f"container `{state.id}` has no cgroup of its own")
    return cgroup


def _print_json(value: object) -> None:
    import json

    stdio.write(json.dumps(value, indent=2) + "\n")


def _fail(settings: CommandOptions, message: str, hint: str | None) -> int:
    """One sentence on stderr and, for callers that read it there, in the log file."""
    if settings.get("log"):
        import time

        from ketch.notation import times

        now = times.rfc3339(int(time.time()) * 10**9)
        if settings.get("log-format") == "json":
            line = documents.dumps({"level": "error", "msg": message, "time": now})
        else:
            line = f'time="{now}" level=error msg={documents.dumps(message)}'
        with open(settings["log"], "a", encoding="utf-8") as file:
            file.write(line + "\n")
    sys.stderr.write(f"ketch-runtime: {message}\n" + (f"  {hint}\n" if hint else ""))
    return 1


def _version() -> str:
    from ketch import __version__

    return __version__


def _flags(text: str) -> dict[str, str]:
    """Parse rows like ``bool detach d``: type, long name, other spellings."""
    table = {}
    for row in text.split(","):
        kind, name, *others = row.split()
        for spelling in (name, *others):
            table[spelling] = f"{kind}:{name}"
    return table


_GLOBAL = _flags(
    "value root,value log,value log-format,bool debug,bool systemd-cgroup,value rootless,value criu,bool help h,"
    "bool version v"
)
_CREATE = _flags(
    "value bundle b,value console-socket,value pid-file,value preserve-fds,bool no-pivot,bool no-new-keyring,"
    "bool detach d,bool keep,bool no-subreaper,value pidfd-socket"
)
_EXEC = _flags(
    "bool detach d,bool tty t,value process p,value cwd,list env e,value user u,value console-socket,value pid-file,"
    "value preserve-fds,bool no-new-privs,list additional-gids g,list cap c,value cgroup,bool ignore-paused"
)
_FORMAT = _flags("value format f,bool quiet q")
_COMMANDS: dict[str, tuple[Callable[[CommandOptions, list[str]], int], dict[str, str], bool]] = {
    "create": (_create, _CREATE, True),
    "start": (_start, {}, True),
    "run": (_run, _CREATE, True),
    "exec": (_exec, _EXEC, False),
    "state": (_state, {}, True),
    "kill": (_kill, _flags("bool all a"), True),
    "delete": (_delete, _flags("bool force f"), True),
    "list": (_list, _FORMAT, True),
    "ps": (_ps, _FORMAT, False),
    "pause": (_freeze(True), {}, True),
    "resume": (_freeze(False), {}, True),
    "update": (_update, _flags("value resources r"), True),
    "events": (_events, _flags("bool stats,value interval"), True),
    "features": (_features, {}, True),
    "spec": (_spec, _flags("value bundle b,bool rootless"), True),
}

if __name__ == "__main__":
    sys.exit(main())
