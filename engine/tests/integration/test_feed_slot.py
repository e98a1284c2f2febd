"""The slot: who holds it, how far it lets the log go, and when a new epoch begins."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lastcall.errors import Refusal, StartRefused
from lastcall.feed.watch import Watch
from lastcall.position import Position, format_lsn, parse_lsn
from lastcall.testing.feeding import Feeding, flushed
from lastcall.testing.fixtures import Database, Databases, describe
from lastcall.testing.postgres_server import PostgresServer
from lastcall.testing.proxy import FaultProxy
from lastcall.testing.waiting import eventually_async

SALE = Watch(table="app.sale", channel="bar:{bar}", event="sale", columns=("id",))
TABLES = """
    create schema app;
    create table app.sale (id bigint generated always as identity primary key, bar int);
    alter table app.sale replica identity full;
"""


@pytest.fixture
def app(database: Database) -> Database:
    """A database with a watched table."""
    with database.connect() as owner:
        owner.execute(TABLES)
    return database


def sell(database: Database, count: int = 1) -> None:
    """Commit that many sales, one by one."""
    with database.connect() as owner:
        for _ in range(count):
            owner.execute("insert into app.sale (bar) values (7)")


def confirmed(database: Database) -> int:
    """What the slot has confirmed."""
    ((lsn,),) = database.execute(
        "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s", [database.config.slot]
    )
    return parse_lsn(str(lsn))


def ids(feeding: Feeding) -> list[int]:
    """The ids told."""
    return [json.loads(event.data)["id"] for event in feeding.sink.events]


async def test_second_node_is_refused_and_told_who_holds(app: Database) -> None:
    """While one feed reads, another start is LC201 and names the holder; after a stop the next start succeeds."""
    async with Feeding(app, [SALE]) as first:
        second = Feeding(app, [SALE])
        with pytest.raises(Refusal, match="held by lastcall") as refusal:
            await second.start()
        assert refusal.value.code.number == "LC201"
        assert second.sink.calls == []
        await first.feed.stop()
        await first.feed.stop()
        await second.start()
        await second.stop()


async def test_start_waits_for_the_slot_when_asked(app: Database) -> None:
    """A start that may wait takes the slot when its holder lets go, and is refused when it does not."""
    async with Feeding(app, [SALE]) as first:
        second = Feeding(app, [SALE])
        with pytest.raises(Refusal, match="LC201"):
            await second.feed.start(second.sink, wait_max_s=0.3)
        waiting = asyncio.create_task(second.start(wait_max_s=20))
        await asyncio.sleep(0)
        await first.feed.stop()
        await waiting
        await second.stop()


async def test_feed_is_alive_between_start_and_stop(app: Database) -> None:
    """`alive` and `caught_up` are false before, true while it runs; `alive` is false after."""
    feeding = Feeding(app, [SALE])
    assert not feeding.feed.alive
    assert not feeding.feed.caught_up
    await feeding.publish()
    await feeding.start()
    assert feeding.feed.alive
    await feeding.stop()
    assert not feeding.feed.alive


async def test_caught_up_is_not_before_what_was_there(app: Database) -> None:
    """What was committed before the start is delivered before `caught_up` is true."""
    async with Feeding(app, [SALE]):
        pass
    sell(app, 500)
    lsn = flushed(app)
    again = Feeding(app, [SALE])
    await again.feed.start(again.sink)
    await eventually_async(lambda: again.feed.caught_up)
    assert again.feed.head.lsn >= lsn
    assert len(ids(again)) == 500
    await again.stop()


async def test_window_holds_back_and_lets_go(app: Database) -> None:
    """The slot stays behind everything within the window's seconds, and moves on when they have passed, also where
    nothing happens any more."""
    async with Feeding(app, [SALE], window_s=1.5) as feeding:
        started = time.monotonic()
        sell(app)
        await feeding.settled()
        first = feeding.sink.transactions[0]
        held = confirmed(app)
        if time.monotonic() - started < 1.0:
            assert held <= first.commit_lsn
        await eventually_async(lambda: confirmed(app) >= first.end_lsn)
        flushed(app)
        lsn = flushed(app)
        await eventually_async(lambda: confirmed(app) >= lsn)
    again = Feeding(app, [SALE])
    await again.start()
    assert ids(again) == []
    assert again.sink.floor is not None
    assert again.sink.floor.lsn >= lsn
    await again.stop()


async def test_window_is_bounded_by_transactions(app: Database) -> None:
    """However young, no more transactions than allowed are told again after a restart."""
    async with Feeding(app, [SALE], window_transactions_max=50) as feeding:
        sell(app, 300)
        await feeding.settled()
        await eventually_async(lambda: confirmed(app) >= feeding.sink.transactions[-60].commit_lsn)
    again = Feeding(app, [SALE])
    await again.start()
    assert 0 < len(ids(again)) <= 52
    assert ids(again)[-1] == 300
    await again.stop()


async def test_slot_waits_for_the_acknowledgement(app: Database) -> None:
    """From the first acknowledgement on, the slot forgets nothing behind it, however short the window."""
    async with Feeding(app, [SALE], window_s=0.01) as feeding:
        assert feeding.sink.floor is not None
        feeding.feed.acknowledge(feeding.sink.floor)
        sell(app, 3)
        await feeding.settled()
        middle = feeding.sink.events[1].position
        await eventually_async(lambda: confirmed(app) >= feeding.sink.floor.lsn)
        assert confirmed(app) <= feeding.sink.events[0].position.lsn
        feeding.feed.acknowledge(Position("another", 1 << 60, 0))
        feeding.feed.acknowledge(middle)
        await eventually_async(lambda: confirmed(app) == middle.lsn)
        feeding.feed.acknowledge(feeding.feed.head)
        await eventually_async(lambda: confirmed(app) > middle.lsn)


async def test_slot_waits_until_a_commit_is_visible(make_server: Callable[..., PostgresServer]) -> None:
    """A commit that waits for a synchronous standby is delivered, is unseen, and holds the slot until it is visible."""
    server = make_server({"synchronous_commit": "on"})
    app = Databases(server).create(())
    app.execute(TABLES)
    async with Feeding(app, [SALE], window_s=0.01) as feeding:
        sell(app)
        await feeding.settled()
        await eventually_async(lambda: len(feeding.feed.unseen) == 0)
        with server.connect() as superuser:
            superuser.execute("alter system set synchronous_standby_names = 'nobody'")
            superuser.execute("select pg_reload_conf()")
        waiting = asyncio.create_task(asyncio.to_thread(sell, app))
        await eventually_async(lambda: len(ids(feeding)) == 2)
        with server.connect(app.name) as other:
            assert other.execute("select count(*) from app.sale").fetchone() == (1,)
            for _ in range(5):
                other.execute("select pg_logical_emit_message(false, 'foreign', 'x')")
            commit_lsn = feeding.sink.transactions[-1].commit_lsn
            assert feeding.feed.unseen.oldest() == commit_lsn
            await eventually_async(lambda: confirmed(app) == commit_lsn)
            other.execute("alter system reset synchronous_standby_names")
            other.execute("select pg_reload_conf()")
        await waiting
        await eventually_async(lambda: len(feeding.feed.unseen) == 0)
        await eventually_async(lambda: confirmed(app) > commit_lsn)


async def test_start_says_what_is_missing(app: Database, databases: Databases, empty_database: Database) -> None:
    """A start on a database that is not prepared is refused with what to do, and leaves no slot behind."""
    with pytest.raises(StartRefused, match="lastcall migrate"):
        await Feeding(app, [SALE]).start()
    with pytest.raises(StartRefused, match="lastcall migrate"):
        await Feeding(empty_database, []).start()
    unreachable = Feeding(app, [SALE], url=app.replication_url.replace("dbname=", "dbname=no_"))
    with pytest.raises(Refusal, match="LC202"):
        await unreachable.start()
    stranger = Feeding(app, [SALE], url=app.authenticator_url)
    await stranger.publish()
    with pytest.raises(StartRefused, match="lastcall migrate"):
        await stranger.start()
    assert app.execute("select 1 from pg_replication_slots where database = current_database()") == []


async def test_unbounded_slot_is_refused(make_server: Callable[..., PostgresServer]) -> None:
    """Where max_slot_wal_keep_size is not set, or wal_level is too low, the feed does not start, and says how to."""
    server = make_server({"max_slot_wal_keep_size": "-1"})
    app = Databases(server).create(())
    with pytest.raises(StartRefused, match="max_slot_wal_keep_size"):
        await Feeding(app).start()
    server.restart(max_slot_wal_keep_size="64MB", wal_level="replica")
    with pytest.raises(StartRefused, match="wal_level is replica"):
        await Feeding(app).start()


async def test_slot_of_somebody_else_is_not_touched(app: Database, databases: Databases) -> None:
    """A slot of our name that belongs to another database or plugin is refused by name and stays."""
    other = databases.create(())
    with other.superuser() as superuser:
        superuser.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [app.config.slot])
    feeding = Feeding(app, [SALE])
    await feeding.publish()
    with pytest.raises(StartRefused, match="LASTCALL_SLOT"):
        await feeding.start()
    assert app.execute("select 1 from pg_replication_slots where slot_name = %s", [app.config.slot]) == [(1,)]


async def test_open_transaction_that_keeps_the_slot_from_being_made_is_named(app: Database) -> None:
    """A slot can only be made when open transactions have ended: bounded, refused with where to look, then it works."""
    feeding = Feeding(app, [SALE], slot_wait_max_s=0.5)
    await feeding.publish()
    with app.connect(autocommit=False) as open_writer:
        open_writer.execute("insert into app.sale (bar) values (7)")
        with pytest.raises(StartRefused, match="xact_start"):
            await feeding.start()
    await feeding.start(wait_max_s=10)
    sell(app)
    await feeding.settled()
    assert len(ids(feeding)) == 1
    await feeding.stop()


async def end_epoch(database: Database, harm: str) -> None:
    """Harm the slot, the epoch's row or the publication as a superuser."""
    with database.superuser() as superuser:
        superuser.execute(harm.format(slot=database.config.slot).encode())


