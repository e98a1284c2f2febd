"""A call with an Idempotency-Key applies once: twins, failures, crashes, forgers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import psycopg
import pytest

from lastcall.app import App
from lastcall.errors import Refusal
from lastcall.testing.desk import NOTE, Desk, define, key, opened
from lastcall.testing.fixtures import Database, Databases
from lastcall.testing.postgres_server import DURABLE, PostgresServer
from lastcall.testing.proxy import FaultProxy
from lastcall.testing.sample import app as sample
from lastcall.testing.waiting import eventually_async


@pytest.fixture(scope="session")
def database_apps() -> Sequence[App]:
    return (sample,)


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with opened(database) as made:
        yield made


async def test_a_key_applies_once(desk: Desk, database: Database) -> None:
    """The second call with a key gets the first one's answer, marked, and writes nothing."""
    first = await desk.ask("write_note", key=key(), **NOTE)
    again = await desk.ask("write_note", key=key(), **NOTE)
    assert (first.value, first.replayed) == (again.value, False)
    assert again.replayed
    assert again.position_lsn is not None and first.position_lsn is not None
    assert again.position_lsn >= first.position_lsn
    assert database.execute("select count(*) from sample.note") == [(1,)]


async def test_a_key_belongs_to_one_request(desk: Desk) -> None:
    """The same key with another body is LC002; of another subject, function or issuer it is another key."""
    await desk.ask("write_note", key=key(), **NOTE)
    with pytest.raises(Refusal) as caught:
        await desk.ask("write_note", key=key(body=b"other"), **NOTE)
    assert caught.value.code.number == "LC002"
    for other in (key(subject="u2"), key(function="sample.other"), key()._replace(issuer="another")):
        assert not (await desk.ask("write_note", key=other, **NOTE)).replayed


