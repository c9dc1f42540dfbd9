"""What is answered of containers and execs in each state: filters of the list, execs that cannot begin, pauses."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.rawapi import Api
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

# Filters of the list, with the names that are left or (status, how the sentence begins).
FILTERS: tuple[tuple[str, object], ...] = (
    ("null", ["ended", "exposed", "sleeps"]),
    ('{"name": null}', ["ended", "exposed", "sleeps"]),
    ('{"status": []}', ["ended", "exposed", "sleeps"]),
    ('{"name": {"ended": false}}', ["ended"]),
    ('{"ancestor": [""]}', []),
    ('{"ancestor": ["NOPE"]}', []),
    ('{"network": [""]}', ["ended", "exposed", "sleeps"]),
    ('{"id": [""]}', []),
    ('{"before": [""]}', (404, "No such container: ")),
    ('{"expose": ["80"]}', []),
    ('{"expose": ["80/nope"]}', []),
    ('{"expose": [""]}', (500, "error while looking up for expose : Empty string specified for ports.")),
    (
        '{"expose": ["70000"]}',
        (500, 'error while looking up for expose 70000: strconv.ParseUint: parsing "70000": val'),
    ),
)
OUTPUT = {"AttachStdout": True, "AttachStderr": True}
# Commands that cannot begin, with the status of a detached start, part of the reason, and the exit code.
CANNOT_BEGIN = (
    ({"Cmd": ["true"], "Env": ["=x"]}, 500, "invalid environment variable: name cannot be empty", 128),
    ({"Cmd": ["true"], "WorkingDir": "rel"}, 500, "Cwd must be an absolute path", 128),
    ({"Cmd": ["true"], "WorkingDir": "/etc/passwd"}, 400, "not a directory", 127),
    ({"Cmd": ["nope"]}, 400, "executable file not found", 127),
)


@pytest.fixture
def api(engine: Engine) -> Iterator[Api]:
    one = Api(engine.socket)
    for name, command in (("ended", "exit 3"), ("exposed", "sleep 1000"), ("sleeps", "sleep 1000")):
        body = {"Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": {"NetworkMode": "none"}}
        if name == "exposed":
            body["ExposedPorts"] = {"80/tcp": {}}
        one.must("POST", "/containers/create", body, name=name)
        one.must("POST", f"/containers/{name}/start")
    one.must("POST", "/containers/ended/wait")
    yield one


def test_filters_of_the_list(api):
    wrong = []
    for text, wanted in FILTERS:
        status, answer = api("GET", "/containers/json", all=1, filters=text)
        if isinstance(wanted, tuple):
            right = status == wanted[0] and answer["message"].startswith(wanted[1])
        else:
            right = status == 200 and sorted(row["Names"][0][1:] for row in answer) == wanted
        if not right:
            wrong.append((text, wanted, status, answer))
    assert wrong == []
    # Where there is no network of its own, no port is exposed to anybody.
    assert api.must("GET", "/containers/exposed/json")["NetworkSettings"]["Ports"] == {}


def _exec(api: Api, config: dict[str, Any]) -> str:
    return str(api.must("POST", "/containers/sleeps/exec", {**OUTPUT, **config})["Id"])


def test_execs_that_cannot_begin(api):
    wrong = []
    for config, status, reason, code in CANNOT_BEGIN:
        id_ = _exec(api, config)
        found = api("POST", f"/exec/{id_}/start", {"Detach": True})
        shown = api.must("GET", f"/exec/{id_}/json")
        if (found[0], shown["ExitCode"]) != (status, code) or reason not in found[1]["message"]:
            wrong.append((config, found, shown["ExitCode"]))
        resized = api("POST", f"/exec/{id_}/resize", h=1, w=1)
        if resized[0] != 400 or resized[1]["message"] != "exec process is not started":
            wrong.append((config, "resize", resized))
    assert wrong == []
    over = _exec(api, {"Cmd": ["true"], "Tty": True})
    api.must("POST", f"/exec/{over}/start", {"Tty": True})
    until(lambda: not api.must("GET", f"/exec/{over}/json")["Running"], "the end of the exec")
    # (dockerd: 500 while it still has the process.)
    assert api("POST", f"/exec/{over}/resize", h=1, w=1)[0] in (404, 500)
    # One that has not begun before its container's end is gone.
    left = _exec(api, {"Cmd": ["true"]})
    api.must("POST", "/containers/sleeps/restart", t=0)
    assert api("POST", f"/exec/{left}/start", {"Detach": True})[0] == 404
    assert api("GET", f"/exec/{left}/json")[0] == 404


def test_a_stop_in_the_pause_before_a_restart(api):
    """It has an event; and each event's state can be seen as soon as the event is there."""
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "exit 4"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}
    id_ = api.must("POST", "/containers/create", body, name="again")["Id"]
    api.must("POST", "/containers/again/start")

    def pauses() -> bool:
        shown = api.must("GET", "/containers/again/json")
        return shown["State"]["Restarting"] and shown["RestartCount"] >= 5

    until(pauses, "a long pause before a restart")
    status, answer = api("POST", "/containers/again/exec", {"Cmd": ["true"]})
    assert (status, answer["message"]) == (
        409,
        f"Container {id_} is restarting, wait until the container is running",
    )
    api.must("POST", "/containers/again/stop")
    now = f"{time.time():.9f}"
    assert api.must("GET", "/containers/again/json")["State"]["Status"] == "exited"
    chosen = json.dumps({"container": ["again"], "event": ["stop", "kill"]})
    status, text = api("GET", "/events", since=1, until=now, filters=chosen)
    events = [text] if isinstance(text, dict) else [json.loads(line) for line in text.splitlines()]
    assert [event["Action"] for event in events] == ["stop"]