HARM = [
    "select pg_drop_replication_slot('{slot}')",
    "delete from lastcall.epoch",
    "update lastcall.epoch set system_identifier = '1'",
    "update lastcall.epoch set timeline = 7",
    "update lastcall.epoch set consistent_point = 'FFFF/0'",
    "update lastcall.watched set publication = 1",
]


@pytest.mark.parametrize("harm", HARM)
async def test_epoch_that_cannot_be_continued_ends(app: Database, harm: str) -> None:
    """Whatever does not fit the epoch's row begins a new epoch at the next start, with an alarm, and is heard again."""
    async with Feeding(app, [SALE]) as feeding:
        sell(app)
        await feeding.settled()
    await end_epoch(app, harm)
    async with Feeding(app, [SALE]) as again:
        sell(app)
        await again.settled()
    assert again.sink.epochs[0] != feeding.sink.epochs[0]
    assert ids(again) == [2]
    assert again.meter.feed_epochs == 1
    assert again.meter.alarms.get("epoch", 0) == (0 if "delete" in harm else 1)
    third = Feeding(app, [SALE])
    await third.start()
    assert third.sink.epochs == again.sink.epochs
    await third.stop()


@pytest.mark.parametrize("harm", HARM)
async def test_epoch_ends_while_running(app: Database, harm: str) -> None:
    """The same while the feed runs: it begins the new epoch itself and resets everybody."""
    async with Feeding(app, [SALE]) as feeding:
        sell(app)
        await feeding.settled()
        if "pg_drop" in harm:
            harm = (
                "do $$ begin perform pg_terminate_backend(active_pid) from pg_replication_slots"
                " where slot_name = '{slot}'; loop begin perform pg_drop_replication_slot('{slot}'); return;"
                " exception when object_in_use then perform pg_terminate_backend(active_pid) from"
                " pg_replication_slots where slot_name = '{slot}'; end; end loop; end $$"
            )
        await end_epoch(app, harm)
        with app.superuser() as superuser:
            superuser.execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s and active",
                [app.config.slot],
            )
        await eventually_async(lambda: len(feeding.sink.epochs) == 2 and feeding.feed.alive)
        sell(app)
        await feeding.settled()
    assert ids(feeding)[-1] == 2
    assert ("reset_all", "epoch") in feeding.sink.calls
    names = [name for name, _ in feeding.sink.calls]
    assert names.index("reset_all") == len(names) - names[::-1].index("begin")


