"""Whole builds by ``docker buildx``, and all that they take from their client and give to it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile

import pytest

pytestmark = pytest.mark.usefixtures("no_images_left")
_MAIN = re.compile(r"transferring context: ([0-9.]+)(k|M|)B")
_UNITS = {"": 1, "k": 1000, "M": 1_000_000}


@pytest.fixture
def build(engine, tmp_path):
    """Builds a directory; returns what buildx wrote, as lines of text."""

    def run(*words, directory=tmp_path / "context", check=True, stdin=b"", **environment):
        words = ("buildx", "build", "--progress=plain", "--provenance=false", *words, str(directory))
        done = engine.docker(*words, stdin=stdin, check=check, timeout=60, **environment)
        return done.out + done.err

    return run


@pytest.fixture
def context(tmp_path):
    top = tmp_path / "context"
    (top / "d/e").mkdir(parents=True)
    (top / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (top / ".dockerignore").write_text("*.o\nd/e/1*\n!d/e/11\n")
    (top / "a").write_text("a")
    (top / "left.o").write_text("out")
    (top / "\u00e4").write_text("umlaut")
    (top / "d/large").write_bytes(os.urandom(400_000))
    os.symlink("../a", top / "d/link")
    os.chmod(top / "a", 0o4711)
    for number in range(30):
        (top / f"d/e/{number}").write_text(str(number))
    for where, below, names in os.walk(top):
        for name in (*below, *names):
            os.utime(os.path.join(where, name), (10**9, 10**9), follow_symlinks=False)
    return top


def sent(output):
    """The bytes that were transferred of the main context."""
    number, unit = _MAIN.findall(output)[-1]
    return float(number) * _UNITS[unit]


def paths_below(top):
    found = [os.path.join(where, name) for where, below, names in os.walk(top) for name in below + names]
    return sorted(os.path.relpath(path, top) for path in found)


def test_a_context_is_sent_once(build, context, tmp_path):
    out = tmp_path / "out"
    first = build("--output", f"type=local,dest={out}")
    assert sent(first) > 400_000
    wanted = [one for one in paths_below(context) if not re.fullmatch(r".*\.o|d/e/1.?", one) or one == "d/e/11"]
    assert paths_below(out) == wanted
    assert (out / "d/large").read_bytes() == (context / "d/large").read_bytes()
    assert os.readlink(out / "d/link") == "../a"
    assert stat.S_IMODE(os.stat(out / "a").st_mode) == 0o4711
    again = build("--output", f"type=local,dest={tmp_path}/again")
    assert sent(again) < 20_000
    assert "CACHED" in again
    (context / "a").write_text("another")
    changed = build("--output", f"type=local,dest={tmp_path}/changed")
    assert sent(changed) < 20_000
    assert (tmp_path / "changed/a").read_text() == "another"


def test_the_dockerfile_on_standard_input(build, context, tmp_path):
    build("-f", "-", "--output", f"type=local,dest={tmp_path}/out", stdin=b"FROM scratch\nCOPY a /b\n")
    assert paths_below(tmp_path / "out") == ["b"]


@pytest.mark.parametrize("compression", ["", "gz"])
def test_a_context_on_standard_input(build, context, tmp_path, compression):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{compression}" if compression else "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(context, ".")
    build("--output", f"type=local,dest={tmp_path}/out", directory="-", stdin=data.getvalue())
    assert (tmp_path / "out/a").read_text() == "a"
    assert (tmp_path / "out/left.o").exists()  # as with BuildKit, .dockerignore is for directories


def test_a_dockerfile_alone_on_standard_input(build, tmp_path):
    build("--output", f"type=local,dest={tmp_path}/out", directory="-", stdin=b"FROM scratch\nWORKDIR /made\n")
    assert paths_below(tmp_path / "out") == ["made"]


def test_secrets(build, context, tmp_path):
    (context / "Dockerfile").write_text(
        "FROM busybox AS b\n"
        "RUN --mount=type=secret,id=file cat /run/secrets/file > /file; stat -c %a /run/secrets/file > /mode\n"
        "RUN --mount=type=secret,id=env,env=TOKEN echo $TOKEN > /env\n"
        "RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n"
        "FROM scratch\nCOPY --from=b /file /mode /env /\n"
    )
    (tmp_path / "secret").write_bytes(b"hidden\n")
    words = ["--secret", f"id=file,src={tmp_path}/secret", "--secret", "id=env,env=MINE"]
    build(*words, "--output", f"type=local,dest={tmp_path}/out", MINE="of the environment")
    assert (tmp_path / "out/file").read_text() == "hidden\n"
    assert (tmp_path / "out/mode").read_text() == "400\n"
    assert (tmp_path / "out/env").read_text() == "of the environment\n"


def test_a_secret_that_must_be_there(build, context):
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=secret,id=none,required=true true\n")
    assert "secret none: not found" in build(check=False)


@contextlib.contextmanager
def agent(path):
    """An agent with one key; the key's last part, as ``ssh-add -L`` shows it."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("there is no ssh-agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
    try:
        assert b"SSH_AUTH_SOCK" in process.stdout.readline()
        key = f"{path}.key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", key], check=True)
        subprocess.run(["ssh-add", "-q", key], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(path)})
        yield
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def test_an_ssh_agent(build, context, tmp_path):
    """busybox has no ssh-add: it says what that says to an agent, and looks for the key's comment in the answer."""
    (context / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=ssh,uid=5,mode=0600 stat -c %u:%a $SSH_AUTH_SOCK; "
        "printf '\\000\\000\\000\\001\\013' | timeout 5 nc local:$SSH_AUTH_SOCK | grep -q mine && echo found\n"
    )
    with agent(tmp_path / "agent"):
        shown = build("--ssh", f"default={tmp_path}/agent", check=False)
    assert "5:600" in shown


