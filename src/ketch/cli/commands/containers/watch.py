"""``ps --watch``: the list of containers, redrawn when something happens to one of them.

The daemon's events say when to ask for the list; the ages in it are counted here.  On a terminal the table is drawn in
place and its ages once a second; elsewhere a line is written for each container that changes.
"""

from __future__ import annotations

import queue
import re
import threading
import time

from ketch.cli import colours
from ketch.cli.output.screen import draw, screen
from ketch.client.http import Client
from ketch.errors import KetchError, NotFound, Unavailable
from ketch.notation import documents, moments
from ketch.notation.ages import age

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.cli.context import Context
    from ketch.notation.api_objects import ApiObject

    Containers = list[ApiObject]
    Render = Callable[[Containers, bool], str]  # (containers, with the titles) → text

_ACTIONS = (
    "create",
    "start",
    "die",
    "stop",
    "destroy",
    "rename",
    "pause",
    "unpause",
    "health_status",
    "update",
    "restart",
    "connect",
    "disconnect",
)
_TICK_S = 1.0
_AGE = re.compile(r"^(Up |Exited \(-?\d+\) |Restarting \(-?\d+\) )(.*?)( ago)?( \([^()]*\))?$")


def watch(ctx: Context, query: ApiObject, render: Render, coloured: bool) -> int:
    """Show the list until interrupted; a ``coloured`` one is a table on a terminal."""
    events = _follow(ctx.host)
    events.get()  # it listens now: what comes later is not missed
    view = _View(ctx, query)
    try:
        if ctx.out.isatty():
            with screen(ctx.out):
                _redraw(ctx, view, render, events, coloured)
        else:
            _append(ctx, view, render, events)
    except KeyboardInterrupt:
        return 0
    return 0


def _follow(host: str) -> queue.SimpleQueue[ApiObject]:
    """Read events in a thread: an empty one first, when it listens, and one with ``error`` at the end."""
    found: queue.SimpleQueue[ApiObject] = queue.SimpleQueue()

    def read() -> None:
        wanted = documents.dumps({"type": ["container", "network"], "event": _ACTIONS})
        try:
            response = Client(host).request("GET", "/events", {"filters": wanted}, stream=True)
            found.put({})
            for event in response.stream_lines():
                found.put(event)
            found.put({"error": Unavailable("the daemon went away", hint="is it running? see: ketch daemon status")})
        except (KetchError, OSError) as e:
            found.put({"error": e})

    threading.Thread(target=read, daemon=True).start()
    return found


def _redraw(ctx: Context, view: _View, render: Render, events: queue.SimpleQueue[ApiObject], coloured: bool) -> None:
    containers = view.ask()
    while True:
        lines = render(view.aged(containers), True).split("\n")
        draw(ctx.out, lines, paint=colours.states if coloured else list)
        if _wait(view, events, _TICK_S):
            containers = view.ask()


def _append(ctx: Context, view: _View, render: Render, events: queue.SimpleQueue[ApiObject]) -> None:
    """Print each change as a line, after the containers at the beginning."""
    shown: dict[str, ApiObject] = {}
    titled = False
    while True:
        containers = {c["Id"]: c for c in view.ask()}
        gone = [view.now(shown[ident]) for ident in shown if ident not in containers]
        changed = [c for ident, c in containers.items() if _essence(c) != _essence(shown.get(ident, {}))]
        if (changed or gone) or not titled:
            ctx.show(render([*gone, *changed], not titled))
            ctx.out.flush()
            titled = True
        shown = containers
        _wait(view, events, None)


def _wait(view: _View, events: queue.SimpleQueue[ApiObject], timeout_s: float | None) -> bool:
    """Wait for events, and take those that arrive together; returns whether there were any."""
    happened = False
    try:
        event = events.get(timeout=timeout_s)
        while True:
            happened = True
            if "error" in event:
                raise event["error"]
            view.forget(event)
            event = events.get_nowait()
    except queue.Empty:
        return happened


def _essence(container: ApiObject) -> ApiObject:
    """The part of a row that changes with the container only: without ages."""
    match = _AGE.match(container.get("Status", ""))
    status = (match[1], match[4]) if match else container.get("Status")
    return {**container, "Status": status}


class _View:
    """The matching containers, with the time of each one's last change."""

    def __init__(self, ctx: Context, query: ApiObject) -> None:
        self._ctx = ctx
        self._query = query
        self._since: dict[str, tuple[str, float]] = {}  # id → (state, seconds since 1970)

    def ask(self) -> Containers:
        """The present list."""
        found: Containers = self._ctx.client().request("GET", "/containers/json", self._query).json()
        return found

    def now(self, container: ApiObject) -> ApiObject:
        """The row of a container that does not match any more: it ended or was removed."""
        query = {"all": True, "filters": documents.dumps({"id": [container["Id"]]})}
        found = self._ctx.client().request("GET", "/containers/json", query).json()
        return found[0] if found else {**container, "State": "removed", "Status": "Removed", "Ports": []}

    def forget(self, event: ApiObject) -> None:
        """Drop a container's time of change after an event."""
        self._since.pop(event.get("Actor", {}).get("ID", ""), None)

    def aged(self, containers: Containers) -> Containers:
        """The rows with present ages."""
        return [{**c, "Status": self._status(c)} for c in containers]

    def _status(self, container: ApiObject) -> str:
        text: str = container["Status"]
        match = _AGE.match(text)
        if not match:
            return text
        state, since = self._since.get(container["Id"], ("", 0.0))
        if state != container["State"]:
            since = self._begin(container)
            self._since[container["Id"]] = (container["State"], since)
        if not since:
            return text
        return f"{match[1]}{age(time.time() - since)}{match[3] or ''}{match[4] or ''}"

    def _begin(self, container: ApiObject) -> float:
        """The time of a container's last change; 0 when not known."""
        try:
            state = self._ctx.client().request("GET", f"/containers/{container['Id']}/json").json()["State"]
        except NotFound:
            return 0.0
        moment = state["StartedAt" if container["State"] in ("running", "paused") else "FinishedAt"]
        return max(moments.rfc3339(moment) or 0, 0) / 1e9
