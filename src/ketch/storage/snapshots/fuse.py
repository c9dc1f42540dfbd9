"""The fuse-overlayfs driver: overlay by a program, where the kernel's own does not work on the data root.

    containers/<id>/upper, work     as overlay has them; in the program's own notation
    containers/<id>/merged          the root, which the program serves from the first use to the container's removal
    containers/<id>/server.log      what the program says

The mount is made here, and the program is given the device alone: it ends by itself when the last mount of the root
has gone: that of a running container, when ketchd has ended.  What it writes is translated for who reads layers.
"""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import contextmanager
from errno import EINVAL, ENOENT
from typing import TYPE_CHECKING

from ketch import programs, trees
from ketch.errors import Unavailable
from ketch.linux import mount as m
from ketch.storage import removal, tree_copy
from ketch.storage.snapshots import fuse_notes
from ketch.storage.snapshots.overlay import OverlaySnapshots
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ketch.storage.snapshots.overlay import Mounts

NAME = "fuse-overlayfs"
# It keeps one file for all names of an inode, and copies it up at whichever it met last.
_LINKS = (
    f"WARNING: {NAME} may lose what is written to files of images that have several names (hard links):"
    " remove such a file before it is written anew, or use vfs"
)
_OPTIONS = {"source": NAME, "subtype": NAME, "rootmode": "40000", "user_id": "0", "group_id": "0"}


class FuseSnapshots(OverlaySnapshots):
    """Containers' writable roots as mounts that fuse-overlayfs serves, one process for each."""

    name, copies = NAME, True

    def __init__(
        self,
        data_root: str,
        program: str,
        view: Callable[[Sequence[str]], list[str]] | None = None,
        settle: Callable[[int], object] = lambda pid: None,
    ) -> None:
        """``view``: that of another driver, where the kernel cannot show layers; ``settle``: called with each pid."""
        super().__init__(data_root)
        self._program, self._view, self._settle = program, view, settle
        self._lock = threading.Lock()
        self.warnings.append(_LINKS)
        self.close()

    def mounts(self, container_id: str, chain_ids: Sequence[str], readonly: bool = False) -> Mounts:
        """The mounts of the container's root, which is served from now on (Unavailable)."""
        lowers = self._layers.directories(chain_ids)[::-1]
        directory = os.path.join(self._containers, container_id)
        if not lowers:
            return super().mounts(container_id, chain_ids, readonly)
        merged = os.path.join(directory, "merged")
        with self._lock:
            if not _is_served(merged):
                self._serve(directory, lowers)
        return [{"type": "bind", "source": merged, "options": ["ro"] if readonly else []}]

    def view(self, chain_ids: Sequence[str]) -> list[str]:
        """Options for a read-only view of these layers."""
        return self._view(chain_ids) if self._view is not None else super().view(chain_ids)

    @contextmanager
    def delta(self, container_id: str) -> Iterator[str]:
        """A directory with the container's changes, in overlay's form: a copy, if the program's form is another."""
        upper = self.upper(container_id)
        if not fuse_notes.has_any(upper):
            yield upper
            return
        directory = os.path.join(self._containers, container_id, "delta-" + os.urandom(8).hex())
        os.mkdir(directory, 0o755)
        try:
            _copy(upper, directory)
            fuse_notes.translate(directory)
            yield directory
        finally:
            removal.remove_tree(directory)

    def is_blank(self, container_id: str) -> bool:
        """Whether nothing was written to the root."""
        directory = os.path.join(self._containers, container_id)
        if not set(os.listdir(directory)) <= {"upper", "work", "merged", "server.log"}:
            return False
        return not os.path.isdir(self.upper(container_id)) or not os.listdir(self.upper(container_id))

    def status(self) -> list[list[str]]:
        """The rows of ``docker info``."""
        return [["Program", self._program]]

    def remove(self, container_id: str) -> None:
        """Serve the root no longer, and delete the snapshot; one that is gone is no error."""
        directory = os.path.join(self._containers, container_id)
        _unmount(os.path.join(directory, "merged"))
        super().remove(container_id)
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            if name == "merged" or name.startswith("delta-"):
                removal.remove_tree(os.path.join(directory, name))

    def close(self) -> None:
        """Serve no roots but those of containers that run: these have mounts of their own."""
        for name in os.listdir(self._containers):
            _unmount(os.path.join(self._containers, name, "merged"))

    def _serve(self, directory: str, lowers: Sequence[str]) -> None:
        merged = os.path.join(directory, "merged")
        _unmount(merged)  # one whose program has ended
        os.makedirs(merged, mode=0o755, exist_ok=True)
        options = f"writeback=0,lowerdir={':'.join(lowers)},upperdir={directory}/upper,workdir={directory}/work"
        with Undo() as undo:
            mount_fd, process = begin(self._program, options, os.path.join(directory, "server.log"))
            undo.callback(os.close, mount_fd)
            self._settle(process.pid)
            target_fd = os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, target_fd)
            m.move_mount(mount_fd, target_fd)


def begin(program: str, options: str, log: str) -> tuple[int, subprocess.Popen[bytes]]:
    """A detached mount that a new process serves, the caller's (Unavailable); ``log``: the file that it writes to.

    A thread waits for the process, which ends with the last mount.
    """
    with Undo() as undo, Undo() as failed:
        context_fd = m.fsopen("fuse")
        undo.callback(os.close, context_fd)
        device_fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        undo.callback(os.close, device_fd)
        for key, value in {**_OPTIONS, "fd": str(device_fd)}.items():
            m.fsconfig(context_fd, key, value)
        for flag in ("allow_other", "default_permissions"):
            m.fsconfig(context_fd, flag)
        m.fscreate(context_fd)
        mount_fd = m.fsmount(context_fd)
        failed.callback(os.close, mount_fd)
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [program, "-f", "-o", options, f"/dev/fd/{device_fd}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[device_fd],
                cwd="/",
                start_new_session=True,
                env=programs.environment(),
            )
        failed.pop_all()
    threading.Thread(target=process.wait, name=NAME, daemon=True).start()
    try:
        os.close(os.open(".", trees.DIRECTORY, dir_fd=mount_fd))  # it answers, or ends, and its device with it
    except OSError as e:
        os.close(mount_fd)
        process.kill()
        process.wait()
        with open(log, encoding="utf-8", errors="replace") as output:
            said = output.read(4096).strip().rpartition("\n")[2]
        raise Unavailable(f"{NAME}: {said or os.strerror(e.errno or 0).lower()}", hint=f"it wrote to {log}") from e
    return mount_fd, process


def _is_served(merged: str) -> bool:
    """Whether the program's mount is there, and answers."""
    try:
        return os.stat(merged).st_dev != os.stat(os.path.dirname(merged)).st_dev
    except OSError:  # none, or one whose program has ended (ENOTCONN)
        return False


def _unmount(merged: str) -> None:
    try:
        m.umount2(merged, m.MNT_DETACH)
    except OSError as e:
        if e.errno not in (EINVAL, ENOENT):  # nothing is mounted there
            raise


def _copy(source: str, target: str) -> None:
    source_fd = os.open(source, trees.DIRECTORY)
    try:
        target_fd = os.open(target, trees.DIRECTORY)
        try:
            tree_copy.Copier(target_fd, lambda: None).tree(source_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)
