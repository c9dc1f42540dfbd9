"""Runs of the program git: isolated from the machine's settings, ended with whoever waits for them.

It reads no configuration but the repository's own, asks nobody for passwords, runs no hooks, and speaks http, https,
git and ssh alone, so that a submodule cannot name a directory of this machine.  Credentials go through its environment,
which only root can read.  What a killed daemon leaves running is ended by the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import shlex
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ketch import pidfd, programs
from ketch.errors import FailedPrecondition, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)
_LARGEST = 16 << 20  # bytes of an answer: the list of a repository's references
_SHOWN = 2000
_PIECE = 1 << 16
_OWNER = "KETCH_SOURCES"
_END_S = 5.0
_PASSED = ("PATH", "LD_LIBRARY_PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class GitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one remote: credentials for it (git's configuration), an agent's socket, its hosts' known keys."""

    config: Mapping[str, str] = {}
    agent: str = ""
    known_hosts: str = ""
    """The path of a file; without it any key is taken."""
    owner: str = ""
    """The directory of the repositories, by which `end_left` knows the process."""


class Git:
    """The program git with one remote's settings; ``output`` gets what it tells people."""

    def __init__(self, settings: GitSettings, output: Callable[[bytes], None]) -> None:
        """FailedPrecondition: it is not installed."""
        program = programs.find("git")
        if program is None:
            raise FailedPrecondition(
                "this source needs the program git, which is not installed where ketchd runs",
                hint="install it, for instance with: apt-get install git",
            )
        self._program, self._settings, self._output = program, settings, output

    async def run(self, *arguments: str, directory: str = "/", index: str = "", local: bool = False) -> str:
        """Run git; returns what it writes.

        ``index`` is the path of the index, where it is not the repository's own; ``local`` runs may read another
        repository of this machine.  GitFailed with git's own words; cancelled, it has ended.
        """
        environment = self._environment({"protocol.file.allow": "always"} if local else {})
        if index:
            environment["GIT_INDEX_FILE"] = index
        process = await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=directory,
            env=environment,
            start_new_session=True,  # with its helpers, which it does not end itself
            umask=0o022,
        )
        try:
            written, told = await asyncio.gather(
                _collected(process.stdout, lambda _piece: None), _collected(process.stderr, self._output)
            )
            code = await process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
            raise
        if code:
            raise GitFailed(code, told.decode(errors="replace"))
        return written.decode(errors="surrogateescape")

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        settings = self._settings
        ssh = ["ssh", "-F", "/dev/null", "-o", "BatchMode=yes"]
        hosts = settings.known_hosts
        ssh += ["-o", f"UserKnownHostsFile={hosts}"] if hosts else ["-o", "StrictHostKeyChecking=no"]
        ssh += [] if hosts else ["-o", "UserKnownHostsFile=/dev/null"]
        config = {
            "core.hooksPath": "/dev/null",
            "init.defaultBranch": "master",
            "advice.detachedHead": "false",
            "gc.auto": "0",
            "protocol.allow": "never",
            **{f"protocol.{name}.allow": "always" for name in ("http", "https", "git", "ssh")},
            **settings.config,
            **more,
        }
        environment = {name: value for name, value in programs.environment().items() if name in _PASSED}
        environment |= {
            "HOME": "/dev/null",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_TEMPLATE_DIR": "",
            "GIT_SSH_COMMAND": shlex.join(ssh),
            "GIT_CONFIG_COUNT": str(len(config)),
            _OWNER: settings.owner,
        }
        for number, (key, value) in enumerate(config.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        if settings.agent:
            environment["SSH_AUTH_SOCK"] = settings.agent
        return environment


class GitFailed(Unavailable):
    """A run of git that failed, in BuildKit's words; ``told`` is what it told people."""

    def __init__(self, code: int, told: str) -> None:
        super().__init__(f"git stderr:\n{told[-_SHOWN:]}: exit status {code}")
        self.told = told


async def _collected(stream: asyncio.StreamReader | None, output: Callable[[bytes], None]) -> bytes:
    """All that comes (ResourceExhausted: too much)."""
    found = bytearray()
    while stream is not None and (piece := await stream.read(_PIECE)):
        output(piece)
        found += piece
        if len(found) > _LARGEST:
            raise ResourceExhausted(f"git: it writes more than {_LARGEST} bytes")
    return bytes(found)


def end_left(directory: str) -> None:
    """End the runs, with their helpers, that a killed daemon with repositories below ``directory`` has left; blocking.

    They would write to repositories and layers that are somebody else's by now.
    """
    mark = f"\0{_OWNER}={directory}/".encode()
    ours = os.stat("/")
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with suppress(OSError):  # it has ended
            fd = pidfd.open_process(pid)
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    marked = mark in b"\0" + file.read()
                if marked and os.path.samestat(os.stat(f"/proc/{pid}/root"), ours):  # a container may say so, too
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    if not select.select([fd], [], [], _END_S)[0]:
                        log.error("git of a former build (pid %d) does not end", pid)
            finally:
                os.close(fd)
