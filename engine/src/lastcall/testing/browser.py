"""A real Chromium for tests: the machine's, or Playwright's own where there is none.

def test_page(chromium): page = chromium.new_page()    # a test marked `browser`
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Chromium's own calls home would be refused, many at a time, on a machine without a network.
ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
)


def executable() -> str | None:
    """The Chromium of this machine: the one that CHROMIUM names, else one on the PATH; None when there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A headless Chromium, closed at the end. Chromium's sandbox does not work as root, so it is off there."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (only browser tests need it)

    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()
