"""Owners of ports, also with processes whose descriptors have no path."""

from __future__ import annotations

import contextlib
import os
import socket

from ketch import trees
from ketch.network.ports import port_owners
from ketch.storage.removal import remove_tree


def deepest(root: str, depth: int) -> int:
    """A descriptor of the last one of a chain of directories."""
    os.mkdir(root)
    fd = os.open(root, trees.DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", trees.DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def test_a_program_with_a_directory_deeper_than_paths_can_say(tmp_path):
    fd = deepest(str(tmp_path / "tree"), 2100)
    try:
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
            assert server.fileno() > fd  # it comes later
            owner = port_owners.program("tcp", "127.0.0.1", server.getsockname()[1])
    finally:
        os.close(fd)
        remove_tree(str(tmp_path / "tree"))
    assert owner.endswith(f" (pid {os.getpid()})")
