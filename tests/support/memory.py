"""Measurement of a daemon's peak memory."""

from __future__ import annotations

MIB = 1 << 20


class Memory:
    """The peak of a daemon's memory and of the processes that it has started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as f:
            f.write("5")  # the peak is what it is now (proc_pid_clear_refs(5))
        self.before = self.peak()

    def peak(self) -> int:
        """Bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))

    def grown_mib(self) -> float:
        return (self.peak() - self.before) / MIB
