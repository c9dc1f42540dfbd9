"""Pictures of the page for docs/ui.md, made anew: ``.venv/bin/python scripts/screenshots.py``, as root, in two minutes.

A daemon of its own, with containers that pretend to be a shop; all of it is removed afterwards.
"""

from __future__ import annotations

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tests.support.clients import browser as browsers  # noqa: E402
from tests.support.engines import Engine  # noqa: E402
from tests.support.logs.logservers import free_port  # noqa: E402

_PLACE = os.path.join(ROOT, "docs", "ui")
_LARGEST = 150 << 10  # bytes of a picture
_READINGS_S = 62  # until plots are full
_SERVE = """mkdir -p /www; head -c 300000 /dev/zero > /www/page; httpd -h /www; i=0
while :; do
    i=$((i + 1)); n=$((i * 7919 % 13)); wget -qO /dev/null http://127.0.0.1/page
    if [ $n = 4 ]; then printf '\\033[33mWARN \\033[0m slow query: 812 ms (orders by customer)\\n' >&2
    else printf '\\033[32mINFO \\033[0m GET /products/%d \\033[36m200\\033[0m %d ms\\n' $((i * 37 % 900)) $((3 + n)); fi
    j=0; while [ $j -lt $((n * 700)) ]; do j=$((j + 1)); done; sleep 0.4
done"""
_WORK = "while :; do i=0; while [ $i -lt %d ]; do i=$((i+1)); done; sleep 0.%d; done"
_FETCH = "while :; do wget -qO /dev/null http://web/page; sleep 0.%d; done"
_SHELL = "uname -sm; ls -l --color=always /var; free -m\n"


def main() -> int:
    """Make the pictures; 1 when one is too large."""
    os.makedirs(_PLACE, exist_ok=True)
    engine = Engine("ketch", suffix="p")
    engine.extra = ["--ui", f"127.0.0.1:{free_port()}"]
    with engine.running(), browsers.chromium() as chromium:
        _shop(engine)
        context = chromium.new_context()
        page = browsers.Watched(context).page
        browsers.log_in(page, engine.ketch("ui").out.strip())
        origin, state = page.url.rstrip("/"), context.storage_state()
        context.close()
        pages = {}
        for name, (place, viewport, theme) in _pictures(engine).items():
            scale = 1.5 if viewport is browsers.PHONE else 1
            look = {"viewport": viewport, "color_scheme": theme, "device_scale_factor": scale}
            pages[name] = browsers.Watched(chromium.new_context(storage_state=state, **look)).page
            pages[name].goto(f"{origin}/#/{place}")
        pages["terminal"].get_by_text("/ #").wait_for()
        pages["terminal"].wait_for_timeout(200)  # BusyBox's editor loses what follows the cursor's place at once
        pages["terminal"].keyboard.type(_SHELL)
        pages["terminal"].wait_for_timeout(_READINGS_S * 1000)
        for name, page in pages.items():
            page.screenshot(path=os.path.join(_PLACE, f"{name}.png"))
    sizes = {name: os.path.getsize(os.path.join(_PLACE, name)) for name in sorted(os.listdir(_PLACE))}
    for name, size in sizes.items():
        print(f"{name}: {size >> 10} KiB")
    return int(max(sizes.values()) > _LARGEST)


def _shop(engine: Engine) -> None:
    for tag in ("shop/web:2.4", "shop/worker:2.4", "shop/database:16", "shop/cache:7"):
        engine.ketch("tag", "busybox", tag)
    engine.ketch("network", "create", "shop")
    engine.ketch("volume", "create", "orders")
    run = ("run", "-d", "--network", "shop", "--restart", "always")
    engine.ketch(
        *run, "--name", "web", "-p", "127.0.0.1:8080:80", "--memory", "64m", "shop/web:2.4", "sh", "-c", _SERVE
    )
    engine.ketch(*run, "--name", "worker", "shop/worker:2.4", "sh", "-c", f"{_WORK % (9000, 3)} & {_FETCH % 2}")
    engine.ketch(
        *run, "--name", "database", "-v", "orders:/var/lib/data", "shop/database:16", "sh", "-c", _WORK % (900, 5)
    )
    engine.ketch(*run, "--name", "cache", "shop/cache:7", "sh", "-c", f"{_WORK % (300, 7)} & {_FETCH % 7}")
    engine.ketch("run", "--name", "migrate", "--network", "shop", "shop/web:2.4", "true")


def _id(engine: Engine, name: str) -> str:
    return str(engine.inspect(name)["Id"])


def _pictures(engine: Engine) -> dict[str, tuple[str, dict[str, int], str]]:
    """By name: what is shown, how large, in which colours."""
    web, database = _id(engine, "web"), _id(engine, "database")
    return {
        "containers": ("containers", browsers.DESK, "light"),
        "container": (f"containers/{web}/overview", browsers.DESK, "dark"),
        "logs": (f"containers/{web}/logs", browsers.DESK, "light"),
        "terminal": (f"containers/{database}/terminal", browsers.DESK, "dark"),
        "phone-containers": ("containers", browsers.PHONE, "dark"),
        "phone-container": (f"containers/{web}/overview", browsers.PHONE, "light"),
    }


if __name__ == "__main__":
    sys.exit(main())
