"""Secrets: files of the host whose content a container finds in memory, below /run/secrets.

`read` and `make` are called while the host's paths exist, `attach` when the container's root is `/`.  The content is in
the memory of the process that becomes the container's program, and nowhere else; execve(2) drops it.  The file system
is one that is never written to swap: tmpfs with ``noswap`` (Linux 6.4), before that ramfs.

A build's secrets are mounts of their own (type MOUNT), each of one such file, wherever they are wanted, and variables
that do not stand in config.json (ENVIRONMENT).  Their sources are files in ketchd's memory: no disk ever has them.
"""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL
from stat import S_ISREG

from ketch.linux import mount as m
from ketch.notation import documents
from ketch.runtime import user_namespaces
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import mounts, paths
from ketch.runtime.rootfs.mount_options import MountOptions
from ketch.runtime.rootfs.root import make_private_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciConfig
    from ketch.runtime.rootfs.planned import Planned
    from ketch.runtime.user_namespaces import OpenUserNamespace

ANNOTATION = "dev.ketch.secrets"  # a JSON list of [id, source, target, mode, uid, gid]
ENVIRONMENT = "dev.ketch.secret-environment"  # a file with a JSON list of variables
MOUNT = "ketch.secret"  # a mount of one file, with what its source has; options mode=, uid=, gid=
DIRECTORY = "/run/secrets"
LIMIT = 500 << 10  # bytes, Docker's
_FLAGS = ["nosuid", "nodev", "noexec", "mode=755"]


class SecretFile:
    """One secret, read."""

    __slots__ = ("content", "gid", "mode", "name", "target", "uid")

    def __init__(self, name: str, content: bytes, target: str, mode: int, uid: int, gid: int) -> None:
        self.target = path_of(name, target)
        directory, base = os.path.split(self.target)
        self.name = base if directory == DIRECTORY else name
        self.content = content
        self.mode, self.uid, self.gid = mode, uid, gid


def path_of(name: str, target: str) -> str:
    """The path of a secret in the container."""
    return os.path.normpath(os.path.join(DIRECTORY, target or name))


def read(document: OciConfig) -> list[SecretFile]:
    """The secrets that a spec's annotation names (RuntimeFailure with step ``secrets``)."""
    text = (document.get("annotations") or {}).get(ANNOTATION)
    if not text:
        return []
    found = []
    for name, source, target, mode, uid, gid in documents.loads(text):
        try:
            found.append(SecretFile(name, _content(source), target, mode, uid, gid))
        except OSError as e:
            hint = f"a secret is a regular file of {LIMIT >> 10} KiB at most" if e.errno in (EFBIG, EINVAL) else None
            raise failure("secrets", f"read secret `{name}` from `{source}`", e, hint) from e
    return found


def _content(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(fd)
        if not S_ISREG(status.st_mode):
            raise OSError(EINVAL, "not a regular file")
        content = b""
        while more := os.read(fd, LIMIT + 1):
            content += more
            if len(content) > LIMIT:
                raise OSError(EFBIG, "too large")
        return content
    finally:
        os.close(fd)


def add_environment(document: OciConfig) -> None:
    """Add the variables that are not part of the spec to its process (RuntimeFailure with step ``secrets``)."""
    source = (document.get("annotations") or {}).get(ENVIRONMENT)
    if source:
        try:
            more: list[str] = documents.loads(_content(source))
        except OSError as e:
            raise failure("secrets", f"read variables from `{source}`", e) from e
        document["process"]["env"] = [*(document["process"].get("env") or []), *more]


def open_files(planned: list[Planned], bundle: str, user: OpenUserNamespace | None = None) -> None:
    """Open the planned mounts that are secrets, while the host's paths exist (RuntimeFailure with step ``secrets``).

    The kernel copies a part of a file system only where that is mounted (before Linux 6.15), so it is, for a moment, on
    the bundle's directory, in this process's own view.
    """
    for mount in planned:
        if mount.fstype == MOUNT:
            try:
                mount.tree_fd, mount.directory = _file(mount, bundle, user), False
            except OSError as e:
                raise failure("secrets", f"make secret `{mount.destination}`", e) from e


def _file(mount: Planned, bundle: str, user: OpenUserNamespace | None) -> int:
    """A detached, read-only mount of one file in memory."""
    numbers = dict(option.split("=", 1) for option in mount.options.data)
    mode, uid, gid = int(numbers["mode"], 8), int(numbers["uid"]), int(numbers["gid"])
    secret = SecretFile("secret", _content(mount.source), "", mode, uid, gid)
    tree_fd = _file_system()
    try:
        _write(tree_fd, secret, user)
        make_private_below(bundle)
        bundle_fd = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            m.move_mount(tree_fd, bundle_fd)
        finally:
            os.close(bundle_fd)
        try:
            file_fd = m.open_tree(secret.name, dir_fd=tree_fd)
        finally:
            m.umount2(bundle, m.MNT_DETACH)
        m.mount_setattr(file_fd, set_=m.MOUNT_ATTR_RDONLY)
        return file_fd
    finally:
        os.close(tree_fd)


def make(secrets: list[SecretFile], user: OpenUserNamespace | None = None) -> int:
    """Make the file system with the secrets, read-only and detached; -1 without any (RuntimeFailure, ``secrets``)."""
    if not secrets:
        return -1
    try:
        tree_fd = _file_system()
        for secret in secrets:
            _write(tree_fd, secret, user)
        m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_RDONLY)
    except OSError as e:
        raise failure("secrets", f"make `{DIRECTORY}`", e) from e
    return tree_fd


def attach(root_fd: int, secrets: list[SecretFile], tree_fd: int) -> None:
    """Mount the file system that `make` made, and close its descriptor (RuntimeFailure with step ``secrets``)."""
    if tree_fd < 0:
        return
    try:
        target_fd = paths.make_dirs(root_fd, DIRECTORY)
        try:
            mounts.check_target(target_fd, DIRECTORY)
            m.move_mount(tree_fd, target_fd)
        finally:
            os.close(target_fd)
        for secret in secrets:
            if os.path.dirname(secret.target) != DIRECTORY:
                _show(root_fd, tree_fd, secret)
    except OSError as e:
        raise failure("secrets", f"make `{DIRECTORY}`", e) from e
    finally:
        os.close(tree_fd)


def _file_system() -> int:
    try:
        return mounts.make_file_system("tmpfs", "tmpfs", MountOptions([*_FLAGS, "noswap"]))
    except OSError:
        return mounts.make_file_system("ramfs", "ramfs", MountOptions([*_FLAGS]))


def _write(tree_fd: int, secret: SecretFile, user: OpenUserNamespace | None) -> None:
    fd = os.open(secret.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0, dir_fd=tree_fd)
    try:
        view = memoryview(secret.content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchown(fd, *user_namespaces.owner(user, secret.uid, secret.gid))
        os.fchmod(fd, secret.mode)
    finally:
        os.close(fd)


def _show(root_fd: int, tree_fd: int, secret: SecretFile) -> None:
    """Mount a secret's file at its target."""
    file_fd = m.open_tree(secret.name, dir_fd=tree_fd)
    try:
        target_fd = paths.make_file(root_fd, secret.target)
        try:
            mounts.check_target(target_fd, secret.target)
            m.move_mount(file_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(file_fd)
