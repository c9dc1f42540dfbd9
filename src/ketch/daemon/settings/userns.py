"""The daemon's settings of user namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.engine.userns import pool, remap
from ketch.engine.userns.subids import SubIdFiles
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    import argparse
    from contextlib import AsyncExitStack

    from ketch.daemon.settings.config import Config
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.userns.service import UserNamespaces


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--userns-remap",
        metavar="USER[:GROUP]",
        help="run containers as the subordinate ids of this user (default: of dockremap, who gets some)",
    )
    parser.add_argument(
        "--userns-default",
        choices=("host", "auto"),
        help="auto: each container that asks for nothing has users of its own, as with --userns auto (default host)",
    )
    parser.add_argument(
        "--userns-pool",
        metavar="USER|FIRST:COUNT",
        help=f"the ids that --userns auto gives to containers (default: those of the user {pool.DEFAULT_USER})",
    )
    parser.add_argument(
        "--userns-copy",
        action="store_true",
        default=None,
        help="copy images for containers in user namespaces where layers cannot be mapped (before Linux 5.19)",
    )


def check(config: Config) -> None:
    """Check the settings alone, not the machine (InvalidArgument)."""
    if config.userns_default not in ("", "host", "auto"):
        raise InvalidArgument(f"invalid --userns-default `{config.userns_default}`", hint="use host or auto")
    if config.userns_default and config.userns_remap:
        raise InvalidArgument("--userns-default and --userns-remap both say what containers get", hint="keep one")
    pool.check(config.userns_pool)


def user_namespaces(config: Config, containers: ContainerStore, stack: AsyncExitStack) -> UserNamespaces:
    """The user namespaces of containers (InvalidArgument: the user of --userns-remap is not there, dockerd's words)."""
    from ketch.engine.userns.service import UserNamespaces  # asyncio and SQLite, which the launcher does not wait for

    files = SubIdFiles()
    remapped = remap.user_namespace(config.userns_remap, files) if config.userns_remap else None
    ids = pool.IdPool(config.userns_pool, files, config.data_root)
    found = UserNamespaces(containers, ids, remapped, by_default=config.userns_default == "auto")
    stack.callback(found.close)
    found.keep()
    return found
