"""The container that a private engine makes ahead, for whoever wants another one like the last."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import select
import signal
import socket

import pytest

import ketch
from ketch import aio
from ketch.aio import options
from ketch.aio.waiting import finished
from ketch.engine.monitors import run_directory
from ketch.errors import NotFound, ProgramNotFound
from tests.support.programs import need
from tests.support.rawapi import connected
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    need("busybox")
    with ketch.Engine(tmp_path_factory.mktemp("ahead")) as engine:
        engine.images.bootstrap("busybox")
        yield engine


def state(python) -> str:
    return python.access.state


def with_monitor(python, mark: str = "") -> list[str]:
    """The ids of containers that have a monitor; of those whose bundle has such a word."""
    place, found = state(python), []
    for one in os.listdir(f"{place}/run/run"):
        with contextlib.suppress(FileNotFoundError):
            bundle = pathlib.Path(f"{place}/data/containers/{one}/bundle/config.json").read_text(encoding="utf-8")
            if mark in bundle and os.path.exists(f"{place}/run/run/{one}/monitor.pid"):
                found.append(one)
    return found


def waits(run_dir: str) -> bool:
    """Whether a monitor has said that its container is made; stopped earlier, it would never have been."""
    fd = run_directory.dial(run_dir)
    if fd < 0:
        return False
    with socket.socket(fileno=fd) as monitor:
        monitor.settimeout(patient(20))
        try:
            said = monitor.recv(1 << 16)
        except ConnectionResetError:
            return False  # one that is given back
    return bool(said) and json.loads(said)["state"] == "created"


def made(python, mark: str = "") -> str:
    """The container that is made ahead, when it waits for its program; the one whose bundle has that word."""
    found: list[str] = []

    def is_made() -> bool:
        known = listed(python)
        found[:] = [one for one in with_monitor(python, mark) if one not in known]
        return len(found) == 1 and waits(f"{state(python)}/run/run/{found[0]}")

    until(is_made, "a container is made ahead")
    return found[0]


def processes(python, ident: str) -> tuple[int, int]:
    """A container's monitor and its first process."""
    with open(f"{state(python)}/run/run/{ident}/monitor.pid", encoding="ascii") as f:
        monitor = int(f.read())
    children: list[str] = []

    def has_one() -> bool:  # on cgroup v2 the one that has forked it is a child for a moment, too
        with open(f"/proc/{monitor}/task/{monitor}/children", encoding="ascii") as f:
            children[:] = f.read().split()
        return len(children) == 1

    until(has_one, "the first process is there")
    return monitor, int(children[0])


def listed(python) -> list[str]:
    http = finished(python.access.http())
    return [one["Id"] for one in finished(http.json("GET", "/containers/json", {"all": True}))]


def name(python, **options) -> str:
    """The id, as its hostname, of the container that runs."""
    return python.run("busybox", ["hostname"], **options).text.strip()


def test_the_next_one_is_there(python):
    """It is in no list; who takes it has its own program, arguments and exit code; input too."""
    python.run("busybox", ["true"])
    for script, code in (("hostname; exit 3", 3), ("hostname; cat /none", 1)):
        ahead = made(python)
        assert listed(python) == []
        result = python.run("busybox", script)
        assert (result.text.strip(), result.exit_code) == (ahead[:12], code)
        assert result.duration > 0
    env = {"I": "input"}
    assert python.run("busybox", ["cat"], input="input", env=env).text == "input"
    ahead = made(python, '"I=input"')
    assert python.run("busybox", ["sh", "-c", "cat; hostname"], input="in", env=env).text == f"in{ahead[:12]}\n"


