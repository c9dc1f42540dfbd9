"""Flags before the command: which daemon is asked, and how it is trusted; Docker's variables say the same."""

from __future__ import annotations

import os

from ketch.cli.context import Context
from ketch.cli.options.flags import FlagSet, Options
from ketch.client import addresses
from ketch.errors import InvalidArgument

_TLS_FILES = ("tlscacert", "tlscert", "tlskey")


def flag_set() -> FlagSet:
    """The flags before the command."""
    spec = FlagSet(
        "", "ketch [OPTIONS] COMMAND", "A container engine that speaks the Docker Engine API", interspersed=False
    )
    spec.string("host", "H", "the daemon's address (else KETCH_HOST, DOCKER_HOST, the context, the default socket)")
    spec.string("context", "c", "the context that names the daemon (docker context, ketch context)")
    spec.string("config", "", "directory of the docker client's settings (default ~/.docker)")
    spec.bool("tls", "", "speak TLS with a tcp:// daemon").bool("tlsverify", "", "and verify its certificate")
    spec.string("tlscacert", "", "trust certificates of this authority only").string("tlscert", "", "the certificate")
    spec.string("tlskey", "", "and its key").bool("debug", "D", "no effect: errors are always told in full")
    return spec.string("log-level", "l", "no effect").bool("version", "v", "print the version")


def split(argv: list[str]) -> tuple[Options, list[str]]:
    """The flags before the command, and the command with its arguments."""
    if not argv or not argv[0].startswith("-"):
        return flag_set().parse([])[0], argv
    opts, rest = flag_set().parse(argv)
    if opts["config"]:
        os.environ["DOCKER_CONFIG"] = opts["config"]
    return opts, ["version", "--short"] if opts["version"] else rest


def context(opts: Options) -> Context:
    """The context of a command (InvalidArgument: ``--host`` and ``--context`` contradict each other)."""
    if opts["host"] and opts["context"]:
        raise InvalidArgument("conflicting options: cannot specify both --host and --context")
    return Context(opts["host"], opts["context"], _tls(opts))


def _tls(opts: Options) -> addresses.Tls | None:
    """The files of TLS that flags or variables name; None when TLS is not spoken."""
    verify = bool(opts["tlsverify"]) if "tlsverify" in opts.given else None
    return addresses.wanted_tls([opts[name] for name in _TLS_FILES], spoken=opts["tls"], verify=verify)
