"""The tutorial works when it is followed to the letter: its files are taken from the page itself."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from lastcall.testing.browser import launched
from lastcall.testing.server import Server
from lastcall.testing.waiting import eventually, free_port

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tutorials" / "first-channel.md"
_FILE = re.compile(r"^`(shop/[^`]+)`\n\n```[a-z]+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES_OF_THE_PAGE = 8


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The tutorial's application, served as the tutorial says, on a database of its own."""
    files = _FILE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(files) == FILES_OF_THE_PAGE
    for name, text in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    server = Server(free_port(), tmp_path, command=("serve", "--app", "shop.app:app"))
    try:
        yield server.start()
    finally:
        server.stop()


class Curl:
    """What `curl -N` prints of a stream, as it comes."""

    def __init__(self, url: str) -> None:
        self.text = ""
        self._response = httpx.stream("GET", url, headers={"Accept": "text/event-stream"}, timeout=30.0)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._response as answer:
            for line in answer.iter_lines():
                self.text += line + "\n"

    def has(self, *lines: str) -> bool:
        """Whether these lines have come."""
        return all(line in self.text for line in lines)


def psql(server: Server, statement: str) -> None:
    """`lastcall psql -c …`, as the tutorial has it."""
    command = [sys.executable, "-m", "lastcall", "psql", "--data", "data", "-c", statement]
    subprocess.run(command, cwd=server.folder, check=True, capture_output=True)


def test_a_list_is_heard_from_http_and_from_psql(shop: Server) -> None:
    """An item added over HTTP and one added in psql are both events of the list, and the state has both."""
    curl = Curl(f"{shop.url}/events?channel=list:home&state=true")
    eventually(lambda: curl.has("event: state"))
    answer = httpx.post(f"{shop.url}/rpc/shop.add_item", json={"list": "home", "what": "bread"})
    assert (answer.status_code, answer.json()) == (200, 1)
    psql(shop, "insert into shop.items (list, what) values ('home', 'cheese')")
    bread, cheese = (f'data: {{"id":{n},"what":"{what}","bought":false}}' for n, what in ((1, "bread"), (2, "cheese")))
    eventually(lambda: curl.has("event: item", "channel: list:home", bread, cheese), what=curl.text)
    state = httpx.get(f"{shop.url}/state/list:home").json()["state"]
    assert [item["what"] for item in state["items"]] == ["bread", "cheese"]


@pytest.mark.browser
def test_two_windows_show_one_list_through_a_restart(shop: Server) -> None:
    """What one window adds and the other ticks off is seen by both, and both go on after the server was restarted."""
    with launched() as chromium:
        pages = [chromium.new_page() for _ in range(2)]
        for page in pages:
            page.goto(f"{shop.url}/shop/")
        pages[0].get_by_label("What").fill("bread")
        pages[0].get_by_role("button").click()
        expect(pages[1].get_by_text("bread")).to_be_visible()
        pages[1].get_by_text("bread").click()
        expect(pages[0].get_by_text("bread")).to_have_css("text-decoration-line", "line-through")
        shop.stop()
        shop.start()
        httpx.post(f"{shop.url}/rpc/shop.add_item", json={"list": "home", "what": "cheese"})
        for page in pages:
            expect(page.get_by_text("cheese")).to_be_visible(timeout=20_000)
