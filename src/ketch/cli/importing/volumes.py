"""Volumes of Docker's made in Ketch, with the files in them.

ketchd copies the files: it sees Docker's directory as a volume of its own, read-only.  So all that files have is kept
(owners, hard links, extended attributes, holes), and no right to Docker's directories is needed here.  Files of a
dockerd with ``--userns-remap`` belong to ids of its range; the copies belong to the users that they have in containers,
as all of Ketch's volumes do.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ketch.client.errors import error_of
from ketch.errors import AlreadyExists, Conflict, NotFound
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.cli.importing.ours import Ours
    from ketch.client.http import Client
    from ketch.notation.api_objects import ApiObject

_SOURCE = "ketch-import-"  # and a random number
# The directory of a volume in the data root of a dockerd with --userns-remap.
_REMAPPED = re.compile(r"/([0-9]{1,10})\.([0-9]{1,10})/volumes/[^/]+/_data\Z")
_IDS = 65536  # that useradd gives a user
_PATIENCE_S, _PAUSE_S = 10.0, 0.05
_PID = "ketch.import-docker"  # the label that names the process by which such a volume is used


def make(ours: Ours, facts: ApiObject, options: dict[str, str]) -> None:
    """Make a volume with these options, and the name and the labels of Docker's (AlreadyExists)."""
    if ours.volume(facts["Name"]) is not None:
        raise AlreadyExists("there is a volume of this name by now")
    _create(ours.client, facts["Name"], options, facts.get("Labels"))


def copy(ours: Ours, facts: ApiObject, moved: Callable[[int], None]) -> None:
    """Copy the files into the volume, which is made if it is not there; ``moved`` is told the bytes so far.

    One that is there must be empty (Conflict). A failure leaves no volume that was not there, and no other changed.
    """
    name = facts["Name"]
    with _directory(ours.client, facts["Mountpoint"]) as source, Undo() as undo:
        if ours.volume(name) is None:
            undo.callback(_discard, ours, name)
        _create(ours.client, name, None, facts.get("Labels"))
        # ketchd itself looks whether it is empty: a plan may be carried out long after it was made.
        query = {"from": source, "owners": remapped(facts["Mountpoint"])}
        for item in ours.client.request("POST", f"/ketch/volumes/{name}/copy", query, stream=True).stream_lines():
            if "error" in item:
                raise error_of(item["error"], (item.get("errorDetail") or {}).get("kind", ""))
            moved(item["progressDetail"]["current"])
        undo.pop_all()


def remapped(directory: str) -> str:
    """The machine's ids that containers of a dockerd with ``--userns-remap`` have, as ``UID:GID:COUNT``; else nothing.

    ``directory`` is a volume's. How many they are is said by /etc/subuid, if this machine's is what dockerd has read.
    """
    found = _REMAPPED.search(directory)
    if found is None:
        return ""
    try:
        with open("/etc/subuid", encoding="utf-8", errors="replace") as f:
            rows = [line.strip().split(":") for line in f]
    except OSError:
        rows = []
    counts = [row[2] for row in rows if len(row) == 3 and row[1] == found[1] and row[2].isdecimal()]
    return f"{found[1]}:{found[2]}:{counts[0] if counts else _IDS}"


def _discard(ours: Ours, name: str) -> None:
    """Remove a volume that was made for a copy, unless somebody has filled it since."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if ours.is_unfilled(name):
                _remove(ours.client, name)
            return
        except NotFound:
            return
        except Conflict:  # ketchd has yet to see that the copy has ended
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE_S)


@contextmanager
def _directory(client: Client, path: str) -> Iterator[str]:
    """A directory as a volume of ketchd's, read-only, under a name that nothing else has."""
    _sweep(client)
    name = _SOURCE + secrets.token_hex(8)
    with Undo() as undo:
        _create(client, name, {"type": "none", "o": "bind,ro", "device": path}, {_PID: str(os.getpid())})
        undo.callback(_remove, client, name)
        yield name


def _sweep(client: Client) -> None:
    """Remove such volumes of imports that were killed."""
    found = client.request("GET", "/volumes", {"filters": {"label": [_PID]}}).json()["Volumes"] or ()
    for volume in found:
        if volume["Name"].startswith(_SOURCE) and not os.path.exists(f"/proc/{volume['Labels'][_PID]}"):
            with suppress(Conflict):  # a container uses it
                _remove(client, volume["Name"])


def _create(client: Client, name: str, options: dict[str, str] | None, labels: dict[str, str] | None) -> None:
    body = {"Name": name, "Driver": "local", "DriverOpts": options, "Labels": labels}
    client.request("POST", "/volumes/create", None, body)


def _remove(client: Client, name: str) -> None:
    with suppress(NotFound):
        client.request("DELETE", f"/volumes/{name}")
