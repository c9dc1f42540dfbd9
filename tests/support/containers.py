"""Commands and flags of the tests' containers."""

from __future__ import annotations

import time
import urllib.request

from tests.support.waiting import patient

LOOP = "i=0; while :; do echo n $i; i=$((i+1)); usleep 5000; done"
SERVE = ("busybox", "sh", "-c", "mkdir /www; echo moored > /www/index.html; exec httpd -f -p 80 -h /www")
FAST = ("--health-interval", "50ms", "--health-timeout", "2s", "--health-retries", "2")


def body(name: str, **host: object) -> dict[str, object]:
    return {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host}


def fetch(port: int, host: str = "127.0.0.1") -> str:
    """What the server says, once it listens."""
    deadline = time.monotonic() + patient(10)
    while True:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/", timeout=patient(2)) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
