"""The daemon's settings: ``ketchd`` flags over ``daemon.json`` over defaults, with dockerd's names."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
from typing import TYPE_CHECKING, Any

from ketch import __version__, places
from ketch.daemon.settings import builder as builder_settings
from ketch.daemon.settings import cgroups as cgroup_settings
from ketch.daemon.settings import registries as registry_settings
from ketch.daemon.settings import runtimes as runtime_settings
from ketch.daemon.settings import storage as storage_settings
from ketch.daemon.settings import userns as userns_settings
from ketch.daemon.settings.config import Config, tcp_address
from ketch.engine.logs import options as log_options
from ketch.engine.model.records import LogConfig
from ketch.errors import InvalidArgument
from ketch.notation import booleans, digits
from ketch.runtime.logs import journald

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.daemon.settings.config import AddressPool

_LEAST_MTU, _MAX_MTU = 68, 65535  # what a bridge takes (RFC 791; the kernel's ETH_MIN_MTU and ETH_MAX_MTU)
_LEVELS = ("debug", "info", "warn", "error", "fatal")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ketchd",
        description="The Ketch daemon: a container engine that speaks the Docker Engine API.",
        allow_abbrev=False,
    )
    add, here = parser.add_argument, places.mine()
    add("--data-root", metavar="DIR", help=f"persistent state (default {here.data_root})")
    add("--exec-root", metavar="DIR", help=f"run-time state (default {here.exec_root})")
    add(
        "-H",
        "--host",
        metavar="URL",
        action="append",
        dest="hosts",
        help=f"where to listen: unix://PATH or tcp://ADDRESS:PORT; repeatable (default {here.host})",
    )
    add("-p", "--pidfile", metavar="FILE", help="where to write the process id")
    _network_flags(parser)
    cgroup_settings.add_flags(parser)
    userns_settings.add_flags(parser)
    add("-G", "--group", metavar="NAME", help="group that may use the unix socket (default docker, when it exists)")
    add("--log-driver", metavar="NAME", help=f"where new containers log: {', '.join(log_options.DRIVERS)}")
    add("--log-opt", metavar="KEY=VALUE", action="append", dest="log_opt", help="option of that driver; repeatable")
    add("--journald-socket", metavar="PATH", help=f"where journald listens (default {journald.SOCKET})")
    add("-l", "--log-level", choices=_LEVELS, help="how much to log (default info)")
    add("-D", "--debug", action="store_true", default=None, help="the same as --log-level debug")
    add("--config-file", metavar="FILE", default=None, help=f"JSON settings, same names (default {here.config})")
    _tls_flags(parser)
    registry_settings.add_flags(parser)
    storage_settings.add_flags(parser)
    runtime_settings.add_flags(parser)
    add(
        "--prune-lost",
        action="store_true",
        default=None,
        help="delete what starts and repairs have put aside in DATA-ROOT/lost, and end",
    )
    add(
        "--repair",
        action="store_true",
        default=None,
        help="make a new state database of what can be read of a damaged one, which is kept, and end",
    )
    add("-v", "--version", action="version", version=f"ketchd version {__version__}")
    return parser


def _network_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-b", "--bridge", metavar="NAME", help="bridge of the default network (default ketch0; none: no bridge)")
    add("--bip", metavar="CIDR", help="address and prefix of the bridge, e.g. 172.28.0.1/16 (default: a free one)")
    add("--mtu", type=int, metavar="BYTES", help="MTU of the default network (default 1500)")
    add("--ip", metavar="ADDRESS", help="where -p publishes when it names no address (default 0.0.0.0: everywhere)")
    add("--icc", type=_switch, metavar="BOOL", help="let containers of the default network reach each other (true)")
    add("--ip-masq", type=_switch, metavar="BOOL", help="give containers' traffic the host's address (true)")
    add("--ipv6", action="store_true", default=None, help="IPv6 addresses in the default network, too")
    add("--fixed-cidr-v6", metavar="CIDR", help="IPv6 subnet of the default network (default: a unique local one)")
    add(
        "--default-address-pool",
        metavar="base=CIDR,size=N",
        action="append",
        dest="default_address_pools",
        type=_pool,
        help="where subnets of new networks are cut from; repeatable",
    )
    add("--dns", metavar="ADDRESS", action="append", help="name server of containers; repeatable (default: the host's)")
    add("--dns-search", metavar="DOMAIN", action="append", help="search domain of containers; repeatable")
    add("--dns-opt", metavar="OPTION", action="append", dest="dns_opts", help="resolver option of containers")
    add("--host-gateway-ip", metavar="ADDRESS", help="what host-gateway means in --add-host (default: the bridge's)")
    add(
        "--host-firewall",
        choices=("respect", "open"),
        help="respect: other tables that drop forwarded packets keep their say; open: let ours pass",
    )


def _tls_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tls", action="store_true", default=None, help="serve tcp:// with TLS")
    add("--tlsverify", action="store_true", default=None, help="TLS, and clients need a certificate of --tlscacert")
    add("--tlscacert", metavar="FILE", help="certificates of the authority that signs clients")
    add("--tlscert", metavar="FILE", help="the server's certificate")
    add("--tlskey", metavar="FILE", help="the server's key")
    add(
        "--insecure-tcp",
        action="store_true",
        default=None,
        help="allow tcp:// beyond loopback without TLS: whoever reaches the port is root on this machine",
    )
    add(
        "--builder-addr",
        metavar="URL",
        action="append",
        dest="builder_addrs",
        help="where to listen for BuildKit's clients, besides: unix://PATH or tcp://ADDRESS:PORT; repeatable",
    )
    add("--builder-tlscacert", metavar="FILE", help="certificates of the authority that signs such clients")
    add("--builder-tlscert", metavar="FILE", help="the server's certificate at --builder-addr tcp://")
    add("--builder-tlskey", metavar="FILE", help="the server's key there")
    add(
        "--tcp-name",
        metavar="NAME",
        action="append",
        dest="tcp_names",
        help="a name with a dot by which clients on plain tcp:// call this daemon; repeatable",
    )


_Values = dict[str, Any]  # by the names of `Config`'s fields, and of the types that these have


def load(argv: list[str]) -> Config:
    """The settings for these arguments; raises InvalidArgument with a sentence, or SystemExit from argparse."""
    flags = {k: v for k, v in vars(_parser().parse_args(argv)).items() if v is not None}
    values = _from_file(flags.pop("config_file", None), flags)
    if flags.pop("debug", False) or values.pop("debug", False):
        values["log_level"] = "debug"
    if options := flags.pop("log_opt", None):
        values["log_opts"] = {**values.get("log_opts", {}), **dict(_pair(o) for o in options)}
    if added := flags.pop("add_runtime", None):
        values["runtimes"] = {**values.get("runtimes", {}), **runtime_settings.of_flags(added)}
    values.update(flags)
    config = Config(**values)
    here = places.mine()
    config.data_root = os.path.abspath(config.data_root or here.data_root)
    config.exec_root = os.path.abspath(config.exec_root or here.exec_root)
    config.hosts = config.hosts or [here.host]
    cgroup_settings.resolve(config)
    _check(config)
    return config


def _switch(text: str) -> bool:
    found = booleans.parse(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"`{text}` is neither true nor false")
    return found


def _pool(text: str) -> AddressPool:
    values = dict(item.partition("=")[::2] for item in text.split(","))
    if values.keys() != {"base", "size"}:
        raise argparse.ArgumentTypeError(f"`{text}`: write base=CIDR,size=LENGTH")
    return {"base": values["base"], "size": values["size"]}


def _pair(option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not equals:
        raise InvalidArgument(f"invalid --log-opt `{option}`", hint="write KEY=VALUE")
    return key, value


def _from_file(path: str | None, flags: _Values) -> _Values:
    explicit, path = path is not None, path or places.mine().config
    try:
        with open(path, encoding="utf-8") as f:
            raw = json.load(f)
    except FileNotFoundError:
        if explicit:
            raise InvalidArgument(f"read configuration `{path}`: no such file") from None
        return {}
    except ValueError as e:
        raise InvalidArgument(f"read configuration `{path}`: {e}", hint="the file must be one JSON object") from e
    if not isinstance(raw, dict):
        raise InvalidArgument(f"read configuration `{path}`: not a JSON object")
    known = Config.__dataclass_fields__.keys() | {"debug"}
    values = {key.replace("-", "_"): value for key, value in raw.items()}
    if unknown := sorted(key for key in raw if key.replace("-", "_") not in known):
        raise InvalidArgument(f"read configuration `{path}`: unknown keys: {', '.join(unknown)}")
    for key, value in values.items():
        _check_type(path, key.replace("_", "-"), value, getattr(Config(), key, False))
    if both := sorted(values.keys() & flags.keys() - {"hosts"}):
        raise InvalidArgument(f"set both in `{path}` and by a flag: {', '.join(both)}", hint="keep one of the two")
    return values


def _check_type(path: str, key: str, value: object, default: object) -> None:
    """Raise InvalidArgument for a value of the file that has not its setting's type."""
    kind = type(default)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    free = key in ("default-address-pools", "builder", "runtimes")
    fits = type(value) is kind and (free or all(isinstance(item, str) for item in items))
    if not fits:
        words = {str: "a text", bool: "true or false", int: "a number", list: "a list of texts", dict: "texts by name"}
        raise InvalidArgument(f"read configuration `{path}`: {key} must be {words[kind]}, not {json.dumps(value)}")


