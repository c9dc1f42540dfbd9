"""The ``ketch`` program: one command's module is imported; errors become a sentence and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from errno import EDQUOT, EFBIG, EIO, ENOSPC

from ketch import printable, stdio
from ketch.cli.errors import HelpRequested, TemplateSyntaxError, UsageError
from ketch.errors import PROGRAM_EXIT_CODES, DeviceNotFound, KetchError

# command → "module:function" below ketch.cli.commands; nothing is imported before it is needed
COMMANDS = {
    "attach": "containers.attach:cmd_attach",
    "build": "builds.build:cmd_build",
    "commit": "containers.commit:cmd_commit",
    "cp": "containers.cp:cmd_cp",
    "create": "containers.run:cmd_create",
    "daemon": "system.daemon:cmd_daemon",
    "diff": "containers.commit:cmd_diff",
    "events": "system.events:cmd_events",
    "exec": "containers.exec:cmd_exec",
    "export": "containers.commit:cmd_export",
    "history": "images.images:cmd_history",
    "images": "images.images:cmd_images",
    "import": "images.archives:cmd_import",
    "info": "system.info:cmd_info",
    "inspect": "system.inspect:cmd_inspect",
    "kill": "containers.lifecycle:cmd_kill",
    "load": "images.archives:cmd_load",
    "login": "images.registries:cmd_login",
    "logout": "images.registries:cmd_logout",
    "logs": "containers.logs:cmd_logs",
    "pause": "containers.lifecycle:cmd_pause",
    "port": "containers.top:cmd_port",
    "ps": "containers.ps:cmd_ps",
    "pull": "images.registries:cmd_pull",
    "push": "images.registries:cmd_push",
    "rename": "containers.lifecycle:cmd_rename",
    "restart": "containers.lifecycle:cmd_restart",
    "rm": "containers.lifecycle:cmd_rm",
    "rmi": "images.images:cmd_rmi",
    "run": "containers.run:cmd_run",
    "save": "images.archives:cmd_save",
    "search": "images.registries:cmd_search",
    "start": "containers.start:cmd_start",
    "stats": "containers.stats:cmd_stats",
    "stop": "containers.lifecycle:cmd_stop",
    "tag": "images.images:cmd_tag",
    "top": "containers.top:cmd_top",
    "unpause": "containers.lifecycle:cmd_unpause",
    "update": "containers.update:cmd_update",
    "version": "system.version:cmd_version",
    "wait": "containers.lifecycle:cmd_wait",
}
_CONTAINER = (
    "attach commit cp create diff exec export inspect kill logs pause port rename restart rm run start stats stop top "
    "unpause update wait"
)
GROUPS = {
    "container": {
        **{n: COMMANDS[n] for n in _CONTAINER.split()},
        "ls": "containers.ps:cmd_ps",
        "list": "containers.ps:cmd_ps",
        "ps": "containers.ps:cmd_ps",
        "prune": "system.prune:cmd_containers",
        "inspect": "system.inspect:cmd_container",
    },
    "image": {
        "inspect": "system.inspect:cmd_image",
        **{n: COMMANDS[n] for n in ("build", "history", "import", "load", "pull", "push", "save", "tag")},
        "ls": "images.images:cmd_images",
        "list": "images.images:cmd_images",
        "rm": "images.images:cmd_rmi",
        "bootstrap": "images.archives:cmd_bootstrap",
        "prune": "system.prune:cmd_images",
    },
    "builder": {
        "build": COMMANDS["build"],
        "du": "builds.cache:cmd_du",
        "prune": "builds.cache:cmd_prune",
        "history": "builds.history:cmd_history",
    },
    "system": {
        "info": COMMANDS["info"],
        "events": COMMANDS["events"],
        "df": "system.df:cmd_df",
        "prune": "system.prune:cmd_system",
    },
    "manifest": {
        "inspect": "images.manifest:cmd_inspect",
        "create": "images.manifest:cmd_create",
        "annotate": "images.manifest:cmd_annotate",
        "push": "images.manifest:cmd_push",
        "rm": "images.manifest:cmd_rm",
    },
    "registry": {
        "serve": "system.registry:cmd_serve",
        "gc": "system.registry:cmd_gc",
        "htpasswd": "system.registry:cmd_htpasswd",
    },
    "volume": {
        "ls": "volumes:cmd_ls",
        "create": "volumes:cmd_create",
        "inspect": "volumes:cmd_inspect",
        "rm": "volumes:cmd_rm",
        "prune": "system.prune:cmd_volumes",
        "backup": "volumes:cmd_backup",
        "restore": "volumes:cmd_restore",
    },
    "network": {
        "ls": "networks:cmd_ls",
        "list": "networks:cmd_ls",
        "inspect": "networks:cmd_inspect",
        "create": "networks:cmd_create",
        "rm": "networks:cmd_rm",
        "connect": "networks:cmd_connect",
        "disconnect": "networks:cmd_disconnect",
        "prune": "system.prune:cmd_networks",
        "repair": "networks:cmd_repair",
    },
}
_RUN_LIKE = ("run", "exec")
_RUN_MODULES = ("containers.run", "containers.exec")


def main() -> None:
    """The console script.

    The collector of garbage would look at all that importing makes, again and again while it is made, and at the
    interpreter's end once more: a third of the time of a short command.
    """
    gc.disable()
    try:
        code = run(sys.argv[1:])
    except OSError as e:
        if e.errno not in (EDQUOT, EFBIG, EIO, ENOSPC):
            raise
        sys.stderr.write(f"ketch: {stdio.OutputError(e.errno, os.strerror(e.errno))}\n")
        code = 1
        stdio.drop_output()
    gc.freeze()
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Carry out one command line and write all of its output; returns the exit code."""
    try:
        code = _carry_out(argv)
        sys.stdout.flush()  # the interpreter, which does it at its end, has a status and words of its own for a failure
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _carry_out(argv: list[str]) -> int:
    command = ""
    try:
        host, args = _global_flags(argv)
        target, command, rest = _find(args)
        if target is None:
            sys.stdout.write(_help(args))
            return 0 if not args or args[0] in ("help", "--help", "-h") else 1
        module_name, _, function = target.partition(":")
        module = __import__(f"ketch.cli.commands.{module_name}", fromlist=[function])
        from ketch.cli.context import Context

        if module_name not in _RUN_MODULES and command in _RUN_LIKE:
            command = target  # `network create` is not `create`
        gc.freeze()
        gc.enable()
        code: int = getattr(module, function)(rest, Context(host))
        return code
    except HelpRequested as e:
        sys.stdout.write(str(e))
        return 0
    except KetchError as e:
        sys.stdout.flush()
        sys.stderr.write(printable.lines(f"ketch: {e.message}\n" + (f"  {e.hint}\n" if e.hint else "")))
        return failure_code(command, e)


