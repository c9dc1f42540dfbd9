"""Every verb on containers in states in which it cannot be: codes and bodies, as dockerd answers them."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.support.rawapi import Unix

STATES = ("made", "running", "frozen", "ended", "absent")
# (method, verb, body) → the status in each of the states above.
TABLE = {
    ("POST", "start"): (204, 304, 409, 204, 404),
    ("POST", "start", '{"Binds": []}'): (400, 400, 400, 400, 400),
    ("POST", "stop?t=0"): (304, 204, 204, 304, 404),
    ("POST", "restart?t=0"): (204, 204, 204, 204, 404),
    ("POST", "kill"): (409, 204, 204, 409, 404),
    ("POST", "kill?signal=NONSENSE"): (400, 400, 400, 400, 400),
    ("POST", "pause"): (409, 204, 409, 409, 404),
    ("POST", "unpause"): (500, 500, 204, 500, 404),
    ("POST", "rename?name=taken"): (409, 409, 409, 409, 404),
    ("POST", "rename?name="): (400, 400, 400, 400, 400),
    ("POST", "rename?name=a/b"): (400, 400, 400, 400, 404),
    ("DELETE", ""): (204, 409, 409, 204, 404),
    ("DELETE", "?link=1"): (500, 500, 500, 500, 404),
    ("POST", "resize?h=1&w=1"): (409, 200, 200, 409, 404),
    ("POST", "resize?h=x&w=1"): (400, 400, 400, 400, 400),
    ("GET", "top"): (409, 200, 200, 409, 404),
    ("GET", "logs"): (400, 400, 400, 400, 400),
    ("GET", "logs?stdout=1"): (200, 200, 200, 200, 404),
    ("GET", "stats?stream=0&one-shot=1"): (200, 200, 200, 200, 404),
    ("GET", "json"): (200, 200, 200, 200, 404),
    ("POST", "exec", '{"Cmd": ["true"]}'): (409, 201, 409, 409, 404),
    ("POST", "exec", "{}"): (400, 400, 400, 400, 400),
    ("POST", "attach?stdout=1&detachKeys=ctrl-%25"): (400, 400, 400, 400, 400),
    ("POST", "attach?stdout=1"): (None, None, 409, None, 404),
    ("POST", "update", '{"Memory": 1}'): (400, 400, 400, 400, 400),
    ("POST", "update", '{"RestartPolicy": {"Name": "nonsense"}}'): (400, 400, 400, 400, 400),
    ("GET", "nonsense"): (404, 404, 404, 404, 404),
}
WORDS = {
    ("frozen", "start"): "cannot start a paused container, try unpause instead",
    ("made", "kill"): "is not running",
    ("ended", "pause"): "is not running",
    ("frozen", "pause"): "is already paused",
    ("running", "unpause"): "is not paused",
    ("made", "rename?name=taken"): 'The container name "/taken" is already in use by container',
    ("ended", "rename?name="): "Neither old nor new names may be empty",
    ("running", "?link=1"): "Conflict, cannot remove the default link name of the container",
    ("absent", "json"): "No such container: absent",
    ("running", "exec", "{}"): "No exec command specified",
    ("frozen", "exec", '{"Cmd": ["true"]}'): "is paused, unpause the container before exec",
    ("frozen", "attach?stdout=1"): "is paused, unpause the container before attach",
    ("ended", "top"): "is not running",
    ("made", "resize?h=1&w=1"): "is not running",
}


def bring(engine, state: str) -> None:
    """A container of that name in that state, from whatever it is in."""
    engine.docker("rm", "-f", state, check=False)
    if state == "made":
        engine.docker("create", "--name", state, "-it", "busybox", "sleep", "1000")
    elif state in ("running", "frozen"):
        engine.docker("run", "-dit", "--name", state, "busybox", "sleep", "1000")
    elif state == "ended":
        engine.docker("run", "--name", state, "busybox", "true")
    if state == "frozen":
        engine.docker("pause", state)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("state", STATES)
def test_states(engine, state):
    engine.docker("create", "--name", "taken", "busybox")
    fresh = state == "absent"
    wrong = []
    for (method, verb, *body), statuses in TABLE.items():
        status = statuses[STATES.index(state)]
        if status is None:
            continue
        if not fresh:
            bring(engine, state)
        with contextlib.closing(Unix(engine.socket)) as connection:
            headers = {"Content-Type": "application/json"} if body else {}
            path = f"/v1.51/containers/{state}" + (verb if verb.startswith("?") or not verb else f"/{verb}")
            connection.request(method, path, *body, headers=headers)
            answer = connection.getresponse()
            text = answer.read() if answer.status >= 300 else b""
        if answer.status != status:
            wrong.append(
                f"{method} {verb} {body} of a container that is {state}: {answer.status}, not {status}: {text}"
            )
        if answer.status >= 400 and (engine.kind == "ketch" or answer.headers["Content-Type"] == "application/json"):
            message = json.loads(text)["message"]
            if (
                (words := WORDS.get((state, verb, *body)))
                and words not in message
                and words.capitalize() not in message
            ):
                wrong.append(f"{method} {verb} of a container that is {state} says: {message}")
        fresh = state == "absent" or answer.status >= 300
    assert not wrong, "\n".join(wrong)


@pytest.mark.ketch_only
def test_while_it_is_being_removed(engine):
    """A second removal and a start are refused; then it is gone."""
    script = "trap '' TERM; sleep 1000 & wait"
    engine.docker("run", "-d", "--name", "slow", "busybox", "sh", "-c", script)
    engine.docker("pause", "slow")
    answers = []
    connections = [Unix(engine.socket) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for connection, (method, rest) in zip(
            connections, (("DELETE", "?force=1"), ("DELETE", "?force=1"), ("POST", "/start")), strict=True
        ):
            stack.enter_context(contextlib.closing(connection))
            connection.request(method, f"/v1.51/containers/slow{rest}")
        answers = [connection.getresponse().status for connection in connections]
    assert answers[0] == 204
    assert answers[1] in (404, 409)
    assert answers[2] in (304, 404, 409)  # until its processes have ended it runs
    assert engine.docker("ps", "-aq").out == ""


def test_waiting_for_one_that_is_removed_meanwhile(engine):
    """``not-running``, ``next-exit`` and ``removed`` all come to an end."""
    engine.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    with contextlib.ExitStack() as stack:
        waiting = []
        for condition in ("", "?condition=not-running", "?condition=next-exit", "?condition=removed"):
            connection = stack.enter_context(contextlib.closing(Unix(engine.socket)))
            connection.request("POST", f"/v1.51/containers/one/wait{condition}")
            waiting.append(connection.getresponse())  # the headers come as soon as the wait is registered
        engine.docker("rm", "-f", "one")
        assert [json.loads(answer.read())["StatusCode"] for answer in waiting] == [137] * 4
