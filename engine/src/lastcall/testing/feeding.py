"""A feed on a test's database, with a sink that records it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import msgspec
import psycopg

from lastcall.config import Config
from lastcall.event import Event
from lastcall.feed.publication import publish_watches
from lastcall.feed.wal import WalFeed
from lastcall.feed.watch import Watch
from lastcall.meter import Meter
from lastcall.position import Position, parse_lsn
from lastcall.testing.fixtures import Database
from lastcall.testing.recording import RecordingSink
from lastcall.testing.waiting import eventually_async

STATUS_INTERVAL_S = 0.1
CATALOG_CHECK_INTERVAL_S = 0.3


class Feeding:
    """Publishes the watches and runs a feed: `async with Feeding(database, watches) as feeding: …`.

    url: instead of the database's own for replication (a proxy's). settings: into the feed's config.
    """

    def __init__(self, database: Database, watches: Sequence[Watch] = (), url: str = "", **settings: object) -> None:
        quick = {"status_interval_s": STATUS_INTERVAL_S, "catalog_check_interval_s": CATALOG_CHECK_INTERVAL_S}
        self.database = database
        self.watches = watches
        self.config: Config = msgspec.structs.replace(database.config, **{**quick, **settings})
        self.url = url or database.replication_url
        self.meter = Meter()
        self.sink = RecordingSink()
        self.feed = WalFeed(self.config, self.url, watches, self.meter)

    async def publish(self) -> bool:
        """What `migrate` does."""
        async with await self.database.connect_async() as owner:
            return await publish_watches(owner, self.config, self.watches)

    async def start(self, *, wait_max_s: float = 0.0) -> RecordingSink:
        """Start the feed and wait until it has caught up."""
        await self.feed.start(self.sink, wait_max_s=wait_max_s)
        await eventually_async(lambda: self.feed.caught_up, what="the feed catches up")
        return self.sink

    async def settled(self) -> RecordingSink:
        """Wait until everything that has been committed up to now is delivered."""
        lsn = flushed(self.database)
        await eventually_async(lambda: self.feed.alive and self.feed.head.lsn >= lsn, what="the feed is settled")
        return self.sink

    async def stop(self) -> None:
        """Stop the feed and hold it to its promises."""
        await self.feed.stop()
        assert self.sink.broken == []

    async def __aenter__(self) -> Feeding:
        await self.publish()
        try:
            await self.start()
        except BaseException:
            await self.feed.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.feed.stop()
        if error is None:
            assert self.sink.broken == []


def flushed(database: Database) -> int:
    """How far the log is on disk once everything committed up to now is."""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = local")
        connection.execute("select pg_current_xact_id()")
        row = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None
    return parse_lsn(row[0])


def told(events: Sequence[Event]) -> list[tuple[str, tuple[str, ...], object]]:
    """(name, channels, data) of events."""
    return [(event.name, event.channels, msgspec.json.decode(event.data)) for event in events]


def places(events: Sequence[Event]) -> dict[Position, bytes]:
    """Data by position."""
    return {event.position: event.data for event in events}
