"""The flags of ``run`` and ``create`` → the body of ``POST /containers/create``; the limits also for ``update``."""

from __future__ import annotations

from ketch.cli.errors import UsageError
from ketch.cli.options import (
    checks,
    device_flags,
    fields,
    key_value,
    network_flags,
    ports,
    table,
    value_types,
    wait_flag,
)
from ketch.cli.options.flags import FlagSet
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.cli.options.flags import Options
    from ketch.notation.api_objects import ApiObject


def flag_set(command: str, summary: str) -> FlagSet:
    """All flags of Docker's ``run`` (``create`` lacks a few)."""
    spec = FlagSet(command, f"ketch {command} [OPTIONS] IMAGE [COMMAND] [ARG...]", summary, interspersed=False)
    table.declare(spec, command)
    if command == "run":
        spec.bool("sig-proxy", "", "pass signals on to the process", default=True)
        wait_flag.add_flag(spec)
    return spec


_LISTS = ("Devices", "Dns", "DnsOptions", "DnsSearch")


def body(opts: Options, image: str, command: list[str]) -> ApiObject:
    """The request's body (UsageError)."""
    try:
        checks.check(opts)
        # Docker's client says so, too, and `inspect` shows what was said.
        result: ApiObject = {"Image": image, "HostConfig": {"PortBindings": {}, **{name: [] for name in _LISTS}}}
        if command:
            result["Cmd"] = command
        for path, value in (*given(opts, "create"), *_together(opts)):
            fields.put(result, path, value)
        return result
    except UsageError:
        raise
    except InvalidArgument as e:
        raise UsageError(e.message, hint=e.hint) from e


def given(opts: Options, command: str) -> Iterator[tuple[str, Any]]:
    """(field of the create request, value) of each row of the table that has one (InvalidArgument)."""
    for option in table.OPTIONS:
        if option.field and command in option.commands:
            value = option.type.read(opts[option.flag], option.flag) if option.flag in opts.given else None
            if value is None and command == "create":
                value = option.absent
            if value is not None:
                yield option.field, value


def _together(opts: Options) -> Iterator[tuple[str, Any]]:
    """The fields that depend on several flags."""
    found: ApiObject = {"Env": key_value.environment(opts), "Labels": key_value.labels(opts)}
    found["HostConfig.Binds"], found["Volumes"] = value_types.volumes(opts["volume"])
    found["ExposedPorts"], found["HostConfig.PortBindings"] = ports.maps(opts["publish"], opts["expose"])
    found["HostConfig.NetworkMode"], endpoints = network_flags.endpoints(opts)
    yield from ((field, value) for field, value in found.items() if value)
    yield "NetworkingConfig.EndpointsConfig", endpoints
    yield "HostConfig.LogConfig", {"Type": opts["log-driver"], "Config": value_types.pairs(opts["log-opt"], "log-opt")}
    if "entrypoint" in opts.given:
        yield "Entrypoint", [opts["entrypoint"]]
    if requests := device_flags.requests(opts["device"], opts["gpus"] if "gpus" in opts.given else None):
        yield "HostConfig.DeviceRequests", requests
    if opts["no-healthcheck"]:
        yield "Healthcheck", {"Test": ["NONE"]}
    if value_types.UNMASKED in opts["security-opt"]:  # nothing masked, nothing read-only
        yield "HostConfig.MaskedPaths", []
        yield "HostConfig.ReadonlyPaths", []