async def test_epoch_interrupted_while_it_begins_is_begun_again(app: Database) -> None:
    """A start that dies between the row and the slot, or before the row is complete, leaves nothing that misleads."""
    feeding = Feeding(app, [SALE])
    await feeding.publish()
    with psycopg.connect(app.replication_url, autocommit=True) as feed_login:
        feed_login.execute("select lastcall.begin_epoch('dead', '1', 1, %s, '{}')", [app.config.slot])
    await feeding.start()
    assert feeding.sink.epochs[0] != "dead"
    await feeding.feed.stop()
    app.execute("update lastcall.epoch set consistent_point = '0/0'")
    again = Feeding(app, [SALE])
    await again.start()
    assert again.sink.epochs == feeding.sink.epochs
    await again.stop()


async def test_slot_that_somebody_read_on_is_a_reset_of_everything(
    app: Database, make_proxy: Callable[[int], FaultProxy]
) -> None:
    """When another reader moved our slot while we were cut off, the stretch is announced as lost, in the same epoch."""
    proxy = make_proxy(app.server.port)
    url = make_conninfo(app.replication_url, host="127.0.0.1", port=str(proxy.port))
    async with Feeding(app, [SALE], url=url, reconnect_wait_max_s=0.1) as feeding:
        sell(app)
        await feeding.settled()
        proxy.fault("refuse")
        proxy.cut()
        proxy.fault("refuse")
        sell(app)
        lsn = format_lsn(flushed(app))
        with app.superuser() as superuser:
            await eventually_async(lambda: advanced(superuser, app.config.slot, lsn))
        proxy.heal()
        await eventually_async(lambda: feeding.feed.alive)
        sell(app)
        await feeding.settled()
    assert ids(feeding) == [1, 3]
    assert feeding.meter.alarms["history_gap"] == 1
    names = [(name, what) for name, what in feeding.sink.calls if name != "advance"]
    assert [name for name, _ in names] == ["begin", "deliver", "reset_all", "deliver"]
    assert ("reset_all", "history") in names
    assert len(feeding.sink.epochs) == 1


def advanced(superuser: psycopg.Connection[tuple[object, ...]], slot: str, lsn: str) -> bool:
    """Whether the slot could be moved: it is free a moment after its reader was cut off."""
    try:
        superuser.execute("select pg_replication_slot_advance(%s, %s)", [slot, lsn])
    except psycopg.errors.ObjectInUse:
        return False
    return True


async def test_start_needs_no_writes_when_nothing_has_changed(app: Database) -> None:
    """A node restarts where the database takes no writes: an unchanged set of watches writes nothing."""
    async with Feeding(app, [SALE]) as feeding:
        sell(app)
        await feeding.settled()
    before = app.execute("select xmin::text, ctid::text from lastcall.watched")
    again = Feeding(app, [SALE])
    await again.start()
    await again.stop()
    assert app.execute("select xmin::text, ctid::text from lastcall.watched") == before
    assert again.sink.resets == []


async def test_settings_of_another_cluster_are_described(postgres: PostgresServer, database: Database) -> None:
    """A database whose name has no lastcall is refused in words, whatever the feed's login can reach there."""
    other = describe(postgres, "postgres")
    feeding = Feeding(database, url=other.superuser_url)
    with pytest.raises(StartRefused, match="lastcall migrate"):
        await feeding.start()
