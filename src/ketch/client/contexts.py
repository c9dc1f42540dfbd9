"""Contexts: names for daemons' addresses, in the docker client's own store.

    contexts/meta/ID/meta.json       {"Name": …, "Metadata": {"Description": …}, "Endpoints": {"docker": {"Host": …}}}
    contexts/tls/ID/docker/ca.pem    certificates (cert.pem, key.pem), when the endpoint speaks TLS

``ID`` is the SHA-256 of the name; ``currentContext`` of ``config.json`` names the one in use.  Members of other
programs are kept.
"""

from __future__ import annotations

import os

from ketch.client import docker_config
from ketch.client.addresses import Address, Tls
from ketch.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Meta = dict[str, Any]  # what the store keeps of a context

DEFAULT = "default"
FILES = ("ca.pem", "cert.pem", "key.pem")
_ENDPOINT, _META = "docker", "meta.json"
_MOST = 1 << 20  # a sane size of each file
_MEMBERS: dict[str, type] = {"Name": str, "Metadata": dict, "Endpoints": dict}


def current() -> str:
    """The name of the context in use: ``DOCKER_CONTEXT``, else what ``use`` wrote (InvalidArgument)."""
    return os.environ.get("DOCKER_CONTEXT") or str(docker_config.read().get("currentContext") or DEFAULT)


def use(name: str) -> None:
    """Write which context is in use (NotFound)."""
    if name != DEFAULT:
        read(name)
    config = docker_config.read()
    config.pop("currentContext", None)
    if name != DEFAULT:
        config["currentContext"] = name
    docker_config.write(config)


def check_name(name: str) -> None:
    """Raise InvalidArgument for a name that no context can have."""
    allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    if name == DEFAULT:
        raise InvalidArgument(f'"{DEFAULT}" is a reserved context name')
    if len(name) < 2 or name[0] not in allowed or set(name) - set(allowed + "_.+-"):
        raise InvalidArgument(
            f'context name "{name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )


def meta_directory(name: str) -> str:
    """The path of what is known of a context."""
    return os.path.join(docker_config.directory(), "contexts", "meta", _id(name))


def tls_directory(name: str) -> str:
    """The path of a context's certificates; their files are in the directory of the endpoint."""
    return os.path.join(docker_config.directory(), "contexts", "tls", _id(name))


def _id(name: str) -> str:
    import hashlib

    return hashlib.sha256(os.fsencode(name)).hexdigest()


def names() -> list[str]:
    """The names of all contexts but the default one, in order."""
    folder = os.path.join(docker_config.directory(), "contexts", "meta")
    try:
        paths = [os.path.join(folder, entry, _META) for entry in os.listdir(folder)]
    except FileNotFoundError:
        return []
    except OSError as e:
        raise FailedPrecondition(f"read `{folder}`: {e.strerror}") from e
    return sorted(str(_load(path).get("Name", "")) for path in paths if os.path.exists(path))


def read(name: str) -> Meta:
    """A context's record (NotFound, InvalidArgument)."""
    path = os.path.join(meta_directory(name), _META)
    if not os.path.exists(path):
        raise NotFound(f'context "{name}": context not found: open {path}: no such file or directory')
    return _load(path)


def _load(path: str) -> Meta:
    try:
        with open(path, encoding="utf-8") as f:
            return parsed(f.read(_MOST))
    except (OSError, ValueError) as e:
        raise InvalidArgument(f"read `{path}`: {e}", hint="mend or remove it") from e


def parsed(text: str | bytes) -> Meta:
    """The record in a file (ValueError: there is none)."""
    found = docker_config.parsed(text)
    for member, kind in _MEMBERS.items():
        found[member] = found.get(member) or kind()
        if not isinstance(found[member], kind):
            raise ValueError(f"`{member}` has a value of another type")
    return found


def endpoint(meta: Meta) -> dict[str, Any]:
    """The endpoint of a record: ``Host``, ``SkipTLSVerify``."""
    found = meta["Endpoints"].get(_ENDPOINT)
    return found if isinstance(found, dict) else {}


def address(name: str) -> Address:
    """The address of a context's daemon (NotFound, InvalidArgument)."""
    found = endpoint(read(name))
    host = str(found.get("Host") or "")
    if not host:
        raise InvalidArgument(f'context "{name}": it names no daemon', hint=f"ketch context update {name} --docker …")
    folder = os.path.join(tls_directory(name), _ENDPOINT)
    paths = [path if os.path.exists(path := os.path.join(folder, file)) else "" for file in FILES]
    skip = bool(found.get("SkipTLSVerify"))
    spoken = host.startswith("tcp://") and (any(paths) or skip)
    return Address(host, Tls(*paths, verify=not skip) if spoken else None)


def write(
    name: str, host: str, description: str, files: dict[str, bytes] | None = None, *, skip: bool = False, new: bool
) -> None:
    """Write a context: its daemon, and ``files`` of TLS by their names (None: they stay).

    AlreadyExists or NotFound as ``new`` has it; members of a record that are not known stay.
    """
    check_name(name)
    path = os.path.join(meta_directory(name), _META)
    if new and os.path.exists(path):
        raise AlreadyExists(f'context "{name}" already exists')
    meta: Meta = {"Name": name, "Metadata": {}, "Endpoints": {}} if new else read(name)
    if files is not None:
        _write_files(name, files)
    known = meta.setdefault("Metadata", {})
    known.pop("Description", None)
    known.update({"Description": description} if description else {})
    meta.setdefault("Endpoints", {})[_ENDPOINT] = {**endpoint(meta), "Host": host, "SkipTLSVerify": skip}
    text = documents.dumps(meta, spaces=False)
    docker_config.replace(path, text.encode(), 0o644)


def _write_files(name: str, files: dict[str, bytes]) -> None:
    _remove_all(os.path.join(tls_directory(name), _ENDPOINT))  # other endpoints' files stay
    for file, data in files.items():
        if file in FILES:
            docker_config.replace(os.path.join(tls_directory(name), _ENDPOINT, file), data)


def files(name: str) -> dict[str, bytes]:
    """The files of TLS by their names."""
    found = {}
    for file in FILES:
        try:
            with open(os.path.join(tls_directory(name), _ENDPOINT, file), "rb") as f:
                found[file] = f.read(_MOST)
        except FileNotFoundError:
            continue
    return found


def remove(name: str, *, force: bool = False) -> None:
    """Remove a context (NotFound; FailedPrecondition: it is in use, or the default one)."""
    if name == DEFAULT:
        raise FailedPrecondition('context "default" cannot be removed')
    if current() == name:
        if not force:
            raise FailedPrecondition(f'context "{name}" is in use, set -f flag to force remove')
        use(DEFAULT)
    if not force:
        read(name)
    for folder in (tls_directory(name), meta_directory(name)):
        _remove_all(folder)


def _remove_all(folder: str) -> None:
    """Remove a directory with all that is in it, whoever has put it there (FailedPrecondition)."""
    from ketch import trees  # here: most commands have no use for it, and each start would pay for it

    try:
        trees.remove_path(folder)
    except OSError as e:
        raise FailedPrecondition(f"remove `{e.filename}`: {e.strerror}") from e
