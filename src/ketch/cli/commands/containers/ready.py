"""``--wait-healthy``: from a container's start to the moment when its healthcheck says that it is healthy."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.client.http import Client
from ketch.errors import KetchError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.cli.context import Context


class NotReady(KetchError):
    """The container ended, became unhealthy, or took too long."""


def start(ctx: Context, container: str, timeout_s: float) -> None:
    """Start it and wait for its health (NotReady)."""
    query = {
        "filters": json.dumps({"type": ["container"], "container": [container], "event": ["die", "health_status"]})
    }
    # First listen, then start, then look: whatever happens is seen by one of the two.
    events = Client(ctx.host).request("GET", "/events", query, stream=True)
    try:
        ctx.client().request("POST", f"/containers/{container}/start")
        with _limit(timeout_s):
            if not _already(ctx, container):
                _listen(ctx, container, events.stream_lines())
    except TimeoutError:
        raise _complaint(ctx, container, f"is not healthy after {timeout_s:g} s") from None
    finally:
        events.close()


def report(ctx: Context, error: NotReady) -> int:
    """Say why; the exit code is 1 also where other failures have codes of their own."""
    ctx.out.flush()
    ctx.warn(f"ketch: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
    return 1


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds (0: never)."""

    def expire(_number: int, _frame: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _already(ctx: Context, container: str) -> bool:
    state = _state(ctx, container)
    if not state.get("Running"):
        raise _complaint(ctx, container, f"ended (exit code {state.get('ExitCode', 'unknown')}) before it was healthy")
    status = (state.get("Health") or {}).get("Status", "none")
    if status == "unhealthy":
        raise _complaint(ctx, container, "is unhealthy")
    return status in ("none", "healthy")


def _state(ctx: Context, container: str) -> dict[str, Any]:
    """Empty for one that is gone."""
    try:
        state: dict[str, Any] = ctx.client().request("GET", f"/containers/{container}/json").json()["State"]
    except NotFound:
        return {}
    return state


def _listen(ctx: Context, container: str, events: Iterator[dict[str, Any]]) -> None:
    for event in events:
        action = event["Action"]
        if action == "die":
            code = event["Actor"]["Attributes"].get("exitCode", "unknown")
            raise _complaint(ctx, container, f"ended (exit code {code}) before it was healthy")
        if action == "health_status: unhealthy":
            raise _complaint(ctx, container, "is unhealthy")
        if action == "health_status: healthy":
            return
    raise Unavailable("the daemon went away before the container was healthy", hint="look with: ketch ps")


def _complaint(ctx: Context, container: str, what: str) -> NotReady:
    """With what its last check said."""
    log = (_state(ctx, container).get("Health") or {}).get("Log") or []
    said = log[-1]["Output"].strip() if log else ""
    message = f"container {container[:12] if len(container) == 64 else container} {what}"
    if said:
        message += f"; its last check said:\n{said}"
    return NotReady(message, hint=f"see: ketch logs {container[:12] if len(container) == 64 else container}")
