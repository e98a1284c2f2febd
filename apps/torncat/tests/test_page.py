"""The page of C.A.T. in a real Chromium, served by the real `lastcall demo` on a real PostgreSQL."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from lastcall.testing.browser import launched
from lastcall.testing.fixtures import Database
from lastcall.testing.server import Server
from lastcall.testing.waiting import eventually, free_port

pytestmark = pytest.mark.browser

AXE = Path(__file__).resolve().parents[3] / "node_modules" / "axe-core" / "axe.min.js"
WITHIN_MS = 20_000
AFTER_A_RESTART_MS = 60_000
MARROW, HOLLOWPOINT, PALE_RIDER, LOWTIDE = 2013, 2008, 2016, 2012

# Only three members stay, and the two who are not the visitor are as busy as they may be: the war stands still.
STANDSTILL = """
    update torncat.users set faction_id = null where id between 1004 and 1008;
    insert into torncat.target_calls (caller_id, target_id, created_at)
    values (1002, 2001, now() + interval '1 hour'), (1002, 2002, now() + interval '1 hour'),
           (1003, 2003, now() + interval '1 hour'), (1003, 2004, now() + interval '1 hour');
"""
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for these tests; each takes contexts of its own."""
    with launched() as chromium:
        yield chromium


@pytest.fixture
def demo(war: Database, tmp_path: Path) -> Iterator[Server]:
    """The demonstration, with a war that moves only when a test moves it."""
    for statement in STANDSTILL.strip().split(";\n"):
        war.execute(statement)
    settings = {"database_url": war.owner_url, "slot": war.config.slot, "apps": "torncat", "heartbeat_interval_s": "1"}
    server = Server(free_port(), tmp_path, settings, war.config.jwt_secret, command=("demo",))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def open_page(browser: Browser, demo: Server) -> Iterator[Open]:
    """Opens the page, live, in a browser of its own (or in `context`), as a member. No page may throw."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def make(member: int = 1001, context: BrowserContext | None = None, query: str = "", **options: object) -> Page:
        if context is None:
            context = browser.new_context(**{"locale": "en-GB", **options})  # type: ignore[arg-type]
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{demo.url}/torncat/?member={member}{query}")
        expect(page.locator('[data-phase="live"]')).to_be_visible(timeout=WITHIN_MS)
        expect(row(page, MARROW)).to_be_visible(timeout=WITHIN_MS)
        return page

    yield make
    for context in contexts:
        context.close()
    assert errors == []


def row(page: Page, target: int) -> Locator:
    """The line of a target."""
    return page.locator(f'[data-target="{target}"]')


def stands(page: Page, target: int, standing: str, within_ms: int = WITHIN_MS) -> None:
    """Wait until the page shows a target so: free, mine, held."""
    expect(row(page, target)).to_have_attribute("data-standing", standing, timeout=within_ms)


def insert(war: Database, caller: int, target: int) -> None:
    """What anybody may do with psql."""
    war.execute("insert into torncat.target_calls (caller_id, target_id) values (%s, %s)", (caller, target))


def events(page: Page, text: str) -> Locator:
    """The lines of the list of events that say this."""
    return page.get_by_role("region", name="Events").get_by_role("listitem").filter(has_text=text)


def listeners(demo: Server) -> int:
    """How many connections the server has on the channel."""
    token = demo.token(role="service")
    answer = httpx.get(f"{demo.url}/channels/faction:101", headers={"Authorization": f"Bearer {token}"})
    return int(answer.json()["listeners"])


def test_a_call_in_one_page_appears_in_another(open_page: Open) -> None:
    """What one member calls and releases, another member's page shows without asking."""
    mine, other = open_page(1001), open_page(1002)
    row(mine, MARROW).get_by_role("button", name="Call Marrow").click()
    stands(mine, MARROW, "mine")
    stands(other, MARROW, "held")
    expect(row(other, MARROW)).to_contain_text("Brasslock")
    row(mine, MARROW).get_by_role("button", name="Release Marrow").click()
    stands(mine, MARROW, "free")
    stands(other, MARROW, "free")
    expect(events(other, "Brasslock gave Marrow back")).to_have_count(1)


def test_an_insert_by_psql_appears(open_page: Open, war: Database) -> None:
    """A row that any client inserts is on the board and in the list, with its latency in milliseconds."""
    page = open_page()
    insert(war, 1002, HOLLOWPOINT)
    stands(page, HOLLOWPOINT, "held")
    line = events(page, "Calico called Hollowpoint")
    expect(line).to_have_count(1)
    expect(line.locator("[data-latency]")).to_have_attribute("data-latency", re.compile(r"^\d"), timeout=WITHIN_MS)
    expect(page.get_by_role("region", name="From commit to this page")).to_contain_text("ms")


