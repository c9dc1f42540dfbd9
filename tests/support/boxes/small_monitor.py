"""Forks of a small process, in place of a monitor, and programs under a filter without a runtime.

A process of the test run is large by the end, and a fork copies the tables of its memory, page by page.  This module's
process has the runtime alone, as the launcher has; it forks for each request that comes with its descriptors.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from typing import Any, NoReturn

from ketch.linux import fdpass, prctl
from ketch.runtime import defaults
from ketch.runtime.cgroups import common
from ketch.runtime.process.children import init
from ketch.runtime.process.children.parent import Parent
from ketch.runtime.security import seccomp, seccomp_default
from tests.support.source.project import ROOT

_server: socket.socket | None = None


def fork(function: str, *arguments: Any, fds: list[int]) -> int:
    """Call a function of this module with descriptors and arguments in a fork; returns its pid, of a process that
    nobody has to reap."""
    global _server
    if _server is None:
        _server, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"from tests.support.boxes import small_monitor; small_monitor.serve({far.fileno()})"
        subprocess.Popen([sys.executable, "-c", code], pass_fds=[far.fileno()], cwd=ROOT)
        far.close()
    fdpass.send(_server, json.dumps([function, *arguments]).encode(), fds)
    return int(_server.recv(100))


def serve(fd: int) -> None:
    """Until the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # they are reaped by the kernel
    warm()
    with socket.socket(fileno=fd) as requests:
        while True:
            payload, fds = fdpass.recv(requests)
            if not payload:
                return
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    _call(requests, payload, fds)
                os._exit(99)
            for one in fds:
                os.close(one)
            requests.send(b"%d" % pid)


def _call(requests: socket.socket, payload: bytes, fds: list[int]) -> None:
    try:
        requests.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        function, *arguments = json.loads(payload)
        globals()[function](fds, *arguments)
    except BaseException:
        traceback.print_exc()
        raise


def warm() -> None:
    """What the launcher does once."""
    seccomp.warm(seccomp_default.profile(defaults.DEFAULT_CAPS))
    common.layout()


def monitor(fds: list[int], place: str, root: list[dict[str, Any]], tty: bool) -> NoReturn:
    """Run a container to its end and report; ``fds``: its standard streams, and where the report goes."""
    *streams, res_w = fds
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in streams:
        os.close(fd)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    report: dict[str, Any] = {"code": None, "failed": {}, "seen": {}}
    try:
        with open(f"{place}/config.json") as file:
            document = json.load(file)
        modes = {entry["type"]: entry.get("path") or "new" for entry in document["linux"]["namespaces"]}
        prctl.set_child_subreaper()
        pid = init.fork_child("host" if "user" in modes else modes.get("pid", "host"))
        if pid == 0:
            init.child_main(place, root, Parent(far.fileno()), tty=tty)
        far.close()
        if "user" in modes:
            pid = _await_first(near, pid)
        payload, received = fdpass.recv(near)
        message = json.loads(payload) if payload else {"ev": "failed", "message": "no word from the child"}
        cgroup = common.open(message["cgroups"]) if message.get("cgroups") else None
        if message["ev"] == "ready":
            fdpass.send(near, b"go")
            payload, _ = fdpass.recv(near)
            report["failed"] = json.loads(payload) if payload else {}
            if message["tty"]:
                _drain(received[-1])
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            report["code"] = None if report["failed"] else (128 - code if code < 0 else code)
            report["seen"] = {"ready": {key: message[key] for key in ("netns", "tty")}, "fds": len(received)}
            if cgroup is not None:
                report["seen"]["stats"] = cgroup.stats()
                report["seen"]["oom_kills"] = cgroup.oom_kills()
        else:
            report["failed"] = message
            if pid:
                os.waitpid(pid, 0)
        if cgroup is not None:
            cgroup.remove()
    except BaseException as e:
        report["failed"] = {"message": f"the test's monitor: {type(e).__name__}: {e}"}
    os.write(res_w, json.dumps(report).encode())
    os._exit(0)


def _await_first(near: socket.socket, passing: int) -> int:
    """The process that the passing one has forked; without one the message is left to the caller."""
    os.waitpid(passing, 0)
    message = json.loads(near.recv(4096, socket.MSG_PEEK) or b"{}")
    if message.get("ev") != "forked":
        return 0
    near.recv(4096)
    return int(message["pid"])


def _drain(master_fd: int) -> None:
    while True:
        try:
            data = os.read(master_fd, 65536)
        except OSError:
            return
        os.write(1, data)


def under_filter(fds: list[int], program: str, profile: dict[str, Any], no_new_privs: bool) -> NoReturn:
    """Tell what ``true`` ends with under a filter, without any runtime."""
    filtered = seccomp.filter_of(profile)
    pid = os.fork()
    if pid == 0:
        try:
            if no_new_privs:
                prctl.set_no_new_privs()
            filtered.install_and_execve(program, ["true"], {})
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(fds[0], b"%d" % (128 - code if code < 0 else code))
    os._exit(0)