def test_it_is_of_the_same_kind(python):
    """Another one is made anew: another environment, other limits, another image of the same name."""
    python.run("busybox", ["true"], env={"A": "a"})
    made(python, '"A=a"')
    assert python.run("busybox", "hostname; echo $A", env={"A": "b"}).text.split()[1:] == ["b"]
    made(python, '"A=b"')
    with python.container("busybox", ["sleep", "1000"]) as box:
        box.put("/new", b"new")
        box.commit("busybox:other")
    assert python.run("busybox:other", ["cat", "/new"], env={"A": "b"}).text == "new"
    python.images.tag("busybox:other", "again")
    python.run("again", ["true"], env={"A": "again"})
    made(python, '"A=again"')
    python.images.tag("busybox:latest", "again")
    assert python.run("again", ["cat", "/new"], env={"A": "again"}).exit_code == 1


def test_what_is_not_made_ahead(python, tmp_path):
    """Files of this machine and names are of the moment."""
    name(python, memory="64m", env={"M": "n"})
    made(python, '"M=n"')
    for given in ({"mounts": {"/v": str(tmp_path)}}, {"mounts": {"/v": ketch.Volume()}}, {"name": "web"}):
        name(python, **given)
        (tmp_path / "file").write_text("1", encoding="ascii")
    assert python.run("busybox", ["cat", "/v/file"], mounts={"/v": str(tmp_path)}).text == "1"


def test_a_with_block(python):
    """It is taken as well; it has input, stays when its program has ended, and its output and its end are known."""
    with python.container("busybox", env={"W": "x"}) as box:
        assert box.exec(["hostname"]).text.strip() == box.id[:12]
    for script, code in (("echo said; exit 3", 3), ("cat /none", 1)):
        ahead = made(python, '"W=x"')
        with python.container("busybox", script, env={"W": "x"}) as box:
            assert box.id == ahead
            assert listed(python) == [ahead]
            assert (box.wait(), box.inspect()["State"]["Status"]) == (code, "exited")
            assert (box.logs().stdout == b"said\n") is (code == 3)
            box.start()  # anew, as any other
            assert box.wait() == code
        assert listed(python) == []
    ahead = made(python, '"W=x"')
    with python.container("busybox", ["cat"], env={"W": "x"}) as box, box.attach() as program:
        program.write("input")
        assert (box.id, program.read().data) == (ahead, b"input")


def run_once(python, env: dict[str, str]) -> str:
    return name(python, env=env)


def start_once(python, env: dict[str, str]) -> str:
    with python.container("busybox", env=env) as box:
        return box.exec(["hostname"]).text.strip()