async def test_twins_in_flight_apply_once(databases: Databases, database_apps: Sequence[App]) -> None:
    """Twenty calls with one key at one time: one applies, nineteen get its answer."""
    database = databases.create(database_apps, {"pool_max": 8})
    async with opened(database) as desk:
        answers = await asyncio.gather(*[desk.ask("write_note", key=key(), **NOTE) for _ in range(20)])
    assert database.execute("select count(*) from sample.note") == [(1,)]
    assert len({answer.value for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 19


async def test_a_twin_waits_no_longer_than_the_lock_timeout(databases: Databases, database_apps: Sequence[App]) -> None:
    """While the first call does not end, its twin is refused with LC210 after the bound, and applies nothing."""
    database = databases.create(database_apps, {"lock_timeout_s": 0.2})
    async with opened(database) as desk:
        with psycopg.connect(database.authenticator_url) as first:
            parameters = [*key()[:4], key().hash]
            first.execute("select lastcall.enter(%s, %s, %s, %s, %s)", parameters)
            with pytest.raises(Refusal) as caught:
                await desk.ask("write_note", key=key(), **NOTE)
            assert caught.value.code.number == "LC210"
            first.rollback()
        assert not (await desk.ask("write_note", key=key(), **NOTE)).replayed
    assert database.execute("select count(*) from sample.note") == [(1,)]


async def test_a_failed_call_leaves_its_key_free(desk: Desk, database: Database) -> None:
    """Only successes are kept: after an error the same key applies."""
    with pytest.raises(Refusal):
        await desk.ask("misbehave", key=key(function="sample.m"), how="rule")
    assert (await desk.ask("misbehave", key=key(function="sample.m"), how="well")).value == b'"behaved"'
    assert database.execute("select count(*) from lastcall.idempotency") == [(1,)]


async def test_an_answer_too_large_to_keep_is_refused_and_rolled_back(desk: Desk, database: Database) -> None:
    """LC003, with nothing written; without a key the same call passes."""
    with pytest.raises(Refusal) as caught:
        await desk.ask("misbehave", key=key(), how="large")
    assert caught.value.code.number == "LC003"
    assert caught.value.facts == {"bytes": 100_002, "bytes_max": 65_536}
    assert database.execute("select count(*) from lastcall.idempotency") == [(0,)]
    assert len(await desk.value("misbehave", how="large")) == 100_000


async def test_keep_fills_only_the_row_of_its_transaction(database: Database, desk: Desk) -> None:
    """A role that calls `keep` by itself, even pointing at another's row, changes nothing."""
    await desk.ask("write_note", key=key(), **NOTE)
    (place,) = database.execute("select ctid::text from lastcall.idempotency")
    for entered in (place[0], "", "(0,0)"):
        with psycopg.connect(database.authenticator_url, autocommit=True) as mallory:
            mallory.execute("set role member")
            mallory.execute("select set_config('lastcall.entered', %s, false)", [entered])
            with pytest.raises(psycopg.Error) as caught:
                mallory.execute("select lastcall.keep('forged', 1000)")
            assert caught.value.sqlstate == "LC100"
    for statement in (
        "select * from lastcall.idempotency",
        "select lastcall.stored('lastcall','u1','sample.write_note','k1')",
    ):
        with psycopg.connect(database.authenticator_url, autocommit=True) as mallory:
            mallory.execute("set role member")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                mallory.execute(statement.encode())


async def test_a_second_answer_is_not_kept(database: Database) -> None:
    """A function that calls `keep` before the gateway does makes the call fail, not lie."""
    define(database, "f() returns text language sql as $$select lastcall.keep('1', 100)$$")
    async with opened(database) as desk:
        with pytest.raises(Refusal) as caught:
            await desk.ask("f", key=key(function="sample.f"))
        assert caught.value.code.number == "LC100"


async def test_purge_forgets_what_is_old(desk: Desk, database: Database) -> None:
    """Rows older than their days go, in bounded portions; a key that was forgotten applies again."""
    for number in range(5):
        await desk.ask("write_note", key=key(f"k{number}"), **NOTE)
    database.execute("update lastcall.idempotency set created_at = now() - interval '91 days' where key <> 'k0'")
    assert database.execute("select lastcall.purge(90, 90, 3)") == [(3,)]
    assert database.execute("select lastcall.purge(90, 90, 3)") == [(1,)]
    assert database.execute("select key from lastcall.idempotency") == [("k0",)]
    assert not (await desk.ask("write_note", key=key("k1"), **NOTE)).replayed


async def test_a_crash_between_commit_and_answer(database: Database, make_proxy: Callable[[int], FaultProxy]) -> None:
    """An answer lost behind COMMIT is LC211; the repetition gets that answer without a second effect."""
    proxy = make_proxy(database.server.port)
    url = psycopg.conninfo.make_conninfo(database.authenticator_url, port=proxy.port)
    async with opened(database, url) as desk:
        await desk.ask("write_note", **NOTE)
        define(
            database,
            """f() returns int language plpgsql security definer as $$
            begin perform pg_advisory_xact_lock(7); insert into sample.note (topic, writer, number) values ('f', 1, 1);
            return 1; end $$""",
        )
        await desk.reload()
        with database.connect() as gate:
            gate.execute("select pg_advisory_lock(7)")
            call = asyncio.create_task(desk.ask("f", key=key(function="sample.f")))
            await eventually_async(lambda: waiting(database))
            proxy.fault("drop")
            gate.execute("select pg_advisory_unlock(7)")
            await eventually_async(lambda: database.execute("select 1 from lastcall.idempotency"))
            proxy.cut()
        with pytest.raises(Refusal) as caught:
            await call
        assert caught.value.code.number == "LC211"
        proxy.heal()
        again = await desk.ask("f", key=key(function="sample.f"))
        assert (again.value, again.replayed) == (b"1", True)
    assert database.execute("select count(*) from sample.note where topic = 'f'") == [(1,)]


@pytest.mark.slow
async def test_a_database_that_stops_in_the_middle(
    make_server: Callable[..., PostgresServer], database_apps: Sequence[App]
) -> None:
    """PostgreSQL crashes under calls with keys: repeated until answered, each is applied once."""
    server = make_server(DURABLE)
    made = Databases(server)
    database = made.create(database_apps, {"pool_wait_max_s": 10})
    async with opened(database) as desk:

        async def persist(number: int) -> None:
            for _ in range(100):
                try:
                    await desk.ask("write_note", key=key(f"k{number}"), **NOTE | {"number": number})
                    return
                except Refusal as refusal:
                    assert refusal.code.retry in {"now", "later"}
            raise AssertionError("never answered")

        calls = [asyncio.create_task(persist(number)) for number in range(200)]
        await eventually_async(lambda: len([c for c in calls if c.done()]) > 20)
        await asyncio.to_thread(server.stop, "immediate")
        await asyncio.to_thread(server.cluster.start)
        await asyncio.gather(*calls)
    assert database.execute("select count(*), count(distinct number) from sample.note") == [(200, 200)]


def waiting(database: Database) -> bool:
    return bool(database.execute("select 1 from pg_locks where locktype = 'advisory' and not granted"))
