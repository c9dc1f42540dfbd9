"""Contexts: the same store for ketch and docker, with the same answers."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from tests.support import peers
from tests.support.engines import KETCH
from tests.support.tls import certificate

# What both clients do one after the other; CLI stands for the client.
SCRIPT = """
CLI context create first --docker host=tcp://127.0.0.1:1 --description 'a b'; echo $?
CLI context create first --docker host=unix:///x; echo $?
CLI context create second --docker host=ssh://a@b; echo $?
CLI context create x --docker host=unix:///x; echo $?
CLI context create default --docker host=unix:///x; echo $?
CLI context create tls --docker host=tcp://h:1,ca=ca,cert=cert,key=key,skip-tls-verify=true; echo $?
CLI context create third --from tls; echo $?
CLI context create fourth --docker from=second; echo $?
CLI context use first; echo $?
CLI context use nope; echo $?
CLI context show
CLI context ls
CLI context ls -q
CLI context ls --format json
CLI context inspect
CLI context inspect tls second nope; echo $?
CLI context inspect -f '{{.Name}} {{.Endpoints.docker.Host}}' second
CLI context rm first; echo $?
CLI context rm -f nope default; echo $?
CLI context update second --description changed; echo $?
CLI context update tls --docker host=unix:///y; echo $?
CLI context export third; echo $?
CLI context export third; echo $?
CLI context import fifth third.dockercontext; echo $?
CLI context inspect fifth second tls
CLI context rm -f first second; echo $?
CLI context show
CLI context use third >/dev/null; DOCKER_HOST=unix:///z CLI context show
DOCKER_CONTEXT=fourth CLI context show
DOCKER_CONTEXT=nope CLI ps; echo $?
CLI -c fourth -H unix:///x ps; echo $?
CLI context use default; CLI context show; CLI context rm fourth; CLI context ls -q
"""


def answers(client: str, store, script: str = SCRIPT) -> list[str]:
    """What a client says, without what is named after it, and its way to say that something is wrong."""
    store.mkdir()
    certificate(store, "authority")
    certificate(store, "client", signed_by="authority")
    for ours, name in (("authority.pem", "ca"), ("client.pem", "cert"), ("client.key", "key")):
        (store / ours).rename(store / name)
    environment = {**os.environ, "DOCKER_CONFIG": str(store), "CLIENT": client}
    for name in ("DOCKER_HOST", "KETCH_HOST", "DOCKER_CONTEXT"):
        environment.pop(name, None)
    done = subprocess.run(
        ["sh", "-c", script.replace("CLI ", '"$CLIENT" ')],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=store,
        check=True,
    )
    text = done.stdout.replace(str(store), "STORE")
    text = re.sub(r"unix:///var/run/(docker|ketch)\.sock", "SOCKET", text)
    return [re.sub(r"^(ketch|Failed to initialize): ", "", line) for line in text.splitlines()]


def comparable(lines: list[str]) -> list[str]:
    """The lines without the order of a line's JSON, widths of columns and words before a sentence."""
    result = []
    for line in lines:
        one = line
        if one.startswith("{"):
            one = json.dumps(json.loads(one), sort_keys=True)
        one = one.removeprefix("unable to resolve docker endpoint: ").replace(" environment variable", "")
        result.append(" ".join(one.split()))
    return [line for line in result if "does not exist" not in line and "file exists" not in line.lower()]


def test_answers_are_dockers(tmp_path):
    if peers.MISSING:
        pytest.skip(peers.MISSING)
    ours, theirs = answers(KETCH, tmp_path / "ours"), answers(peers.docker(), tmp_path / "theirs")
    assert comparable(ours) == comparable(theirs)


