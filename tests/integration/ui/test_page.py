"""The page in a browser: what people click, read and type, and what containers try to have it do."""

from __future__ import annotations

import contextlib
import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import browser as browsers
from tests.support.rawapi import Api
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

# A prompt of more columns than BusyBox's own.  It asks the terminal where the cursor is, and takes an answer of the
# first row and the fifth column, with the ten bytes that follow at once, for a key that it does not know.
PROMPT = "in box # "
# What containers, images and volumes may say of themselves, and what would happen if it were read as HTML.
EVIL = '<img src=x onerror="window.taken=1"><script>window.taken=1</script>'


@pytest.fixture(scope="module")
def session(chromium, served):
    """The cookie and the key of somebody who has logged in by the address that `ketch ui` printed."""
    context = chromium.new_context()
    page = browsers.Watched(context).page
    browsers.log_in(page, served.address())
    assert page.url == f"{served.origin}/"
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture(scope="module")
def watched(chromium, served, session):
    """The page of somebody who has logged in."""
    context = chromium.new_context(storage_state=session, viewport=browsers.DESK)
    one = browsers.Watched(context)
    one.page.goto(f"{served.origin}/#/images")
    yield one
    context.close()


@pytest.fixture
def opened(watched):
    """Show a part of the page; what goes wrong in it fails the test."""
    page = watched.page

    def open_at(place: str = ""):
        page.evaluate("place => { location.hash = `#/${place}`; }", place)
        return page

    yield open_at
    taken = page.evaluate("window.taken")
    page.set_viewport_size(browsers.DESK)
    page.evaluate("() => { location.hash = '#/images'; }")  # what is shown next begins anew
    wrong, watched.wrong = watched.wrong, []
    assert not taken
    assert wrong == []


@pytest.fixture(scope="module")
def box(served):
    """The id of a container that works a little, says hostile things, and writes a line of its log at each SIGHUP."""
    script = (
        "printf '\\033[32mgreen\\033[0m and \\033]0;title\\007plain\\n'; echo '" + EVIL + "'; echo 'to stderr' >&2; "
        "trap 'echo hung up' HUP; while :; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 0.1; done"
    )
    options = ("--label", f"evil={EVIL}", "--env", f"EVIL={EVIL}", "--env", f"PS1={PROMPT}")
    run = served.engine.ketch("run", "-d", "--name", "box", *options, "busybox", "sh", "-c", script)
    yield run.out.strip()
    served.engine.ketch("rm", "-f", "box")


def row(page, name):
    return page.locator(f'tr[data-name="{name}"]')


def test_a_container_is_stopped_started_and_removed(served, opened):
    served.engine.ketch("run", "-d", "--name", "web", "--stop-timeout", "1", "busybox", "sleep", "1000")
    page = opened()
    web = row(page, "web")
    web.get_by_text("running", exact=True).wait_for()
    web.get_by_role("button", name="Stop").click()
    web.get_by_text("exited", exact=True).wait_for()
    assert not web.get_by_role("button", name="Stop").is_visible()
    web.get_by_role("button", name="Start").click()
    web.get_by_text("running", exact=True).wait_for()
    page.get_by_label("Search").fill("nothing like it")
    assert not web.is_visible()
    page.get_by_label("Search").fill("WEB")
    web.get_by_role("link", name="web").click()
    page.get_by_role("heading", name="web").wait_for()
    page.get_by_role("button", name="Restart").click()
    page.get_by_text("web: restarted").wait_for()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_role("heading", name="Containers").wait_for()
    row(page, "web").wait_for(state="detached")
    assert Api(served.engine.socket)("GET", "/containers/web/json")[0] == 404


