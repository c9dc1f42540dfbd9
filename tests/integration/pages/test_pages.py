"""The commands of the documents, in the order in which they stand there, by a user of a machine of one's own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import peers
from tests.support.engines import BIN, NOWHERE
from tests.support.leaks import Census
from tests.support.programs import need
from tests.support.run import session
from tests.support.source.pages import Block, blocks, with_commands
from tests.support.source.prepared import PAGES, Prepared
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.ketch_only

NAME = f"{session.SESSION}m"
_MACHINE = f"""
    set -e
    mount --make-rprivate /
    for directory in /run /var/lib /var/log; do mount -t tmpfs tmpfs $directory; done
    ip link set lo up
    ketch daemon start --cgroup-parent /{NAME}
    ketch image bootstrap -q busybox
    echo ready
    read -r end
    ketch daemon stop
"""
_PROLOGUE = """
    set -auo pipefail
    failed() { echo "a command of $PAGE:$at failed" >&2; exit 1; }
    trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
"""
PROGRAMS = re.compile(r"\b(curl|docker|ip|jq|sqlite3|strace)\b (?!=)")
_UNTIL = "until {}; do sleep 0.05; kill -0 $that || failed; done"


class Machine:
    """Mount and network namespaces in which the default directories, socket and bridge are the test's own."""

    def __init__(self) -> None:
        need("script")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "DOCKER_HOST"},
            **NOWHERE,
            "PATH": f"{BIN}:{peers.path()}",
            session.MARK: NAME,
        }
        self._shell = subprocess.Popen(
            ["unshare", "-m", "-n", "sh", "-c", _MACHINE],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._shell.stdout
        for line in self._shell.stdout:
            if line == "ready\n":
                return
        raise AssertionError("no machine")

    def run(self, script: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Have a shell there run something, in an empty home directory."""
        home = {"HOME": str(place), "DOCKER_CONFIG": str(place / ".docker")}
        return subprocess.run(
            ["nsenter", "-m", "-n", "-t", str(self._shell.pid), f"--wd={place}", "bash", "-c", script],
            env={**self.environment, "DOCKER_HOST": "unix:///var/run/ketch.sock", **home, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patient(50),
            check=False,
        )

    def close(self) -> None:
        self._shell.communicate("\n", timeout=patient(30))


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    need("busybox")
    before = Census.take(NAME)
    one = Machine()
    try:
        yield one
    finally:
        one.close()
        left = before.leaks()
        session.clear(NAME)
    assert left == []


def shell_of(block: Block, prepared: Prepared) -> str:
    """The block's commands for a shell, preceded by the number of its line."""
    lines = [f"at={block.line}"]
    if block.is_python:
        return f"{lines[0]}\npython3 - <<'END'\n{block.text}\nEND\ntest $? = 0 || failed\n"
    if block.is_session:
        command, _, answer = block.text.removeprefix("$ ").partition("\n")
        return f"{lines[0]}\n{command} >answer 2>&1 || failed\ndiff answer - <<'END' || failed\n{answer}\nEND\n"
    for command in block.commands():
        after = [until for begin, until in prepared.lasting.items() if command.startswith(begin)]
        if command.startswith(tuple(prepared.elsewhere)):
            continue
        if after:
            lines.append(
                f"script -qefc {shlex.quote(command)} lasting >/dev/null &\nthat=$!; {_UNTIL.format(after[0])}"
            )
        elif command.startswith("ketchd "):  # beside the one that runs its settings alone are tried
            lines.append(f"{command.partition(' #')[0]} --validate || failed")
        elif " -it " in command:  # a person at a terminal, who leaves
            lines.append(f"echo exit | script -qefc {shlex.quote(command)} /dev/null || failed")
        else:
            lines.append(f"{{ {command}\n}} || failed")
    return "\n".join(lines) + "\n"


def script_of(page: str) -> str:
    """All that is run of a page, for a shell."""
    prepared = PAGES.get(page, Prepared())
    parts = [shell_of(block, prepared) for block in blocks(page) if block.runs]
    return "".join(part for part in parts if "\n" in part.strip())


SCRIPTS = {page: script for page in with_commands() if (script := script_of(page))}


@pytest.mark.parametrize("page", SCRIPTS)
def test_commands(machine: Machine, tmp_path: Path, page: str):
    for program in PROGRAMS.findall(SCRIPTS[page]):
        peers.need() if program == "docker" else need(program)
    before = PAGES.get(page, Prepared()).before or ":"
    os.makedirs(tmp_path / ".venv")
    os.symlink(BIN, tmp_path / ".venv/bin")
    if not peers.MISSING:
        os.makedirs(tmp_path / ".docker")
        os.symlink(peers.plugins(), tmp_path / ".docker/cli-plugins")
    done = machine.run(f"{_PROLOGUE}\nat=preparation\n{{ {before}\n}} || failed\n{SCRIPTS[page]}", tmp_path, PAGE=page)
    machine.run("ketch rm -fv $(ketch ps -aq); ketch system prune -f --volumes", tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
