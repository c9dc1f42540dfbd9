"""Who may use the page: tokens, cookies, and what other pages and names are refused."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
from urllib.parse import urlsplit

import pytest
import websocket

from tests.support.clients.page import Served
from tests.support.engines import Engine
from tests.support.logs.logservers import free_port
from tests.support.rawapi import Api
from tests.support.terminal import Terminal
from tests.support.tls import certificate
from tests.support.waiting import patient, until


def test_a_token_is_exchanged_for_a_session_once(served):
    token = served.token()
    assert "login.js" in served.ask(f"/?token={token}").body  # which exchanges it: to look at it does not
    answer = served.log_in(token)
    assert answer.status == 200 and answer.headers["cache-control"] == "no-store"
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert cookie.startswith(f"ketch-ui-{served.port}=")
    key = json.loads(answer.body)["key"]
    assert len({token, key, cookie.partition("=")[2]}) == 3
    assert served.log_in(token).status == 401
    assert "app.js" in served.ask("/", Cookie=cookie).body
    session = {"Cookie": cookie, "Ketch_Page_Key": key}
    assert served.ask("/info", **session).status == 200
    assert served.ask("/logout", method="POST", **session).status == 204
    assert served.ask("/info", **session).status == 401


def test_nothing_without_a_session(served):
    mine, other = served.session(), served.session()
    name = f"ketch-ui-{served.port}"
    wrong = [{}, {"Cookie": f"{name}="}, {"Cookie": f"{name}=x"}, {"Cookie": "a=b; ketch-ui-1=x"}]
    wrong += [{"Cookie": mine["Cookie"]}, {"Ketch_Page_Key": mine["Ketch_Page_Key"]}]
    wrong += [mine | {"Ketch_Page_Key": one} for one in ("", "x", other["Ketch_Page_Key"], mine["Cookie"])]
    for path in ("/info", "/v1.51/containers/json", "/_ping", "/ketch/stats", "/ketch/ui", "/nothing"):
        for headers in wrong:
            answer = served.ask(path, **headers)
            assert answer.status == 401 and "ketch ui" in answer.body, (path, headers)
            assert answer.headers["www-authenticate"] == "Ketch-Page"
    for path in ("/containers/create", "/containers/x/attach", "/exec/x/start", "/grpc", "/session", "/logout"):
        answer = served.ask(path, method="POST", body="{}", Content_Type="application/json", Upgrade="tcp")
        assert answer.status == 401, path
    front = served.ask("/")
    assert front.status == 401 and "app.js" not in front.body and "ketch ui" in front.body
    assert served.ask("/info", **mine).status == 200


def test_files_are_those_of_the_page_alone(served):
    assert served.ask("/static/app.js").headers["content-type"].startswith("text/javascript")
    for path in ("../page.py", "..%2fpage.py", "parts/../../page.py", "", "parts", "none.js", "%00.js", "a/b/c.js"):
        assert served.ask(f"/static/{path}").status == 404, path
    assert served.ask("/static/app.js", method="POST").status == 404


def test_browsers_are_told_to_run_nothing_else(served):
    for answer in (served.ask("/"), served.ask("/static/icon.svg"), served.ask("/info")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:{port}"},
        {"host": "127.0.0.1.evil.example:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
    ],
    ids=str,
)
def test_other_pages_and_names_are_refused_with_a_session_too(served, headers):
    session = served.session()
    headers = {name: value.format(port=served.port) for name, value in headers.items()}
    token = served.token()
    for path in ("/", "/login", "/info", "/static/app.js", f"/?token={token}"):
        assert served.ask(path, **session, **headers).status == 403, path
    for path in ("/volumes/create", "/logout", "/login"):
        answer = served.ask(path, method="POST", Ketch_Page_Token=token, **session, **headers)
        assert answer.status == 403, path
    own = {"Origin": served.origin, "Sec_Fetch_Site": "same-origin"}
    assert served.log_in(token, **own).status == 200  # it was not spent
    assert served.ask("/networks/prune", method="POST", **session, **own).status == 200


VISIT = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


def test_other_pages_may_link_to_the_front(served):
    link = {"Sec_Fetch_Site": "cross-site", **VISIT}
    for path in ("/?token=x", "/login"):
        assert "login.js" in served.ask(path, **link).body
    session = served.session()
    assert served.ask("/info", **session, **link).status == 403
    assert served.ask("/login", method="POST", Ketch_Page_Token=served.token(), **link).status == 403
    assert served.ask("/", **{**link, "Sec_Fetch_Dest": "iframe"}).status == 403
    assert served.ask("/", Origin="http://evil.example", **link).status == 403


def test_people_are_refused_in_words(served):
    answer = served.ask("/", host="evil.example", Sec_Fetch_Site="none", **VISIT)
    assert answer.status == 403 and answer.headers["content-type"].startswith("text/plain")
    assert answer.body.startswith("Ketch: request for host `evil.example`") and "--tcp-name" in answer.body


def test_what_the_api_answers_is_no_document(served):
    session = served.session()
    for kind, status in (("document", 403), ("iframe", 403), ("image", 403), ("script", 403), ("empty", 200)):
        assert served.ask("/info", Sec_Fetch_Dest=kind, **session).status == status, kind


@pytest.fixture
def sleeping(served):
    """The id of a container that runs."""
    ident = served.engine.ketch("run", "-d", "busybox", "sleep", "1000").out.strip()
    yield ident
    served.engine.ketch("rm", "-f", ident)


def test_a_websocket_needs_the_session_and_the_own_page(served, sleeping):
    session = served.session()
    cookie, key = session["Cookie"], f"key.{session['Ketch_Page_Key']}"
    url = f"ws://127.0.0.1:{served.port}/containers/{sleeping}/attach/ws?stream=1&stdout=1"
    for sent, protocols, origin, status in (
        ("", ["ketch.page", key], served.origin, 401),
        (cookie, [], served.origin, 401),
        (cookie, ["ketch.page"], served.origin, 401),
        (cookie, ["ketch.page", "key.x"], served.origin, 401),
        (cookie, [key], served.origin, 401),
        (cookie, ["ketch.page", key], "http://evil.example", 403),
        (cookie, ["ketch.page", key], f"http://127.0.0.1:{served.port + 1}", 403),
    ):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(url, origin=origin, cookie=sent, subprotocols=protocols, timeout=patient(10))
        assert refused.value.status_code == status, (sent, protocols, origin)
    one = websocket.create_connection(
        url, origin=served.origin, cookie=cookie, subprotocols=["ketch.page", key], timeout=patient(10)
    )
    assert one.getsubprotocol() == "ketch.page"
    one.close()


def test_logging_out_ends_what_is_open(served, sleeping):
    session, other = served.session(), served.session()
    logs = f"/containers/{sleeping}/logs?follow=1&stdout=1"
    followed, others = served.begin(logs, **session), served.begin(logs, **other)
    protocols = ["ketch.page", f"key.{session['Ketch_Page_Key']}"]
    url = f"ws://127.0.0.1:{served.port}/containers/{sleeping}/attach/ws?stream=1&stdout=1"
    attached = websocket.create_connection(
        url, origin=served.origin, cookie=session["Cookie"], subprotocols=protocols, timeout=patient(10)
    )
    assert served.ask("/logout", method="POST", **session).status == 204
    with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionResetError)):
        attached.recv()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        followed.read()
    served.engine.ketch("kill", sleeping)
    assert others.read() == b""  # which goes on


def test_connections_stay_with_the_daemon(served, sleeping):
    session = served.session()
    for path in (f"/containers/{sleeping}/attach?stream=1&stdout=1", "/grpc", "/ketch/session"):
        answer = served.ask(path, method="POST", Connection="Upgrade", Upgrade="h2c", **session)
        assert answer.status == 403 and "take over the connection" in answer.body, path


def test_terminals_are_hung_up_when_ketchd_ends():
    """Nobody would be at the other end of them any more; what ignores that has no terminal."""
    one = Engine("ketch", suffix="v")
    one.extra = ["--ui", f"127.0.0.1:{free_port()}"]
    with one.running():
        one.ketch("run", "-d", "--name", "box", "busybox", "sleep", "1000")
        address = urlsplit(one.ketch("ui").out.strip())
        connection = http.client.HTTPConnection(address.netloc, timeout=patient(10))
        token = address.query.removeprefix("token=")
        connection.request("POST", "/login", headers={"Ketch-Page-Token": token})
        answer = connection.getresponse()
        cookie, key = answer.headers["Set-Cookie"].partition(";")[0], json.loads(answer.read())["key"]
        connection.close()
        streams = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": True}
        made = Api(one.socket).must("POST", "/containers/box/exec", {"Cmd": ["sh"], **streams})
        url = f"ws://{address.netloc}/ketch/exec/{made['Id']}/ws"
        protocols = ["ketch.page", f"key.{key}"]
        terminal = websocket.create_connection(url, cookie=cookie, subprotocols=protocols, timeout=patient(10))
        terminal.send("(trap '' HUP; cat; sleep 3001) & echo $((40 + 2)); sleep 3000\n")
        while b"42" not in terminal.recv():
            pass
        one.stop(signal.SIGKILL)
        one.start()
        until(lambda: "3000" not in one.ketch("top", "box").out, "end of what was started there")
        until(lambda: "3001" in one.ketch("top", "box").out, "end of what it would have read")
        terminal.close()


def _check_sessions_are_ended_from_elsewhere(served):
    """A browser that was lost is logged out, with what it has open."""
    lost, unused = served.session(), served.token()
    served.session()
    events = served.begin("/events", **lost)
    assert served.engine.ketch("ui", "--log-out").out == "Ended 2 sessions\n"
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        events.read()
    assert served.ask("/info", **lost).status == 401
    assert served.log_in(unused).status == 401
    served.session()
    assert served.engine.ketch("ui", "--log-out").out == "Ended 1 session\n"


def _check_a_browser_is_opened(engine, folder):
    """By a file of the user's own: a token in a program's arguments could be read by anyone."""
    opener, told, run = folder / "xdg-open", folder / "told", folder / "run"
    opener.write_text(f'#!/bin/sh\necho "$@" > {told}.new; mv {told}.new {told}\n')
    opener.chmod(0o755)
    run.mkdir(mode=0o700)
    desktop = {**engine.environment(), "DISPLAY": ":7", "XDG_RUNTIME_DIR": str(run)}
    desktop["PATH"] = f"{folder}:{desktop['PATH']}"
    command = [*engine.ketch.command, "ui"]
    for words, environment in (
        (["--no-browser"], desktop),
        ([], {**desktop, "DISPLAY": ""}),
        ([], {**desktop, "XDG_RUNTIME_DIR": "/tmp"}),  # which is not the user's alone
    ):
        with Terminal([*command, *words], environment) as terminal:
            terminal.expect("works once")
            assert terminal.wait() == 0
    with Terminal(command, desktop) as terminal:
        address = terminal.expect(r"http://\S+")[0]
        assert terminal.wait() == 0
    until(told.exists, "nothing was opened")
    page = run / "ketch-ui.html"
    assert told.read_text().split() == [str(page)]
    assert page.stat().st_mode & 0o777 == 0o600
    assert f'href="{address}"' in page.read_text()


def test_the_page_is_served_when_somebody_asks(tmp_path):
    one = Engine("ketch", suffix="v")
    port = free_port()
    try:
        one.start()
        assert one.ketch("ui", "--address", "0.0.0.0:1", check=False).err.startswith("ketch: serve the page")
        address = one.ketch("ui", "--address", f"127.0.0.1:{port}").out
        assert address.startswith(f"http://127.0.0.1:{port}/?token=")
        assert one.ketch("ui").out.startswith(f"http://127.0.0.1:{port}/?token=")
        refused = one.ketch("ui", "--address", f"127.0.0.1:{port + 1}", check=False)
        assert refused.code == 1 and f"served on 127.0.0.1:{port} already" in refused.err
        _check_sessions_are_ended_from_elsewhere(Served(one, port))
        _check_a_browser_is_opened(one, tmp_path)
    finally:
        one.delete()


def test_other_machines_are_served_with_tls(tmp_path):
    certificate(tmp_path, "ca")
    certificate(tmp_path, "server", signed_by="ca")
    one = Engine("ketch", suffix="v")
    port = free_port()
    one.extra = ["--ui", f"0.0.0.0:{port}", "--tls"]
    one.extra += [f"--tlscert={tmp_path}/server.pem", f"--tlskey={tmp_path}/server.key"]
    try:
        one.start()
        address = urlsplit(one.ketch("ui").out.strip())
        assert address.scheme == "https" and address.netloc == f"{os.uname().nodename}:{port}"
        trust = ssl.create_default_context(cafile=f"{tmp_path}/ca.pem")
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=patient(10))
        token = address.query.removeprefix("token=")
        connection.request("POST", "/login", headers={"Host": address.netloc, "Ketch-Page-Token": token})
        answer = connection.getresponse()
        assert answer.status == 200 and "; Secure" in answer.headers["Set-Cookie"]
        cookie, key = answer.headers["Set-Cookie"].partition(";")[0], json.loads(answer.read())["key"]
        connection.request("GET", "/info", headers={"Cookie": cookie, "Ketch-Page-Key": key})
        assert connection.getresponse().status == 200
        connection.close()
        connection.request("GET", "/", headers={"Host": "evil.example"})  # a browser may be told to ignore the name
        assert connection.getresponse().status == 403
        connection.close()
    finally:
        one.delete()


def test_ketchd_refuses_an_address_that_others_reach():
    one = Engine("ketch", suffix="v")
    one.extra = ["--ui", "0.0.0.0:2370"]
    try:
        one.launch()
        assert one.process.wait(patient(30)) == 1
        assert "without TLS others could read its cookie" in one.log()
        one.process = None
    finally:
        one.delete()
