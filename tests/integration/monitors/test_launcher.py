"""The launcher: cgroups of it and the monitors, and errors of its start."""

from __future__ import annotations

import os
import signal
import subprocess

import aiohttp
import pytest

from tests.support.boxes.crash_box import read, running
from tests.support.engines import BIN
from tests.support.leaks import cgroups
from tests.support.rawapi import Api
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only


def launcher_of(engine) -> int:
    children = read(f"/proc/{engine.process.pid}/task/{engine.process.pid}/children").split()
    (one,) = [int(c) for c in children if read(f"/proc/{int(c)}/cmdline").startswith(b"ketch-launcher")]
    return one


def cgroups_of(pid: int) -> set[str]:
    return {line.split(":", 2)[2] for line in read(f"/proc/{pid}/cgroup").decode().splitlines()}


def test_monitors_live_beside_the_containers(own_engine):
    """Whoever ends the cgroup of ketchd, in whatever hierarchy, ends neither monitors nor containers."""
    own_engine.start()
    own_engine.add_busybox()
    own_engine.docker("run", "-d", "--name", "one", "--memory", "16m", "busybox", "sleep", "12345")
    one = own_engine.inspect("one")
    monitor = int(read(f"{own_engine.exec_root}/run/{one['Id']}/monitor.pid"))
    place = f"/{own_engine.name}/monitors"
    assert cgroups_of(launcher_of(own_engine)) == {place}
    assert cgroups_of(monitor) == {place}
    assert cgroups_of(one["State"]["Pid"]) <= {place, f"/{own_engine.name}/{one['Id']}"}
    assert not cgroups_of(own_engine.process.pid) & cgroups_of(one["State"]["Pid"])
    # An exec'd process is the container's, whoever has forked it.
    own_engine.docker("exec", "-d", "one", "sleep", "54321")
    assert len(own_engine.docker("top", "one").out.splitlines()) == 3
    own_engine.stop(signal.SIGKILL)
    own_engine.start()
    assert running(monitor)
    own_engine.docker("rm", "-f", "one")
    own_engine.stop()
    assert [path for path in cgroups(own_engine.name) if os.path.basename(path) == own_engine.name] == []


def refused(engine, *prefix: str, **environment: str) -> str:
    """What ketchd says when it does not start."""
    done = subprocess.run(
        [*prefix, *engine.command()],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=patient(30),
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def hide(library: str) -> str:
    """A shell command that makes that library empty in the current mount namespace."""
    listed = subprocess.run(
        ["sh", "-c", f"ldconfig -p | sed -n 's|^[[:space:]]*{library} .*=> ||p'"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout, f"this machine has no {library}"
    return "; ".join(f"mount --bind /dev/null $(readlink -f {path})" for path in listed.stdout.split())


@pytest.mark.parametrize(
    ("hidden", "packages"),
    [
        (["libseccomp.so.2"], "libseccomp2"),
        (["libnftables.so.1"], "libnftables1; --bridge none does without networks"),
        (
            ["libseccomp.so.2", "libnftables.so.1", "libstdc++.so.6"],
            "libseccomp2 libnftables1 libstdc++6; --bridge none",
        ),
    ],
)
def test_libraries_that_are_missing(own_engine, hidden, packages):
    """All are named at once, with the packages that have them, and nothing has been made."""
    said = refused(own_engine, "unshare", "-m", "sh", "-c", "; ".join([*map(hide, hidden), 'exec "$@"']), "sh")
    first, second, *rest = said.splitlines()
    assert rest == []
    assert first.startswith("ketchd: start ketchd: it cannot load the librar")
    assert all(library in first for library in hidden)
    assert packages in second
    assert not os.path.exists(f"{own_engine.data_root}/ketch.db")


def test_broken_package(own_engine):
    """One sentence, too, for a package of Python that cannot be imported."""
    hidden = f'mount --bind /dev/null {aiohttp.__file__}; exec "$@"'
    said = refused(own_engine, "unshare", "-m", "sh", "-c", hidden, "sh")
    first, second = said.splitlines()
    assert first.startswith("ketchd: start ketchd: cannot import name ")
    assert "install Ketch anew" in second


def test_launcher_that_cannot_be_replaced(own_engine):
    """Later it is each start that fails, with the reason, while ketchd and its containers go on."""
    command = own_engine.command()
    own_engine.command = lambda: ["unshare", "-m", *command]
    own_engine.start()
    own_engine.add_busybox()
    own_engine.docker("run", "-d", "--name", "other", "busybox", "sleep", "12345")
    own_engine.docker("create", "--name", "one", "busybox", "true")
    enter = ["nsenter", "-m", "-t", str(own_engine.process.pid), "sh", "-c"]
    subprocess.run([*enter, hide("libseccomp.so.2")], check=True)
    launcher = launcher_of(own_engine)
    os.kill(launcher, signal.SIGKILL)
    until(lambda: not running(launcher), "it does not die")
    for _ in range(2):
        status, answer = Api(own_engine.socket)("POST", "/containers/one/start")
        assert status == 500
        assert "libseccomp" in answer["message"]
    assert own_engine.docker("exec", "other", "echo", "well").out == "well\n"
    subprocess.run([*enter, hide("libseccomp.so.2").replace("mount --bind /dev/null", "umount")], check=True)
    Api(own_engine.socket).must("POST", "/containers/one/start")


@pytest.mark.parametrize("value", ["1", "2"])
def test_no_executables_in_memory(own_engine, value):
    """vm.memfd_noexec belongs to a pid namespace: with 1 a program has to ask for it, with 2 there are none."""
    if not os.path.exists("/proc/sys/vm/memfd_noexec"):
        pytest.skip("Linux 6.3 has it first")
    settle = f'echo {value} >/proc/sys/vm/memfd_noexec; exec "$@"'
    prefix = ("unshare", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", settle, "sh")
    if value == "2":
        assert "vm.memfd_noexec" in refused(own_engine, *prefix)
        return
    own_engine.prefix = []
    command = own_engine.command()
    with open(own_engine.log_path, "ab") as log:
        process = subprocess.Popen([*prefix, *command], stdout=log, stderr=log)
    try:
        until(own_engine.answers, lambda: f"it does not answer:\n{own_engine.log()}")
        (inner,) = read(f"/proc/{process.pid}/task/{process.pid}/children").split()
        os.kill(int(inner), signal.SIGTERM)
        process.wait(patient(30))
    finally:
        process.kill()
        process.wait()


def test_interpreter_that_does_not_start(own_engine, tmp_path):
    """A library that the launcher's interpreter needs is not to be loaded: the loader says which."""
    broken = tmp_path / "libm.so.6"
    broken.write_bytes(b"not a library")
    linked = subprocess.run(
        ["ldd", os.path.realpath(f"{BIN}/python")], capture_output=True, text=True, check=True
    ).stdout
    if "libm.so.6" not in linked:
        pytest.skip("this interpreter needs no libm")
    # ketchd itself is started without it.
    code = "import os, sys; os.environ['LD_LIBRARY_PATH'] = sys.argv.pop(1); from ketch.daemon.main import main; main()"
    done = subprocess.run(
        [f"{BIN}/python", "-c", code, str(tmp_path), *own_engine.command()[1:]],
        capture_output=True,
        text=True,
        timeout=patient(30),
        check=False,
    )
    assert done.returncode == 1
    assert "launcher" in done.stderr
    assert "libm.so.6" in done.stderr
