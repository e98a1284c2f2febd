"""PostgreSQL restarts, crashes, goes silent, loses the slot, comes back as another: the feed tells everything once, or
says that it cannot."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lastcall.errors import StartRefused
from lastcall.feed.watch import Watch
from lastcall.position import parse_lsn
from lastcall.postgres.migrate import migrate
from lastcall.testing.feeding import Feeding, flushed
from lastcall.testing.fixtures import Database, Databases, describe
from lastcall.testing.postgres_server import DURABLE, PostgresServer
from lastcall.testing.proxy import FaultProxy
from lastcall.testing.recording import RecordingSink
from lastcall.testing.waiting import eventually_async, free_port

SEED = 20261120
WRITERS = 4
SHUTDOWN_MAX_S = 3.0
NOTE = Watch(table="app.note", channel="place:{place}", event="note", columns=("id", "place"))
TABLES = """
    create schema app;
    create table app.note (id bigint primary key, place int not null, padding text);
    alter table app.note replica identity full;
"""
MakeServer = Callable[..., PostgresServer]


def application(server: PostgresServer) -> Database:
    """A database with a watched table."""
    database = Databases(server).create(())
    database.execute(TABLES)
    return database


class Writers:
    """Threads that commit rows one by one, through whatever happens; `committed` holds what was acknowledged."""

    def __init__(self, database: Database, numbers: itertools.count[int]) -> None:
        self.committed: list[int] = []
        self.unknown: set[int] = set()
        self._database = database
        self._numbers = numbers
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(WRITERS)]

    def _write(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._database.owner_url, autocommit=True, connect_timeout=5) as connection:
                    while not self._stop.is_set():
                        self._one(connection)
            except psycopg.Error:
                self._stop.wait(0.01)

    def _one(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        number = next(self._numbers)
        try:
            connection.execute("insert into app.note values (%s, %s)", [number, number % 7])
        except psycopg.Error:
            # The server died in the middle: it may have committed.
            self.unknown.add(number)
            raise
        self.committed.append(number)

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


def ids(sink: RecordingSink) -> list[int]:
    """What was told, in order."""
    return [msgspec.json.decode(event.data)["id"] for event in sink.events if event.name == "note"]


def rows(database: Database) -> set[int]:
    """What the table holds."""
    return {int(str(number)) for (number,) in database.execute("select id from app.note")}


async def compare(database: Database, feeding: Feeding, writers: Writers) -> None:
    """Told: every committed row, once, in commit order; and a new process is told the same."""
    await feeding.settled()
    told = ids(feeding.sink)
    assert len(told) == len(set(told)), "something was told twice"
    assert set(told) == rows(database), "told is not what is there"
    assert set(writers.committed) <= set(told) <= set(writers.committed) | writers.unknown
    positions = [event.position for event in feeding.sink.events]
    assert positions == sorted(positions)
    assert feeding.sink.resets == []
    assert len(feeding.sink.epochs) == 1
    await feeding.stop()
    again = Feeding(database, feeding.watches)
    await again.start()
    await again.stop()
    assert again.sink.events == feeding.sink.events
    assert again.sink.epochs == feeding.sink.epochs


@pytest.mark.parametrize("fault", ["fast", "immediate", "kill"])
async def test_restarts_under_load_lose_and_double_nothing(make_server: MakeServer, fault: str) -> None:
    """While four writers commit, PostgreSQL is restarted three times; every committed row is told once, in commit
    order, in one epoch. A fast shutdown ends within its bound although the feed holds the slot back."""
    server = make_server(DURABLE)
    database = application(server)
    chance = random.Random(SEED)
    longest_s = 0.0
    async with Feeding(database, [NOTE], reconnect_wait_max_s=0.2) as feeding:
        with Writers(database, itertools.count(1)) as writers:
            for _ in range(3):
                want = len(feeding.sink.events) + 200
                await eventually_async(lambda want=want: len(feeding.sink.events) >= want)  # type: ignore[misc]
                await asyncio.sleep(chance.uniform(0, 0.1))
                began = time.monotonic()
                if fault == "kill":
                    await asyncio.to_thread(server.kill)
                else:
                    await asyncio.to_thread(server.stop, fault)  # type: ignore[arg-type]
                longest_s = max(longest_s, time.monotonic() - began)
                await eventually_async(lambda: not feeding.feed.alive)
                # Children of a killed postmaster need a moment to notice.
                await eventually_async(lambda: asyncio.to_thread(starts, server))
                await eventually_async(lambda: feeding.feed.alive)
        assert len(writers.committed) > 600
        if fault == "fast":
            assert longest_s < SHUTDOWN_MAX_S
        await compare(database, feeding, writers)
        assert feeding.meter.feed_reconnects >= 3


def starts(server: PostgresServer) -> bool:
    """Whether it could be started."""
    try:
        server.start()
    except StartRefused:
        return False
    return True


async def test_fast_shutdown_does_not_wait_for_the_window(make_server: MakeServer) -> None:
    """With a slot that is held back by minutes and nothing else going on, a fast shutdown ends at once."""
    server = make_server()
    database = application(server)
    async with Feeding(database, [NOTE], window_s=600.0, status_interval_s=1.0) as feeding:
        database.execute("insert into app.note select g, 1 from generate_series(1, 1000) g")
        await feeding.settled()
        began = time.monotonic()
        await asyncio.to_thread(server.stop, "fast")
        assert time.monotonic() - began < SHUTDOWN_MAX_S
        await asyncio.to_thread(server.start)
        await eventually_async(lambda: feeding.feed.alive)


@pytest.mark.parametrize("fault", ["drop", "stall", "half_close", "half_open", "delay"])
async def test_network_that_fails_loses_nothing(
    database: Database, make_proxy: Callable[[int], FaultProxy], fault: str
) -> None:
    """A network that swallows, stalls, half closes or delays: the feed stops leading when it hears nothing for its
    timeout, connects again when it can, and tells everything once."""
    database.execute(TABLES)
    proxy = make_proxy(database.server.port)
    url = make_conninfo(database.replication_url, host="127.0.0.1", port=str(proxy.port))
    limits = {"walsender_timeout_s": 1.0, "reconnect_wait_max_s": 0.2}
    async with Feeding(database, [NOTE], url=url, **limits) as feeding:
        with Writers(database, itertools.count(1)) as writers:
            await eventually_async(lambda: len(feeding.sink.events) > 100)
            proxy.fault(fault, 0.05)  # type: ignore[arg-type]
            if fault == "delay":
                want = len(feeding.sink.events) + 500
                await eventually_async(lambda: len(feeding.sink.events) > want)
                assert feeding.feed.alive
            else:
                await eventually_async(lambda: not feeding.feed.alive)
            proxy.heal()
            await eventually_async(lambda: feeding.feed.alive)
        await compare(database, feeding, writers)


async def test_slot_dropped_under_load_begins_a_new_epoch(make_server: MakeServer) -> None:
    """Somebody drops the slot while writers commit: a new epoch, reset, alarm; from its floor on everything is told."""
    server = make_server(DURABLE)
    database = application(server)
    async with Feeding(database, [NOTE], reconnect_wait_max_s=0.1) as feeding:
        with Writers(database, itertools.count(1)):
            await eventually_async(lambda: len(feeding.sink.events) > 100)
            with database.superuser() as superuser:
                await eventually_async(lambda: dropped(superuser, database.config.slot))
            await eventually_async(lambda: len(feeding.sink.epochs) == 2)
        await feeding.settled()
        await check_new_epoch(feeding, database)


def dropped(superuser: psycopg.Connection[tuple[object, ...]], slot: str) -> bool:
    """End who reads the slot, and drop it if that was quick enough."""
    superuser.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s", [slot])
    try:
        superuser.execute("select pg_drop_replication_slot(%s)", [slot])
    except psycopg.errors.ObjectInUse:
        return False
    return True


async def check_new_epoch(feeding: Feeding, database: Database) -> None:
    """The new epoch is announced, and complete from its floor on: what is told is what was committed last."""
    assert feeding.meter.alarms["epoch"] == 1
    assert feeding.sink.calls.count(("reset_all", "epoch")) == 1
    with psycopg.connect(database.owner_url) as connection:
        connection.execute("insert into app.note values (-1, 0)")
    await feeding.settled()
    told = ids(feeding.sink)
    assert len(told) == len(set(told))
    assert told[-1] == -1


async def test_slot_that_lost_its_log_begins_a_new_epoch(make_server: MakeServer) -> None:
    """While the feed is away the database writes more log than the slot may hold back: the log stays within its bound,
    the slot is invalidated, the feed begins a new epoch with an alarm."""
    keep = {"max_slot_wal_keep_size": "32MB", "max_wal_size": "64MB", "min_wal_size": "32MB"}
    server = make_server(keep)
    database = application(server)
    async with Feeding(database, [NOTE]) as feeding:
        database.execute("insert into app.note values (1, 1)")
        await feeding.settled()
        first = feeding.sink.epochs[0]
    with server.connect(database.name) as superuser:
        await eventually_async(lambda: lost(superuser, database.config.slot))
        (size,) = superuser.execute("select sum(size) from pg_ls_waldir()").fetchone() or (0,)
        assert int(str(size)) < 200 << 20
    again = Feeding(database, [NOTE])
    await again.start()
    database.execute("insert into app.note values (-1, 0)")
    await again.settled()
    assert again.sink.epochs[0] != first
    assert ids(again.sink) == [-1]
    assert again.meter.alarms["epoch"] == 1
    await again.stop()


def lost(superuser: psycopg.Connection[tuple[object, ...]], slot: str) -> bool:
    """Write log, let PostgreSQL clean up, see what has become of the slot."""
    superuser.execute("select pg_logical_emit_message(false, 'foreign', repeat('x', 4000000))")
    superuser.execute("select pg_switch_wal()")
    superuser.execute("checkpoint")
    found = superuser.execute("select wal_status from pg_replication_slots where slot_name = %s", [slot]).fetchone()
    return found == ("lost",)


async def test_log_stays_within_its_bound_while_the_feed_reads(make_server: MakeServer) -> None:
    """Under load far beyond the window's share of the log, the slot follows: it is never lost, and holds back no more
    than max_slot_wal_keep_size, although the window's seconds would hold everything."""
    keep = {"max_slot_wal_keep_size": "32MB", "max_wal_size": "64MB", "min_wal_size": "32MB"}
    server = make_server({**keep, "synchronous_commit": "on"})
    database = application(server)
    async with Feeding(database, [NOTE], window_s=3600.0) as feeding:
        with database.superuser() as superuser:
            for number in range(15):
                superuser.execute("insert into app.note values (%s, 1, repeat('x', 2000000))", [number])
                superuser.execute("select pg_logical_emit_message(false, 'foreign', repeat('x', 4000000))")
                await feeding.settled()
                superuser.execute("checkpoint")
                status, held = superuser.execute(
                    "select wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)"
                    " from pg_replication_slots where slot_name = %s",
                    [database.config.slot],
                ).fetchone() or ("", 0)
                assert status in ("reserved", "extended")
                assert int(str(held)) < 32 << 20
        assert ids(feeding.sink) == list(range(15))
        assert len(feeding.sink.epochs) == 1


