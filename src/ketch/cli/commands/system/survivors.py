"""The containers of a ketchd that ends: their processes show which of them go on, when nobody answers any more."""

from __future__ import annotations

from typing import NamedTuple

from ketch.errors import KetchError
from ketch.pidfd import start_time

_PATIENCE_S = 5.0  # a ketchd that does not answer is to end, too
_SHOWN = 5


class Survivor(NamedTuple):
    """The first process of a container; the time of its start tells it from a later one with the same pid."""

    name: str
    pid: int
    started: int


def running(host: str) -> list[Survivor] | None:
    """The containers that run, by what ketchd says; None when it does not, or not soon."""
    import threading

    found: list[Survivor] = []
    done = threading.Event()

    def ask() -> None:
        try:
            found.extend(_ask(host))
            done.set()
        except KetchError:
            pass

    asking = threading.Thread(target=ask, name="ask", daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    return found if done.is_set() else None


def _ask(host: str) -> list[Survivor]:
    from ketch.client.http import Client
    from ketch.errors import NotFound

    client = Client(host)
    found = []
    for row in client.request("GET", "/containers/json").json():
        try:
            facts = client.request("GET", f"/containers/{row['Id']}/json").json()
        except NotFound:  # it has ended meanwhile, with --rm
            continue
        pid = facts["State"]["Pid"]
        if started := start_time(pid) if pid else 0:
            found.append(Survivor(facts["Name"].lstrip("/"), pid, started))
    return found


def told(before: list[Survivor] | None) -> str:
    """The fate of these containers, in words."""
    if before is None:
        return "it did not say which containers ran"
    if not before:
        return "no container ran"
    ended = [one.name for one in before if start_time(one.pid) != one.started]
    left = [one.name for one in before if one.name not in ended]
    if not ended:
        return f"{_counted(left)} on"
    if not left:
        return f"{len(ended)} container{'s' * (len(ended) > 1)} ended with it"
    return f"{len(ended)} of {len(before)} containers ended with it, {_counted(left)} on: {_named(left)}"


def _counted(names: list[str]) -> str:
    return f"{len(names)} containers go" if len(names) > 1 else "1 container goes"


def _named(names: list[str]) -> str:
    return ", ".join(sorted(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
