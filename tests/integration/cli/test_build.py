"""`ketch build` on ketchd: what is built, what is told, and what goes where."""

from __future__ import annotations

import json
import os
import re
import socket
import tarfile

import pytest

from tests.support.builds import classic_builds
from tests.support.clients import relay

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]


@pytest.fixture
def context(tmp_path):
    """A directory with a Dockerfile of four steps, what it copies, and what it must not."""
    place = tmp_path / "context"
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "kept").write_text("kept")
    (place / "secret").write_text("secret")
    (place / ".dockerignore").write_text("secret\n")
    (place / "Dockerfile").write_text(
        "FROM busybox AS first\nARG WHO=nobody\nRUN echo hello $WHO | tee /said\n"
        "COPY . /x\nRUN test ! -e /x/secret && cat /x/sub/kept\nFROM first\nLABEL a=b\n"
    )
    return place


def test_a_build(engine, context, tmp_path):
    """Its steps in order, the image, and its names; again it is cached, and what changed is told."""
    build, iid, facts = engine.ketch, tmp_path / "iid", tmp_path / "facts"
    words = ["build", "-t", "cli/app:1", "-t", "cli/app:2", "--label", "c=d"]
    done = build(
        *words, "--build-arg", "WHO", "--iidfile", str(iid), "--metadata-file", str(facts), str(context), WHO="me"
    )
    shown = re.sub(r"^#\d+ |\d+\.\d+", "", done.err, flags=re.MULTILINE)
    assert " hello me\n" in shown and " kept" in shown and "naming to docker.io/cli/app:2" in shown
    assert [line for line in shown.splitlines() if re.match(r"\[first [2-4]/4\]", line)] == [
        "[first 2/4] RUN echo hello me | tee /said",
        "[first 3/4] COPY . /x",
        "[first 4/4] RUN test ! -e /x/secret && cat /x/sub/kept",
    ]
    image = json.loads(build("image", "inspect", "cli/app:1").out)[0]
    assert image["Id"] == iid.read_text() and image["Config"]["Labels"] == {"a": "b", "c": "d"}
    assert json.loads(facts.read_text())["containerimage.config.digest"] == image["Id"]
    assert build("run", "--rm", "cli/app:2", "cat", "/said").out == "hello me\n"

    again = build(*words, "--build-arg", "WHO=me", "--progress=plain", str(context)).err
    assert again.count(" CACHED\n") >= 3 and iid.read_text() in again
    assert build("build", "-q", "--build-arg=WHO=me", "--label=c=d", str(context)).out == f"{image['Id']}\n"
    (context / "sub" / "kept").write_text("changed")
    told = build("build", "-q", "--explain", "--build-arg=WHO=me", str(context)).err
    assert "[first 3/4] COPY . /x" in told and "[first 2/4]" not in told
    build("rmi", "cli/app:1", "cli/app:2")


def test_where_results_go(engine, context, tmp_path):
    build, words = engine.ketch, ["build", "-q", "-f", str(tmp_path / "Files")]
    (tmp_path / "Files").write_text("FROM scratch\nCOPY . /all\n")
    build(*words, "-o", str(tmp_path / "out"), str(context))
    assert sorted(os.listdir(tmp_path / "out" / "all")) == [".dockerignore", "Dockerfile", "sub"]
    assert (tmp_path / "out" / "all" / "sub" / "kept").read_text() == "kept"
    for kind, member in (("tar", "all/sub/kept"), ("docker", "manifest.json"), ("oci", "index.json")):
        path = str(tmp_path / f"{kind}.tar")
        build(*words, "-t", "cli/files", "-o", f"type={kind},dest={path}", str(context))
        with tarfile.open(path) as tar:
            assert member in [name.removeprefix("./") for name in tar.getnames()]
    build("load", "-i", str(tmp_path / "docker.tar"))
    build("rmi", "cli/files")


