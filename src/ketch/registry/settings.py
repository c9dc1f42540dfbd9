"""The registry's settings: flags over a JSON file over defaults; the file's keys are the flags' names."""

from __future__ import annotations

import argparse
import json
import os

from ketch.errors import InvalidArgument
from ketch.notation import digits

GRACE_S = 24 * 3600.0


def parser() -> argparse.ArgumentParser:
    """All commands and flags of ``ketch registry``."""
    top = argparse.ArgumentParser(prog="ketch registry", description="An OCI distribution server.", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve a registry", allow_abbrev=False)
    _storage(serve)
    add = serve.add_argument
    add("--config-file", metavar="FILE", help="JSON with the same names")
    add("--addr", metavar="HOST:PORT", help="where to listen (default 127.0.0.1:5000)")
    add("--workers", type=int, metavar="N", help="processes that serve side by side (default 1)")
    add("--tls-cert", metavar="FILE", help="serve with TLS, with this certificate")
    add("--tls-key", metavar="FILE", help="and this key")
    add("--htpasswd", metavar="FILE", help="users and bcrypt hashes: who may pull and push")
    add("--token-realm", metavar="URL", help="where clients get tokens")
    add("--token-service", metavar="NAME", help="for whom tokens must be")
    add("--token-issuer", metavar="NAME", help="who must have made them")
    add("--token-keys", metavar="FILE", help="certificates or public key (PEM) that tokens are signed with")
    add("--anonymous-pull", action="store_true", default=None, help="let everybody pull")
    add("--read-only", action="store_true", default=None, help="refuse pushes and deletes")
    add(
        "--sparse-indexes",
        action="store_true",
        default=None,
        help="take indexes of which some manifests are not here, as of copies for some platforms",
    )
    add("--upstream", metavar="URL", help="be a cache of another registry")
    add("--upstream-user", metavar="NAME", help="who to be there; the password is in KETCH_UPSTREAM_PASSWORD")
    add("--upstream-ttl", type=float, metavar="SECONDS", help="how long a tag is not asked for again (default 60)")
    add("--access-log", metavar="FILE", help="where to write it (default -: standard output; empty: nowhere)")
    add("--metrics-addr", metavar="HOST:PORT", help="serve /metrics there, without asking who it is, and nowhere else")
    add("--gc-interval", type=float, metavar="SECONDS", help="collect garbage this often (default 0: never)")
    _collection(serve)
    collect = commands.add_parser("gc", help="collect garbage, also beside a registry that serves", allow_abbrev=False)
    _storage(collect)
    _collection(collect)
    user = commands.add_parser("htpasswd", help="make a line for --htpasswd", allow_abbrev=False)
    user.add_argument("user")
    user.add_argument("--cost", type=int, default=10, metavar="N", help="of bcrypt (default 10)")
    return top


def _storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", help="keep everything here (default /var/lib/ketch-registry)")
    parser.add_argument("--bucket", metavar="URL", help="or in a bucket: s3://NAME[/PREFIX]")
    parser.add_argument(
        "--bucket-option",
        metavar="KEY=VALUE",
        action="append",
        default=None,
        help="endpoint, region, access_key_id …, as obstore names them; else AWS_* variables",
    )


def _collection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gc-grace",
        type=float,
        metavar="SECONDS",
        help="garbage is what nobody has relied on for so long (default 86400)",
    )
    parser.add_argument(
        "--delete-untagged", action="store_true", default=None, help="manifests that no tag leads to are garbage, too"
    )


_Value = str | int | float | bool | list[str]
DEFAULTS: dict[str, _Value] = {
    "root": "/var/lib/ketch-registry",
    "bucket": "",
    "bucket_option": [],
    "addr": "127.0.0.1:5000",
    "workers": 1,
    "tls_cert": "",
    "tls_key": "",
    "htpasswd": "",
    "token_realm": "",
    "token_service": "",
    "token_issuer": "",
    "token_keys": "",
    "anonymous_pull": False,
    "read_only": False,
    "sparse_indexes": False,
    "upstream": "",
    "upstream_user": "",
    "upstream_ttl": 60.0,
    "access_log": "-",
    "metrics_addr": "",
    "gc_interval": 0.0,
    "gc_grace": GRACE_S,
    "delete_untagged": False,
    "cost": 10,
}


def load(argv: list[str]) -> argparse.Namespace:
    """The settings for these arguments (InvalidArgument; SystemExit from argparse)."""
    given = {key: value for key, value in vars(parser().parse_args(argv)).items() if value is not None}
    path = given.pop("config_file", None)
    values = {**DEFAULTS, **(_from_file(path) if path else {}), **given}
    settings = argparse.Namespace(**values)
    settings.bucket_options = dict(_pair(text) for text in settings.bucket_option)
    _check(settings)
    return settings


def _from_file(path: str) -> dict[str, _Value]:
    try:
        with open(path, encoding="utf-8") as f:
            raw = json.load(f)
    except (OSError, ValueError) as e:
        raise InvalidArgument(f"read configuration `{path}`: {e}") from e
    if not isinstance(raw, dict):
        raise InvalidArgument(f"read configuration `{path}`: not a JSON object")
    values = {key.replace("-", "_"): value for key, value in raw.items()}
    if unknown := sorted(values.keys() - DEFAULTS.keys()):
        raise InvalidArgument(f"read configuration `{path}`: unknown keys: {', '.join(unknown)}")
    for key, value in values.items():
        default = DEFAULTS[key]
        kind = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, kind):
            raise InvalidArgument(f"read configuration `{path}`: {key} must be {type(default).__name__}")
    return values


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidArgument(f"--bucket-option `{text}`: write KEY=VALUE")
    return key if key.startswith("aws_") else f"aws_{key}", value


def _check(settings: argparse.Namespace) -> None:
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise InvalidArgument("TLS needs both", hint="give --tls-cert and --tls-key")
    tokens = [settings.token_realm, settings.token_service, settings.token_issuer, settings.token_keys]
    if any(tokens) and not all(tokens):
        raise InvalidArgument(
            "tokens need all four", hint="give --token-realm, --token-service, --token-issuer and --token-keys"
        )
    if any(tokens) and settings.htpasswd:
        raise InvalidArgument("--htpasswd and tokens exclude each other")
    if settings.workers < 1:
        raise InvalidArgument(f"--workers {settings.workers}: at least one is needed")
    address(settings.addr)
    if settings.metrics_addr:
        address(settings.metrics_addr)


def address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``:PORT`` (InvalidArgument)."""
    host, colon, port = text.rpartition(":")
    number = digits.whole(port, 65535)
    if not colon or number is None:
        raise InvalidArgument(f"listen on `{text}`: not an address", hint="write HOST:PORT, for instance :5000")
    return host.strip("[]") or "0.0.0.0", number


def upstream_password() -> str:
    """The upstream's password, from the environment: every user of the machine can read command lines."""
    return os.environ.get("KETCH_UPSTREAM_PASSWORD", "")
