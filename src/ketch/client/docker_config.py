"""The docker client's ``config.json``, which Ketch shares: credentials, proxies, the context in use.

What Docker has written Ketch reads, and the other way round; what is not understood in the file is kept.
"""

from __future__ import annotations

import os

from ketch.contexts import suppress
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    DockerConfig = dict[str, Any]  # the docker client's config.json, whose other members are kept


def directory() -> str:
    """The path of the directory: ``$DOCKER_CONFIG`` or ``~/.docker``."""
    return os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")


def path() -> str:
    """The path of the file."""
    return os.path.join(directory(), "config.json")


def read() -> DockerConfig:
    """The whole file; nothing when there is none, or an empty one (InvalidArgument: it cannot be read)."""
    try:
        with open(path(), encoding="utf-8") as f:
            text = f.read()
        return parsed(text) if text else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise InvalidArgument(f"read `{path()}`: {e}", hint="mend or remove it") from e


def parsed(text: str | bytes) -> DockerConfig:
    """The JSON object in a file of Docker's client (ValueError: it is none)."""
    text = text.decode() if isinstance(text, bytes) else text
    if documents.is_too_deep(text):
        raise ValueError("it is nested too deeply")
    found = documents.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    if "\\u" in text:
        import json

        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return found


def write(config: DockerConfig) -> None:
    """Replace the file at once; a link to it stays a link.

    It is readable by its owner alone; one that is there already keeps its mode and owner.
    """
    import json  # here: to read it is not needed

    target = os.path.realpath(path())
    replace(target, json.dumps(config, indent="\t").encode())


def replace(target: str, data: bytes, mode: int = 0o600) -> None:
    """Replace a file at once, or make it; its directory is made, too (FailedPrecondition)."""
    import tempfile  # here: to read neither is needed, and each start would pay for it

    folder = os.path.dirname(target)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        fd, fresh = tempfile.mkstemp(prefix=f"{os.path.basename(target)}.", dir=folder)
    except OSError as e:
        raise FailedPrecondition(f"write `{target}`: {e.strerror}") from e
    try:
        with open(fd, "wb") as f:
            f.write(data)
            os.fchmod(fd, mode)
            _keep_mode(target, fd)
            f.flush()
            os.fsync(fd)
        os.replace(fresh, target)
    except BaseException as e:
        os.unlink(fresh)
        if isinstance(e, OSError):
            raise FailedPrecondition(f"write `{target}`: {e.strerror}") from e
        raise


def _keep_mode(target: str, fd: int) -> None:
    """Keep mode and owner of the replaced file, as far as permitted; a world-readable mode is not kept."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return
    with suppress(PermissionError):
        os.fchown(fd, status.st_uid, status.st_gid)
    if not status.st_mode & 0o007:
        os.fchmod(fd, status.st_mode & 0o777)
