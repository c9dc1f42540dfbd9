"""Statements in the files of a directory, which a generator of lists or a front end has written.  Blocking."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ketch.build.attest.statement import Attestation
from ketch.build.tree import EMPTY
from ketch.errors import InvalidArgument
from ketch.oci.attestation import InTotoStatement
from ketch.runtime.rootfs import paths
from ketch.trees import sorted_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.build.tree import Tree

LARGEST = 80 << 20  # bytes of a statement; BuildKit reads no larger one
_MOST = 1000  # statements
_ALL = 256 << 20  # bytes of them together


def statements(snapshots: BuildSnapshots, tree: Tree, directory: str, what: str) -> list[Attestation]:
    """The statements in a directory of a tree, by the names of their files; ``what`` has them (InvalidArgument)."""
    if tree == EMPTY:
        return []
    with snapshots.opened(tree) as root:
        try:
            fd = paths.open_in(root, directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise InvalidArgument(f"{what}: open {directory}: {os.strerror(e.errno or 0).lower()}") from e
        try:
            names = sorted_names(fd)
            if len(names) > _MOST:
                raise InvalidArgument(f"{what}: there are {len(names)} files: at most {_MOST} are read")
            found: list[Attestation] = []
            for name in names:
                found.append(_statement(fd, name, what))
                check_size(found, what)
            return found
        finally:
            os.close(fd)


def check_size(found: Sequence[Attestation], what: str) -> None:
    """Check how many statements there are by now, and how large they are together (InvalidArgument)."""
    if len(found) > _MOST:
        raise InvalidArgument(f"{what}: there are {len(found)} statements: at most {_MOST} are read")
    if sum(len(one.predicate) for one in found) > _ALL:
        raise InvalidArgument(f"{what}: its statements exceed {_ALL} bytes together")


def _statement(dir_fd: int, name: str, what: str) -> Attestation:
    try:
        fd = paths.open_regular(dir_fd, name)
    except OSError as e:
        raise InvalidArgument(f"{what}: open {name}: {os.strerror(e.errno or 0).lower()}") from e
    data = b""
    if fd >= 0:
        with open(fd, "rb") as file:
            data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise InvalidArgument(f"{what}: {name} exceeds {LARGEST} bytes")
    try:
        found = msgspec.json.decode(data, type=InTotoStatement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidArgument(f"{what}: {name}: cannot decode in-toto statement: {e}") from e
    subjects = found.subject or []
    return Attestation(
        predicate_type=found.predicate_type,
        predicate=bytes(found.predicate),
        path=name,
        subjects=subjects,
        about_result=not subjects,
    )