@pytest.mark.parametrize("transport", ["sse", "websocket", "long-poll"])
def test_a_reconnect_resumes(open_page: Open, demo: Server, war: Database, transport: str) -> None:
    """By every transport, what is committed while the server is dead appears once when it is back."""
    page = open_page(query=f"&transport={transport}")
    expect(page.locator("[data-transport]")).to_have_attribute("data-transport", transport)
    insert(war, 1002, MARROW)
    stands(page, MARROW, "held")
    demo.kill()
    insert(war, 1002, PALE_RIDER)
    demo.start()
    stands(page, PALE_RIDER, "held", AFTER_A_RESTART_MS)
    insert(war, 1003, LOWTIDE)
    stands(page, LOWTIDE, "held")
    for text in ("Calico called Marrow", "Calico called Pale Rider", "Duskwire called Lowtide"):
        expect(events(page, text)).to_have_count(1)
    expect(page.locator("[data-transport]")).to_have_attribute("data-transport", transport)


def test_tabs_of_one_member_hold_one_connection(open_page: Open, demo: Server, war: Database) -> None:
    """Two tabs share a connection; when the one that holds it closes, the other takes over and misses nothing."""
    first = open_page()
    second = open_page(context=first.context)
    expect(first.locator("[data-role]")).to_have_attribute("data-role", "leader")
    expect(second.locator("[data-role]")).to_have_attribute("data-role", "follower")
    assert listeners(demo) == 1
    insert(war, 1002, MARROW)
    stands(first, MARROW, "held")
    stands(second, MARROW, "held")
    first.close()
    insert(war, 1003, LOWTIDE)
    stands(second, LOWTIDE, "held")
    expect(second.locator("[data-role]")).to_have_attribute("data-role", "leader", timeout=WITHIN_MS)
    insert(war, 1003, PALE_RIDER)
    stands(second, PALE_RIDER, "held")
    for text in ("Calico called Marrow", "Duskwire called Lowtide", "Duskwire called Pale Rider"):
        expect(events(second, text)).to_have_count(1)
    eventually(lambda: listeners(demo) == 1, what="one connection")


def test_tabs_of_different_members_do_not_share(open_page: Open, demo: Server) -> None:
    """Tabs of different members hold a connection each: none hears what only the other may."""
    first = open_page(1001)
    second = open_page(1002, context=first.context)
    expect(second.locator("[data-role]")).to_have_attribute("data-role", "leader")
    assert listeners(demo) == 2


def test_a_lost_race_says_who_holds_the_target(open_page: Open, war: Database) -> None:
    """Whoever comes second is told who holds the target, and the click's overlay gives way to the truth."""
    page = open_page()

    def somebody_is_quicker(route: Route) -> None:
        insert(war, 1002, MARROW)
        route.continue_()

    page.route("**/rpc/torncat.call_target", somebody_is_quicker)
    row(page, MARROW).get_by_role("button", name="Call Marrow").click()
    expect(page.get_by_role("alert")).to_contain_text("Marrow is already held by Calico.")
    stands(page, MARROW, "held")


def test_a_server_that_is_away_is_said_and_the_click_taken_back(open_page: Open, demo: Server) -> None:
    """A call that cannot be sent is taken back, with what to do; a repetition later works."""
    page = open_page()
    demo.kill()
    row(page, MARROW).get_by_role("button", name="Call Marrow").click()
    expect(page.get_by_role("alert")).to_contain_text("not known whether Marrow was called", timeout=WITHIN_MS)
    stands(page, MARROW, "free")
    demo.start()
    expect(page.locator('[data-phase="live"]')).to_be_visible(timeout=AFTER_A_RESTART_MS)
    row(page, MARROW).get_by_role("button", name="Call Marrow").click()
    stands(page, MARROW, "mine")


def test_the_keyboard_alone_calls_and_releases(open_page: Open) -> None:
    """A target is called and released by Enter, and the focus stays on its button through every change."""
    page = open_page()
    button = row(page, MARROW).get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_accessible_name("Release Marrow", timeout=WITHIN_MS)
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(button).to_have_accessible_name(re.compile("^Call Marrow"), timeout=WITHIN_MS)
    expect(button).to_be_focused()


def test_french_and_english(open_page: Open) -> None:
    """The page speaks the browser's language from the first word, and the other one at a press, also after a reload."""
    page = open_page(locale="fr-CA")
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    expect(row(page, MARROW).get_by_role("button")).to_have_text("Appeler")
    page.get_by_role("button", name="English").click()
    expect(row(page, MARROW).get_by_role("button")).to_have_text("Call")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(row(page, MARROW).get_by_role("button")).to_have_text("Call", timeout=WITHIN_MS)


def test_everyone_can_read_it(open_page: Open, war: Database) -> None:
    """No finding of axe at WCAG 2.2 AA or sideways scrolling: phone and desk, light and dark, French and English."""
    page = open_page(locale="fr-FR", reduced_motion="reduce")
    row(page, MARROW).get_by_role("button").click()
    stands(page, MARROW, "mine")
    insert(war, 1002, HOLLOWPOINT)
    stands(page, HOLLOWPOINT, "held")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for width, dark, language in itertools.product((360, 1280), (False, True), ("Français", "English")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.get_by_role("button", name=language).click()
        found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
