"""Completion of command lines by bash, zsh and fish, with what the daemon has at this moment."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess

import pytest

from ketch.cli.guide import shells
from ketch.cli.guide.completion import Completions
from tests.support.engines import BIN, KETCH
from tests.support.terminal import Terminal
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only

KEEP = ("busybox", "sleep", "1000")


@pytest.fixture(scope="module")
def scene(engine):
    """Containers, images, networks and volumes with names of their own."""
    run = engine.ketch
    run("network", "create", "complnet")
    run("volume", "create", "complvol")
    run("tag", "busybox", "complimage:one")
    run("run", "-d", "--name", "complrunning", "--stop-signal", "KILL", *KEEP)
    run("create", "--name", "complcreated", *KEEP)
    yield engine
    engine.remove_all()
    run("volume", "rm", "complvol")
    run("rmi", "complimage:one")


@pytest.fixture(autouse=True)
def _clean():
    """(In place of the one that leaves no container to the next test.)"""


def answers(engine, *words: str) -> tuple[list[str], bool]:
    """What may stand for the last word, and whether a file may."""
    done = engine.ketch("__complete", "fish", *words, check=False)
    assert done.code in (0, 3), done.err
    return [line.partition("\t")[0] for line in done.out.splitlines()], done.code == 3


@pytest.mark.parametrize(
    ("words", "found", "files"),
    [
        (["sto"], ["stop"], False),
        (["net"], ["network"], False),
        (["network", "c"], ["create", "connect"], False),
        (["help", "volume", "b"], ["backup"], False),
        (["network", "nope", ""], [], False),
        (["import-docker", "--skip", "v"], ["volumes"], False),
        (["import-docker", "--volumes", ""], ["copy", "bind"], False),
        (["import-docker", ""], [], False),
        (["rm", "compl"], ["complcreated", "complrunning"], False),
        (["rm", "-f", "complcreated", "compl"], ["complrunning"], False),
        (["container", "stop", "compl"], ["complrunning"], False),
        (["start", "compl"], ["complcreated"], False),
        (["exec", "-it", "compl"], ["complrunning"], False),
        (["exec", "complrunning", ""], [], True),
        (["run", "--network", "compln"], ["complnet"], False),
        (["run", "--network=compln"], ["--network=complnet"], False),
        (["run", "-itv", "compl"], ["complvol"], False),
        (["run", "--rm", "-e", "A", "compl"], ["complimage:one"], False),
        (["run", "--rm", "complimage:one", "-"], [], True),
        (["run", "--cidfile", ""], [], True),
        (["run", "--hostn"], ["--hostname"], False),
        (["run", "--restart", "un"], ["unless-stopped"], False),
        (["ps", "--no"], ["--no-trunc"], False),
        (["ps", ""], [], False),
        (["cp", "complr"], ["complrunning:"], True),
        (["network", "connect", "compl"], ["complnet"], False),
        (["network", "connect", "complnet", "complr"], ["complrunning"], False),
        (["image", "rm", "complimage"], ["complimage:one"], False),
        (["volume", "rm", "compl"], ["complvol"], False),
        (["inspect", "complr"], ["complrunning"], False),
        (["build", "."], [], True),
        (["registry", "serve", "-"], [], True),
        (["-H", "unix:///nowhere", "rm", "compl"], [], False),
        (["-H=unix:///nowhere", "sto"], ["stop"], False),
        (["nope", ""], [], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_may_come_next(scene, words, found, files):
    if words[0] == "nope":
        assert scene.ketch("__complete", "fish", *words, check=False).code == 1
        return
    assert answers(scene, *words) == (found, files)


class Shell(Terminal):
    """An interactive shell whose prompt is ``$``, with the completion loaded."""

    def __init__(self, engine, *command: str) -> None:
        environment = {**engine.environment(), "PS1": "@ ", "HOME": engine.root, "HISTFILE": ""}
        environment["PATH"] = f"{BIN}:{environment.get('PATH', os.defpath)}"
        super().__init__(list(command), environment)


def complete(shell: Shell, line: str, expected: str) -> None:
    """Type a line, and wait for what the shell makes of it."""
    shell.send(line + "\t")
    shell.expect(expected)
    shell.send("\x15")  # the line goes


LINES = (
    ("ketch sto", "ketch stop"),
    ("ketch rm -f complr", "complrunning"),
    ("ketch rmi complimage:o", "complimage:one"),
    ("ketch run --network=compl", "--network=complnet"),
    ("ketch network conn", "connect"),
)


def test_bash_completes(scene):
    with Shell(scene, "bash", "--norc", "--noprofile", "-i") as shell:
        shell.expect("@ ")
        shell.send('source <(ketch completion bash); echo "loa""ded"\r')
        shell.expect("loaded")
        for line, expected in LINES:
            complete(shell, line, expected)
        complete(shell, "ketch load -i /etc/hostn", "/etc/hostname")


def test_zsh_completes(scene):
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    with Shell(scene, "zsh", "-f", "-i") as shell:
        shell.expect("@ ")
        shell.send('autoload -Uz compinit && compinit -u -D && source <(ketch completion zsh); echo "loa""ded"\r')
        shell.expect("loaded")
        for line, expected in LINES:
            complete(shell, line, expected)
        complete(shell, "ketch load -i /etc/hostn", "/etc/hostname")


def test_fish_completes(scene):
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    lines = [*LINES, ("ketch load -i /etc/hostn", "/etc/hostname")]
    asked = "; ".join(f"complete -C '{line}'" for line, _ in lines)
    environment = {**scene.environment(), "HOME": scene.root}
    environment["PATH"] = f"{BIN}:{environment.get('PATH', os.defpath)}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"ketch completion fish | source; {asked}"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    found = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert found == [expected.removeprefix("ketch ") for _, expected in lines]


def test_a_daemon_that_does_not_answer_holds_up_nobody(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/s")
        silent.listen()
        words = [KETCH, "-H", f"unix://{tmp_path}/s", "__complete", "bash", "rm", ""]
        done = subprocess.run(words, capture_output=True, timeout=patient(60), check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, b"")


def test_unknown_shells_are_refused():
    done = subprocess.run([KETCH, "completion", "tcsh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "use bash, fish or zsh" in done.stderr


@pytest.mark.parametrize(("shell", "line"), [("bash", "good"), ("zsh", "good:an?image"), ("fish", "good\tan?image")])
def test_names_that_a_shell_would_carry_out_are_left_out(shell, line):
    """A daemon elsewhere may give any: bash puts them on the line as they are, and an end of a line makes two."""
    bad = ("`id`", "$(id)", "a;b", "a b", "a\nb", "a\\b", "'a'", "~root", "a\x1bb", "\u00e4")
    found = Completions({**dict.fromkeys(bad, ""), "good": "an\nimage"})
    assert shells.lines(shell, "", found) == [line]
