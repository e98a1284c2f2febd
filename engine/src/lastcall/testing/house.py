"""Gateway, state and admin pages of the sample application in one ASGI application, without feed or socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from lastcall import admin, gateway
from lastcall.app import App
from lastcall.auth import Tokens
from lastcall.feed.unseen import Unseen
from lastcall.front import Front
from lastcall.gateway import Catalogue, Usage
from lastcall.hub import Hub
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.postgres.pool import Pool
from lastcall.state import Reader
from lastcall.testing.desk import opened
from lastcall.testing.fixtures import Database
from lastcall.testing.sample import app as sample

EPOCH = "e1"


class StillFeed:
    """A feed that has nothing to say; a test sets what it is asked."""

    def __init__(self) -> None:
        self.unseen = Unseen()
        self.caught_up = True
        self.alive = True


@dataclass
class House:
    """Everything behind one front door."""

    front: Front
    hub: Hub
    feed: StillFeed
    meter: Meter
    tokens: Tokens
    catalogue: Catalogue
    usage: Usage
    reader: Reader
    pool: Pool

    def token(self, role: str = "member", subject: str | None = "u1", **claims: Any) -> str:
        """A token of this server."""
        return self.tokens.mint(subject, role, claims)

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        """A client with this token."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.front)
        return httpx.AsyncClient(transport=transport, base_url="http://house", headers=headers, timeout=20.0)


@asynccontextmanager
async def house(database: Database, apps: Sequence[App] = (sample,)) -> AsyncIterator[House]:
    """A house on a database with the sample application; its hub is ready, at a position past everything written."""
    config, meter = database.config, Meter()
    tokens, hub, feed = Tokens(config), Hub(config, meter, asyncio.get_running_loop()), StillFeed()
    hub.begin(EPOCH, Position(EPOCH, 1 << 40, 0))
    hub.set_ready()
    async with opened(database) as desk:
        catalogue, usage = Catalogue(desk.caller, apps), Usage(desk.caller)
        reader = Reader(desk.caller, feed, apps, config, meter)
        await catalogue.load()
        await reader.start()
        routes = [
            *gateway.routes(config, hub, meter, tokens, reader, desk.caller, catalogue, apps, usage),
            *admin.routes(config, hub, meter, feed, desk.pool),
        ]
        try:
            front = Front(config, apps, routes, None, None)
            yield House(front, hub, feed, meter, tokens, catalogue, usage, reader, desk.pool)
        finally:
            await reader.stop()
            hub.stop()
