"""Reading a bundle's config.json: the runtime's own narrow view of the OCI runtime specification 1.2.

The document stays the plain dict that JSON gives.  `load` checks the shape of what the runtime is going
to touch, once, so that later steps may index without asking.
"""

from __future__ import annotations

import os

from ketch.errors import RuntimeFailure
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.runtime.oci_types import OciConfig

OCI_VERSION = "1.2.0"
ANNOTATIONS = "dev.ketch."  # how the names of all begin that change what the runtime does
ANNOTATION_ID = "dev.ketch.id"  # the engine's own containers: no user given then means "look 0 up"
ANNOTATION_USER = "dev.ketch.user"
ANNOTATION_GROUP_ADD = "dev.ketch.group-add"
ANNOTATION_ADOPTS = "dev.ketch.adopts"  # an exec'd process that becomes the parent of its descendants' orphans
ANNOTATION_OWN_CWD = "dev.ketch.own-cwd"  # a working directory that is missing is the user's, as with BuildKit
ANNOTATION_KEEP_GROUPS = "run.oci.keep_original_groups"  # crun's, which podman sets for --group-add keep-groups

_KINDS = {"dict": "an object", "list": "a list", "str": "a string"}
_SHAPES: tuple[tuple[str, type], ...] = (
    ("process", dict),
    ("root", dict),
    ("hostname", str),
    ("domainname", str),
    ("mounts", list),
    ("annotations", dict),
    ("linux", dict),
    ("hooks", dict),
)
_PROCESS_SHAPES: tuple[tuple[str, type], ...] = (
    ("args", list),
    ("env", list),
    ("cwd", str),
    ("user", dict),
    ("capabilities", dict),
    ("rlimits", list),
)


def load(bundle: str) -> OciConfig:
    """Read and check ``bundle``/config.json; raises RuntimeFailure with step ``config``."""
    path = f"{bundle}/config.json"
    try:
        text = _read(path)
        document = documents.loads(text)
    except OSError as e:
        raise RuntimeFailure(f"read `{path}`: {e.strerror}", step="config", errno=e.errno or 0) from e
    except (ValueError, RecursionError) as e:
        raise RuntimeFailure(f"read `{path}`: {e}", step="config") from e
    if "\\u0000" in text or "\\ud" in text or "\\uD" in text:  # else there is no such text in it
        check_texts(document, "")
    check(document)
    return document  # type: ignore[no-any-return]


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        return os.read(fd, size + 1).decode()
    finally:
        os.close(fd)


def check(document: object) -> None:
    """Raise RuntimeFailure unless ``document`` has the shape of a Linux container's configuration."""
    if not isinstance(document, dict):
        raise _wrong("the document", "an object")
    version = document.get("ociVersion", "1.0.0")
    if not isinstance(version, str) or not version.startswith("1."):
        raise RuntimeFailure(f"read config.json: ociVersion `{version}` is not 1.x", step="config")
    _check_members(document, _SHAPES, "")
    if not isinstance((document.get("root") or {}).get("path"), str):
        raise _wrong("root.path", "a string")
    process = document.get("process")
    if process is not None:
        check_process(process)
    for mount in document.get("mounts") or ():
        if not isinstance(mount, dict) or not isinstance(mount.get("destination"), str):
            raise _wrong("mounts[].destination", "a string")


def check_texts(document: object, name: str) -> None:
    """Raise RuntimeFailure for a text in what JSON calls ``name`` that no system call takes."""
    pending = [(name, document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{path}.{key}" if path else key, item) for key, item in value.items()]
            pending += [(f"a name in {path or 'the document'}", key) for key in value]
        elif isinstance(value, list):
            pending += [(f"{path}[{number}]", item) for number, item in enumerate(value)]
        elif isinstance(value, str):
            if "\0" in value:
                raise RuntimeFailure(f"read config.json: {path} has a NUL byte", step="config")
            try:
                value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise RuntimeFailure(f"read config.json: {path} has half a character", step="config") from None


def check_process(process: object) -> None:
    """Raise RuntimeFailure unless ``process`` has the shape of an OCI process object."""
    if not isinstance(process, dict):
        raise _wrong("process", "an object")
    check_texts(process, "process")
    _check_members(process, _PROCESS_SHAPES, "process.")
    args = process.get("args")
    if not args or not all(isinstance(arg, str) for arg in args):
        raise _wrong("process.args", "a list of at least one string")
    if not (process.get("cwd") or "/").startswith("/"):
        raise RuntimeFailure(f"Cwd must be an absolute path: process.cwd is `{process['cwd']}`", step="config")


def member(document: Mapping[str, Any], *path: str) -> Any:
    """``document[a][b]…``, or None as soon as one of them is missing or null."""
    value: Any = document
    for name in path:
        if not value:
            return None
        value = value.get(name)
    return value


def keeps_groups(annotations: dict[str, str]) -> bool:
    """Whether the process shall have the supplementary groups of the runtime's caller, and no others."""
    return annotations.get(ANNOTATION_KEEP_GROUPS) == "1"


def adopts(annotations: dict[str, str]) -> bool:
    """Whether orphans among the process's descendants shall become its children."""
    return annotations.get(ANNOTATION_ADOPTS) == "1"


def named_user(annotations: dict[str, str]) -> tuple[str | None, str]:
    """(user to look up by name, or None to take the numbers of ``process.user``; groups to add, with commas)."""
    default = "" if ANNOTATION_ID in annotations else None
    return annotations.get(ANNOTATION_USER, default), annotations.get(ANNOTATION_GROUP_ADD) or ""


def _check_members(document: Mapping[str, object], shapes: tuple[tuple[str, type], ...], prefix: str) -> None:
    for name, kind in shapes:
        value = document.get(name)
        if value is not None and not isinstance(value, kind):
            raise _wrong(prefix + name, _KINDS[kind.__name__])


def _wrong(name: str, kind: str) -> RuntimeFailure:
    return RuntimeFailure(f"read config.json: {name} is not {kind}", step="config")
