"""The page with much to show: programs that write without end, and a long list."""

from __future__ import annotations

import contextlib

import pytest

from tests.support.clients import browser as browsers
from tests.support.rawapi import Api
from tests.support.waiting import until

# Some fifty thousand lines a second, until SIGHUP; then a last one.
_FLOOD = (
    "trap 'over=1' HUP; until [ $over ]; do seq 100000 105000; usleep 100000; done; "
    "echo the last; while :; do sleep 0.05; done"
)


@pytest.fixture(scope="module")
def page(chromium, served):
    """A page of somebody who has logged in; what goes wrong in it fails the tests."""
    context = chromium.new_context(viewport=browsers.DESK)
    watched = browsers.Watched(context)
    browsers.log_in(watched.page, served.address())
    yield watched.page
    context.close()
    assert watched.wrong == []


@contextlib.contextmanager
def _logged(served, page, name, *command):
    """The log of a container that runs a command, on the page."""
    options = ("--log-opt", "max-size=20m", "--log-opt", "max-file=2")
    ident = served.engine.ketch("run", "-d", "--name", name, *options, "busybox", *command).out.strip()
    page.evaluate("id => { location.hash = `#/containers/${id}/logs`; }", ident)
    page.get_by_role("heading", name=name).wait_for()
    try:
        yield page.get_by_role("log")
    finally:
        served.engine.ketch("rm", "-f", name)


def test_a_flood_of_lines_is_followed_searched_and_left(served, page):
    with _logged(served, page, "flood", "sh", "-c", _FLOOD) as log:
        lines = log.locator(".line")
        page.get_by_text("left out").wait_for()
        seen = lines.last.inner_text()
        until(lambda: lines.last.inner_text() != seen, "it is not followed")
        assert lines.count() <= 5000
        page.get_by_label("Search the log").fill("777")
        page.get_by_text("of 5000 lines").wait_for()
        until(lambda: set(log.locator("mark").all_inner_texts()) == {"777"}, "nothing is found")
        page.get_by_label("Search the log").fill("")
        page.get_by_text("5000 lines", exact=True).wait_for()
        log.hover()
        page.mouse.wheel(0, -500)  # who reads is not disturbed
        until(lambda: not page.get_by_label("Follow").is_checked(), "it is followed still")
        page.get_by_text("newer").wait_for()
        reading = lines.all_inner_texts()
        left_out = page.get_by_text("left out").inner_text()
        until(lambda: page.get_by_text("left out").inner_text() != left_out, "nothing more arrives")
        assert lines.all_inner_texts() == reading
        served.engine.ketch("kill", "-s", "HUP", "flood")
        until(lambda: "the last" in served.engine.ketch("logs", "--tail", "1", "flood").out, "it writes on")
        page.get_by_label("Follow").check()
        log.get_by_text("the last").wait_for()
        assert lines.count() == 5000
        log.hover()
        page.mouse.wheel(0, -500)
        until(lambda: not page.get_by_label("Follow").is_checked(), "it is followed still")
        page.mouse.wheel(0, 5000)  # at the end it is followed again
        until(lambda: page.get_by_label("Follow").is_checked(), "it is not followed again")


def test_a_line_without_end_is_cut(served, page):
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after; while :; do sleep 0.05; done"
    with _logged(served, page, "endless", "sh", "-c", script) as log:
        log.get_by_text("after").wait_for()
        lengths = log.locator(".line").evaluate_all("lines => lines.map((line) => line.textContent.length)")
        assert max(lengths) < 20_000


def test_a_long_list_is_not_laid_out_for_each_row(served, page):
    api = Api(served.engine.socket)
    names = [f"row{number:03}" for number in range(200)]
    for name in names:
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
        assert api("POST", "/containers/create", body, name=name)[0] == 201
    for name in names[:40]:
        assert api("POST", f"/containers/{name}/start")[0] == 204
    page.evaluate("() => { location.hash = '#/containers'; }")
    rows = page.locator("tr[data-name^=row]")
    rows.nth(199).wait_for(state="attached")
    drawn = "() => [...document.querySelectorAll('.spark')].filter((one) => one.dataset.readings > 0).length"
    until(lambda: page.evaluate(drawn) > 0, "nothing is drawn")
    assert page.evaluate(drawn) < 30  # only what is seen
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")

    def layouts() -> float:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "LayoutCount")

    readings = "() => Number(document.querySelector('.tiles').dataset.readings)"
    before, first = layouts(), page.evaluate(readings)
    until(lambda: page.evaluate(readings) >= first + 3, "no readings arrive")
    assert layouts() - before < 60  # each row's would be more than a hundred
    page.mouse.move(700, 500)
    page.mouse.wheel(0, 2000)
    until(lambda: page.evaluate("scrollY") > 0, "it is not scrolled")
    last = page.locator("tr[data-name=row039] .spark")
    until(lambda: int(last.get_attribute("data-readings") or 0) > 0, "what comes into sight is not drawn")
    page.get_by_label("Search").fill("row199")
    until(lambda: rows.locator("visible=true").count() == 1, "it is not found")
    for name in names:
        assert api("DELETE", f"/containers/{name}", force=1)[0] == 204
    page.get_by_label("Search").fill("")
    rows.first.wait_for(state="detached")