def copied(server: PostgresServer) -> Path:
    """A file copy of the stopped server's data, as an operator would make one."""
    target = server.folder / "copy"
    shutil.copytree(server.cluster.folder, target, symlinks=True)
    return target


def restore(server: PostgresServer, copy: Path) -> None:
    """Put the copy in the place of the stopped server's data."""
    account = server.cluster.account
    shutil.rmtree(server.cluster.folder)
    shutil.copytree(copy, server.cluster.folder, symlinks=True)
    server.cluster.folder.chmod(0o700)
    for path in (server.cluster.folder, *server.cluster.folder.rglob("*")):
        if account is not None:
            shutil.chown(path, account.uid, account.gid)


@pytest.mark.parametrize("written", ["less", "more"])
async def test_database_restored_from_a_file_copy_begins_a_new_epoch(make_server: MakeServer, written: str) -> None:
    """An older copy comes back under the running feed, with the same identifier and the slot in it. Whether its log is
    still behind what was told or has been written past it: a new epoch, reset, alarm."""
    server = make_server(DURABLE)
    database = application(server)
    async with Feeding(database, [NOTE], reconnect_wait_max_s=0.1) as feeding:
        database.execute("insert into app.note values (1, 1)")
        await feeding.settled()
        await asyncio.to_thread(server.stop, "fast")
        copy = copied(server)
        await asyncio.to_thread(server.start)
        await eventually_async(lambda: feeding.feed.alive)
        for number in range(2, 50):
            database.execute("insert into app.note values (%s, 1)", [number])
        await feeding.settled()
        head = feeding.feed.head.lsn
        await asyncio.to_thread(server.stop, "fast")
        restore(server, copy)
        port = server.port
        if written == "more":
            # Written past the head before the feed can reach it: on another port.
            await past(server, database, head)
        server.port = port
        server.configure()
        await asyncio.to_thread(server.start)
        await eventually_async(lambda: len(feeding.sink.epochs) == 2 and feeding.feed.alive)
        await check_new_epoch(feeding, database)


