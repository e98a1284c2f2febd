"""The pool gives live connections within a bound, whatever happens to the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from lastcall.errors import Refusal, StartRefused
from lastcall.postgres.pool import Pool
from lastcall.testing.fixtures import Database, Databases, describe
from lastcall.testing.postgres_server import PostgresServer
from lastcall.testing.proxy import FaultProxy
from lastcall.testing.waiting import eventually_async


@asynccontextmanager
async def opened(url: str, database: Database) -> AsyncIterator[Pool]:
    pool = Pool(url, database.config)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def answer(pool: Pool) -> object:
    async with pool.connection() as connection:
        row = await (await connection.execute("select 42")).fetchone()
        return row and row[0]


async def test_session_is_pinned(databases: Databases) -> None:
    """Every connection has the protocol's session settings, the configured timeouts, and the authenticator's login."""
    database = databases.create((), {"statement_timeout_s": 7, "lock_timeout_s": 1.5})
    async with opened(database.authenticator_url, database) as pool, pool.connection() as connection:
        assert connection.autocommit
        for name, value in {
            "TimeZone": "UTC",
            "DateStyle": "ISO, MDY",
            "IntervalStyle": "postgres",
            "extra_float_digits": "1",
            "search_path": "pg_catalog",
            "statement_timeout": "7s",
            "lock_timeout": "1500ms",
            "application_name": "lastcall",
            "session_authorization": "lastcall_authenticator",
        }.items():
            row = await (await connection.execute("select current_setting(%s)", [name])).fetchone()
            assert row == (value,), name


async def test_exhausted(databases: Databases) -> None:
    """When all connections are busy for longer than the bound, the request is refused with LC203."""
    database = databases.create((), {"pool_max": 1, "pool_wait_max_s": 0.2})
    async with opened(database.authenticator_url, database) as pool, pool.connection():
        with pytest.raises(Refusal) as refused:
            await answer(pool)
        assert refused.value.code.number == "LC203"
        assert refused.value.retry_after_s
        assert pool.stats().busy == 1


async def test_open_transaction_is_rolled_back(database: Database) -> None:
    """A block that leaves a transaction open, or fails inside it, leaves nothing behind for the next."""
    async with opened(database.owner_url, database) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.connection() as connection:
                await connection.execute("begin")
                await connection.execute("create table public.left_behind ()")
                raise ZeroDivisionError
        async with pool.connection() as connection:
            row = await (await connection.execute("select to_regclass('public.left_behind')")).fetchone()
            assert row == (None,)


async def test_dead_idle_connections_are_not_handed_out(database: Database) -> None:
    """After the server ended every idle connection, the next requests do not notice."""
    async with opened(database.authenticator_url, database) as pool:
        assert await asyncio.gather(*(answer(pool) for _ in range(8))) == [42] * 8
        with database.superuser() as superuser:
            superuser.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'lastcall_authenticator' "
                "and datname = current_database()"
            )
        assert await asyncio.gather(*(answer(pool) for _ in range(8))) == [42] * 8


async def test_database_away_and_back(make_server: Callable[..., PostgresServer]) -> None:
    """While the database is down requests get LC202; when it is back they are answered again, nothing restarted."""
    server = make_server()
    database = describe(server, "postgres", {"pool_wait_max_s": 0.3})
    async with opened(server.url(), database) as pool:
        assert await answer(pool) == 42
        await asyncio.to_thread(server.stop, "immediate")
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await answer(pool)
        assert refused.value.code.number == "LC202"
        assert not pool.answers
        await asyncio.to_thread(server.cluster.start)

        async def back() -> bool:
            try:
                return await answer(pool) == 42
            except Refusal:
                return False

        assert await eventually_async(back)
        assert pool.answers


async def test_waiting_request_outlives_a_short_outage(make_server: Callable[..., PostgresServer]) -> None:
    """A request that waits while the database restarts is answered, not refused."""
    server = make_server()
    database = describe(server, "postgres", {"pool_wait_max_s": 20})
    async with opened(server.url(), database) as pool:
        await asyncio.to_thread(server.stop, "immediate")
        waiting = asyncio.create_task(answer(pool))
        await eventually_async(lambda: not pool.answers)
        await asyncio.to_thread(server.cluster.start)
        assert await waiting == 42


async def test_cut_link(database: Database, make_proxy: Callable[[int], FaultProxy]) -> None:
    """A link that is reset in the middle costs the request on it, and no other."""
    proxy = make_proxy(database.server.port)
    url = database.server.url(database.name, port=proxy.port)
    async with opened(url, database) as pool:
        assert await answer(pool) == 42
        await asyncio.to_thread(proxy.cut)
        assert await answer(pool) == 42


async def test_wrong_password_is_named(database: Database) -> None:
    """A pool that cannot log in refuses to open, naming the user and what to do, never the password."""
    pool = Pool(database.authenticator_url.replace("password=", "password=wrong"), database.config)
    with pytest.raises(StartRefused, match=r"lastcall_authenticator cannot log in .* migrate") as refused:
        await pool.open()
    assert "wrong" not in str(refused.value)


async def test_closed_pool_refuses(database: Database) -> None:
    """A closed pool answers that the server is shutting down; a second close is harmless."""
    async with opened(database.authenticator_url, database) as pool:
        await pool.close()
        with pytest.raises(Refusal) as refused:
            await answer(pool)
        assert refused.value.code.number == "LC209"
