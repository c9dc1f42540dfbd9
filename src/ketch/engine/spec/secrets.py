"""``--secret``: files of the host that a container gets as files in memory.

What is kept is where a secret comes from, never what it says: the container's first process reads the sources at each
start, before it leaves the host's files behind (``runtime.secrets``).
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument
from ketch.runtime import spec
from ketch.runtime.rootfs import secrets as runtime

if TYPE_CHECKING:
    from ketch.engine.model.records import HostConfig, Secret

_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}\Z")
_MAX_ID = (1 << 32) - 2


def check(host: HostConfig) -> None:
    """Check secrets at the creation (InvalidArgument)."""
    found = host.secrets or []
    targets = [runtime.path_of(secret.id, secret.target) for secret in found]
    for secret, target in zip(found, targets, strict=True):
        _check_one(secret)
        if targets.count(target) > 1:
            raise InvalidArgument(f"secret {secret.id}: more than one has the target {target}")


def _check_one(secret: Secret) -> None:
    if not _NAME.match(secret.id):
        raise InvalidArgument(
            f"invalid secret id `{secret.id}`", hint="use letters, digits, `_`, `-`, `.`; 64 of them at most"
        )
    if not secret.source.startswith("/"):
        raise InvalidArgument(
            f"secret {secret.id}: the source `{secret.source}` is not an absolute path",
            hint="it is a file of the machine that ketchd runs on",
        )
    if secret.target and not secret.target.startswith("/") and not _NAME.match(secret.target):
        raise InvalidArgument(
            f"secret {secret.id}: invalid target `{secret.target}`",
            hint="use a name in /run/secrets or an absolute path",
        )
    if not 0 <= secret.mode <= 0o777 or not 0 <= secret.uid <= _MAX_ID or not 0 <= secret.gid <= _MAX_ID:
        raise InvalidArgument(f"secret {secret.id}: mode, uid or gid is out of range")
    try:
        status = os.stat(secret.source)
    except OSError as e:
        raise InvalidArgument(f"secret {secret.id}: source `{secret.source}`: {e.strerror}") from e
    if not stat.S_ISREG(status.st_mode):
        raise InvalidArgument(f"secret {secret.id}: source `{secret.source}` is not a regular file")
    if status.st_size > runtime.LIMIT:
        raise InvalidArgument(f"secret {secret.id}: source `{secret.source}` is larger than {runtime.LIMIT >> 10} KiB")


def shown(host: HostConfig) -> list[dict[str, str]]:
    """Secrets as inspect shows them, without their sources."""
    return [{"ID": s.id, "Target": runtime.path_of(s.id, s.target)} for s in host.secrets or ()]


def runtime_annotations(given: dict[str, str], host: HostConfig) -> dict[str, str]:
    """A container's annotations, with the one that names its secrets for the runtime, and none of the engine's own."""
    result = {name: value for name, value in given.items() if not name.startswith(spec.ANNOTATIONS)}
    if host.secrets:
        entries = [[s.id, s.source, s.target, s.mode, s.uid, s.gid] for s in host.secrets]
        result[runtime.ANNOTATION] = msgspec.json.encode(entries).decode()
    return result