def test_plots_move(opened, box):
    page = opened(f"containers/{box}")
    plot = page.locator("canvas[data-plot=cpu]")
    until(lambda: int(plot.get_attribute("data-readings") or 0) >= 2, "there are no two readings")
    before = plot.evaluate("canvas => canvas.toDataURL()")
    until(lambda: plot.evaluate("canvas => canvas.toDataURL()") != before, "the plot stays")
    drawn = plot.evaluate(
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((one) => one)"
    )
    assert drawn
    figure = page.locator("figure", has_text="CPU").locator("b").inner_text()
    assert float(figure.removesuffix(" %")) > 0


def test_a_log_is_read_searched_and_followed(served, opened, box):
    page = opened(f"containers/{box}/logs")
    log = page.get_by_role("log")
    line = log.locator(".line", has_text="green and plain")
    line.wait_for()
    assert line.locator(".c2").inner_text() == "green"
    assert log.locator(".line.wrong").inner_text().endswith("to stderr")
    assert log.get_by_text(EVIL).is_visible()  # as it was written
    before = log.locator(".line").count()
    served.engine.ketch("kill", "-s", "HUP", "box")
    log.get_by_text("hung up").wait_for()
    assert log.locator(".line").count() == before + 1
    # Nothing is read while nobody looks, and nothing is missed or shown twice.
    seen = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); "
    seen += "document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(seen, True)
    served.engine.ketch("kill", "-s", "HUP", "box")
    until(lambda: served.engine.ketch("logs", "box").out.count("hung up") == 2, "the line is not written")
    page.evaluate(seen, False)
    before += 1
    log.get_by_text("hung up").nth(1).wait_for()
    assert log.locator(".line").count() == before + 1
    page.get_by_label("Search the log").fill("SCRIPT>")
    page.get_by_text(f"1 of {before + 1} lines").wait_for()
    assert log.locator("mark").all_inner_texts() == ["script>", "script>"]
    page.get_by_label("Times").check()
    assert log.locator("time").first.inner_text().startswith("20")


def test_the_last_words_and_the_number_of_lines(served, opened):
    script = "printf 'FATAL: no end of line'; exit 1"
    ended = served.engine.ketch("run", "--name", "ended", "busybox", "sh", "-c", script, check=False)
    assert ended.code == 1
    page = opened(f"containers/{served.engine.inspect('ended')['Id']}/logs")
    page.get_by_role("log").get_by_text("FATAL: no end of line").wait_for()
    script = "seq 10000 10999; trap 'seq 20000 25999; echo done' HUP; while :; do sleep 0.05; done"
    ident = served.engine.ketch("run", "-d", "--name", "many", "busybox", "sh", "-c", script).out.strip()
    opened(f"containers/{ident}/logs")
    page.get_by_text("1000 lines", exact=True).wait_for()
    page.get_by_label("Search the log").fill("10")
    page.get_by_text("1000 of 1000 lines").wait_for()
    served.engine.ketch("kill", "-s", "HUP", "many")
    page.get_by_text("of 5000 lines").wait_for()
    matching = [str(number) for number in range(21001, 26000) if "10" in str(number)]  # beside the last, "done"
    page.get_by_text(f"{len(matching)} of 5000 lines", exact=True).wait_for()
    assert page.get_by_role("log").locator(".line", has=page.locator("mark")).count() == len(matching)
    served.engine.ketch("rm", "-f", "many", "ended")


def test_a_container_that_others_remove(served, opened):
    ident = served.engine.ketch("run", "-d", "--name", "going", "busybox", "sleep", "1000").out.strip()
    page = opened(f"containers/{ident}")
    page.locator(".head .badge", has_text="running").wait_for()
    served.engine.ketch("rm", "-f", "going")
    page.locator(".head .badge", has_text="removed").wait_for()
    page.locator(".empty").wait_for()
    assert not page.get_by_role("button", name="Stop").is_visible()


def test_a_registry_that_refuses_is_not_the_end_of_the_session(opened):
    page = opened("containers")
    page.get_by_role("link", name="Images").click()
    with _refusing() as registry:
        page.get_by_label("Image to pull").fill(f"{registry}/secret")
        page.get_by_role("button", name="Pull").click()
        page.locator(".note.error", has_text="who are you").wait_for()
    assert page.url.endswith("#/images")
    assert page.get_by_label("Image to pull").input_value() == f"{registry}/secret"


