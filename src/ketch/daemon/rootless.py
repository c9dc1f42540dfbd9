"""The daemon of a user who is not root: the namespaces that it enters first of all."""

from __future__ import annotations

import logging
import os
import pwd
from functools import partial
from typing import TYPE_CHECKING

from ketch import places
from ketch.daemon import listen, roots, user_session
from ketch.engine.userns import subids
from ketch.rootless import id_service, namespaces, permission, user_ids
from ketch.runtime.cgroups import monitors
from ketch.storage import file_lock

if TYPE_CHECKING:
    from contextlib import ExitStack

    from ketch.daemon.settings.config import Config
    from ketch.rootless.namespaces import OwnNamespaces

log = logging.getLogger(__name__)
MODE = 0o700  # of both roots: what is group root's elsewhere would be the user's group's


def enter(config: Config, stack: ExitStack) -> OwnNamespaces:
    """Become root of a user namespace, where nobody needs to be root of the machine (KetchError).

    One daemon does so for an exec root, until ``stack`` ends: two would each make namespaces.
    """
    permission.check_proc()
    here = places.mine()
    file_lock.use_directory(here.locks)
    config.group = ""  # the machine's groups have other numbers, or none, and the socket is nobody else's business
    for path in (config.data_root, config.exec_root):
        roots.make(path, MODE)
    os.makedirs(os.path.dirname(here.locks), MODE, exist_ok=True)  # none of a login, and the exec root is elsewhere
    if here is not places.ROOT and not config.private and (problem := places.runtime_directory_problem()):
        log.warning("%s: sockets are in %s (a login sets it)", problem, os.path.dirname(here.socket))
    stack.enter_context(listen.namespaces_lock(config.exec_root))
    names, contained = _names(), os.geteuid() == 0
    own = stack.enter_context(namespaces.entered(config.exec_root, _ids(names)))
    own.each_process(partial(_settle, config.cgroup_parent))
    own.remarks = list(user_session.remarks(names, contained=contained, lasting=not config.private))
    for remark in own.remarks:
        log.warning("%s", remark)
    return own


def _ids(names: tuple[str, ...]) -> user_ids.UserIds:
    if os.geteuid() and (service := id_service.name()):
        return user_ids.available(*id_service.ranges(service, names[0]))
    files = subids.SubIdFiles()
    uids, gids = ([(one.first, one.size) for one in subids.of_owner(path, *names)] for path in files)
    secret = [path for path in files if os.path.exists(path) and not os.access(path, os.R_OK)]
    return user_ids.available(uids, gids, f"this user may not read {' and '.join(secret)}" if secret else "")


def _settle(parent: str, pid: int) -> None:
    """Have a process live in the cgroup of monitors, not in ketchd's."""
    if why_not := monitors.bring(parent, pid):
        log.warning("process %d stays in the cgroup of ketchd, and ends when that is ended: %s", pid, why_not)


def _names() -> tuple[str, ...]:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)
