"""Base images without a registry: from the distribution's own packages.

``debian:SUITE`` (also ``ubuntu:SUITE`` where its archive is configured) is a minbase made by mmdebstrap;
``busybox`` is the distribution's static busybox with a link for each of its applets.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import tarfile
import threading
from collections import deque
from typing import IO, TYPE_CHECKING

from ketch import programs
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.images.archives.importer import Said, import_rootfs
from ketch.notation import times
from ketch.oci import reference
from ketch.oci.config import History, RunConfig

if TYPE_CHECKING:
    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.store import ImageStore


_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GRACE_S = 10
_PLENTY_KIB = 3 << 20
_SUITE = re.compile(r"[a-z][a-z0-9.-]{1,40}\Z")
_STEP = re.compile(r"I: (.*)")
_KEEP_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\n"
_NOBODY = "nobody:x:65534:65534:nobody:/home:/bin/false\n"
_GROUP = "root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\nwheel:x:10:root\nusers:x:100:\nnogroup:x:65534:\n"
_DIRECTORIES = (
    "bin",
    "dev",
    "etc",
    "home",
    "proc",
    "root",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
    "var",
    "var/tmp",
)


def bootstrap(store: ImageStore, ref: str, progress: Report) -> Image:
    """Make the image and name it ``ref``; InvalidArgument for what is neither debian:SUITE nor busybox."""
    name = reference.parse(ref)
    if name.familiar_repository == "busybox":
        return _busybox(store, name, progress)
    if name.familiar_repository in ("debian", "ubuntu"):
        return _debian(store, name, progress)
    raise InvalidArgument(f"bootstrap `{ref}`: unknown distribution", hint="use debian:bookworm or busybox")


def _busybox(store: ImageStore, name: reference.Reference, progress: Report) -> Image:
    program = next((p for p in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(p)), None)
    if program is None:
        raise FailedPrecondition("bootstrap busybox: no busybox here", hint="install the package busybox-static")
    with open(program, "rb") as f:
        binary = f.read()
    if b"/ld-linux" in binary[:4096] or b"/ld-musl" in binary[:4096]:
        raise FailedPrecondition(f"bootstrap busybox: `{program}` is not static", hint="install busybox-static")
    progress({"status": f"Packing {program}"})
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    mtime = int(os.stat(program).st_mtime)
    return import_rootfs(
        store,
        io.BytesIO(_busybox_tar(binary, applets, mtime)),
        name=f"{name.familiar_repository}:{name.tag}",
        config=RunConfig(env=[_PATH], cmd=["sh"]),
        said=Said(
            History(
                created=times.fixed(mtime * 1_000_000_000),  # the same busybox makes the same image, to the digest
                comment=f"static busybox with {len(applets)} applets",
            )
        ),
        progress=progress,
    )


def _busybox_tar(binary: bytes, applets: list[str], mtime: int) -> bytes:
    files = {"etc/passwd": _PASSWD + _NOBODY, "etc/group": _GROUP, "etc/shadow": "root:*:::::::\n"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(path: str, mode: int, kind: bytes, data: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(path)
            info.mode, info.type, info.mtime, info.size, info.linkname = mode, kind, mtime, len(data), link
            tar.addfile(info, io.BytesIO(data))

        for path in _DIRECTORIES:
            mode = 0o1777 if path.endswith("tmp") else 0o700 if path == "root" else 0o755
            add(path, mode, tarfile.DIRTYPE)
        add("bin/busybox", 0o755, tarfile.REGTYPE, binary)
        for applet in sorted(set(applets) - {"busybox"}):
            add(f"bin/{applet}", 0o755, tarfile.LNKTYPE, link="bin/busybox")
        add("usr/bin/env", 0o777, tarfile.SYMTYPE, link="../../bin/env")  # where scripts look for it
        for path, text in files.items():
            add(path, 0o600 if path.endswith("shadow") else 0o644, tarfile.REGTYPE, text.encode())
    return buffer.getvalue()


def _debian(store: ImageStore, name: reference.Reference, progress: Report) -> Image:
    program = programs.find("mmdebstrap")
    if program is None:
        raise FailedPrecondition(
            f"bootstrap {name.familiar}: no mmdebstrap here", hint="install the package mmdebstrap"
        )
    suite = "stable" if name.tag == "latest" else name.tag.removesuffix("-slim")
    if not _SUITE.match(suite):
        raise InvalidArgument(f"bootstrap `{name.familiar}`: `{suite}` is not a suite", hint="use e.g. debian:bookworm")
    command = [*_in_memory(), program, "--variant=minbase", "--mode=root", "--format=tar", *_options(name), suite, "-"]
    progress({"status": f"Bootstrapping {name.familiar} with mmdebstrap"})
    environment = {key: value for key, value in programs.environment().items() if key != "TMPDIR"} | {
        "LC_ALL": "C.UTF-8"
    }
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # mmdebstrap ends by a signal to its whole process group
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        tail: deque[str] = deque(maxlen=5)
        talker = threading.Thread(target=_report, args=(process.stderr, progress, tail), daemon=True)
        talker.start()
        try:
            return import_rootfs(
                store,
                _Checked(process, process.stdout, tail, talker),  # type: ignore[arg-type]
                name=f"{name.familiar_repository}:{name.tag}",
                config=RunConfig(env=[_PATH], cmd=["bash"]),
                said=Said(History(created_by=f"mmdebstrap --variant=minbase {suite}", comment=f"minbase of {suite}")),
                progress=progress,
            )
        except BaseException:
            _stop(process)
            raise
        finally:
            talker.join(_GRACE_S)  # else what it reads is closed beneath it


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt mmdebstrap, so that it removes its temporary tree; a kill would leave it.

    It waits for its children first, which go on to the end of what they do unless they are interrupted, too.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _options(name: reference.Reference) -> list[str]:
    """The apt and dpkg settings, also of the image: no translations, no fsync for each file."""
    rules = [f"--dpkgopt=path-exclude={path}" for path in _KEEP_OUT] if name.tag.endswith("-slim") else []
    return [*rules, '--aptopt=Acquire::Languages "none"', "--dpkgopt=force-unsafe-io"]


def _in_memory() -> list[str]:
    """A command prefix that puts /tmp in memory, when there is plenty: three times as fast.

    The mount is in a namespace that ends with the command, so nothing is left of it, whatever happens.
    """
    with open("/proc/meminfo", encoding="ascii") as f:
        available_kib = next(int(line.split()[1]) for line in f if line.startswith("MemAvailable:"))
    unshare = programs.find("unshare")
    if unshare is None or available_kib < _PLENTY_KIB:
        return []
    script = 'mount -t tmpfs -o mode=1777 tmpfs /tmp 2>/dev/null; exec "$@"'
    return [unshare, "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


def _report(stream: IO[bytes], progress: Report, tail: deque[str]) -> None:
    """Report mmdebstrap's steps; its last messages are kept for an error."""
    for raw in stream:
        line = raw.decode(errors="replace").strip()
        if not line:
            continue
        if match := _STEP.match(line):
            progress({"status": match[1]})
        else:
            tail.append(line.removeprefix("E: "))


class _Checked(io.RawIOBase):
    """mmdebstrap's output; its end is an error when mmdebstrap failed."""

    def __init__(
        self, process: subprocess.Popen[bytes], stream: IO[bytes], tail: deque[str], talker: threading.Thread
    ) -> None:
        self._process = process
        self._stream = stream
        self._tail = tail
        self._talker = talker

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if not data and self._process.wait() != 0:
            self._talker.join()
            raise FailedPrecondition(
                f"bootstrap: mmdebstrap failed with status {self._process.returncode}: {' / '.join(self._tail)}",
                hint="check the suite's name and that the package archive can be reached",
            )
        return data
