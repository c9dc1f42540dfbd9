"""Requests that fail: dockerd's status, and dockerd's sentence first, for some 500 requests over all routes.

The answers of dockerd are in ``tests/data/failures.json``; ``--engine=dockerd`` compares the record with a dockerd.
"""

from __future__ import annotations

import re

from tests.support.fuzzing.failures import Place, requests
from tests.support.rawapi import Api

# The names of the programs that dockerd runs; ours is one program.
_CHAIN = re.compile(
    r"(failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    r"|OCI runtime exec failed: exec failed: )(unable to start container process: (error during container init: )?)?"
)
_CREATE, _START, _EXEC = "POST /containers/create ", "START / ", "EXEC / "
# What differs on purpose: the beginnings of requests' names, by reason.
DIFFERENT = {
    "a typing error of Docker's": (
        "GET /containers/up/archive",
        "PUT /containers/up/archive b''",
    ),
    "the kernel's own words, by way of runc": (
        'POST /containers/made/update {"MemorySwap"',
        _START + '{"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Sysctls": {"net.ipv4.nope"',
        _START + '{"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["/etc',
        _START + '{"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [{"Type": "volume", "Source": "used"',
    ),
    "quotas are another file system's": (_CREATE + '{"Image": "busybox", "HostConfig": {"StorageOpt": {"size"',),
    "a device is looked for at create": (_START + '{"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Devices"',),
    "a mount without a type is a volume": (_CREATE + '{"Image": "busybox", "HostConfig": {"Mounts": [{}]',),
    "Docker goes to the network": (
        "POST /images/create",
        "POST /images/busybox/push",
        "GET /images/search",
    ),
    "a platform may be a text everywhere": ("GET /images/busybox/json?platform=linux",),
    "a login without a body is a mistake of the client": ("POST /auth b",),
}


def test_status_and_sentence_are_dockers(engine):
    place = Place(Api(engine.socket))
    place.build()
    try:
        wrong = [text for request in requests() if (text := _difference(place, request))]
    finally:
        place.clear()
    assert wrong == [], "\n".join(wrong)


def _difference(place, request):
    """How the answer differs; empty where it does not, or where dockerd sees no failure."""
    found, words = place.answer(request)
    status, sentence = request.status, request.sentence
    if status < 300 and not sentence:
        return "" if found else f"{request.name}: no answer"
    if any(request.name.startswith(begin) for begins in DIFFERENT.values() for begin in begins):
        return "" if found >= 400 or words else f"{request.name}: {found}, and it should fail"
    sentence = _CHAIN.sub("", sentence)
    if found == status and _CHAIN.sub("", words).startswith(sentence):
        return ""
    return f"{request.name}\n    dockerd: {status} {sentence}\n    here:    {found} {words}"
