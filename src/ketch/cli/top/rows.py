"""Rows of ``ketch top``: what containers use now, from two lines of ``GET /ketch/stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.notation.sizes import human_bytes, human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypedDict

    from ketch.cli.output.listing import Row

    class ContainerUsage(TypedDict):
        """The usage of one container, as far as it is shown."""

        id: str
        name: str
        cpu_percent: float | None
        memory_bytes: int
        memory_limit_bytes: int
        networks: dict[str, dict[str, int]]
        pids: int
        read_bytes: int
        written_bytes: int

    class UsageOfOne(ContainerUsage):
        """One container of such a line."""

        status: str

    class UsageLine(TypedDict):
        """Such a line; ``seconds`` since the one before."""

        seconds: float
        containers: list[UsageOfOne]


class ContainerLoad(NamedTuple):
    """The load of one container; moved bytes are of a second, None as long as there is nothing to compare with."""

    id: str
    name: str
    state: str
    cpu: float | None
    memory: int
    memory_limit: int
    received: float | None
    sent: float | None
    read: float | None
    written: float | None
    pids: int

    @property
    def share(self) -> float:
        """Memory in percent of the limit."""
        return 100 * self.memory / self.memory_limit if self.memory_limit else 0.0

    def cells(self) -> Row:
        """The fields of the table and of ``--format``."""
        return {
            "ID": self.id[:12],
            "Name": self.name,
            "State": self.state,
            "CPUPerc": "--" if self.cpu is None else f"{self.cpu:.2f}%",
            "MemUsage": human_bytes(self.memory),
            "MemLimit": human_bytes(self.memory_limit),
            "MemPerc": f"{self.share:.2f}%",
            "NetIn": _speed(self.received),
            "NetOut": _speed(self.sent),
            "BlockRead": _speed(self.read),
            "BlockWrite": _speed(self.written),
            "PIDs": str(self.pids),
        }


_KEYS: dict[str, Callable[[ContainerLoad], float]] = {
    "cpu": lambda load: load.cpu or 0.0,
    "memory": lambda load: load.memory,
    "network": lambda load: (load.received or 0.0) + (load.sent or 0.0),
    "block": lambda load: (load.read or 0.0) + (load.written or 0.0),
    "pids": lambda load: load.pids,
}
KEYS = ("cpu", "memory", "network", "block", "pids", "name")


def loads(before: UsageLine | None, now: UsageLine) -> list[ContainerLoad]:
    """The containers of the later line, with what they moved since the one before."""
    known = {usage["id"]: _moved(usage) for usage in before["containers"]} if before is not None else {}
    found = []
    for usage in now["containers"]:
        rates = _rates(known.get(usage["id"]), _moved(usage), now["seconds"])
        found.append(
            ContainerLoad(
                id=usage["id"],
                name=usage["name"],
                state=usage["status"],
                cpu=usage["cpu_percent"],
                memory=usage["memory_bytes"],
                memory_limit=usage["memory_limit_bytes"],
                received=rates[0],
                sent=rates[1],
                read=rates[2],
                written=rates[3],
                pids=usage["pids"],
            )
        )
    return found


def ordered(found: Sequence[ContainerLoad], key: str, *, backwards: bool = False) -> list[ContainerLoad]:
    """The largest first, names from a to z; ``backwards``: the other way round."""
    by_name = sorted(found, key=lambda load: load.name)
    if key == "name":
        return by_name[::-1] if backwards else by_name
    return sorted(by_name, key=_KEYS[key], reverse=not backwards)


def _moved(usage: UsageOfOne) -> tuple[int, int, int, int]:
    """Bytes received, sent, read and written since the container began."""
    networks = usage["networks"].values()
    received = sum(counters.get("rx_bytes", 0) for counters in networks)
    sent = sum(counters.get("tx_bytes", 0) for counters in networks)
    return received, sent, usage["read_bytes"], usage["written_bytes"]


def _rates(before: tuple[int, ...] | None, now: tuple[int, ...], seconds: float) -> list[float | None]:
    """Bytes in a second; a counter that went back is another run's."""
    if before is None or seconds <= 0:
        return [None] * len(now)
    return [max(new - old, 0) / seconds for old, new in zip(before, now, strict=True)]


def _speed(rate: float | None) -> str:
    return "--" if rate is None else f"{human_size(rate)}/s"
