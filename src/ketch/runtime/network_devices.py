"""Network devices of the host that become a container's (OCI runtime-spec, config-linux.md, Network Devices).

A device keeps its MTU, addresses of hardware and alias by itself when it changes its namespace; its lasting addresses,
which the kernel takes from it, are given back to it.  When the container's namespace goes, physical devices are the
host's again and virtual ones are gone: that is the kernel's doing.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

from ketch.contexts import ExitStack, suppress
from ketch.errors import RuntimeFailure
from ketch.linux.netlink import addresses, client, links, messages
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.linux.netlink.addresses import Interface
    from ketch.linux.netlink.client import Netlink
    from ketch.runtime.oci_types import OciNetDevice

_PERMANENT = 0x80  # IFA_F_PERMANENT
_HOST_NAMESPACE = "/proc/self/ns/net"


def move(devices: dict[str, OciNetDevice], pid: int) -> None:
    """Move the devices into the network namespace of process ``pid``, and bring them up; all of them or none.

    RuntimeFailure names the one that there is not, or whose name is taken: before the first is moved.  When a move
    fails, those before it are the host's again, with their addresses, and up if they were.
    """
    with ExitStack() as stack, ExitStack() as undo:
        theirs_fd, ours_fd = _open(stack, f"/proc/{pid}/ns/net"), _open(stack, _HOST_NAMESPACE)
        outside = client.Netlink()
        stack.callback(outside.close)
        with client.entered(theirs_fd):
            inside = client.Netlink()
        stack.callback(inside.close)
        for device in _check(devices, outside, inside):
            try:
                outside.run([_to_namespace(device.index, device.new_name, theirs_fd)])
                undo.callback(_give_back, device, ours_fd, inside, outside)
                index = links.get_link(inside, device.new_name).index
                inside.run([addresses.add_address(index, address) for address in device.addresses])
                inside.run([links.set_up(index=index)])
            except OSError as e:
                raise failure("network", f"move network device `{device.name}` as `{device.new_name}`", e) from e
        undo.pop_all()


class _Device:
    """A device of the host as it is: to be moved, and perhaps to be given back."""

    __slots__ = ("addresses", "index", "name", "new_name", "up")

    def __init__(self, rtnl: Netlink, name: str, new_name: str) -> None:
        link = links.find_link(rtnl, name)
        if link is None:
            raise RuntimeFailure(f"move network device `{name}`: there is none of that name", step="network")
        self.name = name
        self.new_name = new_name
        self.index = link.index
        self.up = link.up
        self.addresses = _lasting_addresses(rtnl, link.index)


def _open(stack: ExitStack, path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _check(devices: dict[str, OciNetDevice], outside: Netlink, inside: Netlink) -> list[_Device]:
    """The devices to be moved; a move that cannot be is refused."""
    found: list[_Device] = []
    for name, wanted in devices.items():
        new_name = (wanted or {}).get("name") or name
        if "%" in new_name:  # to the kernel it is a pattern
            raise RuntimeFailure(f"move network device `{name}`: `{new_name}` is no name", step="network")
        if new_name in (device.new_name for device in found) or links.find_link(inside, new_name) is not None:
            text = f"move network device `{name}`: the container has a device `{new_name}` already"
            raise RuntimeFailure(text, step="network")
        found.append(_Device(outside, name, new_name))
    return found


def _lasting_addresses(rtnl: Netlink, index: int) -> list[Interface]:
    """The addresses of a link that do not run out and are valid beyond it."""
    found: list[Interface] = []
    request = messages.NetlinkRequest(addresses.RTM_GETADDR, 0, bytes(8), "list addresses")
    for answer in rtnl.dump(request):
        family, prefix_len, flags, scope, at = struct.unpack_from("=BBBBI", answer)
        values = messages.attributes(answer[8:])
        local = values.get(addresses.IFA_LOCAL) or values.get(addresses.IFA_ADDRESS)
        if at != index or scope != addresses.RT_SCOPE_UNIVERSE or not flags & _PERMANENT or not local:
            continue
        if family == socket.AF_INET:
            found.append(ipaddress.IPv4Interface((local, prefix_len)))
        elif family == socket.AF_INET6:
            found.append(ipaddress.IPv6Interface((local, prefix_len)))
    return found


def _to_namespace(index: int, name: str, netns_fd: int) -> messages.NetlinkRequest:
    """Move a link to another namespace, where it is called ``name``."""
    body = links.ifinfo(index) + messages.text(links.IFLA_IFNAME, name) + messages.u32(links.IFLA_NET_NS_FD, netns_fd)
    return messages.NetlinkRequest(links.RTM_NEWLINK, 0, body, f"move link `{name}`")


def _give_back(device: _Device, netns_fd: int, inside: Netlink, outside: Netlink) -> None:
    with suppress(OSError):  # the error that led here is the one to tell
        inside.run([_to_namespace(links.get_link(inside, device.new_name).index, device.name, netns_fd)])
        index = links.get_link(outside, device.name).index
        outside.run([addresses.add_address(index, address) for address in device.addresses])
        if device.up:
            outside.run([links.set_up(index=index)])
