"""The daemon's settings of OCI runtimes, with dockerd's names and words: ``runtimes``, ``default-runtime``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ketch.engine.runtimes.catalog import BUILT_IN_NAMES, RuntimeProgram, Runtimes
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    import argparse

    from ketch.daemon.settings.config import Config

_SHIMS = ("io.containerd.runc.v2", "io.containerd.runc.v1")


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    """The options of containerd's shim of runc, as far as they are a runtime's and not the shim's."""

    binary_name: str = msgspec.field(default="", name="BinaryName")
    root: str = msgspec.field(default="", name="Root")


class _Runtime(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """An entry of ``runtimes``."""

    path: str = ""
    runtime_args: list[str] = []
    runtime_type: str = ""
    options: _Options | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--add-runtime`` and ``--default-runtime``."""
    parser.add_argument(
        "--add-runtime",
        metavar="NAME=PATH",
        action="append",
        dest="add_runtime",
        help="another OCI runtime that containers can ask for; repeatable",
    )
    parser.add_argument(
        "--default-runtime", metavar="NAME", help="the runtime of containers that ask for none (default ketch)"
    )


def of_flags(values: list[str]) -> dict[str, object]:
    """The entries of ``runtimes`` that ``--add-runtime`` makes (InvalidArgument)."""
    found: dict[str, object] = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise InvalidArgument(f"--add-runtime: invalid runtime argument: {value}", hint="write NAME=PATH")
        _check_name(name)
        if name in found:
            raise InvalidArgument(f"--add-runtime: runtime '{name}' was already defined")
        found[name] = {"path": path}
    return found


def check(config: Config) -> None:
    """Raise InvalidArgument for settings that make no sense."""
    build(config)


def build(config: Config) -> Runtimes:
    """The runtimes that these settings name (InvalidArgument)."""
    programs = {}
    for name, entry in config.runtimes.items():
        _check_name(name)
        try:
            programs[name] = _program(name, msgspec.convert(entry, _Runtime))
        except msgspec.ValidationError as e:
            raise InvalidArgument(f"runtime {name}: {e}") from e
    runtimes = Runtimes(programs, config.default_runtime, os.path.join(config.exec_root, "runtimes"))
    try:
        runtimes.check(config.default_runtime)
    except InvalidArgument as e:
        raise InvalidArgument(f"specified default runtime '{config.default_runtime}' does not exist") from e
    return runtimes


def _check_name(name: str) -> None:
    if name in BUILT_IN_NAMES:
        raise InvalidArgument(f"runtime name '{name}' is reserved")
    if not name or "/" in name:
        raise InvalidArgument(f"runtime name '{name}': it must not be empty, or have a slash")


def _program(name: str, entry: _Runtime) -> RuntimeProgram:
    if not entry.path and not entry.runtime_type:
        raise InvalidArgument(f"runtime {name}: either a runtimeType or a path must be configured")
    if entry.path:
        if entry.runtime_type:
            raise InvalidArgument(f"runtime {name}: cannot configure both path and runtimeType for the same runtime")
        if entry.options is not None:
            raise InvalidArgument(f"runtime {name}: options cannot be used with a path runtime")
        return RuntimeProgram(_checked(name, entry.path), tuple(entry.runtime_args))
    if entry.runtime_args:
        raise InvalidArgument(f"runtime {name}: args cannot be used with a runtimeType runtime")
    if entry.runtime_type not in _SHIMS:
        raise InvalidArgument(
            f"runtime {name}: runtimeType `{entry.runtime_type}` is a shim of containerd's",
            hint="Ketch calls OCI runtimes themselves: name the runtime's program as path",
        )
    options = entry.options or _Options()
    if options.root and not os.path.isabs(options.root):
        raise InvalidArgument(f"runtime {name}: Root `{options.root}` is not an absolute path")
    return RuntimeProgram(_checked(name, options.binary_name), root=options.root)


def _checked(name: str, path: str) -> str:
    if "/" in path and not os.path.isabs(path):
        raise InvalidArgument(f"runtime {name}: `{path}` is neither an absolute path nor a name in PATH")
    return path
