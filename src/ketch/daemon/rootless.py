"""The daemon of a user who is not root: the namespaces that it enters first of all."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from ketch import places
from ketch.daemon import roots
from ketch.engine.userns import subids
from ketch.rootless import namespaces, user_ids
from ketch.storage import file_lock

if TYPE_CHECKING:
    from ketch.daemon.settings.config import Config
    from ketch.rootless.namespaces import OwnNamespaces


def enter(config: Config) -> OwnNamespaces:
    """Become root of a user namespace, where nobody needs to be root of the machine (KetchError)."""
    file_lock.use_directory(places.mine().locks)
    for path, mode in ((config.data_root, 0o710), (config.exec_root, 0o711)):
        roots.make(path, mode)
    names = _names()
    uids, gids = ([(one.first, one.size) for one in subids.of_owner(path, *names)] for path in subids.SubIdFiles())
    return namespaces.enter(config.exec_root, user_ids.available(uids, gids))


def _names() -> tuple[str, ...]:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)