@pytest.mark.parametrize("victim", ["monitor", "first process"])
@pytest.mark.parametrize("use", [run_once, start_once])
def test_one_that_is_killed(python, use, victim):
    """Whoever comes next gets another one."""
    env = {"B": f"{use.__name__} {victim}"}
    use(python, env)
    ahead = made(python, f'"B={env["B"]}"')
    monitor, first = processes(python, ahead)
    os.kill(monitor if victim == "monitor" else first, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{first}/root/bin"), f"the {victim} has gone")
    assert use(python, env) not in ("", ahead[:12])
    until(lambda: not os.path.exists(f"{state(python)}/data/containers/{ahead}"), "its files go")


@pytest.mark.parametrize("victim", ["client", "monitor", "session", "daemon"])
def test_one_that_is_taken(tmp_path, victim):
    """While it is started, its client, its monitor, ... ends: nothing is left, and the next one works."""
    need("busybox")
    with ketch.Engine(tmp_path) as python:
        python.images.bootstrap("busybox")
        env = {"V": victim}
        start_once(python, env)
        ahead = made(python, f'"V={victim}"')
        monitor, first = processes(python, ahead)
        daemon = int((tmp_path / "ketchd.pid").read_text(encoding="ascii"))
        process = os.pidfd_open(daemon)
        os.kill(monitor, signal.SIGSTOP)  # so that it can be told to start, and does not
        body = options.box_body("busybox", ["sleep", "1000"], {"env": env}, one_input=False)
        with connected(f"{tmp_path}/ketch.sock") as client:
            payload = json.dumps(body).encode()
            head = f"POST /ketch/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n"
            headers = "".join(f"{key}: {value}\r\n" for key, value in python.access._http.headers.items())
            client.sendall(f"{head}{headers}Content-Type: application/json\r\n\r\n".encode() + payload)
            until(lambda: listed(python) == [ahead], "it is taken")
            if victim == "client":
                client.close()
            elif victim == "session":
                python.access.forget()
            else:
                os.kill(monitor if victim == "monitor" else daemon, signal.SIGKILL)
            if victim == "daemon":
                select.select([process], [], [], patient(20))  # its connections are closed then
            if victim != "monitor":
                os.kill(monitor, signal.SIGCONT)
            else:
                client.settimeout(patient(20))
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 500 ")
        until(lambda: listed(python) == [], "it is removed")
        until(lambda: not os.path.exists(f"/proc/{first}/root/bin"), "its processes end")
        assert start_once(python, env) not in ("", ahead[:12])
        until(lambda: not os.path.exists(tmp_path / "data/containers" / ahead), "its files go")
        os.close(process)


async def test_a_cancelled_task(python):
    """Wherever it is cancelled, the start is undone, also that of one that was made ahead."""
    async with aio.Engine(state(python)) as engine:
        for number in range(40):
            env = {"T": "cancelled"}
            if number % 2:  # else it is being made still, or there is none
                await asyncio.to_thread(made, python, '"T=cancelled"')
            task = asyncio.create_task(engine.container("busybox", env=env).start())
            await asyncio.sleep(number % 8 * 0.001)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert listed(python) == []
            else:
                await task.result().remove()
            async with engine.container("busybox", env=env) as box:
                assert (await box.exec(["echo", "well"])).text == "well\n"


def test_a_program_that_cannot_be_started(python):
    """Of one that was made ahead, as of any other; nothing is left."""
    name(python, env={"C": "d"})
    made(python, '"C=d"')
    with pytest.raises(ProgramNotFound, match="nope"):
        python.run("busybox", ["nope"], env={"C": "d"})
    assert listed(python) == []
    start_once(python, {"C": "e"})
    made(python, '"C=e"')
    box = python.container("busybox", ["nope"], env={"C": "e"})
    with pytest.raises(ProgramNotFound, match="nope"):
        box.start()
    assert (box.id, listed(python)) == ("", [])
    with pytest.raises(NotFound):
        python.run("busybox", ["true"], env={"C": "d"}, network="none-such")


def test_nothing_is_left(tmp_path):
    """Not of an engine that ends, and not of one that is killed: the next one finds it."""
    place = tmp_path / "state"
    for kill in (True, False):
        with ketch.Engine(place) as engine:
            if not engine.images.exists("busybox"):
                engine.images.bootstrap("busybox")
            until(lambda: os.listdir(place / "data/containers") == [], "nothing is left of the last one")
            engine.run("busybox", ["true"])
            ahead = made(engine)
            if kill:
                os.kill(int((place / "ketchd.pid").read_text(encoding="ascii")), signal.SIGKILL)
                until(lambda: with_monitor(engine) == [], "the monitor takes it back")
        if not kill:
            until(lambda: not os.path.exists(place / "data/containers" / ahead), "its files go")  # noqa: B023
    assert not os.path.exists(place / "data/lost")


def test_an_image_with_volumes(python):
    """Nothing is made ahead for it: its volumes would be in the list; each run has its own, which goes with it."""
    python.images.build(dockerfile="FROM busybox\nVOLUME /v\n", tag="voluminous")
    http = finished(python.access.http())
    for _ in range(3):
        assert python.run("voluminous", "ls /v; touch /v/file").text == ""
        until(lambda: not finished(http.json("GET", "/volumes"))["Volumes"], "its volume is removed")
    python.images.remove("voluminous")


def test_long_arguments(python):
    """They are counted as they are sent: six bytes for a letter that is not ASCII."""
    env = {"L": "long"}
    python.run("busybox", ["true"], env=env)
    made(python, '"L=long"')
    letters = "\N{CYRILLIC SMALL LETTER YA}" * 22_000
    assert python.run("busybox", ["sh", "-c", 'echo "$1" | wc -c', "sh", letters], env=env).text == "44001\n"
