"""Restart policies: whether a container is restarted after its end, and after which pause.

dockerd's rules: the pause begins at 100 ms, doubles with each restart up to a minute, and is forgotten by a container
that was up for 10 s.  What a user stopped stays stopped, except that ``always`` brings it back with the daemon.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ketch.engine.model.records import Status

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore

FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 0.1, 60.0, 10.0


def wanted(container: Container) -> bool:
    """Whether a container that has just ended is to be started again."""
    return not container.stopped_by_user and _allowed(container)


def wanted_at_boot(container: Container) -> bool:
    """Whether a container that is down when the daemon starts is to be started."""
    if container.state.status not in (Status.EXITED, Status.RESTARTING):
        return False
    return container.host.restart_policy.name == "always" or wanted(container)


def _allowed(container: Container) -> bool:
    policy = container.host.restart_policy
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name != "on-failure" or container.state.exit_code == 0:
        return False
    return policy.maximum_retry_count == 0 or container.restart_count < policy.maximum_retry_count


def needed(container: Container, store: ContainerStore) -> list[str]:
    """Ids of the containers that a start depends on: by shared namespaces and by links."""
    shared = [store.get(ref).id for ref in container.host.joined if store.has(ref)]
    return [*shared, *container.links.values()]


def pause_left(container: Container) -> float:
    """Seconds until its next start; what has passed since it ended counts, also while there was no daemon."""
    since_s = max(0.0, (time.time_ns() - container.state.finished_at) / 1e9)
    return max(0.0, container.restart_delay_s - since_s)


def next_pause(last_s: float, ran_s: float) -> float:
    """Seconds to wait before the next start; ``last_s`` is the pause before, 0 when there was none."""
    if ran_s >= STEADY_S or not last_s:
        return FIRST_PAUSE_S
    return min(last_s * 2, LONGEST_PAUSE_S)
