"""The promises of the feed's port (lastcall/feed/protocol.py), which every feed keeps.

A feed joins by a Source: how to commit something that it must tell, how to make one of it, and how to break its
connection. The sink (lastcall.testing.recording) notes every promise that is broken while it listens.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lastcall.errors import LastcallError
from lastcall.event import Transaction
from lastcall.feed.protocol import Feed
from lastcall.feed.publication import publish_watches
from lastcall.feed.wal import WalFeed
from lastcall.feed.watch import Watch
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.testing.fixtures import Database
from lastcall.testing.proxy import FaultProxy
from lastcall.testing.recording import RecordingSink
from lastcall.testing.waiting import eventually_async

SEED = 20261120
CUTS = 12
WRITERS = 3
WRITES = 400

TABLES = """
    create schema app;
    create table app.note (id bigint primary key, place int not null);
    alter table app.note replica identity full;
"""


class Source(Protocol):
    """Where a feed's transactions come from."""

    def commit(self, ids: list[int]) -> None:
        """One transaction that makes one event `note` with `{"id": …}` for each id; called from any thread."""

    def feed(self) -> Feed:
        """A new feed of this source, as of a new process."""

    def cut(self) -> None:
        """Break every connection that feeds have; they can connect again at once."""


class WalSource:
    """PostgreSQL behind a proxy."""

    def __init__(self, database: Database, proxy: FaultProxy) -> None:
        self.database = database
        self.proxy = proxy
        self.watches = [Watch(table="app.note", channel="place:{place}", event="note", columns=("id",))]
        self.config = msgspec.structs.replace(database.config, status_interval_s=0.1, reconnect_wait_max_s=0.1)

    async def prepare(self) -> None:
        """Tables and publication."""
        async with await self.database.connect_async() as owner:
            await owner.execute(TABLES)
            await publish_watches(owner, self.config, self.watches)

    def commit(self, ids: list[int]) -> None:
        """Rows of one transaction."""
        with psycopg.connect(self.database.owner_url) as connection:
            connection.cursor().executemany(
                "insert into app.note values (%s, %s)", [[number, number % 7] for number in ids]
            )

    def feed(self) -> WalFeed:
        """Reads through the proxy."""
        url = make_conninfo(self.database.replication_url, host="127.0.0.1", port=str(self.proxy.port))
        return WalFeed(self.config, url, self.watches, Meter())

    def cut(self) -> None:
        """Reset the proxy's connections."""
        self.proxy.cut()


@pytest.fixture(params=["wal"])
async def source(request: pytest.FixtureRequest, database: Database, make_proxy: Callable[[int], FaultProxy]) -> Source:
    """Every source there is."""
    made = {"wal": WalSource}[request.param](database, make_proxy(database.server.port))
    await made.prepare()
    return made


@asynccontextmanager
async def listening(source: Source, sink: RecordingSink) -> AsyncIterator[Feed]:
    """A feed that is caught up; at the end it is stopped and has broken no promise."""
    feed = source.feed()
    await eventually_async(lambda: started(feed, sink), what="the feed starts")
    try:
        await eventually_async(lambda: feed.caught_up, what="the feed catches up")
        yield feed
    finally:
        await feed.stop()
    assert sink.broken == []


async def started(feed: Feed, sink: RecordingSink) -> bool:
    """Whether it could be started; the node before it may have let go just now."""
    try:
        await feed.start(sink)
    except LastcallError:
        return False
    return True


def ids(sink: RecordingSink) -> list[int]:
    """What was told, in order."""
    return [msgspec.json.decode(event.data)["id"] for event in sink.events]


async def heard(sink: RecordingSink, count: int) -> None:
    """Wait until that many events were told."""
    await eventually_async(lambda: len(sink.events) >= count, what=f"{count} events")


async def test_begin_comes_first_and_only_what_follows_the_floor(source: Source) -> None:
    """`begin` is the first call; what was committed before the first epoch is not told, what comes after it is."""
    source.commit([1])
    sink = RecordingSink()
    async with listening(source, sink):
        source.commit([2])
        await heard(sink, 1)
    assert sink.calls[0] == ("begin", sink.floor)
    assert ids(sink) == [2]
    assert sink.floor is not None
    assert sink.events[0].position > sink.floor


async def test_transactions_are_whole(source: Source) -> None:
    """The events of one transaction come together, in its order, under one commit position."""
    sink = RecordingSink()
    async with listening(source, sink):
        source.commit([3, 1, 2])
        source.commit([5, 4])
        await heard(sink, 5)
    assert [len(transaction.events) for transaction in sink.transactions] == [3, 2]
    assert ids(sink) == [3, 1, 2, 5, 4]


