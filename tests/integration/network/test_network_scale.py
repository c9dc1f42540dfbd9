"""Many networks and many ports: all of them work, and nothing is left of them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from ketch.network.connections import EndpointRequest
from ketch.network.model import record as r
from ketch.network.model.record import NetworkRecord
from ketch.network.ports.requests import PortRequest
from tests.support.netns import Netns, in_new_host, link_names, listen, network, refused, ruleset, talk

if TYPE_CHECKING:
    from pathlib import Path

NETWORKS, PORTS = 200, 1000


def open_files() -> int:
    """Descriptors but those of the state database: SQLite keeps a few of ended checkpoints for the next ones."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += not os.readlink(f"/proc/self/fd/{fd}").endswith("/ketch.db")
        except FileNotFoundError:  # that of the listing itself
            continue
        except OSError:  # a name that is too long for a path: a file in memory
            found += 1
    return found


@in_new_host
def test_two_hundred_networks(tmp_path: Path) -> None:
    with network(tmp_path) as one:
        clean, fds = (link_names(), ruleset()), open_files()
        made = [
            one.manager.create(NetworkRecord(id="", name=f"n{i}", driver=r.BRIDGE, created=0)) for i in range(NETWORKS)
        ]
        subnets = [record.pools[0].network for record in made]
        assert len(set(subnets)) == NETWORKS
        with Netns() as space:
            request = _request("web", PortRequest("tcp", 80, "", 8080, 8080))
            endpoint = one.manager.connect(made[-1].id, request, space.fd, space.rtnl_fd)
            with space.entered():
                server = listen("0.0.0.0", 80)
            talk(server, "127.0.0.1", 8080)
            talk(server, endpoint.ip, 80)
            server.close()
            one.manager.disconnect("web")
        for record in made:
            one.manager.remove(record.id)
        assert (link_names(), ruleset()) == clean
        assert open_files() <= fds + 2  # the relay's, since there was a published port


@in_new_host
def test_a_thousand_ports(tmp_path: Path) -> None:
    with network(tmp_path) as one, Netns() as space:
        clean, fds = (link_names(), ruleset()), open_files()
        wanted = [PortRequest("tcp", 10000 + i, "0.0.0.0", 20000 + i, 20000 + i) for i in range(PORTS)]
        one.manager.connect(one.network_id, _request("many", *wanted), space.fd, space.rtnl_fd)
        for i in (0, PORTS // 2, PORTS - 1):
            with space.entered():
                server = listen("0.0.0.0", 10000 + i)
            talk(server, "127.0.0.1", 20000 + i)
            server.close()
        one.manager.disconnect("many")
        assert refused("127.0.0.1", 20000)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 20000))
        assert (link_names(), ruleset()) == clean
        assert open_files() <= fds


def _request(name: str, *ports: PortRequest) -> EndpointRequest:
    return EndpointRequest(name, label=name, gateway4=True, ports=ports)
