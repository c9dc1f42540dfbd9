"""Resource usage of one container."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, kw_only=True):
    """One container in one line of ``GET /ketch/stats``; all zeros when it does not run.

    ``cpu_percent`` is of one CPU, since the line before; None as long as there is nothing to compare with.
    ``memory_bytes`` leaves out the page cache that the kernel can take back.  A limit of 0 processes is none.
    """

    id: str
    name: str
    status: str
    cpu_percent: float | None = 0.0
    cpu_ns: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    pids: int = 0
    pids_limit: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    networks: dict[str, dict[str, int]] = {}
