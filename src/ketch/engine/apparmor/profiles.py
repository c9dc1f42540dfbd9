"""AppArmor profiles of containers: which one each gets, and the default one, which is loaded when it is needed.

Only apparmor_parser compiles profiles, so without that program there is no default one, and containers are confined by
AppArmor only if they name a profile that the machine's administrator has loaded.  It is the same where ketchd itself
runs in a container, as its environment says (``container``): the rules would be the host's.  What is loaded can go at
any time (a package's upgrade unloads what it does not know), so each start looks.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ketch import programs, threads
from ketch.engine.apparmor import policy
from ketch.engine.model.namespaces import nesting
from ketch.errors import FailedPrecondition
from ketch.runtime.security import apparmor

if TYPE_CHECKING:
    from ketch.engine.model.records import HostConfig

log = logging.getLogger(__name__)
_COMPILER = "apparmor_parser"
_USUAL_PLACE = f"/sbin/{_COMPILER}"  # often not in PATH
_COMPILATION_S = 60.0
_DOCKERS = "docker-default"


class AppArmorProfiles:
    """The profiles of one machine as they are found at the daemon's start."""

    def __init__(self) -> None:
        self.enabled = apparmor.enabled()
        self._manageable = self.enabled and apparmor.manageable()
        self._contained = bool(os.environ.get("container"))  # noqa: SIM112 - so it is called
        self._compiler = programs.find(_COMPILER) or (_USUAL_PLACE if os.path.exists(_USUAL_PLACE) else None)
        self._loading = asyncio.Lock()

    @property
    def by_default(self) -> bool:
        """Whether containers that name no profile are confined by the default one."""
        return self._manageable and self._compiler is not None and not self._contained

    @property
    def warnings(self) -> list[str]:
        """The reason why containers are unconfined although the kernel has AppArmor."""
        if not self.enabled or self.by_default:
            return []
        why = "securityfs is not mounted" if not self._manageable else f"{_COMPILER} is not installed"
        if self._contained:
            why = "ketchd runs in a container"
        return [f"WARNING: AppArmor is enabled, but {why}: containers run without a default profile"]

    def chosen(self, host: HostConfig) -> str:
        """The name of the profile that a container is to have; empty: none, for AppArmor confines nothing here.

        A name that was given counts for privileged containers, too.  ``docker-default`` is ours where there is no
        profile of that name: it has the same effect.
        """
        name = requested(host)
        if name == _DOCKERS and self.by_default and not apparmor.is_loaded(name):
            name = policy.NAME
        if name:
            return name
        name = self._default(unconfined=host.privileged)
        return policy.NESTING if name == policy.NAME and nesting.asked_for(host.security_opt) else name

    async def of_command(self, *, insecure: bool) -> str:
        """The profile of a build's command, which is loaded; empty as with `chosen` (FailedPrecondition)."""
        name = self._default(unconfined=insecure)
        await self.prepare(name)
        return name

    def _default(self, *, unconfined: bool) -> str:
        if not self.by_default:
            return ""
        return apparmor.UNCONFINED if unconfined else policy.NAME

    async def begin(self) -> None:
        """Load the default profile at the daemon's start; a failure is logged, and is the answer to each start."""
        for warning in self.warnings:
            log.warning("%s", warning.removeprefix("WARNING: "))
        if self.by_default:
            try:
                await self.prepare(policy.NAME)
            except FailedPrecondition as e:
                log.error("%s", e.message)

    async def prepare(self, name: str) -> None:
        """Load a profile of ours if it is the one that is needed, and absent (FailedPrecondition)."""
        if name not in policy.NAMES:
            return
        async with self._loading:
            if not self.by_default or not apparmor.is_loaded(name):
                await threads.to_the_end(asyncio.create_task(self._load(name)))

    async def _load(self, name: str) -> None:
        what = f"AppArmor enabled on system but the {name} profile could not be loaded"
        if self._compiler is None:
            raise FailedPrecondition(f"{what}: {_COMPILER} is not installed", hint="install the package apparmor")
        try:
            process = await asyncio.create_subprocess_exec(
                self._compiler,
                "--skip-cache",
                "--replace",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd="/",
                env=programs.environment(),
                start_new_session=True,
            )
        except OSError as e:
            why = (e.strerror or str(e)).lower()
            raise FailedPrecondition(f"{what}: run `{self._compiler}`: {why}") from e
        source = policy.profile(apparmor.own_profile(), name).encode()
        try:
            async with asyncio.timeout(_COMPILATION_S):
                told, _ = await process.communicate(source)
        except TimeoutError as e:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise FailedPrecondition(f"{what}: {_COMPILER} has not ended within {_COMPILATION_S:.0f} s") from e
        if process.returncode:
            text = told.decode(errors="replace").strip()
            raise FailedPrecondition(f"{what}: `{self._compiler}` failed with output: {text or process.returncode}")


def requested(host: HostConfig) -> str:
    """The profile of ``--security-opt apparmor=NAME``, the last one; empty for the default."""
    name = ""
    for option in host.security_opt or ():
        key, _, value = option.partition("=" if "=" in option else ":")
        if key == "apparmor":
            name = value
    return name
