"""The daemon's settings for registries, with dockerd's names."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ketch import __version__
from ketch.errors import InvalidArgument
from ketch.remote.settings import CERTIFICATES, Settings

if TYPE_CHECKING:
    import argparse

    from ketch.daemon.settings.config import Config
    from ketch.engine.images.registries import Registries


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--insecure-registry`` and its like."""
    add = parser.add_argument
    add(
        "--insecure-registry",
        metavar="HOST[:PORT]|CIDR",
        action="append",
        dest="insecure_registries",
        help="registry without TLS, or with a certificate that is not checked; repeatable",
    )
    add(
        "--registry-mirror",
        metavar="URL",
        action="append",
        dest="registry_mirrors",
        help="asked first for images of Docker Hub; repeatable",
    )
    add(
        "--registry-certs",
        metavar="DIR",
        action="append",
        dest="registry_certs",
        help=f"folder with certificates of registries; repeatable (default {', '.join(CERTIFICATES)})",
    )
    add(
        "--registry-stall-timeout",
        type=int,
        metavar="SECONDS",
        help="a registry that says nothing for so long has broken off (default 30)",
    )
    add("--max-concurrent-downloads", type=int, metavar="N", help="blobs downloaded at once (default 3)")
    add("--max-concurrent-uploads", type=int, metavar="N", help="blobs uploaded at once (default 5)")
    add("--max-download-attempts", type=int, metavar="N", help="tries before a download is given up (default 5)")


def settle(config: Config) -> None:
    """Take the schemes off insecure registries, where dockerd wants none and takes them off as well; noted."""
    plain = []
    for text in config.insecure_registries:
        scheme, colon, rest = text.rpartition("://")
        is_url = scheme.lower() in ("http", "https")
        plain.append(rest if is_url else text)
        if is_url:
            config.notes.append(f"insecure registry {text}: taken for {rest}: a name has no {scheme}://")
    config.insecure_registries = plain


def check(config: Config) -> None:
    """Raise InvalidArgument for settings that make no sense."""
    for text in config.insecure_registries:
        if "/" in text:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as e:
                raise InvalidArgument(f"insecure registry {text}: {e}", hint="name a host, host:port, or CIDR") from e
    for url in config.registry_mirrors:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidArgument(f'invalid mirror: "{url}" is not a valid URI', hint="use https://HOST[:PORT]")
        if parts.username:
            raise InvalidArgument(f'invalid mirror: username/password not allowed in URI "{parts.hostname}"')
    for name in (
        "max_concurrent_downloads",
        "max_concurrent_uploads",
        "max_download_attempts",
        "registry_stall_timeout",
    ):
        if getattr(config, name) < 1:
            raise InvalidArgument(f"invalid {name.replace('_', ' ')}: {getattr(config, name)}")


def build(config: Config) -> Registries:
    """The registries as these settings have them; the HTTP client is imported now, when the launcher is on its way."""
    from ketch.engine.images.registries import Registries

    return Registries(remotes(config), config.max_concurrent_downloads, config.max_concurrent_uploads)


def remotes(config: Config) -> Settings:
    """The settings of the client of registries."""
    return Settings(
        insecure=tuple(config.insecure_registries),
        mirrors=tuple(config.registry_mirrors),
        certificates=tuple(config.registry_certs) or CERTIFICATES,
        attempts=config.max_download_attempts,
        stall_s=config.registry_stall_timeout,
        user_agent=f"ketch/{__version__}",
    )
