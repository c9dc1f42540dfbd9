"""Completion of a command line that is being typed: commands, flags, and what the daemon has at this moment.

The words come from a shell's script (`shells`), the last one is the one that is typed.  The daemon is asked for names
only where names are wanted; when it does not answer soon there are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.cli import catalog, global_flags
from ketch.cli.guide import help_texts
from ketch.client import contexts
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.cli.context import Context
    from ketch.cli.options.flags import Flag, FlagSet


class Completions(NamedTuple):
    """The words that may stand for the last one, each with its explanation; ``files``: names of files may, too."""

    values: dict[str, str]
    files: bool = False


# What the arguments of commands are; those that are not here take files.
_ARGUMENTS = {
    "containers": "attach commit cp diff exec export inspect kill logs pause port rename restart rm start stats stop "
    "top unpause update wait",
    "images": "create history image:inspect image:rm push rmi run save tag",
    "contexts": "context:export context:inspect context:rm context:update context:use",
    "networks": "network:connect network:disconnect network:inspect network:rm",
    "volumes": "volume:backup volume:inspect volume:restore volume:rm",
    "nothing": "context:create context:ls context:show events image:ls images import-docker info login logout ps pull "
    "search system:df version",
}
_STATES = {  # in which states a command's containers are
    "attach": ("running",),
    "exec": ("running",),
    "kill": ("running", "paused", "restarting"),
    "pause": ("running",),
    "port": ("running", "paused"),
    "start": ("created", "exited"),
    "stop": ("running", "paused", "restarting"),
    "top": ("running", "paused"),
    "unpause": ("paused",),
    "wait": ("running", "paused", "restarting"),
}
_CAPABILITIES = (
    "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH "
    "FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN "
    "NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT "
    "SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"
)
_SIGNALS = "HUP INT QUIT KILL USR1 USR2 TERM CONT STOP WINCH"
# What the values of flags are: words, or the name of one of `_SOURCES`.
_VALUES = {
    "cap-add": _CAPABILITIES,
    "cap-drop": _CAPABILITIES,
    "cgroupns": "private host",
    "ipc": "none private shareable host",
    "isolation": "default",
    "log-driver": "local json-file journald syslog fluentd gelf none",
    "net": "@networks",
    "network": "@networks",
    "pid": "host",
    "platform": "linux/amd64 linux/arm64 linux/arm/v7 linux/386 linux/ppc64le linux/riscv64 linux/s390x",
    "progress": "auto plain tty rawjson json quiet",
    "pull": "always missing never",
    "restart": "no always on-failure unless-stopped",
    "runtime": "@runtimes",
    "signal": _SIGNALS,
    "skip": "images volumes networks containers",
    "stop-signal": _SIGNALS,
    "type": "container image network volume",
    "userns": "host auto",
    "uts": "host",
    "volume": "@volumes",
    "volumes": "copy bind",
    "volumes-from": "@containers",
}
_FILES = ("cidfile", "dest", "env-file", "file", "iidfile", "input", "label-file", "metadata-file", "output")


def complete(words: list[str], ctx: Context) -> Completions:
    """The completions of the last of the words after ``ketch``."""
    *before, current = words or [""]
    if before and before[0].startswith("-"):
        opts, before = global_flags.split(before)
        ctx = global_flags.context(opts)
    if not before and current.startswith("-"):
        return _flags(global_flags.flag_set(), current)
    names = _commands(before)
    if names is not None:
        return _starting(names, current)
    target, command, typed = catalog.find(before)
    flags = help_texts.flags_of(str(target))
    if flags is None:
        return Completions({}, files=True)
    if before[0] in catalog.GROUPS and before[0] not in ("container", "builder"):
        command = f"{before[0]}:{command}"
    return _of_command(flags, command, typed, current, ctx)


def _commands(before: list[str]) -> dict[str, str] | None:
    """The commands that may follow; None when one is there already."""
    helping = before[:1] == ["help"]
    path = before[1:] if helping else before
    if not path:
        summaries = {name: help_texts.summary(target) for name, target in catalog.COMMANDS.items()}
        return {**summaries, **catalog.GROUP_SUMMARIES, **({} if helping else {"help": "Explain a command"})}
    group = catalog.GROUPS.get(path[0])
    if group is not None and len(path) == 1:
        return {name: help_texts.summary(target) for name, target in group.items()}
    return {} if helping or (group is not None and path[1] not in group) else None


def _of_command(flags: FlagSet, command: str, typed: list[str], current: str, ctx: Context) -> Completions:
    arguments: list[str] = []
    waiting: Flag | None = None  # a flag whose value comes next
    for word in typed:
        if waiting is not None:
            waiting = None
        elif word.startswith("-") and word != "-" and (flags.interspersed or not arguments):
            flag = flags.find(word) if "=" not in word else None
            waiting = flag if flag is not None and flag.kind not in ("bool", "optional") else None
        else:
            arguments.append(word)
    if waiting is not None:
        return _values(waiting.name, current, "", ctx)
    if current.startswith("-") and (flags.interspersed or not arguments):
        name, equals, value = current.partition("=")
        if equals:
            return _values(name.lstrip("-"), value, name + "=", ctx)
        return _flags(flags, current)
    return _arguments(command, arguments, current, ctx)


def _flags(flags: FlagSet, current: str) -> Completions:
    return _starting({**{f"--{flag.name}": flag.help for flag in flags}, "--help": "explain the command"}, current)


def _values(name: str, current: str, before: str, ctx: Context) -> Completions:
    known = _VALUES.get(name, "")
    found = _ask(known[1:], ctx) if known.startswith("@") else dict.fromkeys(known.split(), "")
    matching = _starting(found, current)
    return Completions({before + value: text for value, text in matching.values.items()}, files=name in _FILES)


def _arguments(command: str, arguments: list[str], current: str, ctx: Context) -> Completions:
    """Names for an argument; those that are there already are not offered again."""
    plain = command.partition(":")[2] if command.startswith("container:") else command
    kind = next((kind for kind, commands in _ARGUMENTS.items() if plain in commands.split()), "files")
    if kind == "files":
        return Completions({}, files=True)
    if kind == "nothing" or (arguments and plain in ("run", "create", "exec", "top", "tag", "network:connect")):
        return _second(plain, arguments, current, ctx)
    found = _ask(kind, ctx, _STATES.get(plain, ()))
    if plain == "cp":
        found = {f"{name}:": text for name, text in found.items()}
    return Completions(
        {name: text for name, text in _starting(found, current).values.items() if name not in arguments},
        files=plain == "cp",
    )


def _second(command: str, arguments: list[str], current: str, ctx: Context) -> Completions:
    if command == "network:connect" and len(arguments) == 1:
        return _starting(_ask("containers", ctx), current)
    return Completions({}, files=command in ("run", "create", "exec"))


def _starting(values: dict[str, str], current: str) -> Completions:
    return Completions({value: text for value, text in values.items() if value.startswith(current)})


def _ask(kind: str, ctx: Context, states: tuple[str, ...] = ()) -> dict[str, str]:
    try:
        if kind == "containers":
            return _containers(ctx, states)
        return _SOURCES[kind](ctx)
    except KetchError:  # an error's text would stand in the middle of the line that is typed
        return {}


def _containers(ctx: Context, states: tuple[str, ...]) -> dict[str, str]:
    found = ctx.client().request("GET", "/containers/json", {"all": "1"}).json()
    return {
        name.lstrip("/"): f"{item['Image']}, {item['Status']}"
        for item in found
        if not states or item["State"] in states
        for name in item["Names"]
        if name.count("/") == 1  # not the names that links give
    }


def _images(ctx: Context) -> dict[str, str]:
    found = ctx.client().request("GET", "/images/json").json()
    return {tag: item["Id"].partition(":")[2][:12] for item in found for tag in item["RepoTags"] or ()}


def _networks(ctx: Context) -> dict[str, str]:
    return {item["Name"]: item["Driver"] for item in ctx.client().request("GET", "/networks").json()}


def _volumes(ctx: Context) -> dict[str, str]:
    found = ctx.client().request("GET", "/volumes").json()["Volumes"] or ()
    return {item["Name"]: item["Driver"] for item in found}


def _contexts(_ctx: Context) -> dict[str, str]:
    return dict.fromkeys([contexts.DEFAULT, *contexts.names()], "")


def _runtimes(ctx: Context) -> dict[str, str]:
    return dict.fromkeys(ctx.client().request("GET", "/info").json()["Runtimes"], "")


_SOURCES: dict[str, Callable[[Context], dict[str, str]]] = {
    "contexts": _contexts,
    "images": _images,
    "networks": _networks,
    "volumes": _volumes,
    "runtimes": _runtimes,
    "containers": lambda ctx: _containers(ctx, ()),
}
