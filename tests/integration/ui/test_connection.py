"""The page while its daemon does not answer, and when it is there again."""

from __future__ import annotations

import contextlib

from tests.support.clients import browser as browsers
from tests.support.clients import relay
from tests.support.engines import Engine
from tests.support.leaks import Census
from tests.support.logs.logservers import free_port
from tests.support.waiting import until

LOST = "The daemon does not answer."
# A line for each SIGHUP.
_COUNTS = "trap 'i=$((i+1)); echo line $i' HUP; echo ready; while :; do sleep 0.05; done"


def test_a_connection_that_breaks_is_taken_up_again(served, chromium):
    served.engine.ketch("run", "-d", "--name", "counts", "busybox", "sh", "-c", _COUNTS)
    ident = served.engine.inspect("counts")["Id"]
    port = free_port()
    context = chromium.new_context(viewport=browsers.DESK)
    log, terminal = browsers.Watched(context).page, browsers.Watched(context).page
    with contextlib.ExitStack() as connected:
        connected.enter_context(relay.running(str(port), str(served.port)))
        browsers.log_in(log, served.address().replace(f":{served.port}/", f":{port}/"))
        log.goto(f"http://127.0.0.1:{port}/#/containers/{ident}/logs")
        log.get_by_role("log").get_by_text("ready").wait_for()
        terminal.goto(f"http://127.0.0.1:{port}/#/containers/{ident}/terminal")
        terminal.get_by_text("Connected", exact=True).wait_for()
    for page in (log, terminal):
        page.get_by_role("alert").get_by_text(LOST).wait_for()
    terminal.get_by_text("The connection was lost.").wait_for()
    served.engine.ketch("kill", "-s", "HUP", "counts")
    until(lambda: "line 1" in served.engine.ketch("logs", "counts").out, "the line is not written")
    with relay.running(str(port), str(served.port)):
        log.get_by_role("log").get_by_text("line 1").wait_for()
        assert log.get_by_role("log").locator(".line").all_inner_texts() == ["ready", "line 1"]
        served.engine.ketch("kill", "-s", "HUP", "counts")
        log.get_by_role("log").get_by_text("line 2").wait_for()
        for page in (log, terminal):
            page.get_by_text(LOST).wait_for(state="detached")
        terminal.get_by_role("button", name="Open again").click()
        terminal.get_by_text("Connected", exact=True).wait_for()
        context.close()
    served.engine.ketch("rm", "-f", "counts")


def test_a_daemon_that_is_started_again_wants_a_new_session(served, chromium):
    engine = Engine("ketch", suffix="v")
    before = Census.take(engine.name)
    engine.extra = ["--ui", f"127.0.0.1:{free_port()}"]
    context = chromium.new_context()
    page = browsers.Watched(context).page
    with engine.running():
        browsers.log_in(page, engine.ketch("ui").out.strip())
        engine.stop()
        page.get_by_role("alert").get_by_text(LOST).wait_for()
        engine.start()
        page.get_by_text("The session is over.").wait_for()
        browsers.log_in(page, engine.ketch("ui").out.strip())
        context.close()
    assert before.leaks() == []
