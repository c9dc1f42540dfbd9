"""The daemon's settings: ``ketchd`` flags over ``daemon.json`` over defaults, with dockerd's names."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
from typing import TYPE_CHECKING, Any, NoReturn

from ketch import __version__, places
from ketch.daemon import docker_socket
from ketch.daemon.settings import addresses, dockerd
from ketch.daemon.settings import builder as builder_settings
from ketch.daemon.settings import cgroups as cgroup_settings
from ketch.daemon.settings import containers as container_settings
from ketch.daemon.settings import private as private_settings
from ketch.daemon.settings import registries as registry_settings
from ketch.daemon.settings import runtimes as runtime_settings
from ketch.daemon.settings import storage as storage_settings
from ketch.daemon.settings import userns as userns_settings
from ketch.daemon.settings.config import Config, tcp_address
from ketch.engine.logs import options as log_options
from ketch.engine.model.records import LogConfig
from ketch.errors import InvalidArgument
from ketch.notation import digits
from ketch.runtime.logs import journald
from ketch.ui import address as ui_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.daemon.settings.config import AddressPool

_PROXIES = ("http-proxy", "https-proxy", "no-proxy")
_OF_FLAGS_ALONE = {"cgroup_base", "notes", "private", "prune_lost", "repair", "validate"}
_FORMATS = ("text", "json")
_LEVELS = ("debug", "info", "warn", "error", "fatal")
_OTHER_LEVELS = {"trace": "debug", "panic": "fatal"}  # what dockerd takes besides
_DEFAULT_TCP = "tcp://localhost:2375"


class FlagParser(argparse.ArgumentParser):
    """A parser that says what is wrong in a line, and not all flags there are."""

    def error(self, message: str) -> NoReturn:
        """End with dockerd's status of wrong flags."""
        self.exit(1, f"{self.prog}: {message}\n  see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The flags of ketchd."""
    parser = FlagParser(
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
        help="where to listen: unix://PATH, tcp://ADDRESS:PORT, or fd://, the sockets that systemd passes; repeatable "
        f"(default {here.host})",
    )
    add(
        "--docker-socket",
        nargs="?",
        const=docker_socket.PATH,
        metavar="PATH",
        help=f"link this path to the unix socket, for programs that know Docker's alone (default {docker_socket.PATH})",
    )
    add("--private", metavar="DIR", help="be the engine of programs, for as long as one uses it, with all state in DIR")
    add("-p", "--pidfile", metavar="FILE", help="where to write the process id")
    _network_flags(parser)
    cgroup_settings.add_flags(parser)
    userns_settings.add_flags(parser)
    add("-G", "--group", metavar="NAME", help="group that may use the unix socket (default docker, when it exists)")
    add("--log-driver", metavar="NAME", help=f"where new containers log: {', '.join(log_options.DRIVERS)}")
    add("--log-opt", metavar="KEY=VALUE", action="append", dest="log_opts", help="option of that driver; repeatable")
    add("--journald-socket", metavar="PATH", help=f"where journald listens (default {journald.SOCKET})")
    add("-l", "--log-level", type=_level, choices=_LEVELS, help="how much to log (default info)")
    add(
        "-D",
        "--debug",
        nargs="?",
        const=True,
        type=container_settings.switch,
        metavar="BOOL",
        help="the same as --log-level debug",
    )
    add("--config-file", metavar="FILE", default=None, help=f"JSON settings, same names (default {here.config})")
    add("--log-format", choices=_FORMATS, help="lines of the log as texts or as JSON (default text)")
    add("--metrics-addr", metavar="HOST:PORT", help="serve /metrics there for Prometheus, to whoever asks")
    _tls_flags(parser)
    container_settings.add_flags(parser)
    registry_settings.add_flags(parser)
    storage_settings.add_flags(parser)
    runtime_settings.add_flags(parser)
    dockerd.add_flags(parser)
    for name in _PROXIES:
        value = "HOSTS" if name == "no-proxy" else "URL"
        add(f"--{name}", metavar=value, help="how registries are asked (else by the environment)")
    _state_flags(parser)
    add("-v", "--version", action="version", version=f"ketchd version {__version__}")
    return parser


def _state_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--validate", action="store_true", default=None, help="check the settings, and end")
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


def _network_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-b", "--bridge", metavar="NAME", help="bridge of the default network (default ketch0; none: no bridge)")
    add("--bip", metavar="CIDR", help="address and prefix of the bridge, e.g. 172.28.0.1/16 (default: a free one)")
    add("--bip6", metavar="CIDR", help="IPv6 address and prefix of the bridge, with --ipv6")
    add("--default-gateway", metavar="ADDRESS", help="router of the default network, in --bip, if not the bridge")
    add("--default-gateway-v6", metavar="ADDRESS", help="the same for IPv6, in --bip6 or --fixed-cidr-v6")
    add(
        "--default-network-opt",
        metavar="DRIVER=OPTION=VALUE",
        action="append",
        dest="default_network_opts",
        help="option of new networks that do not say otherwise; repeatable",
    )
    add("--mtu", type=int, metavar="BYTES", help="MTU of the default network (default 1500)")
    add("--ip", metavar="ADDRESS", help="where -p publishes when it names no address (default 0.0.0.0: everywhere)")
    container_settings.add_switch(parser, "--icc", help="let containers of the default network reach each other (true)")
    container_settings.add_switch(parser, "--ip-masq", help="give containers' traffic the host's address (true)")
    container_settings.add_switch(parser, "--ipv6", help="IPv6 addresses in the default network, too")
    container_settings.add_switch(
        parser, "--allow-direct-routing", help="let published ports be reached at containers' own addresses, too"
    )
    add("--fixed-cidr", metavar="CIDR", help="addresses of the default network that containers get (default: all)")
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
    add(
        "--host-gateway-ip",
        metavar="ADDRESS",
        action="append",
        dest="host_gateway_ips",
        help="what host-gateway means in --add-host: one address a family; repeatable (default: the bridge's)",
    )
    add(
        "--host-firewall",
        choices=("respect", "open"),
        help="respect: other tables that drop forwarded packets keep their say; open: let ours pass",
    )


def _tls_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    container_settings.add_switch(parser, "--tls", help="serve tcp:// with TLS")
    container_settings.add_switch(parser, "--tlsverify", help="TLS, and clients need a certificate of --tlscacert")
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
    add("--ui", metavar="ADDRESS:PORT", help="where to serve the page for browsers; `ketch ui` prints how to log in")


_Values = dict[str, Any]  # by the names of `Config`'s fields, and of the types that these have


def load(argv: list[str]) -> Config:
    """The settings for these arguments; raises InvalidArgument with a sentence, or SystemExit from argparse."""
    flags = {k: v for k, v in vars(parser().parse_args(argv)).items() if v is not None}
    given = {name.replace("_", "-") for name in flags} | dockerd.keys_of(flags)
    notes = dockerd.take_flags(flags)
    proxies = {name: value for name in _PROXIES if (value := flags.pop(name.replace("-", "_"), None))}
    values = _from_settings(flags, given, notes)
    values["proxies"] = {**values.get("proxies", {}), **proxies}
    if flags.pop("debug", False) or values.pop("debug", False):
        values["log_level"] = "debug"
    if added := flags.pop("add_runtime", None):  # of these alone dockerd has those of both
        values["runtimes"] = {**values.get("runtimes", {}), **runtime_settings.of_flags(added)}
    values.update(flags)
    for name, of_flags in _OF_FLAGS.items():
        if name in flags:
            values[name] = of_flags(flags[name])
    if "tlsverify" in values:  # dockerd serves TLS for either value of it
        values["tls"] = True
    config = Config(**values, notes=notes)
    _settle(config)
    _check(config)
    return config


def _settle(config: Config) -> None:
    """Give the settings the forms in which everything else knows them (InvalidArgument)."""
    here = places.mine()
    config.data_root = os.path.abspath(config.data_root or here.data_root)
    config.exec_root = os.path.abspath(config.exec_root or here.exec_root)
    config.hosts = [_host(host) for host in config.hosts or [here.host]]
    config.log_level = _level(config.log_level)
    addresses.settle(config)
    registry_settings.settle(config)
    cgroup_settings.resolve(config)


def _level(text: str) -> str:
    """A level of the log, by any of the words that dockerd knows."""
    return _OTHER_LEVELS.get(text.lower(), text.lower())


def _host(text: str) -> str:
    """An address to listen on, completed as dockerd does: that is ``tcp://`` on loopback, or the default."""
    scheme, colon, rest = text.strip().rpartition("://")
    if rest == "" and scheme in ("", "unix"):
        return places.mine().host
    if scheme not in ("", "tcp") or rest.startswith("/"):
        return text
    return f"tcp://localhost{rest}" if rest.startswith(":") else f"tcp://{rest}" if rest else _DEFAULT_TCP


def _from_settings(flags: _Values, given: set[str], notes: list[str]) -> _Values:
    """The settings beside the flags: of a file, and of a private daemon's directory, for which the machine's is not.

    ``given`` are the keys of the settings that are given by flags.
    """
    path = flags.pop("config_file", None)
    if "private" not in flags:
        return _from_file(path, given, notes)
    values = _from_file(path, given, notes) if path is not None else {}
    return {**private_settings.of(flags.pop("private")), **values}


def _pool(text: str) -> AddressPool:
    values = dict(item.partition("=")[::2] for item in text.split(","))
    if values.keys() != {"base", "size"}:
        raise argparse.ArgumentTypeError(f"`{text}`: write base=CIDR,size=LENGTH")
    return {"base": values["base"], "size": values["size"]}


def _log_options(given: list[str]) -> dict[str, str]:
    """The options of ``--log-opt`` (InvalidArgument)."""
    for option in given:
        if "=" not in option:
            raise InvalidArgument(f"invalid --log-opt `{option}`", hint="write KEY=VALUE")
    return dict(option.split("=", 1) for option in given)


# What makes a setting of the values of a flag that can be repeated.
_OF_FLAGS: dict[str, Callable[[list[str]], Any]] = {
    "default_network_opts": addresses.options_of_flags,
    "default_ulimits": container_settings.of_flags,
    "log_opts": _log_options,
}


def _from_file(path: str | None, given: set[str], notes: list[str]) -> _Values:
    explicit, path = path is not None, path or places.mine().config
    raw = _read(path, explicit=explicit)
    _take_old_key(raw, path)
    _check_once(raw, path, given)
    notes += dockerd.take_keys(raw, path)
    known = Config.__dataclass_fields__.keys() - _OF_FLAGS_ALONE | {"debug"}
    if unknown := sorted(key for key in raw if "_" in key or key.replace("-", "_") not in known):
        proxies = [key for key in unknown if key in _PROXIES]
        hint = f'write {{"proxies": {{"{proxies[0]}": …}}}}' if proxies else None
        raise InvalidArgument(f"read configuration `{path}`: unknown keys: {', '.join(unknown)}", hint=hint)
    values = {key.replace("-", "_"): _without_null(value) for key, value in raw.items() if value is not None}
    for key, value in values.items():
        _check_type(path, key.replace("_", "-"), value, False if key == "debug" else getattr(Config(), key))
    # As with dockerd, what is empty or 0 stands for the default.
    return {key: value for key, value in values.items() if value or isinstance(value, bool)}


def _take_old_key(raw: _Values, path: str) -> None:
    """Give the key that dockerd had before 28 its name of now (InvalidArgument: both are there)."""
    if "host-gateway-ip" in raw:
        if "host-gateway-ips" in raw:
            raise InvalidArgument(f"`{path}`: host-gateway-ip and host-gateway-ips: both are there", hint="keep one")
        raw["host-gateway-ips"] = [raw.pop("host-gateway-ip")]


def _check_once(raw: _Values, path: str, given: set[str]) -> None:
    """Raise InvalidArgument for what is set by a flag as well, as dockerd does."""
    proxies = raw.get("proxies")
    keys = {*raw, *(proxies if isinstance(proxies, dict) else ())}
    if both := sorted(keys & given):
        raise InvalidArgument(
            f"the following directives are specified both as a flag and in the configuration file `{path}`: "
            f"{', '.join(both)}",
            hint="keep one of the two",
        )


def _read(path: str, *, explicit: bool) -> _Values:
    """The file's object; an empty file and null are an empty object, as for dockerd."""
    try:
        with open(path, encoding="utf-8-sig") as f:
            text = f.read()
        raw = json.loads(text) if text.strip() else {}
    except FileNotFoundError:
        if explicit:
            raise InvalidArgument(f"read configuration `{path}`: no such file") from None
        return {}
    except (ValueError, RecursionError) as e:
        raise InvalidArgument(f"read configuration `{path}`: {e}", hint="the file must be one JSON object") from e
    if not isinstance(raw, dict | None):
        raise InvalidArgument(f"read configuration `{path}`: not a JSON object")
    return raw or {}


def _without_null(value: Any) -> Any:
    """A value in which nothing of an object is null."""
    if not isinstance(value, dict):
        return value
    return {key: _without_null(below) for key, below in value.items() if below is not None}


def _check_type(path: str, key: str, value: object, default: object) -> None:
    """Raise InvalidArgument for a value of the file that has not its setting's type."""
    kind = type(default)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    free = key in ("default-address-pools", "builder", "runtimes", "default-ulimits", "default-network-opts")
    fits = type(value) is kind and (free or all(isinstance(item, str) for item in items))
    if not fits:
        words = {str: "a text", bool: "true or false", int: "a number", list: "a list of texts", dict: "texts by name"}
        raise InvalidArgument(f"read configuration `{path}`: {key} must be {words[kind]}, not {json.dumps(value)}")


def _check(config: Config) -> None:
    for host in (host for host in config.hosts if not host.startswith("fd://")):
        _check_address(host, secured=config.tls or config.tlsverify or config.insecure_tcp, flag="--tlsverify")
    for host in config.builder_addrs:
        secured = bool(config.builder_tlscert) or config.insecure_tcp
        _check_address(host, secured=secured, flag="--builder-tlscert and --builder-tlscacert")
    if config.ui:
        ui_address.parse(config.ui, secured=config.tls or config.tlsverify)
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
    if config.log_level not in _LEVELS:
        raise InvalidArgument(f"log-level {config.log_level}: not a level", hint=f"use one of {', '.join(_LEVELS)}")
    if config.log_format not in _FORMATS:
        raise InvalidArgument(f"log-format {config.log_format}: not a format", hint=f"use {' or '.join(_FORMATS)}")
    _check_metrics(config.metrics_addr)
    log_options.check(LogConfig(type=config.log_driver, config=config.log_opts))
    if len(config.bridge.encode()) > 15:
        raise InvalidArgument(f"bridge name `{config.bridge}`: longer than 15 bytes")
    addresses.check(config)
    registry_settings.check(config)
    storage_settings.check(config)
    builder_settings.check(config)
    userns_settings.check(config)
    runtime_settings.check(config)
    container_settings.check(config)
    if unknown := sorted(set(config.proxies) - {*_PROXIES}):
        raise InvalidArgument(f"proxies: unknown keys: {', '.join(unknown)}", hint=f"use {', '.join(_PROXIES)}")


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


def _check_metrics(address: str) -> None:
    _, colon, port = address.rpartition(":")
    if address and (not colon or digits.whole(port, 65535) is None):
        raise InvalidArgument(f"metrics-addr {address}: not an address", hint="write HOST:PORT, e.g. 127.0.0.1:9323")


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