def test_what_steps_are_given(engine, context, tmp_path):
    """Secrets, an agent, further contexts, the host's address; what is missing is told by the client or the daemon."""
    (tmp_path / "token").write_text("of a file")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "file").write_text("more")
    text = (
        b"FROM given\nRUN --mount=type=secret,id=a test $(cat /run/secrets/a | wc -c) = 9\n"
        b"RUN --mount=type=secret,id=b,env=B test $(echo $B | wc -c) = 12\n"
        b"RUN grep -E '^[0-9.]+[[:space:]]here$' /etc/hosts\n"
        b"RUN --mount=type=ssh test -S $SSH_AUTH_SOCK\nCOPY --from=more file /\nRUN test $(cat /file) = more\n"
    )
    gifts = [
        f"--secret=id=a,src={tmp_path}/token",
        "--secret=id=b,env=VALUE",
        "--build-context=given=docker-image://busybox",
    ]
    gifts += [
        f"--build-context=more={tmp_path}/more",
        f"--ssh=default={tmp_path}/agent",
        "--add-host=here:host-gateway",
    ]
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        done = engine.ketch("build", *gifts, "-f", "-", str(context), stdin=text, VALUE="in-variable")
    assert "of a file" not in done.err and "in-variable" not in done.err
    without = engine.ketch(
        "build", "-f", "-", str(context), stdin=b"FROM busybox\nCOPY --from=more file /\n", check=False
    )
    assert without.code == 1 and "more" in without.err
    text = b"FROM busybox\nRUN --mount=type=secret,id=x,required=true true\n"
    assert "secret x: not found" in engine.ketch("build", "-f", "-", str(context), stdin=text, check=False).err


def test_what_fails(engine, context):
    """The step, its last lines, the place in the Dockerfile, a sentence."""
    text = b"FROM busybox\nRUN echo on its way && exit 3\n"
    failed = engine.ketch("build", "-f", "-", str(context), stdin=text, check=False)
    assert failed.code == 1 and failed.out == ""
    end = failed.err[failed.err.index("------\n") :]
    assert re.sub(r"0\.\d+", "0", end) == (
        "------\n > [2/2] RUN echo on its way && exit 3:\n0 on its way\n------\n"
        "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo on its way && exit 3\n"
        "   3 |     \n--------------------\n"
        'ketch: process "/bin/sh -c echo on its way && exit 3" did not complete successfully: exit code: 3\n'
        "  `ketch build --shell-on-failure` opens a shell in what it left\n"
    )
    wrong = engine.ketch("build", "-f", "-", str(context), stdin=b"FROM busybox\nRUNN x\n", check=False)
    assert wrong.code == 1 and "unknown instruction: RUNN (did you mean RUN?)" in wrong.err
    checked = engine.ketch("build", "--check", "-f", "-", str(context), stdin=b"FROM busybox as b\n", check=False)
    assert checked.code == 1 and "WARNING: FromAsCasing" in checked.out
    assert "Check complete, no warnings found." in engine.ketch("build", "--check", str(context)).out


def test_contexts_from_elsewhere(engine, context, tmp_path):
    """An archive on standard input, a Dockerfile there, and a relay, through which the directory must be sent."""
    with tarfile.open(tmp_path / "context.tar.gz", "w:gz") as tar:
        tar.add(context, ".")
    archive = (tmp_path / "context.tar.gz").read_bytes()
    assert engine.ketch("build", "-q", "-", stdin=archive).out.startswith("sha256:")
    assert engine.ketch("build", "-q", "-", stdin=b"FROM busybox\nRUN true\n").out.startswith("sha256:")
    os.truncate(context / "secret", 50_000_000)  # it would take a while
    path = str(tmp_path / "relay")
    with relay.running(path, engine.socket):
        sent = engine.ketch(
            "-H", f"unix://{path}", "build", "--progress=plain", "-o", str(tmp_path / "out"), str(context)
        )
    assert "[first 4/4]" in sent.err and (tmp_path / "out" / "x" / "sub" / "kept").read_text() == "kept"


def test_on_a_terminal(engine, context):
    with engine.ketch.terminal("build", "--no-cache", str(context)) as shown:
        shown.expect(r"\[\+\] Building")
        shown.expect(r"FINISHED")
        shown.expect(r"=> \[first 3/4\] COPY \. /x +\d\.\ds")
        assert shown.wait() == 0


