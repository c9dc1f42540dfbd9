"""Files that somebody swaps while they are read, of contexts and of stages, and cache mounts that builds share."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from tests.support.building.requests import heard, own, request
from tests.support.building.whole_build import handed, told
from tests.support.waiting import until

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

SECRET = b"nobody in the context may see this"
# Swaps a file and a directory of the context, without end: for links out of it, other files, directories, nothing.
SWAPPER = """
import os, shutil, sys
top, outside = sys.argv[1:]
os.chdir(top)
def clear(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
def file(path, text):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
print("begun", flush=True)
while True:
    for make in (
        lambda: os.symlink(outside + "/secret", "swapped"),
        lambda: file("swapped", "a" * 5000),
        lambda: file("swapped/secret", "below"),
        lambda: os.mkfifo("swapped"),
        lambda: file("swapped", "b" * 9000),
    ):
        clear("swapped")
        make()
    clear("d")
    os.symlink(outside, "d")
    clear("d")
    file("d/secret", "ours")
    os.rename("d", "e")
    os.symlink(outside, "d")
    clear("e")
"""


@contextlib.contextmanager
def swapping(top, outside):
    """The swapper at work."""
    with subprocess.Popen([sys.executable, "-c", SWAPPER, top, outside], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"begun\n"
            yield
            assert process.poll() is None, "the swapper has ended"
        finally:
            process.kill()


def test_of_a_context(engine, tmp_path):
    """Nothing from outside is ever taken: a build has what the directory had, or says what changed."""
    top, outside = tmp_path / "context", tmp_path / "outside"
    for place in (top, outside):
        place.mkdir()
    (outside / "secret").write_bytes(SECRET)
    for n in range(100):
        (top / f"file-{n}").write_text("x" * n)
    dockerfile = {"data": base64.b64encode(b"FROM scratch\nCOPY . /all/\n").decode()}
    failed = 0
    with swapping(str(top), str(outside)):
        for _ in range(40):
            with contextlib.ExitStack() as stack, open(tmp_path / "out.tar", "w+b") as out:
                status = os.fstat(out.fileno())
                line = {
                    "dockerfile": dockerfile,
                    "directories": {"context": handed(str(top), stack)},
                    "outputs": [{"type": "tar", "to": f"fd:{out.fileno()}:{status.st_dev}:{status.st_ino}"}],
                }
                answer = told(engine, "/ketch/build", json.dumps(line).encode() + b"\n")
                out.seek(0)
                data = out.read()
            assert answer.status == 200 and not answer.broken
            assert SECRET not in data
            if answer.error:
                failed += 1
                assert "changed" in answer.error, answer.error
                continue
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                names = [member.name for member in tar]
            assert sum("file-" in name for name in names) == 100
    assert failed > 0, "nothing was ever swapped while it was read"


def test_of_a_stage(engine, tmp_path):
    """What a command does to a stage that it has mounted is its own: whoever copies of it meanwhile sees nothing."""
    swaps = (
        "rm -rf /m/f; ln -s /etc/passwd /m/f; rm /m/f; mkdir /m/f; rmdir /m/f; echo bad >/m/f; "
        "rm -rf /m/d; ln -s /etc /m/d; rm /m/d; mkdir /m/d; echo bad >/m/d/passwd"
    )
    text = f"""\
FROM busybox AS stage
RUN mkdir -p /s/d && echo good >/s/f && echo good >/s/d/passwd
FROM busybox AS swapping
RUN --mount=from=stage,source=/s,target=/m,rw i=0; while [ $i -lt 300 ]; do {swaps}; i=$((i+1)); done; echo x >/end
FROM busybox AS copying
{"".join(f"COPY --from=stage --chmod=6{n}4 /s /x{n}{chr(10)}" for n in range(8))}
FROM copying
COPY --from=swapping /end /
RUN cat /x*/f /x*/d/passwd | sort | uniq -c | tr -s ' ' && cat /end
"""
    (tmp_path / "Dockerfile").write_text(text)
    done = engine.ketch("build", "--progress=plain", "--no-cache", str(tmp_path))
    assert " 16 good\n" in done.err and "bad" not in done.err.partition(" 16 good")[2], done.err


@pytest.mark.parametrize("sharing", ["shared", "private", "locked"])
def test_of_a_cache_mount(engine, gate, sharing):
    """Two builds at once: they see each other, have one each, or wait."""
    cache = f"--mount=type=cache,id=both,target=/c,sharing={sharing}"
    first = own(f"FROM busybox\nRUN {gate.mount} {cache} echo first >>/c/log; echo on >>/gate/log; {gate.wait}\n")
    second = own(f"FROM busybox\nRUN {gate.mount} {cache} echo second >>/c/log; cat /c/log >>/gate/log\n")
    with request(engine, "/ketch/build", first) as one:
        until(lambda: gate.log() == "on\n", "the command does not begin")
        with request(engine, "/ketch/build", second) as other:
            if sharing == "locked":
                heard(other, b"RUN --mount")
                assert gate.log() == "on\n"
                gate.go()
            heard(other, b'"result"')
        seen = "second\n" if sharing == "private" else "first\nsecond\n"
        assert gate.log() == "on\n" + seen
        if sharing != "locked":
            gate.go()
        heard(one, b'"result"')