def _check(config: Config) -> None:
    for host in config.hosts:
        _check_address(host, secured=config.tls or config.tlsverify or config.insecure_tcp, flag="--tlsverify")
    for host in config.builder_addrs:
        secured = bool(config.builder_tlscert) or config.insecure_tcp
        _check_address(host, secured=secured, flag="--builder-tlscert and --builder-tlscacert")
    if bool(config.builder_tlscert) != bool(config.builder_tlskey):
        raise InvalidArgument("TLS at --builder-addr needs both --builder-tlscert and --builder-tlskey")
    if config.builder_tlscacert and not config.builder_tlscert:
        raise InvalidArgument(
            "--builder-tlscacert needs a certificate", hint="give --builder-tlscert and --builder-tlskey"
        )
    if (config.tls or config.tlsverify) and not (config.tlscert and config.tlskey):
        raise InvalidArgument("TLS is asked for without a certificate", hint="give --tlscert and --tlskey")
    if config.tlsverify and not config.tlscacert:
        raise InvalidArgument("--tlsverify needs --tlscacert", hint="name the authority that signs your clients")
    log_options.check(LogConfig(type=config.log_driver, config=config.log_opts))
    if len(config.bridge.encode()) > 15:
        raise InvalidArgument(f"bridge name `{config.bridge}`: longer than 15 bytes")
    _check_network(config)
    registry_settings.check(config)
    storage_settings.check(config)
    builder_settings.check(config)
    userns_settings.check(config)
    runtime_settings.check(config)


