"""``--network`` and related flags → the network mode and the endpoints of a container.

--network NAME --ip … --network-alias …                 the simple form; the other flags are about the first network
--network name=NAME,alias=…,ip=…,gw-priority=…,…        everything about one network in one value; repeatable
"""

from __future__ import annotations

from ketch.cli.options.fields import get, put
from ketch.errors import InvalidArgument
from ketch.notation import digits
from ketch.notation.namespace_modes import is_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.options.flags import Options
    from ketch.notation.api_objects import ApiObject


# key of `--network name=…` → field of an endpoint's settings
_TEXTS = {"ip": "IPAMConfig.IPv4Address", "ip6": "IPAMConfig.IPv6Address", "mac-address": "MacAddress"}
_LISTS = {"alias": "Aliases", "link-local-ip": "IPAMConfig.LinkLocalIPs"}
_KNOWN = "name alias ip ip6 mac-address driver-opt gw-priority link-local-ip"


def endpoints(opts: Options) -> tuple[str, ApiObject]:
    """(network mode, settings of each network by name); InvalidArgument for contradicting flags."""
    parsed = [_parse(text) for text in (*opts["network"], *opts["net"])] or [("default", {})]
    first, settings = parsed[0]
    flags = {"network-alias": _LISTS["alias"], "link-local-ip": _LISTS["link-local-ip"], **_TEXTS}
    for flag, field in flags.items():
        if opts[flag] and get(settings, field):
            raise InvalidArgument(f"conflicting options: --{flag} and the same in --network name={first},…")
    for flag, field in flags.items():
        if opts[flag]:
            put(settings, field, opts[flag])
    result: ApiObject = {}
    for name, chosen in parsed:
        if not name:
            raise InvalidArgument("no name set for network")
        if name in result:
            raise InvalidArgument(f'network "{name}" is specified multiple times')
        result[name] = chosen
    if len(parsed) > 1 and not all(map(is_network, result)):
        raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return first, {n: s for n, s in result.items() if s or len(result) > 1}


def _parse(text: str) -> tuple[str, ApiObject]:
    if "=" not in text:
        return text, {}
    name = ""
    settings: ApiObject = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid --network `{text}`: `{item}` is not KEY=VALUE")
        if key == "name":
            name = value
        elif key in _TEXTS:
            put(settings, _TEXTS[key], value)
        elif key in _LISTS:
            put(settings, _LISTS[key], [value])
        elif key == "driver-opt":
            option, _, chosen = value.partition("=")
            settings.setdefault("DriverOpts", {})[option] = chosen
        elif key == "gw-priority":
            priority = digits.whole(value.removeprefix("-"))
            if priority is None:
                raise InvalidArgument(f"invalid gw-priority `{value}`: not a whole number")
            settings["GwPriority"] = -priority if value.startswith("-") else priority
        else:
            raise InvalidArgument(f"invalid field key {key}", hint=f"known: {_KNOWN}")
    if not name:
        raise InvalidArgument(f"network name cannot be empty: --network `{text}`")
    return name, settings


def text_of(name: str, settings: ApiObject) -> str:
    """The value of ``--network`` with these settings of a network."""
    if not settings:
        return name
    items = [f"name={name}"]
    for key, field in _LISTS.items():
        items += [f"{key}={value}" for value in get(settings, field) or ()]
    items += [f"{key}={value}" for key, field in _TEXTS.items() if (value := get(settings, field))]
    items += [f"driver-opt={key}={value}" for key, value in settings.get("DriverOpts", {}).items()]
    if "GwPriority" in settings:
        items.append(f"gw-priority={settings['GwPriority']}")
    return ",".join(items)