@contextlib.contextmanager
def _refusing() -> Iterator[str]:
    """A registry whose token server gives nobody a token."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}'
            self.send_response(401)
            if not self.path.startswith("/token"):
                place = f"http://{self.headers['Host']}/token"
                self.send_header("WWW-Authenticate", f'Bearer realm="{place}",service="x"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as place:
        yield place


@contextlib.contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_terminal_is_typed_into_and_resized(served, opened, box):
    page = opened(f"containers/{box}/terminal")
    screen = page.get_by_label("Terminal", exact=True)
    screen.get_by_text(PROMPT.strip()).wait_for()
    page.keyboard.type("echo $((6 * 7)); stty size; printf '\\033[31mr\\145d\\n'; echo \"$EVIL\"\n")
    screen.get_by_text("42", exact=True).wait_for()
    screen.locator(".c1", has_text="red").wait_for()
    assert EVIL in screen.inner_text().replace("\n", "")
    page.keyboard.type("echo lost")
    page.keyboard.press("Control+c")
    page.keyboard.type("cler")
    page.keyboard.press("ArrowLeft")
    page.keyboard.type("a")
    page.keyboard.press("Backspace")
    page.keyboard.type("a")
    page.keyboard.press("Home")
    page.keyboard.press("Delete")
    page.keyboard.type("c")
    page.keyboard.press("Enter")
    screen.get_by_text("42", exact=True).wait_for(state="detached")
    page.set_viewport_size({"width": 800, "height": 600})
    page.keyboard.type("until [ `stty size | cut -d' ' -f2` -lt 100 ]; do :; done; clear; echo is nar''row\n")
    screen.get_by_text("is narrow", exact=True).wait_for()
    page.keyboard.type("exit\n")
    page.get_by_text("The shell has ended.").wait_for()
    page.get_by_role("button", name="Open again").click()
    screen.get_by_text(PROMPT.strip()).wait_for()
    page.keyboard.type("exec tail -f /dev/null\n")
    until(lambda: "tail -f" in served.engine.ketch("top", "box").out, "it does not run")
    page.evaluate("() => { location.hash = '#/images'; }")  # who leaves hangs up
    until(lambda: "tail -f" not in served.engine.ketch("top", "box").out, "it was not hung up")


def test_a_terminal_is_typed_into_and_resized_while_it_opens(opened, box):
    page = opened("containers")
    held: list = []
    page.route("**/containers/*/exec", lambda one: held.append(one))
    opened(f"containers/{box}/terminal")
    page.get_by_text("Connecting …").wait_for()
    screen = page.get_by_label("Terminal", exact=True)
    until(lambda: held and _columns(screen) > 100, "no wide terminal is asked for")
    page.keyboard.type("echo `stty size | cut -d' ' -f2` columns\n")
    page.set_viewport_size({"width": 800, "height": 600})
    until(lambda: _columns(screen) < 100, "the screen stays wide")
    held[0].continue_()
    screen.get_by_text(f"{_columns(screen)} columns", exact=True).wait_for()
    page.unroute_all()


def test_the_last_of_many_sizes_is_the_one_that_counts(opened, box):
    page = opened(f"containers/{box}/terminal")
    screen = page.get_by_label("Terminal", exact=True)
    screen.get_by_text(PROMPT.strip()).wait_for()
    held: list = []
    page.route("**/exec/*/resize*", lambda one: one.continue_() if held else held.append(one))  # the first is slow
    page.set_viewport_size({"width": 900, "height": 600})
    until(lambda: _columns(screen) < 130 and held, "the shell is not told of the first size")
    before = _columns(screen)
    page.set_viewport_size({"width": 700, "height": 600})
    until(lambda: _columns(screen) != before, "the screen stays as it was")
    with page.expect_response(held[0].request.url):
        held[0].continue_()
    wanted = _columns(screen)
    page.keyboard.type(f"until [ `stty size | cut -d' ' -f2` = {wanted} ]; do :; done; echo as wide as the scr''een\n")
    screen.get_by_text("as wide as the screen", exact=True).wait_for()
    page.unroute_all()


def _columns(screen) -> int:
    return int(screen.evaluate("area => area.querySelector('.row').textContent.length"))


def test_keys_alone_lead_everywhere(opened, box):
    page = opened("containers")
    link = row(page, "box").get_by_role("link", name="box")
    link.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="box").wait_for()
    assert page.title() == "box · Ketch"
    assert page.evaluate("document.activeElement.id") == "main"  # not the document's beginning
    for name in ("Containers", "Stop", "Restart", "Remove", "Overview", "Logs", "Terminal"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == name
    page.keyboard.press("Enter")
    screen = page.get_by_label("Terminal", exact=True)
    screen.get_by_text(PROMPT.strip()).wait_for()
    assert page.locator("nav [aria-current=page]").all_inner_texts()[-1] == "Terminal"
    page.keyboard.press("Tab")  # is the shell's
    assert page.evaluate("document.activeElement.className") == "typed"
    page.keyboard.press("Control+Shift+Enter")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "Inspect"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Terminal"
    page.keyboard.type("e")  # what is typed there is the shell's, too
    page.keyboard.type("cho $((40 + 3))\n")
    screen.get_by_text("43", exact=True).wait_for()


def test_an_error_stays_until_it_is_closed(opened):
    page = opened("volumes")
    page.get_by_label("Name of a new volume").fill("c d")
    page.get_by_role("button", name="Create").click()
    error = page.get_by_role("alert").filter(has_text="c d")
    error.get_by_role("button", name="Close").click()
    error.wait_for(state="detached")


def test_what_containers_say_stays_text(chromium, served, session, opened, box):
    page = opened(f"containers/{box}")
    page.get_by_text(f"evil={EVIL}").wait_for()
    page.get_by_role("link", name="Inspect").click()
    page.locator("pre.json").get_by_text("onerror").wait_for()
    assert page.locator("img").count() == 1  # the page's own
    # And should a text ever be taken for HTML, the browser refuses it.
    context = chromium.new_context(storage_state=session)
    other = context.new_page()
    other.goto(served.origin)
    assigned = "() => { try { document.body.innerHTML = '<b>x</b>'; } catch (error) { return error.name; } }"
    assert other.evaluate(assigned) == "TypeError"
    context.close()


def test_images_volumes_and_networks(served, opened):
    served.engine.ketch("tag", "busybox", "example.test/other:1.0")
    page = opened("containers")
    page.get_by_role("link", name="Images").click()
    other = row(page, "busybox:latest")
    other.get_by_text("example.test/other:1.0").wait_for()
    page.get_by_label("Image to pull").fill("localhost:1/nothing")
    page.get_by_role("button", name="Pull").click()
    page.locator(".note.error").first.wait_for()
    served.engine.ketch("rmi", "example.test/other:1.0")
    for section, what, made in (("volumes", "volume", "data"), ("networks", "network", "inner")):
        page.get_by_role("link", name=section.capitalize()).click()
        page.get_by_label(f"Name of a new {what}").fill(made)
        page.get_by_role("button", name="Create").click()
        row(page, made).get_by_role("button", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        row(page, made).wait_for(state="detached")
        assert made not in served.engine.ketch(what, "ls").out
    page.get_by_role("link", name="Volumes").click()
    page.get_by_label("Name of a new volume").fill("a b")
    page.get_by_role("button", name="Create").click()
    page.locator(".note.error", has_text="a b").wait_for()


def test_a_phone_needs_no_scrolling_sideways(served, opened, box):
    long = "x" * 90
    served.engine.ketch("create", "--name", long, "--label", f"{long}={long}", "busybox", long, long)
    served.engine.ketch("volume", "create", long)
    page = opened()
    page.set_viewport_size(browsers.PHONE)
    row(page, "box").wait_for()
    places = [f"containers/{name}/{tab}" for name in (box, long) for tab in ("overview", "logs", "terminal", "inspect")]
    for place in ("containers", "images", "volumes", "networks", *places):
        page.evaluate("place => { location.hash = `#/${place}`; }", place)
        page.locator("main h1").wait_for()
        page.locator("main :is(tr, .card, .empty)").first.wait_for()
        wide = page.evaluate("[document.documentElement.scrollWidth, visualViewport.width]")
        assert wide == [390, 390], place
    served.engine.ketch("rm", long)
    served.engine.ketch("volume", "rm", long)


@contextlib.contextmanager
def _elsewhere(cookies: list[str]) -> Iterator[str]:
    """A page on another port of this machine, the same site but another origin, and the cookies that it is sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cookies.append(self.headers.get("Cookie", ""))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as place:
        yield place