def _check_address(host: str, *, secured: bool, flag: str) -> None:
    scheme, _, rest = host.partition("://")
    if scheme == "unix" and rest:
        return
    if scheme != "tcp":
        raise InvalidArgument(f"listen on `{host}`: unknown address", hint="use unix://PATH or tcp://ADDRESS:PORT")
    address, _ = tcp_address(host)
    if not secured and not _is_loopback(address):
        raise InvalidArgument(
            f"listen on `{host}`: refused, because without TLS whoever reaches this port is root here",
            hint=f"listen on 127.0.0.1, use {flag} with certificates, or say --insecure-tcp",
        )


def _check_network(config: Config) -> None:
    if config.mtu and not _LEAST_MTU <= config.mtu <= _MAX_MTU:
        raise InvalidArgument(f"--mtu {config.mtu}: not between {_LEAST_MTU} and {_MAX_MTU}")
    parsers: dict[str, Callable[[str], Any]] = {
        "bip": ipaddress.IPv4Interface,
        "ip": ipaddress.ip_address,
        "fixed_cidr_v6": ipaddress.IPv6Network,
        "host_gateway_ip": ipaddress.ip_address,
    }
    for name, parse in parsers.items():
        if value := getattr(config, name):
            _parsed(parse, value, f"--{name.replace('_', '-')}")
    for address in config.dns:
        _parsed(ipaddress.ip_address, address, "--dns")
    for pool in config.default_address_pools:
        whole = _parsed(ipaddress.ip_network, pool.get("base", ""), "--default-address-pool base")
        size = str(pool.get("size", ""))
        length = digits.whole(size, whole.max_prefixlen - 2)
        if length is None or length < whole.prefixlen:
            raise InvalidArgument(f"--default-address-pool size={size}: no subnet of {whole} has this length")
    if config.host_firewall not in ("respect", "open"):
        raise InvalidArgument(f"host-firewall {config.host_firewall}: use respect or open")


def _parsed(parse: Callable[[str], Any], value: str, what: str) -> Any:
    try:
        return parse(value)
    except ValueError as e:
        raise InvalidArgument(f"{what} {value}: {e}") from e


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
