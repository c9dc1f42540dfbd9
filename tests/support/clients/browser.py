"""Chromium without a window, in which the daemon's page is used as people use it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tests.support.programs import need
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1440, "height": 900}
# Names lead to this machine alone, whoever asks for them.
_RULES = "MAP * 127.0.0.1"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser; while it is there, its thread has an event loop, beside which none can be run."""
    program = need("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root has no sandbox; shared memory is small in containers.
        flags = ["--no-sandbox", "--disable-dev-shm-usage", f"--host-resolver-rules={_RULES}"]
        browser = playwright.chromium.launch(executable_path=program, args=flags, timeout=patient(30) * 1000)
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, address: str) -> None:
    """Open an address that `ketch ui` printed, and wait for what is behind it."""
    page.goto(address)
    page.get_by_role("heading", name="Containers").wait_for()


class Watched:
    """A page of a context, with what went wrong in it: exceptions, refused scripts and styles, windows that opened."""

    def __init__(self, context: BrowserContext) -> None:
        self.wrong: list[str] = []
        context.set_default_timeout(patient(10) * 1000)
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._said)
        self.page.on("dialog", self._opened)

    def _said(self, message: Any) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):  # an error's status
            self.wrong.append(message.text)

    def _opened(self, dialog: Any) -> None:
        self.wrong.append(f"a dialog: {dialog.message}")
        dialog.dismiss()