async def test_copy_restored_while_nobody_reads_begins_a_new_epoch(make_server: MakeServer) -> None:
    """The copy comes back while no feed runs, and nobody remembers how far the log was: the age of the data folder's
    files tells, and a plain restart of the original is not mistaken for it."""
    server = make_server(DURABLE)
    database = application(server)
    epochs = []
    for action in ("begin", "restart", "restore", "restart"):
        if action != "begin":
            await asyncio.to_thread(server.stop, "fast")
            if action == "restore":
                restore(server, copied(server))
            await asyncio.to_thread(server.start)
        async with Feeding(database, [NOTE]) as feeding:
            epochs += feeding.sink.epochs
            assert feeding.meter.alarms.get("epoch", 0) == (action == "restore")
    assert epochs[0] == epochs[1] != epochs[2] == epochs[3]


async def past(server: PostgresServer, database: Database, head: int) -> None:
    """Write until the log is longer than `head`, where the feed does not look."""
    server.port = free_port()
    server.configure()
    await asyncio.to_thread(server.start)
    with server.connect(database.name) as superuser:
        number = 100
        while flushed_at(superuser) <= head + 10_000:
            number += 1
            superuser.execute("insert into app.note values (%s, 2)", [number])
    await asyncio.to_thread(server.stop, "fast")


