"""Help on the command line as a whole, on a group and on a command; a line explains each."""

from __future__ import annotations

import inspect

from ketch.cli import catalog, global_flags
from ketch.cli.context import Context
from ketch.cli.options.flags import HelpRequested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.options.flags import FlagSet

_COMMON = ("run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info")
_ELSEWHERE = ("system.registry:",)  # their flags are read by a program of its own


def flags_of(target: str) -> FlagSet | None:
    """The flags of a command as ``--help`` shows them; None when another program reads them."""
    if target.startswith(_ELSEWHERE):
        return None
    try:
        catalog.load(target)(["--help"], Context())
    except HelpRequested as e:
        return e.flags
    raise AssertionError(f"{target} knows no --help")


def summary(target: str) -> str:
    """The line that explains a command."""
    flags = flags_of(target)
    if flags is not None:
        return flags.summary
    return (inspect.getdoc(catalog.load(target)) or "").splitlines()[0].rstrip(".")


def of(words: list[str]) -> str:
    """Help on the command or the group that is named; without words, on all (HelpRequested, InvalidArgument)."""
    if not words:
        return _overview()
    group = catalog.GROUPS.get(words[0])
    if group and len(words) == 1:
        return _group(words[0], group)
    target, _, rest = catalog.find(words)
    if target is None:
        return of(rest)
    catalog.load(target)(["--help", *rest], Context())
    return ""


def _rows(commands: dict[str, str]) -> str:
    width = max(len(name) for name in commands) + 2
    return "".join(f"  {name:<{width}}{text}\n" for name, text in commands.items())


def _group(name: str, group: dict[str, str]) -> str:
    rows = _rows({command: summary(target) for command, target in sorted(group.items())})
    return (
        f"Usage:  ketch {name} COMMAND\n\n{catalog.GROUP_SUMMARIES[name]}\n\nCommands:\n{rows}\n"
        f"`ketch {name} COMMAND --help` explains a command.\n"
    )


def _overview() -> str:
    common = {name: summary(catalog.COMMANDS[name]) for name in _COMMON}
    others = {name: summary(target) for name, target in sorted(catalog.COMMANDS.items()) if name not in common}
    return (
        "Usage:  ketch [OPTIONS] COMMAND\n\nA container engine that speaks the Docker Engine API.\n\n"
        f"Common commands:\n{_rows(common)}\n"
        f"Groups, each with commands of its own:\n{_rows(catalog.GROUP_SUMMARIES)}\n"
        f"Commands:\n{_rows(others)}\n"
        f"{global_flags.flag_set().help().partition(chr(10) * 2)[2].partition(chr(10) * 2)[2]}\n"
        "`ketch COMMAND --help` explains a command.\n"
    )
