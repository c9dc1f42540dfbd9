"""The daemon of a user who is not root: the namespaces that it enters first of all."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from ketch import places
from ketch.daemon import listen, roots
from ketch.engine.userns import subids
from ketch.rootless import namespaces, user_ids
from ketch.storage import file_lock

if TYPE_CHECKING:
    from contextlib import ExitStack

    from ketch.daemon.settings.config import Config
    from ketch.rootless.namespaces import OwnNamespaces

MODE = 0o700  # of both roots: what is group root's elsewhere would be the user's group's


def enter(config: Config, stack: ExitStack) -> OwnNamespaces:
    """Become root of a user namespace, where nobody needs to be root of the machine (KetchError).

    One daemon does so for an exec root, until ``stack`` ends: two would each make namespaces.
    """
    file_lock.use_directory(places.mine().locks)
    config.group = ""  # the machine's groups have other numbers, or none, and the socket is nobody else's business
    for path in (config.data_root, config.exec_root):
        roots.make(path, MODE)
    stack.enter_context(listen.namespaces_lock(config.exec_root))
    names = _names()
    uids, gids = ([(one.first, one.size) for one in subids.of_owner(path, *names)] for path in subids.SubIdFiles())
    return stack.enter_context(namespaces.entered(config.exec_root, user_ids.available(uids, gids)))


def _names() -> tuple[str, ...]:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)
