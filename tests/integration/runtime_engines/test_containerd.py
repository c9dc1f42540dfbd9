"""ketch-runtime under containerd's own client: what it shows is what it shows with runc."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.boxes import runtime_box
from tests.support.runtimes.peer_place import PeerPlace
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(120), *runtime_box.NEEDED]
RUNC = "/usr/sbin/runc"
CONFIGURATION = """
version = 3
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
  address = "{0}/c.sock"
[ttrpc]
  address = "{0}/c.sock.ttrpc"
"""


class Containerd:
    """The daemon with its client ``ctr``, and a directory that is a root."""

    def __init__(self, place: PeerPlace, image: Path) -> None:
        self.place, self.image = place, str(image)
        (place.directory / "config.toml").write_text(CONFIGURATION.format(place.directory))
        with open(place.directory / "log", "wb") as log:
            command = place.command("containerd", "--config", f"{place.directory}/config.toml")
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + patient(20)
        while self("version")[0]:
            assert time.monotonic() < deadline, (place.directory / "log").read_text()
            time.sleep(0.05)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        return self.place("ctr", "-a", f"{self.place.directory}/c.sock", *words)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(patient(10))


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    image = runtime_box.make_rootfs(tmp_path_factory.mktemp("image"))
    place = PeerPlace(tmp_path_factory.mktemp("c"), ["default"])
    try:
        containerd = Containerd(place, image)
        try:
            yield containerd
        finally:
            containerd.close()
    finally:
        place.close()


LIFE = [
    "run --rm --rootfs --runc-binary RUNTIME --read-only --memory-limit 67108864 --cwd /work IMAGE first /bin/sh -c "
    "'echo out; echo err >&2; pwd; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; "
    "grep Cap /proc/self/status; exit 5'",
    "run -d --rootfs --runc-binary RUNTIME IMAGE one /bin/sleep 1000",
    "tasks exec --exec-id e --user 1000 --cwd /work one /bin/sh -c 'id -u; pwd; exit 4'",
    "tasks exec --exec-id f one /bin/nosuch",
    "tasks pause one",
    "tasks ls",
    "tasks resume one",
    "tasks ps one",
    "tasks metrics --format json one",
    "tasks checkpoint one",
    "tasks kill --signal SIGKILL one",
    "tasks rm --force one",
    "containers rm one",
    "containers ls -q",
]


def test_a_life(containerd: Containerd) -> None:
    """The text of an error is a runtime's own, but for the program that is not there."""
    told = []
    for runtime in (containerd.place.ketch_runtime, RUNC):
        answers = []
        for line in LIFE:
            words = shlex.split(line.replace("RUNTIME", runtime).replace("IMAGE", containerd.image))
            code, out, err = containerd(*words)
            if "metrics" in line:
                out = " ".join(sorted(json.loads(out)))
            answers.append((line, code, re.sub(r"\b[0-9]{3,7}\b", "PID", out), "nosuch: no such file" in err))
        told.append(answers)
    for one, other in zip(*told, strict=True):
        assert one == other