def test_an_agent_that_the_client_has_not(build, context):
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=ssh,required=true true\n")
    shown = build(check=False)
    assert "unset ssh forward key default" in shown or 'no SSH key "default" forwarded from the client' in shown


def test_archives(build, context, tmp_path):
    build("--output", f"type=tar,dest={tmp_path}/out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("a").read() == b"a"
        assert "left.o" not in tar.getnames()
    build("--output", f"type=oci,dest={tmp_path}/oci.tar")
    with tarfile.open(tmp_path / "oci.tar") as tar:
        index = json.load(tar.extractfile("index.json"))
        (manifest,) = index["manifests"]
        layers = json.load(tar.extractfile("blobs/sha256/" + manifest["digest"][7:]))["layers"]
        assert all(tar.getmember("blobs/sha256/" + layer["digest"][7:]).size == layer["size"] for layer in layers)
    build("--output", "type=tar,dest=-")


def test_named_contexts(build, context, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("of the other one")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --from=other file /\n")
    words = ["--build-context", f"other={tmp_path}/other", "--output", f"type=local,dest={tmp_path}/out"]
    build(*words)
    assert (tmp_path / "out/file").read_text() == "of the other one"
    assert "[context other] load from client" in build(*words)


def test_a_layout_as_a_context(build, context, tmp_path):
    build("--output", f"type=oci,dest={tmp_path}/layout,tar=false")
    (context / "Dockerfile").write_text("FROM base\nCOPY a /more\n")
    build("--build-context", f"base=oci-layout://{tmp_path}/layout", "--output", f"type=local,dest={tmp_path}/out")
    assert {"a", "d", "more"} <= set(os.listdir(tmp_path / "out"))


def test_a_layout_as_a_context_is_an_image(build, context, tmp_path):
    """With its variables, its user, its directory, and what it wants done first."""
    (context / "Dockerfile").write_text(
        "FROM busybox\nENV FROM_BASE=1\nWORKDIR /w\nUSER 5:6\nONBUILD COPY a /triggered\n"
    )
    build("--output", f"type=oci,dest={tmp_path}/layout,tar=false")
    (context / "Dockerfile").write_text("FROM base\nRUN echo $FROM_BASE $(id -u):$(id -g) $PWD > /tmp/told\n")
    build("--build-context", f"base=oci-layout://{tmp_path}/layout", "--output", f"type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/tmp/told").read_text() == "1 5:6 /w\n"
    assert (tmp_path / "out/triggered").read_text() == "a"


def test_a_cache_in_a_directory(build, context, tmp_path):
    (context / "Dockerfile").write_text("FROM busybox\nCOPY a /\nRUN cat /proc/sys/kernel/random/uuid > /uuid\n")
    words = ["--output", f"type=local,dest={tmp_path}/out"]
    build(*words, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    first = (tmp_path / "out/uuid").read_text()
    assert (tmp_path / "cache/index.json").exists()
    build(*words, "--no-cache")
    assert (tmp_path / "out/uuid").read_text() != first
    build("--cache-from", f"type=local,src={tmp_path}/cache", *words)


def test_a_context_that_leads_out_or_lacks_what_is_copied(build, context):
    (context / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    assert '"/missing": not found' in build(check=False)
    assert "unable to prepare context: path" in build(directory="/nowhere", check=False)


def test_errors_show_the_lines_that_they_come_from(build, context):
    (context / "Dockerfile").write_text("FROM busybox\nRUN exit 3\n")
    failed = build(check=False)
    assert "2 | >>> RUN exit 3" in failed
    assert 'process "/bin/sh -c exit 3" did not complete successfully: exit code: 3' in failed
    (context / "Dockerfile").write_text("FROM busybox\nRUNN exit 3\n")
    refused = build(check=False)
    assert "2 | >>> RUNN exit 3" in refused
    assert "dockerfile parse error on line 2: unknown instruction: RUNN" in refused
