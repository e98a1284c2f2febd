"""The pool of database connections, all of them logins of the authenticator.

Promises:

* `connection()` gives a live connection within `pool_wait_max_s` or raises a Refusal: LC203 when all are busy, LC202
  when the database does not answer. A connection that died while it lay idle is never handed out.
* After the database comes back, the next request connects; nothing has to be restarted.
* Nothing here blocks the event loop; every wait has a bound, the queue of the waiting too.
* Every connection is in autocommit, has the session settings of spec/protocol.md (values as `to_jsonb` writes them),
  the configured timeouts, and prepares the statements that it sees twice.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.postgres.logins import login_refused

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

WAITING_MAX = 10_000
"""Requests that wait for a connection at one time; one more is refused at once (LC203)."""

CONNECTIONS_KEPT = 2
PREPARE_AFTER = 1
RECONNECT_S = 0.5
"""While the database is away, it is tried again this often as long as a request waits."""

ALIVE_WAIT_MAX_S = 1.0
LIFETIME_S = 3600.0
IDLE_MAX_S = 300.0

_LINK: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "lastcall",
}
"""So that a database that has vanished from the network is noticed; the URL's own parameters win."""

_SESSION: Final[dict[str, str]] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "search_path": "pg_catalog",
}


class Stats(NamedTuple):
    """Connections in all and in use, and requests that wait for one."""

    size: int
    busy: int
    waiting: int


class Pool:
    """At most `pool_max` connections to `url`. One service life: open, close; a second close is harmless."""

    def __init__(self, url: str, config: Config) -> None:
        self._url = make_conninfo("", **(_LINK | conninfo_to_dict(url)))
        self._wait_max_s = config.pool_wait_max_s
        self._session = _SESSION | {
            "statement_timeout": _ms(config.statement_timeout_s),
            "lock_timeout": _ms(config.lock_timeout_s),
            "idle_in_transaction_session_timeout": _ms(2 * config.statement_timeout_s),
        }
        self._connections_max = config.pool_max
        self._out = 0
        self._answers = True
        self._revival: asyncio.Task[None] | None = None
        self._pool = AsyncConnectionPool(
            self._url,
            connection_class=psycopg.AsyncConnection[tuple[Any, ...]],
            kwargs={"autocommit": True, "prepare_threshold": PREPARE_AFTER},
            min_size=min(CONNECTIONS_KEPT, config.pool_max),
            max_size=config.pool_max,
            max_waiting=WAITING_MAX,
            max_lifetime=LIFETIME_S,
            max_idle=IDLE_MAX_S,
            timeout=config.pool_wait_max_s,
            reconnect_timeout=RECONNECT_S,
            reconnect_failed=self._note_silence,
            configure=self._configure,
            open=False,
        )

    async def open(self) -> None:
        """Try the login, then fill the pool. Raises StartRefused with the database's own words."""
        try:
            async with await psycopg.AsyncConnection.connect(self._url):
                pass
        except psycopg.OperationalError as error:
            raise login_refused(self._url, error) from None
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection; those in use when they are given back."""
        if self._revival is not None:
            self._revival.cancel()
        await self._pool.close()

    @property
    def answers(self) -> bool:
        """False from a failed attempt to connect until the next successful one."""
        return self._answers

    def stats(self) -> Stats:
        """For the meter."""
        found = self._pool.get_stats()
        size = found.get("pool_size", 0)
        return Stats(size, size - found.get("pool_available", 0), found.get("requests_waiting", 0))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for the duration of the block. A transaction left open in it is rolled back."""
        connection = await self._take()
        self._out += 1
        try:
            yield connection
        finally:
            self._out -= 1
            await self._pool.putconn(connection)

    async def _take(self) -> Connection:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_max_s
        while True:
            try:
                connection = await self._pool.getconn(deadline - loop.time())
            except TooManyRequests:
                raise Refusal("LC203", f"{WAITING_MAX} requests wait for a connection already") from None
            except PoolClosed:
                raise Refusal("LC209") from None
            except PoolTimeout:
                busy = self._answers and self._out >= self._connections_max
                raise Refusal("LC203" if busy else "LC202") from None
            if await _alive(connection):
                return connection
            await connection.close()
            await self._pool.putconn(connection)

    async def _configure(self, connection: Connection) -> None:
        names, values = list(self._session), list(self._session.values())
        await connection.execute(
            "select set_config(name, value, false) from unnest(%s::text[], %s::text[]) as setting (name, value)",
            [names, values],
            prepare=False,
        )
        self._answers = True

    def _note_silence(self, _: object) -> None:
        """The library has given up an attempt to connect. It tries again when the next request comes; for those that
        wait already it has to be asked."""
        self._answers = False
        if self._revival is None or self._revival.done():
            self._revival = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        while not self._answers and self.stats().waiting:
            await self._pool.check()
            await asyncio.sleep(RECONNECT_S)


async def _alive(connection: Connection) -> bool:
    """Whether an idle connection still stands, for most without a round trip: an idle server says nothing, one that has
    gone has left its last word or an end of file. What speaks is asked."""
    if connection.closed:
        return False
    speaks = select.poll()
    speaks.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    if not speaks.poll(0):
        return True
    try:
        async with asyncio.timeout(ALIVE_WAIT_MAX_S):
            await connection.execute("")
    except (psycopg.Error, TimeoutError):
        return False
    return True


def _ms(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))
