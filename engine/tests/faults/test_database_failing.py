"""The database restarts, crashes, or can only be reached through a network that fails; listeners stay exact."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lastcall.testing.fixtures import Database, Databases, FaultProxy, PostgresServer
from lastcall.testing.sample import app as sample
from lastcall.testing.serving import Serve
from lastcall.testing.storm import SHORT_WINDOW, Storm
from lastcall.testing.waiting import eventually_async

LISTENERS = 60
NOTES = 6_000
FAST_SHUTDOWN_MAX_S = 3.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def own_database(make_server: Callable[..., PostgresServer]) -> Database:
    """The sample application's database on a PostgreSQL of the test's own."""
    return Databases(make_server()).create((sample,))


async def test_fast_restart(own_database: Database, serve: Serve, storm: Storm) -> None:
    """Three fast restarts of PostgreSQL, each shut down within 3 s although the feed is attached, lose nothing."""
    server = serve(own_database, **SHORT_WINDOW)
    took_s: list[float] = []

    async def restart() -> None:
        began = time.monotonic()
        own_database.server.stop("fast")
        took_s.append(time.monotonic() - began)
        own_database.server.cluster.start()

    await storm(own_database, server.listener, [restart] * 3, listeners=LISTENERS, notes=NOTES)
    assert max(took_s) < FAST_SHUTDOWN_MAX_S


async def test_crash(own_database: Database, serve: Serve, storm: Storm) -> None:
    """Three crashes of PostgreSQL (immediate shutdown, then recovery) lose and double nothing that was committed."""
    server = serve(own_database, **SHORT_WINDOW)

    async def crash() -> None:
        own_database.server.restart("immediate")

    await storm(own_database, server.listener, [crash] * 3, listeners=LISTENERS, notes=NOTES)


async def test_network_to_the_database(
    sample_database: Database, serve: Serve, storm: Storm, make_proxy: Callable[[int], FaultProxy]
) -> None:
    """Between server and database connections are cut, delayed, swallowed and half-closed; listeners stay exact."""
    proxy = make_proxy(sample_database.server.port)
    url = sample_database.owner_url.replace(f":{sample_database.server.port}/", f":{proxy.port}/")
    server = serve(sample_database, url=url, **SHORT_WINDOW)

    async def cut() -> None:
        proxy.cut()

    async def delay() -> None:
        proxy.fault("delay", 0.02)

    async def swallow() -> None:
        proxy.fault("drop")
        # The feed notices by itself that nothing comes any more, and says so where operators look.
        await eventually_async(lambda: not _ready(server.url), 15)
        proxy.cut()

    async def half_close() -> None:
        proxy.fault("half_close")
        proxy.cut()

    async def half_open() -> None:
        proxy.fault("half_open")
        proxy.heal()

    disturbances = [cut, delay, cut, swallow, half_close, half_open]
    await storm(sample_database, server.listener, disturbances, listeners=LISTENERS, notes=NOTES, pause_s=0.001)


def _ready(url: str) -> bool:
    import httpx

    return httpx.get(f"{url}/readyz", timeout=5.0).status_code == 200


async def test_network_to_the_clients(
    sample_database: Database, serve: Serve, storm: Storm, make_proxy: Callable[[int], FaultProxy]
) -> None:
    """Between clients and server connections are cut, delayed and half-closed; listeners stay exact."""
    server = serve(sample_database, **SHORT_WINDOW)
    proxy = make_proxy(server.port)

    async def cut() -> None:
        proxy.cut()

    async def delay() -> None:
        proxy.fault("delay", 0.01)

    async def half_close() -> None:
        proxy.fault("half_close")
        proxy.cut()

    async def half_open() -> None:
        proxy.fault("half_open")
        proxy.heal()

    await storm(
        sample_database,
        lambda *channels: server.listener(*channels, port=proxy.port),
        [cut, delay, cut, half_close, cut, half_open],
        listeners=LISTENERS,
        notes=NOTES,
        pause_s=0.001,
    )
