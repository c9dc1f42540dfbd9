"""Control of running containers without their monitors: pause, limits.

The built-in runtime's containers by their cgroup, those of another runtime by that one's program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.runtime.process.foreign import remains
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.model.records import Container
    from ketch.engine.paths import ContainerPaths
    from ketch.runtime.oci_types import OciResources


class RuntimeControl(Struct, frozen=True, eq=False):
    """Pauses running containers, and changes their limits."""

    paths: ContainerPaths
    cgroups: ContainerCgroups

    async def freeze(self, container: Container, frozen: bool) -> None:
        """Freeze or thaw (RuntimeFailure, OSError; FileNotFoundError: it has ended)."""
        program = remains.find(self.paths.run_dir(container.id))
        if program is not None:
            await in_own_thread(lambda: program.pause(container.id, frozen))
            return
        cgroup = self.cgroups.of(container)
        await in_own_thread(lambda: cgroup.freeze(frozen))  # what sleeps in the kernel is waited for

    async def update(self, container: Container, resources: OciResources) -> None:
        """Apply limits (RuntimeFailure, OSError; FileNotFoundError: it has ended)."""
        program = remains.find(self.paths.run_dir(container.id))
        if program is not None:
            await in_own_thread(lambda: program.update(container.id, resources))
            return
        cgroup = self.cgroups.of(container)
        await in_own_thread(lambda: cgroup.update(resources))  # the kernel frees memory until a lower limit holds
