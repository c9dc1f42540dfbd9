"""Requests about networks, some 900: dockerd's status, the beginning of its sentence, and what an inspect shows then.

The answers of dockerd are in ``tests/data/networks.json``; ``--engine=dockerd`` compares the record with a dockerd.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.fuzzing import networks
from tests.support.rawapi import Api

# Docker puts interfaces into the host's own namespace, where that does not fail; here it is refused.
_HOSTS = tuple(f"mode 'host', endpoint{rest}" for rest in (" 'bridge'", " 'one'", "s "))
# Docker goes through the networks in no order, and through pairs of them.
_TOGETHER = (
    "cannot connect container to host network",
    "container sharing network namespace",
    "container cannot be connected to multiple networks",
)


def test_answers_are_dockers(engine):
    api, recorded = Api(engine.socket), json.loads(networks.RECORDED.read_text(encoding="utf-8"))
    networks.build(api)
    wrong = []
    for name, steps in networks.rows():
        if name not in recorded or name.startswith(_HOSTS):
            continue
        found, begun = networks.play(api, steps), True
        for step, ours, theirs in zip(steps, found, recorded[name], strict=True):
            # A start that fails leaves traces in Docker's inspect.
            if (begun or step[0] != "GET") and not _same(ours, theirs):
                wrong.append(f"{name}\n    {step}\n    dockerd: {theirs}\n    here:    {ours}")
                break
            if step[1].endswith("/start"):
                begun = theirs[0] < 400
    networks.clear(api)
    assert wrong == [], "\n".join(wrong)


def _same(ours: list[Any], theirs: list[Any]) -> bool:
    if ours[0] != theirs[0] or theirs[0] < 400:
        return ours == theirs
    if "veth" in theirs[1]:  # the kernel's error, by way of a name that is drawn by lot
        return True
    if any(words in theirs[1] for words in _TOGETHER):
        return any(words in ours[1] for words in _TOGETHER)
    return ours[1].startswith(theirs[1])