def failure_code(command: str, error: KetchError) -> int:
    """Docker's exit codes: 125 wrong flags, failed run; 126, 127 program not executable, not found; else 1."""
    if isinstance(error, UsageError):
        return 125
    if command == "inspect" and isinstance(error, TemplateSyntaxError):
        return 64
    if command not in _RUN_LIKE:
        return 1
    if isinstance(error, DeviceNotFound):
        return 127
    return PROGRAM_EXIT_CODES.get(type(error), 1 if command == "exec" else 125)


def _global_flags(argv: list[str]) -> tuple[str, list[str]]:
    host, args = "", list(argv)
    while args and args[0].startswith("-"):
        word = args[0]
        if word in ("-H", "--host") and len(args) > 1:
            host, args = args[1], args[2:]
        elif word.startswith("--host="):
            host, args = word[7:], args[1:]
        elif word in ("-v", "--version"):
            args = ["version", "--short"]
            break
        else:
            break
    return host, args


def _find(args: list[str]) -> tuple[str | None, str, list[str]]:
    """Find a command: (module:function, command, its arguments)."""
    if not args:
        return None, "", []
    name = args[0]
    if name in COMMANDS:
        return COMMANDS[name], name, args[1:]
    group = GROUPS.get(name)
    if group and len(args) > 1 and args[1] in group:
        return group[args[1]], args[1], args[2:]
    if group or name in ("help", "--help", "-h"):
        return None, "", args
    from ketch.errors import InvalidArgument

    raise InvalidArgument(f"`{name}` is not a ketch command", hint="see: ketch --help")


def _help(args: list[str]) -> str:
    group = GROUPS.get(args[0]) if args else None
    if group:
        return f"Usage:  ketch {args[0]} COMMAND\n\nCommands:\n" + "".join(f"  {name}\n" for name in sorted(group))
    lines = [
        "Usage:  ketch [-H HOST] COMMAND",
        "",
        "A container engine that speaks the Docker Engine API.",
        "",
        "Commands:",
    ]
    lines += [f"  {name}" for name in sorted(COMMANDS)]
    lines += ["", "Groups (each with commands of its own):"] + [f"  {name}" for name in sorted(GROUPS)]
    return "\n".join([*lines, "", "`ketch COMMAND --help` explains a command.", ""])