def test_other_pages_reach_nothing(chromium, served, session, box):
    context = chromium.new_context(storage_state=session)
    page = browsers.Watched(context).page
    cookies: list[str] = []
    with _elsewhere(cookies) as place:
        page.goto(f"http://{place}/")
        assert cookies[0].startswith(f"ketch-ui-{served.port}=")  # browsers send it to every port
        assert served.ask("/info", Cookie=cookies[0]).status == 401
        assert page.evaluate("localStorage.length") == 0
        attacks = """async ([origin, box]) => {
            const form = (path) => fetch(origin + path, {method: "POST", mode: "no-cors", credentials: "include"})
                .then(() => null, () => null);
            await form(`/containers/${box}/stop?t=0`);
            await form("/containers/prune");
            const read = await fetch(origin + "/info", {credentials: "include"}).then(() => "read", () => "refused");
            const socket = new WebSocket(`${origin.replace("http", "ws")}/containers/${box}/attach/ws?stream=1`);
            const opened = await new Promise((done) => {
                socket.onopen = () => done("opened");
                socket.onerror = () => done("refused");
            });
            const frame = document.createElement("iframe");
            frame.src = origin;
            document.body.append(frame);
            await new Promise((done) => { frame.onload = done; });
            return [read, opened];
        }"""
        assert page.evaluate(attacks, [served.origin, box]) == ["refused", "refused"]
        assert all("app.js" not in frame.content() for frame in page.frames[1:] if "chrome-error" not in frame.url)
    # A name of theirs that leads here.
    assert page.goto(f"http://rebound.example:{served.port}/").status == 403
    assert served.engine.inspect("box")["State"]["Running"]
    # Its link is followed, and leads to the page itself where somebody has logged in.
    with _elsewhere([]) as place:
        page.goto(f"http://{place.replace('127.0.0.1', 'far.example')}/")
        page.evaluate("origin => { location.href = origin; }", served.origin)
        page.get_by_role("heading", name="Containers").wait_for()
    context.close()


def test_logging_in_and_out(chromium, served):
    context = chromium.new_context()
    watched = browsers.Watched(context)
    page = watched.page
    assert page.goto(served.origin).status == 401
    page.get_by_text("ketch ui").wait_for()
    address = served.address()
    page.get_by_label("Token").fill(address.partition("token=")[2])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Containers").wait_for()
    assert page.evaluate("document.cookie") == ""  # scripts do not see it
    assert "token" not in page.url
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Token").wait_for()
    assert page.evaluate("localStorage.getItem('key')") is None
    page.goto(address)
    page.get_by_text("has been used").wait_for()
    browsers.log_in(page, served.address())
    page.evaluate("localStorage.removeItem('key')")  # a cookie alone opens nothing, and no page that loads for ever
    page.reload()
    page.get_by_text("The session is over.").wait_for()
    assert page.url == f"{served.origin}/login?over"
    assert watched.wrong == []
    context.close()