def test_cache_and_history(engine, context):
    engine.ketch("build", "-q", str(context))
    rows = [json.loads(line) for line in engine.ketch("build", "history", "ls", "--format", "json").out.splitlines()]
    assert rows[0]["Status"] == "Completed" and rows[0]["Name"] == "context"
    assert "Duration:" in engine.ketch("build", "history", "inspect").out
    again = engine.ketch("build", "history", "logs", rows[0]["Ref"][:12]).err
    assert "[first 4/4] RUN test ! -e /x/secret" in again and "writing image sha256:" in again
    engine.ketch("build", "history", "rm", rows[0]["Ref"])
    assert "no build" in engine.ketch("build", "history", "logs", rows[0]["Ref"], check=False).err
    assert rows[0]["Ref"] not in engine.ketch("build", "history", "ls").out
    listed = engine.ketch("builder", "du", "--verbose").out
    assert "Description:  [first 2/4] RUN echo hello nobody | tee /said" in listed
    pruned = engine.ketch("builder", "prune", "-af").out
    assert "Deleted build cache objects:" in pruned and "Total reclaimed space:" in pruned
    assert "RUN echo hello nobody" not in engine.ketch("builder", "du", "--verbose").out


def test_a_monorepo(engine, tmp_path):
    """Forty stages, of which many need others."""
    lines = ["FROM busybox AS base"]
    for number in range(1, 40):
        (tmp_path / f"package{number}").mkdir()
        (tmp_path / f"package{number}" / "source").write_text(f"{number}\n")
        needed = [f"COPY --from=stage{number // 2} /out /out"] if number > 1 else []
        lines += [f"FROM base AS stage{number}", *needed, f"COPY package{number} /source"]
        lines += [f"RUN mkdir -p /out && cat /source/source > /out/{number}"]
    lines += ["FROM scratch", *(f"COPY --from=stage{number} /out /all" for number in range(20, 40))]
    (tmp_path / "Dockerfile").write_text("\n".join(lines) + "\n")
    engine.ketch("build", "-q", "-o", str(tmp_path / "out"), str(tmp_path), timeout=60)
    found = {name: (tmp_path / "out" / "all" / name).read_text() for name in os.listdir(tmp_path / "out" / "all")}
    assert found == {str(number): f"{number}\n" for number in range(1, 40)}


@pytest.mark.parametrize(
    "flag,entitlement,command",
    [
        ("--security=insecure", "security.insecure", 'test -z "$(grep /proc/kcore /proc/mounts)"'),
        ("--network=host", "network.host", "test -e /sys/class/net/lo"),
    ],
)
def test_a_dockerfile_gets_no_more_than_is_allowed(engine, tmp_path, flag, entitlement, command):
    """A file that comes from anybody cannot give itself the host's network, or a privileged command."""
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN true\nRUN {flag} {command}\n")
    refused = engine.ketch("build", "-q", str(tmp_path), check=False)
    assert refused.code == 1 and f"{entitlement} is not allowed" in refused.err and ">>> RUN --" in refused.err
    engine.ketch("build", "-q", "--allow", entitlement, str(tmp_path))
    text = (tmp_path / "Dockerfile").read_text()
    status, lines = classic_builds.post(engine.socket, {"Dockerfile": text})
    assert status == 200 and f"{entitlement} is not allowed" in lines[-1]["error"]
    host = classic_builds.post(engine.socket, {"Dockerfile": text}, "networkmode=host")[1][-1]
    assert ("error" in host) == (entitlement != "network.host")


def test_a_shell_in_what_a_failed_step_left(engine, tmp_path):
    """With a terminal a shell opens there, with the step's variables and directory; without, an image is named."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nENV A=b\nWORKDIR /w\nRUN echo half > done; exit 3\n")
    told = engine.ketch("build", "--shell-on-failure", str(tmp_path), check=False)
    assert told.code == 1 and "exit code: 3" in told.err
    image = re.search(r"are image ([0-9a-f]{12});", told.err)[1]
    assert engine.ketch("run", "--rm", image, "sh", "-c", "cat done; echo $A").out == "half\nb\n"
    engine.ketch("rmi", image)
    before = engine.ketch("images", "-aq").out
    with engine.ketch.terminal("build", "--shell-on-failure", str(tmp_path)) as terminal:
        terminal.expect("its end ends the build")
        terminal.send("echo $(cat done)-$A-$PWD\n")
        terminal.expect("half-b-/w")
        terminal.send("exit\n")
        assert terminal.wait() == 1
    assert engine.ketch("images", "-aq").out == before
    fine = engine.ketch("build", "-q", "--shell-on-failure", str(tmp_path), "-f", "-", stdin=b"FROM busybox\n")
    assert fine.out.startswith("sha256:")
