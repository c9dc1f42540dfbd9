"""Owners of host ports: the programs to name when a port cannot be published."""

from __future__ import annotations

import contextlib
import os
import socket

_LISTEN = "0A"


def program(proto: str, address: str, port: int) -> str:
    """The program bound to an address and port, as ``nginx (pid 812)``; empty when not known.

    Reads proc_net(5) of the calling thread's network namespace and the descriptors of every process.
    """
    inodes = _inodes(proto, address, port)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        # A process that ends while we look, or that is not ours to look at, is not the one to name.
        with contextlib.suppress(OSError):
            if any(_points_to(f"/proc/{pid}/fd/{fd}", wanted) for fd in os.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
                    return f"{f.read().strip()} (pid {pid})"
    return ""


def _points_to(path: str, wanted: set[str]) -> bool:
    with contextlib.suppress(OSError):  # it was closed, or it is a directory deeper than paths can say
        return os.readlink(path) in wanted
    return False


def _inodes(proto: str, address: str, port: int) -> set[str]:
    found = set()
    mine = ipv6_words(address) if ":" in address else ipv4_word(address)
    for name in (proto, proto + "6"):
        try:
            with open(f"/proc/thread-self/net/{name}", encoding="ascii") as f:
                lines = f.readlines()[1:]
        except FileNotFoundError:  # no such protocol in this kernel
            continue
        for line in lines:
            fields = line.split()
            there, _, number = fields[1].partition(":")
            anywhere = not there.strip("0") or not mine.strip("0")
            if int(number, 16) == port and (proto != "tcp" or fields[3] == _LISTEN) and (anywhere or there == mine):
                found.add(fields[9])
    return found - {"0"}


def ipv4_word(address: str) -> str:
    """An address as proc_net(5) writes it: one word in the machine's byte order."""
    return f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}"


def ipv6_words(address: str) -> str:
    """The same for IPv6: four words."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    return "".join(f"{int.from_bytes(packed[i : i + 4], 'little'):08X}" for i in range(0, 16, 4))