async def test_calls_come_in_the_loops_thread(source: Source) -> None:
    """Every call of the sink comes in the thread of the event loop, while no other call runs."""
    loop = asyncio.get_running_loop()

    class Here(RecordingSink):
        def deliver(self, transactions: list[Transaction]) -> None:
            assert asyncio.get_running_loop() is loop
            super().deliver(transactions)

    sink = Here()
    async with listening(source, sink):
        await asyncio.to_thread(source.commit, [1])
        await heard(sink, 1)


async def test_head_moves_where_nothing_happens(source: Source) -> None:
    """On a source where nothing that is told happens, the head still moves, and never back."""
    sink = RecordingSink()
    async with listening(source, sink):
        source.commit([1])
        await heard(sink, 1)
        head = sink.head
        assert head is not None
        source.commit([])
        source.commit([2])
        await heard(sink, 2)
        assert sink.head is not None
        assert sink.head > head


async def test_restart_tells_the_stretch_since_the_floor_again(source: Source) -> None:
    """A new feed tells a new sink the same transactions at the same positions, and goes on."""
    first, second = RecordingSink(), RecordingSink()
    async with listening(source, first):
        for number in range(20):
            source.commit([number])
        await heard(first, 20)
    source.commit([20])
    async with listening(source, second):
        source.commit([21])
        await heard(second, 22)
    assert second.epochs == first.epochs
    assert second.transactions[: len(first.transactions)] == first.transactions
    assert ids(second) == list(range(22))


async def test_connections_that_break_change_nothing(source: Source) -> None:
    """Under load, with the connection cut again and again, everything is told once, whole, in commit order, in one
    epoch; a new feed then tells exactly the same."""
    chance = random.Random(SEED)
    sink, again = RecordingSink(), RecordingSink()

    def write(writer: int) -> None:
        for number in range(WRITES // WRITERS):
            base = (writer * WRITES + number) * 10
            source.commit(list(range(base, base + 1 + number % 4)))

    async with listening(source, sink) as feed:
        writing = asyncio.gather(*[asyncio.to_thread(write, writer) for writer in range(WRITERS)])
        for _ in range(CUTS):
            more = len(sink.events) + 1
            await eventually_async(lambda more=more: len(sink.events) >= more or writing.done())  # type: ignore[misc]
            await asyncio.sleep(chance.uniform(0, 0.05))
            source.cut()
        await writing
        total = sum(1 + number % 4 for number in range(WRITES // WRITERS)) * WRITERS
        await heard(sink, total)
        assert feed.alive
    assert len(sink.events) == total
    assert sorted(ids(sink)) == sorted(set(ids(sink)))
    for writer in range(WRITERS):
        own = [number for number in ids(sink) if writer * WRITES * 10 <= number < (writer + 1) * WRITES * 10]
        assert own == sorted(own)
    assert sink.resets == []
    assert len(sink.epochs) == 1
    async with listening(source, again):
        pass
    assert again.transactions == sink.transactions


async def test_only_one_feed_reads(source: Source) -> None:
    """A second feed is refused with a reason and calls its sink for nothing; the first goes on."""
    sink, other = RecordingSink(), RecordingSink()
    async with listening(source, sink):
        second = source.feed()
        with pytest.raises(LastcallError, match="LC201"):
            await second.start(other)
        await second.stop()
        source.commit([1])
        await heard(sink, 1)
    assert other.calls == []


async def test_stop_gives_back_and_is_harmless_twice(source: Source) -> None:
    """A stop, also of a feed that never started, ends within its second, tells nothing more, and can be repeated."""
    idle = source.feed()
    await idle.stop()
    sink = RecordingSink()
    async with listening(source, sink) as feed:
        async with asyncio.timeout(5):
            await feed.stop()
        await feed.stop()
        assert not feed.alive
    source.commit([1])
    calls: list[Any] = list(sink.calls)
    other = RecordingSink()
    async with listening(source, other):
        await heard(other, 1)
    assert sink.calls == calls


async def test_nothing_unacknowledged_is_forgotten(source: Source) -> None:
    """What the sink has not acknowledged is told again after a restart."""
    sink, again = RecordingSink(), RecordingSink()
    async with listening(source, sink) as feed:
        assert sink.floor is not None
        feed.acknowledge(sink.floor)
        for number in range(10):
            source.commit([number])
        await heard(sink, 10)
        feed.acknowledge(sink.events[4].position)
        feed.acknowledge(Position("elsewhere", 1, 0))
    async with listening(source, again):
        pass
    assert ids(again)[-6:] == [4, 5, 6, 7, 8, 9]
