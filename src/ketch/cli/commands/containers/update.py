"""``update``: limits and the restart policy of containers that exist, at once; environment, ports and mounts, later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.cli.each import each
from ketch.cli.options import key_value, mount_flags, run_flags
from ketch.cli.options.flags import FlagSet
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context
    from ketch.cli.options.flags import Options

_STRINGS = "cpus cpuset-cpus cpuset-mems memory:m memory-reservation memory-swap restart"
_INTS = "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares:c pids-limit"
_LATER = (
    ("env", "e", "set an environment variable"), ("env-file", "", "set those of a file"),
    ("env-rm", "", "remove an environment variable"), ("publish", "p", "publish one more port"),
    ("publish-rm", "", "no longer publish a port: 80, 80/udp or 127.0.0.1:8080:80"),
    ("volume", "v", "mount something, instead of what is mounted there"), ("mount", "", "the same, in the long form"),
    ("mount-rm", "", "no longer mount anything at this path"),
)  # fmt: skip


def flag_set() -> FlagSet:
    """Docker's flags of ``update``, and those for what changes at the next start."""
    spec = FlagSet("update", "ketch update [OPTIONS] CONTAINER [CONTAINER...]", "Change containers that exist")
    for words, add in ((_STRINGS, spec.string), (_INTS, spec.int)):
        for word in words.split():
            name, _, short = word.partition(":")
            add(name, short)
    for name, short, text in _LATER:
        spec.list(name, short, f"{text} (at the next start)")
    spec.list("label", "l", "set a label").list("label-file", "", "set those of a file")
    spec.list("label-rm", "", "remove a label")
    spec.bool("pending-reset", "", "drop what waits for the next start")
    return spec


def cmd_update(args: list[str], ctx: Context) -> int:
    """Change containers; what has to wait for their next start is said."""
    spec = flag_set()
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    body: dict[str, Any] = run_flags.limits(opts)
    for key, flag in (("CpusetCpus", "cpuset-cpus"), ("CpusetMems", "cpuset-mems")):
        body[key] = opts[flag]
    if opts["restart"]:
        body["RestartPolicy"] = run_flags.restart_policy(opts["restart"])
    if wanted := changes(opts):
        body["Changes"] = wanted
        ctx.only_ketch("change environment, labels, ports or mounts", "can change limits alone")
    if opts["pending-reset"]:
        body["PendingReset"] = True

    def act(ref: str) -> bool:
        answer = ctx.client().request("POST", f"/containers/{ref}/update", None, body).json()
        for warning in answer.get("Warnings") or ():
            ctx.warn(f"WARNING: {warning}")
        return bool(answer.get("Pending"))

    def show(ref: str, waits: bool) -> str:
        if waits:
            ctx.warn(f"{ref}: applies at the next restart: ketch restart {ref}")
        return ref

    return each(ctx, rest, act, show)


def changes(opts: Options) -> dict[str, Any]:
    """``Changes`` of the request; empty when none is wanted (InvalidArgument)."""
    bindings: dict[str, Any] = {}
    for text in opts["publish"]:
        for port, binding in run_flags.publish(text):
            bindings.setdefault(port, []).append(binding)
    binds, volumes = run_flags.volume_flags(opts)
    found = {
        "Env": key_value.environment(opts),
        "EnvRemove": opts["env-rm"],
        "Labels": key_value.labels(opts),
        "LabelsRemove": opts["label-rm"],
        "PortBindings": bindings,
        "PortBindingsRemove": _unpublished(opts["publish-rm"]),
        "Binds": binds,
        "Volumes": volumes,
        "Mounts": [mount_flags.parse(text) for text in opts["mount"]],
        "MountsRemove": opts["mount-rm"],
    }
    return {key: value for key, value in found.items() if value}


def _unpublished(texts: list[str]) -> dict[str, Any]:
    """Without a host's side all bindings of a port are meant."""
    result: dict[str, Any] = {}
    for text in texts:
        for port, binding in run_flags.publish(text):
            chosen = result.setdefault(port, [])
            if binding["HostPort"] or binding["HostIp"]:
                chosen.append(binding)
            elif chosen:
                raise InvalidArgument(f"invalid --publish-rm `{text}`: it and a binding of the same port are given")
    return result
