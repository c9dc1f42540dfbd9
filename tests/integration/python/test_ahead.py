"""The container that a private engine makes ahead, for whoever wants another one like the last."""

from __future__ import annotations

import os
import signal

import pytest

import ketch
from ketch.aio.waiting import finished
from ketch.errors import NotFound, ProgramNotFound
from tests.support.programs import need
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    need("busybox")
    with ketch.Engine(tmp_path_factory.mktemp("ahead")) as engine:
        engine.images.bootstrap("busybox")
        yield engine


def state(python) -> str:
    return python.access.state


def waiting(python) -> list[str]:
    """The ids of containers that have a monitor."""
    place = f"{state(python)}/run/run"
    return [one for one in os.listdir(place) if os.path.exists(f"{place}/{one}/monitor.pid")]


def made(python, after: str = "") -> str:
    """The container that is made ahead, when its first process waits; ``after`` this one, which is of another kind."""
    until(lambda: len(waiting(python)) == 1 and waiting(python) != [after], "a container is made ahead")
    return waiting(python)[0]


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
    ahead = made(python)
    assert python.run("busybox", ["cat"], input="input").text == "input"
    ahead = made(python, ahead)
    assert python.run("busybox", ["sh", "-c", "cat; hostname"], input="in").text == f"in{ahead[:12]}\n"


def test_it_is_of_the_same_kind(python):
    """Another one is made anew: another environment, other limits, another image of the same name."""
    python.run("busybox", ["true"])
    ahead = made(python)
    assert python.run("busybox", "hostname; echo $A", env={"A": "b"}).text.split()[1:] == ["b"]
    ahead = made(python, ahead)
    with python.container("busybox", ["sleep", "1000"]) as box:
        box.put("/new", b"new")
        box.commit("busybox:other")
    assert python.run("busybox:other", ["cat", "/new"], env={"A": "b"}).text == "new"
    python.images.tag("busybox:other", "again")
    python.run("again", ["true"])
    made(python)
    python.images.tag("busybox:latest", "again")
    assert python.run("again", ["cat", "/new"]).exit_code == 1


def test_what_is_not_made_ahead(python, tmp_path):
    """Files of this machine and names are of the moment."""
    name(python, memory="64m")
    made(python)
    for options in ({"mounts": {"/v": str(tmp_path)}}, {"mounts": {"/v": ketch.Volume()}}, {"name": "web"}):
        name(python, **options)
        (tmp_path / "file").write_text("1", encoding="ascii")
    assert python.run("busybox", ["cat", "/v/file"], mounts={"/v": str(tmp_path)}).text == "1"


def test_one_that_is_killed(python):
    """Whoever comes next gets another one."""
    for victim in ("monitor", "first process"):
        name(python, env={"B": "c"})
        ahead = made(python)
        with open(f"{state(python)}/run/run/{ahead}/monitor.pid", encoding="ascii") as f:
            pid = int(f.read())
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            first = int(f.read())
        os.kill(pid if victim == "monitor" else first, signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{first}/root/bin"), f"the {victim} has gone")  # noqa: B023
        assert name(python, env={"B": "c"}) not in ("", ahead[:12])


def test_a_program_that_cannot_be_started(python):
    """Of one that was made ahead, as of any other; nothing is left."""
    name(python, env={"C": "d"})
    made(python)
    with pytest.raises(ProgramNotFound, match="nope"):
        python.run("busybox", ["nope"], env={"C": "d"})
    assert listed(python) == []
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
                until(lambda: waiting(engine) == [], "the monitor takes it back")
        if not kill:
            until(lambda: not os.path.exists(place / "data/containers" / ahead), "its files go")  # noqa: B023


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
    python.run("busybox", ["true"])
    made(python)
    letters = "\N{CYRILLIC SMALL LETTER YA}" * 22_000
    assert python.run("busybox", ["sh", "-c", 'echo "$1" | wc -c', "sh", letters]).text == "44001\n"
