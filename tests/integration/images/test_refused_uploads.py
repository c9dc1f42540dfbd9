"""Archives that are refused while the client is still sending: it gets the daemon's sentence and no broken pipe."""

from __future__ import annotations

import gzip
import io
import os
import tarfile

import pytest

MANY = 24 << 20  # more than what sockets and the daemon take in ahead


def leads_out() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, size in (("../../evil", 4), ("large", MANY)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    return data.getvalue()


BODIES = {
    "no tar": lambda: b"hello" * (MANY // 5),
    "broken gzip": lambda: gzip.compress(os.urandom(1 << 20))[: 1 << 19] + os.urandom(MANY),
    "leads out": leads_out,
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("command", ["import -", "load", "cp - box:/tmp", "volume restore box"])
def test_the_client_hears_why(client, command, body):
    if command.startswith("volume") and client.name == "docker":
        pytest.skip("Docker has no such command")
    client("create", "--name", "box", "-v", "box:/v", "busybox")
    words = command.split()
    done = client(*words, stdin=BODIES[body](), check=False, timeout=60)
    assert done.code == 1
    assert "broken pipe" not in done.err.lower()
    assert "reset by peer" not in done.err.lower()
    # An error of a load is told in the stream, which Docker's client shows as it is.
    told = ("archive/tar: ", "read archive: ", "extract ")
    assert done.err.startswith(("Error response from daemon: ", "ketch: ", *told))
    assert "Traceback" not in client.engine.log()
    client("rm", "box")
    client("volume", "rm", "box")


@pytest.mark.ketch_only
def test_bad_words_are_heard_before_the_body(client):
    done = client("import", "-c", "BOGUS x", "-", "refused", stdin=BODIES["no tar"](), check=False)
    assert done.code == 1
    assert "BOGUS is not a valid change command" in done.err
    assert "Traceback" not in client.engine.log()
