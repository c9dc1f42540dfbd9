"""The daemon's defaults of containers that do not say otherwise, with dockerd's names, and its own labels.

Also whether containers end with it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ketch.engine.devices import specs
from ketch.engine.model.defaults import ContainerDefaults
from ketch.engine.model.records import Ulimit
from ketch.engine.spec import seccomp_profile
from ketch.errors import InvalidArgument
from ketch.notation import booleans, digits, sizes
from ketch.runtime.security import rlimits

if TYPE_CHECKING:
    from ketch.daemon.settings.config import Config

_IPC = ("private", "shareable")
_CGROUPNS = ("private", "host")
_BUILT_IN = ("", "builtin")
_LIMITS = sorted(name.removeprefix("RLIMIT_").lower() for name in rlimits.NUMBERS)


def switch(text: str) -> bool:
    """The value of a flag that is on or off (ArgumentTypeError)."""
    found = booleans.parse(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"`{text}` is neither true nor false")
    return found


def add_switch(parser: argparse.ArgumentParser, *names: str, help: str) -> None:
    """A flag that is on by itself, and may be given a value."""
    parser.add_argument(*names, nargs="?", const=True, type=switch, metavar="BOOL", help=help)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of containers' defaults and end, and ``--label``."""
    add = parser.add_argument
    add_switch(parser, "--init", help="run an init in containers (false)")
    add_switch(parser, "--no-new-privileges", help="processes of containers gain no privileges by execve (false)")
    add("--seccomp-profile", metavar="FILE", help="system calls of containers: builtin (default), unconfined, a file")
    add("--default-shm-size", metavar="SIZE", help="size of containers' /dev/shm (default 64m)")
    add(
        "--default-ulimit",
        metavar="NAME=SOFT[:HARD]",
        action="append",
        dest="default_ulimits",
        help="limit of containers' processes; repeatable",
    )
    add("--default-ipc-mode", metavar="MODE", help="IPC namespace of containers: private (default), shareable")
    add("--default-cgroupns-mode", metavar="MODE", help="cgroup namespace of containers: private, host")
    add(
        "--cdi-spec-dir",
        metavar="DIR",
        action="append",
        dest="cdi_spec_dirs",
        help=f"directory with specifications of devices; repeatable (default {', '.join(specs.DIRECTORIES)})",
    )
    add_switch(parser, "--live-restore", help="containers go on when ketchd ends, else it stops them (true)")
    add("--shutdown-timeout", type=int, metavar="SECONDS", help="how long ketchd waits for them then, at least (15)")
    add("--label", metavar="KEY=VALUE", action="append", dest="labels", help="label of this daemon; repeatable")


def of_flags(given: list[str]) -> dict[str, object]:
    """The entries of ``default-ulimits`` that ``--default-ulimit`` makes (InvalidArgument)."""
    found: dict[str, object] = {}
    for text in given:
        name, _, values = text.partition("=")
        soft, colon, hard = values.partition(":")
        numbers = [-1 if number == "-1" else digits.whole(number) for number in (soft, hard if colon else soft)]
        if None in numbers:
            raise InvalidArgument(f"invalid --default-ulimit `{text}`", hint="write NAME=SOFT[:HARD]")
        found[name] = {"Name": name, "Soft": numbers[0], "Hard": numbers[1]}
    return found


def defaults(config: Config) -> ContainerDefaults:
    """The defaults (InvalidArgument: a value is none, or the profile cannot be read)."""
    if config.default_ipc_mode not in ("", *_IPC):
        raise InvalidArgument(f"IPC is not supported as default value: {config.default_ipc_mode}", hint=_one_of(_IPC))
    if config.default_cgroupns_mode not in ("", *_CGROUPNS):
        mode = config.default_cgroupns_mode
        raise InvalidArgument(f"invalid default cgroup namespace ({mode})", hint=_one_of(_CGROUPNS))
    return ContainerDefaults(
        init=config.init,
        no_new_privileges=config.no_new_privileges,
        seccomp=_profile(config.seccomp_profile),
        shm_size=_shm_size(config.default_shm_size),
        ulimits=[_ulimit(name, entry) for name, entry in config.default_ulimits.items()],
        ipc_mode=config.default_ipc_mode,
        cgroupns_mode=config.default_cgroupns_mode,
    )


def check(config: Config) -> None:
    """Check the values (InvalidArgument)."""
    defaults(config)
    for label in config.labels:
        if label.find("=") < 1:
            raise InvalidArgument(f"bad attribute format: {label}", hint="write --label KEY=VALUE")
    last = {label.partition("=")[0]: label for label in config.labels}
    for label in config.labels:
        if (other := last[label.partition("=")[0]]) != label:
            raise InvalidArgument(f"conflict labels for {other} and {label}", hint="keep one of the two")


def _one_of(words: tuple[str, ...]) -> str:
    return f"use {' or '.join(words)}"


def _profile(path: str) -> str:
    if path in _BUILT_IN or path == "unconfined":
        return "" if path in _BUILT_IN else path
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
    except (OSError, ValueError) as e:
        raise InvalidArgument(f"opening seccomp profile ({path}) failed: {getattr(e, 'strerror', None) or e}") from e
    seccomp_profile.read(text)
    return text


def _shm_size(text: str) -> int:
    if not text:
        return 0
    size = sizes.parse(text)
    if size is None or size <= 0:
        raise InvalidArgument(f"default-shm-size {text}: not a size", hint="write e.g. 128m")
    return size


def _ulimit(name: str, entry: object) -> Ulimit:
    # Docker's reader of JSON knows the letters of keys in either case, and takes 0 for a number that is not there.
    given = {key.lower(): value for key, value in entry.items()} if isinstance(entry, dict) else {"name": entry}
    found = {"soft": 0, "hard": 0, **given}
    soft, hard = found.get("soft"), found.get("hard")
    if found.get("name") not in (None, name) or type(soft) is not int or type(hard) is not int:
        raise InvalidArgument(
            f"default-ulimits: {name}: not a limit", hint=f'write "{name}": {{"Name": "{name}", "Soft": 1, "Hard": 2}}'
        )
    if name not in _LIMITS:
        raise InvalidArgument(f"default-ulimits: invalid ulimit type: {name}", hint=f"one of {', '.join(_LIMITS)}")
    if hard != -1 and (soft > hard or soft == -1):
        raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return Ulimit(name=name, soft=soft, hard=hard)