def test_one_store_for_both(tmp_path):
    if peers.MISSING:
        pytest.skip(peers.MISSING)
    script = """
    "$DOCKER" context create made --docker host=unix:///by/docker >/dev/null 2>&1
    "$DOCKER" context use made >/dev/null 2>&1
    CLI context show; CLI context inspect -f '{{.Endpoints.docker.Host}}'; CLI ps
    CLI context create ours --docker host=tcp://127.0.0.1:1,ca=ca --description 'by us' >/dev/null 2>&1
    CLI context use ours >/dev/null 2>&1
    "$DOCKER" context show; "$DOCKER" context inspect -f '{{json .TLSMaterial}} {{.Name}}'
    "$DOCKER" context export made - >made; CLI context import again made; CLI context inspect -f '{{.Name}}' again
    CLI context export ours - | "$DOCKER" context import theirs -; "$DOCKER" context ls -q
    """
    script = script.replace('"$DOCKER"', f'"{peers.docker()}"')
    assert answers(KETCH, tmp_path / "store", script) == [
        "made",
        "unix:///by/docker",
        "cannot connect to the daemon at unix:///by/docker: No such file or directory",
        "  is ketchd running? start it with: ketch daemon start",
        "ours",
        '{"docker":["ca.pem"]} ours',
        "again",
        'Successfully imported context "again"',
        "again",
        "theirs",
        'Successfully imported context "theirs"',
        "again",
        "default",
        "made",
        "ours",
        "theirs",
    ]


def test_what_else_is_in_the_store_is_in_nobodys_way(tmp_path):
    """Half of a context, and what other endpoints than the daemon's have there, as docker's had for Kubernetes."""
    script = """
    mkdir -p contexts/meta/half; touch contexts/meta/note
    CLI context create one --docker host=tcp://h:1,ca=ca >/dev/null 2>&1
    for id in contexts/tls/*; do mkdir $id/kubernetes; touch $id/kubernetes/ca.pem; done
    for id in contexts/meta/*; do [ ! -e $id/meta.json ] || touch $id/note; done
    CLI context ls -q
    CLI context update one --docker host=tcp://h:2 >/dev/null 2>&1; echo $?; ls contexts/tls/*
    CLI context rm one; echo $?; ls contexts/tls contexts/meta
    """
    lines = answers(KETCH, tmp_path / "store", script)
    assert lines == [
        "default",
        "one",
        "0",
        "kubernetes",
        "one",
        "0",
        "contexts/meta:",
        "half",
        "note",
        "",
        "contexts/tls:",
    ]


def test_keys_are_for_their_owner_alone(tmp_path):
    answers(KETCH, tmp_path / "store", "CLI context create one --docker host=tcp://h:1,ca=ca,cert=cert,key=key")
    found = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store/contexts/tls").rglob("*.pem")}
    assert found == {"ca.pem": 0o600, "cert.pem": 0o600, "key.pem": 0o600}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("CLI context create one --docker nope=1", "--docker: `nope=1`: unrecognized config key"),
        ("CLI context create one --docker ca=ca", "--docker: it names no host"),
        ("CLI context create one --docker host=tcp://a,ca=none", "--docker: open `none`: No such file or directory"),
        (
            "CLI context create one --docker host=tcp://a,ca=key",
            "read the certificates of the daemon's clients (key): ",
        ),
        ("CLI context import one ca", "import `ca`: not the archive of a context"),
        ("CLI context update one --description x", 'context "one": context not found: open '),
        ("echo nonsense >config.json; CLI ps", "read `STORE/config.json`: "),
        ("CLI -H tcp://h:x ps", "host `tcp://h:x`: `x` is no port"),
        ("CLI -H gopher://h ps", "host `gopher://h`: unknown scheme"),
        ("CLI -H ssh://u:p@h ps", "host `ssh://u:p@h`: not an address of ssh"),
    ],
)
def test_one_sentence_for_what_is_wrong(tmp_path, script, said):
    lines = answers(KETCH, tmp_path / "store", script + "; echo $?")
    assert lines[0].startswith(said), lines
    assert lines[-1] == "1"
