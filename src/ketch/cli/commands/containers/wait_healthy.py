"""``--wait-healthy``: starts a container, and waits until its healthcheck reports it as healthy."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports `enum`

from ketch.client.http import Client
from ketch.contexts import contextmanager
from ketch.errors import KetchError, NotFound, Unavailable
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.context import Context
    from ketch.notation.api_objects import ApiObject


class NotHealthy(KetchError):
    """The container ended, became unhealthy, or took too long."""


class _TimeIsUp(Exception):
    """The time has passed; no OSError, for requests take these for failures of the connection."""


def start(ctx: Context, container: str, timeout_s: float) -> None:
    """Start a container and wait until it is healthy (NotHealthy)."""
    query = {
        "filters": documents.dumps({"type": ["container"], "container": [container], "event": ["die", "health_status"]})
    }
    # First listen, then start, then look: whatever happens is seen by one of the two.
    events = Client(ctx.host).request("GET", "/events", query, stream=True)
    try:
        ctx.client().request("POST", f"/containers/{container}/start")
        with _limit(timeout_s):
            if not _is_healthy(ctx, container):
                _listen(ctx, container, events.stream_lines())
    except _TimeIsUp:
        raise _failure(ctx, container, f"is not healthy after {timeout_s:g} s") from None
    finally:
        events.close()


def report(ctx: Context, error: NotHealthy) -> int:
    """Print the reason; the exit code is 1 also where other failures have codes of their own."""
    ctx.out.flush()
    ctx.complain(error)
    return 1


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """A context that raises _TimeIsUp after so many seconds (0: never)."""

    def expire(_number: int, _frame: object) -> None:
        raise _TimeIsUp

    previous = _signal.signal(_signal.SIGALRM, expire)
    _signal.setitimer(_signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.signal(_signal.SIGALRM, previous)


def _is_healthy(ctx: Context, container: str) -> bool:
    state = _state(ctx, container)
    if not state.get("Running"):
        raise _failure(ctx, container, f"ended (exit code {state.get('ExitCode', 'unknown')}) before it was healthy")
    status = (state.get("Health") or {}).get("Status", "none")
    if status == "unhealthy":
        raise _failure(ctx, container, "is unhealthy")
    return status in ("none", "healthy")


def _state(ctx: Context, container: str) -> ApiObject:
    """The container's state; empty when it is gone."""
    try:
        state: ApiObject = ctx.client().request("GET", f"/containers/{container}/json").json()["State"]
    except NotFound:
        return {}
    return state


def _listen(ctx: Context, container: str, events: Iterator[ApiObject]) -> None:
    for event in events:
        action = event["Action"]
        if action == "die":
            code = event["Actor"]["Attributes"].get("exitCode", "unknown")
            raise _failure(ctx, container, f"ended (exit code {code}) before it was healthy")
        if action == "health_status: unhealthy":
            raise _failure(ctx, container, "is unhealthy")
        if action == "health_status: healthy":
            return
    raise Unavailable("the daemon went away before the container was healthy", hint="look with: ketch ps")


def _failure(ctx: Context, container: str, what: str) -> NotHealthy:
    """The error, with the output of the last check."""
    log = (_state(ctx, container).get("Health") or {}).get("Log") or []
    output = log[-1]["Output"].strip() if log else ""
    message = f"container {container[:12] if len(container) == 64 else container} {what}"
    if output:
        message += f"; its last check said:\n{output}"
    return NotHealthy(message, hint=f"see: ketch logs {container[:12] if len(container) == 64 else container}")
