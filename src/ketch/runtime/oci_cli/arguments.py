"""The words of the command line: each command's options and operands, in tables that ``--help`` shows.

Commands, options and their short forms are runc's, which callers were written for.  No argparse: to import it costs
more than starting a container's process does.
"""

from __future__ import annotations

from ketch.errors import InvalidArgument, RuntimeFailure
from ketch.notation import booleans
from ketch.runtime.failure import reason
from ketch.runtime.oci_cli import state as states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ketch.runtime.oci_cli.diagnostics import Diagnostics

    # (kind, spellings without dashes of which the first is its name, what its value is called, what it does)
    Option: TypeAlias = tuple[str, str, str, str]
    Table: TypeAlias = tuple[Option, ...]
    Value: TypeAlias = str | bool | list[str]

_NUMBER = 1 << 31  # what is more is no count of descriptors


class GivenOptions:
    """The options that were given, by their first spellings."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}

    def put(self, kind: str, name: str, value: str | bool) -> None:
        """Note an option; the last of several counts, of a list all."""
        if kind == "list":
            values = self._values.setdefault(name, [])
            assert isinstance(values, list)
            values.append(str(value))
        else:
            self._values[name] = value

    def given(self, name: str) -> bool:
        """Whether the option is there, whatever its value."""
        return name in self._values

    def flag(self, name: str) -> bool:
        """The value of a flag; False without it."""
        return bool(self._values.get(name))

    def text(self, name: str, default: str = "") -> str:
        """The value of an option; without it, and when it is empty, ``default``."""
        return str(self._values.get(name) or default)

    def texts(self, name: str) -> list[str]:
        """The values of an option that may be given several times, in order."""
        values = self._values.get(name, [])
        return values if isinstance(values, list) else [str(values)]

    def count(self, name: str) -> int:
        """The value of an option that takes a number, 0 without it."""
        text = self.text(name, "0")
        if not (text.isascii() and text.isdigit()) or int(text) >= _NUMBER:
            raise InvalidArgument(f"option `--{name}`: `{text}` is not a number")
        return int(text)


class Invocation:
    """One call of the command line: what was asked for, and where its messages go.

    ``operands`` are as many as the command takes; ``systemd``: cgroups are systemd's units.
    """

    __slots__ = ("diagnostics", "operands", "options", "root", "systemd")

    def __init__(
        self, root: str, options: GivenOptions, operands: list[str], diagnostics: Diagnostics, *, systemd: bool
    ) -> None:
        self.root = root
        self.options = options
        self.operands = operands
        self.diagnostics = diagnostics
        self.systemd = systemd

    def state(self) -> states.RuntimeState:
        """The state of the container that the first operand names; NotFound when there is none."""
        return states.load(self.root, self.operands[0])


def parse(args: list[str], table: Table, *, interspersed: bool) -> tuple[GivenOptions, list[str]]:
    """Split options from operands; without ``interspersed`` everything after the first operand is one."""
    known = {spelling: (row[0], row[1].split()[0]) for row in table for spelling in row[1].split()}
    options, operands, index = GivenOptions(), [], 0
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
        if name not in known:
            raise InvalidArgument(f"unknown option `{arg}`", hint="see `ketch-runtime --help`")
        kind, target = known[name]
        if kind == "flag":
            options.put(kind, target, _truth(arg, value) if equals else True)
            continue
        if not equals:
            if index >= len(args):
                raise InvalidArgument(f"option `{arg}` needs a value")
            value = args[index]
            index += 1
        options.put(kind, target, value)
    return options, operands


def _truth(arg: str, value: str) -> bool:
    truth = booleans.parse(value)
    if truth is None:
        raise InvalidArgument(f"option `{arg}`: `{value}` is neither true nor false")
    return truth


def read_json(path: str) -> Any:
    """The JSON in the file that an option names; `-` is stdin."""
    from ketch.notation import documents

    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            return documents.loads(file.read())
    except OSError as e:
        raise RuntimeFailure(f"read `{path}`: {reason(e)}", step="config", errno=e.errno or 0) from e
    except (ValueError, RecursionError) as e:
        raise RuntimeFailure(f"read `{path}`: {e}", step="config") from e


def check_operands(command: str, operands: list[str], least: int, most: int | None) -> None:
    """Raise InvalidArgument unless there are as many operands as the command takes (``most`` None: any number)."""
    if len(operands) < least:
        what = "exactly" if least == most else "at least"
        raise InvalidArgument(f"`{command}` takes {what} {least} {_arguments(least)}", hint=_help_of(command))
    if most is not None and len(operands) > most:
        what = "exactly" if least == most else "at most"
        raise InvalidArgument(f"`{command}` takes {what} {most or 'no'} {_arguments(most)}", hint=_help_of(command))


def _arguments(count: int) -> str:
    return "argument" if count == 1 else "arguments"


def _help_of(command: str) -> str:
    return f"see `ketch-runtime {command} --help`"


HELP: Option = ("flag", "help h", "", "show this help")

GLOBAL: Table = (
    ("value", "root", "DIR", "where the state of containers is kept (default: /run/ketch-runtime)"),
    ("value", "log", "FILE", "append errors and warnings to a file"),
    ("value", "log-format", "FORMAT", "the file's form: `text` (default) or `json`"),
    ("flag", "debug", "", "say in the log what was called"),
    ("flag", "systemd-cgroup", "", "cgroupsPath is `slice:prefix:name`: cgroups are systemd's units"),
    ("value", "rootless", "WORD", "accepted, without effect: the runtime needs root"),
    ("value", "criu", "PATH", "accepted, without effect"),
    ("flag", "version v", "", "show the version"),
    HELP,
)

_HANDOVER: Table = (
    ("value", "console-socket", "PATH", "send the terminal's master to this unix socket"),
    ("value", "pidfd-socket", "PATH", "send a pidfd of the process to this unix socket"),
    ("value", "pid-file", "FILE", "write the process's pid to this file"),
    ("value", "preserve-fds", "N", "leave descriptors 3 … N+2 open to the process"),
)
CREATE: Table = (
    ("value", "bundle b", "DIR", "the bundle (default: the current directory)"),
    *_HANDOVER,
    ("flag", "no-pivot", "", "move the root and chroot instead of pivot_root, for a root in the initial RAM disk"),
    ("flag", "no-new-keyring", "", "stay in the caller's session keyring"),
    HELP,
)
RUN: Table = (
    *CREATE[:-1],
    ("flag", "detach d", "", "do not wait for the container's end"),
    ("flag", "keep", "", "keep the container's state after its end"),
    ("flag", "no-subreaper", "", "do not become the parent of the container's orphans"),
    HELP,
)
EXEC: Table = (
    ("flag", "detach d", "", "do not wait for the process's end"),
    ("flag", "tty t", "", "give it a terminal"),
    ("value", "process p", "FILE", "the process as JSON, instead of the arguments"),
    ("value", "cwd", "DIR", "its working directory"),
    ("list", "env e", "NAME=VALUE", "set a variable"),
    ("value", "user u", "UID[:GID]", "its user: numbers, or a name of the container's"),
    ("list", "additional-gids g", "GID", "add a supplementary group"),
    ("list", "cap c", "NAME", "add a capability"),
    ("flag", "no-new-privs", "", "set no_new_privs"),
    ("value", "apparmor", "PROFILE", "its AppArmor profile"),
    ("value", "process-label", "LABEL", "its SELinux label"),
    ("list", "cgroup", "[CONTROLLERS:]PATH", "put it into a cgroup below the container's"),
    ("flag", "ignore-paused", "", "also in a paused container, where it waits"),
    *_HANDOVER,
    HELP,
)
KILL: Table = (("flag", "all a", "", "signal every process of the container"), HELP)
DELETE: Table = (("flag", "force f", "", "end it first; a missing container is no error"), HELP)
LIST: Table = (
    ("value", "format f", "FORMAT", "`table` (default) or `json`"),
    ("flag", "quiet q", "", "ids only"),
    HELP,
)
PS: Table = (("value", "format f", "FORMAT", "`table` (default) or `json`"), HELP)
EVENTS: Table = (
    ("flag", "stats", "", "one reading, then end"),
    ("value", "interval", "DURATION", "time between readings (default: 5s)"),
    HELP,
)
UPDATE: Table = (
    ("value", "resources r", "FILE", "OCI resources as JSON (`-`: stdin), instead of the options below"),
    ("value", "blkio-weight", "N", "relative weight of block I/O, 10 to 1000"),
    ("value", "cpu-period", "µs", "period of the limit of processor time"),
    ("value", "cpu-quota", "µs", "processor time in a period"),
    ("value", "cpu-burst", "µs", "unused time of earlier periods that may be used"),
    ("value", "cpu-share", "N", "relative weight of processor time"),
    ("value", "cpu-rt-period", "µs", "period of the limit of realtime processes"),
    ("value", "cpu-rt-runtime", "µs", "their time in a period"),
    ("value", "cpu-idle", "0|1", "1: only time that nobody else wants"),
    ("value", "cpuset-cpus", "LIST", "processors, as 0-3,5"),
    ("value", "cpuset-mems", "LIST", "memory nodes"),
    ("value", "memory", "SIZE", "limit of memory, -1 for none"),
    ("value", "memory-reservation", "SIZE", "memory that is kept under pressure"),
    ("value", "memory-swap", "SIZE", "limit of memory and swap together, -1 for none"),
    ("value", "kernel-memory", "SIZE", "accepted, without effect, as the kernel's"),
    ("value", "kernel-memory-tcp", "SIZE", "the same"),
    ("value", "pids-limit", "N", "limit of processes, -1 for none"),
    ("value", "l3-cache-schema", "SCHEMA", "refused: no Intel RDT"),
    ("value", "mem-bw-schema", "SCHEMA", "refused: no Intel RDT"),
    HELP,
)
SPEC: Table = (
    ("value", "bundle b", "DIR", "where to write config.json (default: the current directory)"),
    ("flag", "rootless", "", "for a user without privileges"),
    HELP,
)
NONE: Table = (HELP,)
# Not implemented; their options are those that callers give.
CHECKPOINT: Table = (
    *(("value", name, "", "") for name in ("image-path", "work-path", "parent-path", "status-fd", "page-server")),
    *(("value", name, "", "") for name in ("manage-cgroups-mode", "empty-ns", "bundle b", "console-socket")),
    *(("value", name, "", "") for name in ("pid-file", "lsm-profile", "lsm-mount-context", "preserve-fds")),
    *(("flag", name, "", "") for name in ("leave-running", "tcp-established", "tcp-skip-in-flight", "link-remap")),
    *(("flag", name, "", "") for name in ("ext-unix-sk", "shell-job", "lazy-pages", "file-locks", "pre-dump")),
    *(("flag", name, "", "") for name in ("auto-dedup", "detach d", "no-subreaper", "no-pivot")),
    HELP,
)


def explain(command: str, operands: str, summary: str, table: Table) -> str:
    """The help text of a command."""
    lines = [f"usage: ketch-runtime {command} [OPTIONS] {operands}".rstrip(), "", f"{summary}", "", "options:"]
    for _, names, value, text in table:
        if text:
            spelled = ", ".join(f"-{name}" if len(name) == 1 else f"--{name}" for name in reversed(names.split()))
            lines.append(f"  {f'{spelled} {value}'.rstrip():36}  {text}")
    return "\n".join(lines) + "\n"