def flushed_at(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    """How far the log is."""
    row = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None
    return parse_lsn(str(row[0]))


async def test_another_server_behind_the_same_address(make_server: MakeServer) -> None:
    """Another cluster with a database of the same name answers at the address: nothing of it is taken for a
    continuation, and it is heard under its own epoch."""
    first = make_server(DURABLE)
    database = application(first)
    second = make_server(DURABLE)
    second.create_database(database.name)
    twin = describe(second, database.name)
    await migrate(twin.owner_url, (), twin.config)
    twin.execute(TABLES)
    async with Feeding(database, [NOTE], reconnect_wait_max_s=0.1) as feeding:
        database.execute("insert into app.note values (1, 1)")
        await feeding.settled()
        await Feeding(twin, [NOTE]).publish()
        await asyncio.to_thread(first.stop, "fast")
        await asyncio.to_thread(second.stop, "fast")
        second.port = first.port
        second.configure()
        await asyncio.to_thread(second.start)
        moved = describe(second, database.name)
        await eventually_async(lambda: len(feeding.sink.epochs) == 2 and feeding.feed.alive)
        moved.execute("insert into app.note values (2, 1)")
        await eventually_async(lambda: ids(feeding.sink) == [2])
        assert ("reset_all", "epoch") in feeding.sink.calls
        await eventually_async(lambda: feeding.feed.head.lsn >= flushed(moved))


async def test_loop_that_stands_still_does_not_lose_the_lead(database: Database) -> None:
    """A loop that was busy for longer than the timeout hears what was said meanwhile before it judges the silence."""
    database.execute(TABLES)
    async with Feeding(database, [NOTE], walsender_timeout_s=1.0) as feeding:
        for number in range(3):
            time.sleep(0.7)  # noqa: ASYNC251 (a loop that stands still is the fault)
            database.execute("insert into app.note values (%s, 1)", [number])
            await asyncio.sleep(0)
        await feeding.settled()
        assert ids(feeding.sink) == [0, 1, 2]
        assert len(feeding.sink.epochs) == 1
