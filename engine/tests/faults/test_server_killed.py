"""The server dies without warning, again and again; nobody who listens misses or doubles an event."""

from __future__ import annotations

import pytest

from lastcall.testing.fixtures import Database
from lastcall.testing.serving import Serve
from lastcall.testing.storm import SHORT_WINDOW, Storm

KILLS = 5
LISTENERS = 200
NOTES = 20_000


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kill_minus_nine(sample_database: Database, serve: Serve, storm: Storm) -> None:
    """Killed five times while 200 clients listen on mixed channels and 4 writers commit 20,000 events, the server
    leaves every client with every event of its channels exactly once, in commit order."""
    server = serve(sample_database, **SHORT_WINDOW)

    async def kill() -> None:
        server.kill()
        server.spawn()

    checked = await storm(sample_database, server.listener, [kill] * KILLS, listeners=LISTENERS, notes=NOTES)
    assert checked > NOTES
