"""``update``: changes limits and restart policy at once; environment, ports and mounts at the next start."""

from __future__ import annotations

from ketch.cli.each import each
from ketch.cli.options import key_value, mount_flags, ports, run_flags, table, value_types
from ketch.cli.options.flags import FlagSet
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.cli.options.flags import Options
    from ketch.notation.api_objects import ApiObject

_LATER = ("env", "env-file", "publish", "volume", "mount")
_MORE = {
    "env-rm": "remove an environment variable",
    "publish-rm": "no longer publish a port: 80, 80/udp or 127.0.0.1:8080:80",
    "mount-rm": "no longer mount anything at this path",
}


def flag_set() -> FlagSet:
    """Docker's flags of ``update``, and those of changes at the next start."""
    spec = FlagSet("update", "ketch update [OPTIONS] CONTAINER [CONTAINER...]", "Change containers that exist")
    table.declare(spec, "update")
    for option in table.OPTIONS:
        if option.flag in _LATER:
            spec.add(option.flag, option.short, option.type.parser, f"{option.help} (at the next start)")
        elif option.flag in ("label", "label-file"):
            spec.add(option.flag, option.short, option.type.parser, option.help)
    for name, text in _MORE.items():
        spec.list(name, "", f"{text} (at the next start)")
    spec.list("label-rm", "", "remove a label")
    spec.bool("pending-reset", "", "drop what waits for the next start")
    return spec


def cmd_update(args: list[str], ctx: Context) -> int:
    """Change containers, with a message about pending changes."""
    spec = flag_set()
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    limits = run_flags.given(opts, "update")
    body: ApiObject = {field.removeprefix("HostConfig."): value for field, value in limits}
    if not opts.given:
        raise InvalidArgument("update: nothing to change", hint="give a flag or more, e.g. --memory 512m")
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


def changes(opts: Options) -> ApiObject:
    """``Changes`` of the request; empty without any (InvalidArgument)."""
    bindings: ApiObject = {}
    for text in opts["publish"]:
        for port, binding in ports.publish(text):
            bindings.setdefault(port, []).append(binding)
    binds, volumes = value_types.volumes(opts["volume"])
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


def _unpublished(texts: list[str]) -> ApiObject:
    """The bindings to remove; without a host side, all of the port's."""
    result: ApiObject = {}
    for text in texts:
        for port, binding in ports.publish(text):
            chosen = result.setdefault(port, [])
            if binding["HostPort"] or binding["HostIp"]:
                chosen.append(binding)
            elif chosen:
                raise InvalidArgument(f"invalid --publish-rm `{text}`: it and a binding of the same port are given")
    return result
