"""A replication connection: commands, then a stream of messages in both directions (COPY BOTH).

Promises:

* `receive` hands over what has arrived, without waiting, at most `limit` messages; it says whether more may be there.
* `send` never waits; what the kernel does not take at once leaves when it can.
* `close` gives the slot back (PostgreSQL has let go of it when it returns), unless the server does not answer in time.

It works on any event loop that has `add_reader`. Source: PostgreSQL, "Streaming Replication Protocol"; libpq,
"Functions Associated with the COPY Command".
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import generators, pq, sql
from psycopg.conninfo import conninfo_to_dict

from lastcall.config import Config
from lastcall.errors import Refusal, StartRefused
from lastcall.feed.epoch import Identity
from lastcall.feed.pgoutput import PROTOCOL_VERSION
from lastcall.feed.values import SESSION_SETTINGS
from lastcall.position import format_lsn, parse_lsn

CONNECT_WAIT_MIN_S: Final = 2
"""libpq's own least."""
CLOSE_WAIT_MAX_S: Final = 0.8


class StreamEnded(Exception):
    """The server has ended the stream or the connection."""


def reason(error: BaseException) -> str:
    """What to write into the log about a failure: the first line of what the driver says."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def holder_name() -> str:
    """How this process shows in pg_stat_activity: PostgreSQL keeps 63 bytes."""
    return f"lastcall {os.getpid()}@{socket.gethostname()}"[:63]


def connection_arguments(url: str, config: Config, settings: dict[str, str]) -> dict[str, Any]:
    """What both connections of the feed are opened with; `settings` are pinned for the session."""
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
    given = conninfo_to_dict(url).get("options")
    timeout_ms = math.ceil(config.walsender_timeout_s * 1000)
    return {
        "conninfo": url,
        "autocommit": True,
        "application_name": holder_name(),
        "options": f"{given} {options}" if given else options,
        "connect_timeout": max(CONNECT_WAIT_MIN_S, math.ceil(config.walsender_timeout_s)),
        "tcp_user_timeout": timeout_ms,
        "keepalives_idle": max(1, timeout_ms // 1000),
    }


class Walsender:
    """The feed's replication connection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], config: Config) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._fileno = -1
        self._streaming = False
        self._writing = False

    @classmethod
    async def connect(cls, url: str, config: Config) -> Walsender:
        """Connect with pinned settings. Raises psycopg.OperationalError."""
        settings = {
            **SESSION_SETTINGS,
            "wal_sender_timeout": f"{math.ceil(config.walsender_timeout_s * 1000)}ms",
            "statement_timeout": "0",
            "lock_timeout": "0",
            "client_connection_check_interval": "1000ms",
        }
        connection = await psycopg.AsyncConnection.connect(
            **connection_arguments(url, config, settings), replication="database"
        )
        return cls(connection, config)

    async def identify(self) -> Identity:
        """Which log this is."""
        (result,) = await self._command(sql.SQL("IDENTIFY_SYSTEM"))
        system, timeline, flush = (_text(result, column) for column in range(3))
        return Identity(system, int(timeline), parse_lsn(flush))

    async def create_slot(self, slot: str) -> int:
        """Make the persistent slot; its consistent point. Waits for the transactions that are open.

        Raises StartRefused when they do not end within `slot_wait_max_s`.
        """
        command = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'nothing')")
        try:
            async with asyncio.timeout(self._config.slot_wait_max_s):
                (result,) = await self._command(command.format(sql.Identifier(slot)))
        except TimeoutError:
            raise StartRefused(
                f"the replication slot {slot} cannot be made: transactions that were open have not ended within "
                f"{self._config.slot_wait_max_s:g} s. Look at xact_start in pg_stat_activity and at pg_prepared_xacts, "
                "end them, and start again"
            ) from None
        return parse_lsn(_text(result, 1))

    async def start(self, slot: str, lsn: int, holder: str | None = None) -> None:
        """Start the stream: what commits at or after `lsn`, and after what the slot has confirmed.

        Raises Refusal LC201 when somebody else reads the slot.
        """
        command = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version {}, publication_names {}, messages 'true')"
        )
        try:
            results = await self._command(
                command.format(
                    sql.Identifier(slot),
                    sql.SQL(format_lsn(lsn)),
                    sql.Literal(str(PROTOCOL_VERSION)),
                    sql.Literal(sql.Identifier(slot).as_string()),
                )
            )
        except psycopg.errors.ObjectInUse:
            raise Refusal("LC201", f"the slot {slot} is held by {holder or 'another process'}") from None
        assert results[-1].status == pq.ExecStatus.COPY_BOTH
        self._pgconn.nonblocking = 1
        self._streaming = True

    def listen(self, readable: Callable[[], None]) -> None:
        """Call `readable` in the loop whenever bytes have come, from now on."""
        self._fileno = self._pgconn.socket
        self._loop.add_reader(self._fileno, readable)

    def receive(self, take: Callable[[bytes], None], limit: int) -> bool:
        """Hand over what has arrived, message by message. True when the limit was reached: more may be there.

        Raises StreamEnded, and psycopg.OperationalError when the connection broke; what came before was handed over.
        """
        get = self._pgconn.get_copy_data
        consume = self._pgconn.consume_input
        fresh = False
        while limit > 0:
            size, data = get(1)
            if size > 0:
                fresh = False
                limit -= 1
                take(bytes(data))
            elif size < 0:
                raise StreamEnded(self._pgconn.error_message.decode(errors="replace").strip() or "end of the stream")
            elif fresh:
                return False
            else:
                consume()
                fresh = True
        return True

    def send(self, *messages: bytes) -> None:
        """Send these. Raises psycopg.OperationalError when the connection is broken."""
        for message in messages:
            self._pgconn.put_copy_data(message)
        self._flush()

    def _flush(self) -> None:
        waiting = self._pgconn.flush() == 1
        if waiting and not self._writing:
            self._loop.add_writer(self._fileno, self._flush_later)
        elif self._writing and not waiting:
            self._loop.remove_writer(self._fileno)
        self._writing = waiting

    def _flush_later(self) -> None:
        try:
            self._flush()
        except psycopg.Error:
            # The reader meets the same break and reports it.
            self._loop.remove_writer(self._fileno)
            self._writing = False

    def forget(self) -> None:
        """Stop listening; nothing is called any more."""
        if self._fileno >= 0:
            self._loop.remove_reader(self._fileno)
            if self._writing:
                self._loop.remove_writer(self._fileno)
            self._fileno = -1
            self._writing = False

    async def close(self) -> None:
        """Give the slot back and close. Harmless when closed or broken."""
        self.forget()
        if self._streaming:
            self._streaming = False
            try:
                async with asyncio.timeout(CLOSE_WAIT_MAX_S):
                    await self._end()
            except (TimeoutError, psycopg.Error, OSError):
                pass
        self._pgconn.finish()

    async def _end(self) -> None:
        """CopyDone in both directions; the walsender releases the slot before it says that the command is complete."""
        self._pgconn.nonblocking = 0
        self._pgconn.put_copy_end()
        self._pgconn.flush()
        readable = asyncio.Event()
        fileno = self._pgconn.socket
        self._loop.add_reader(fileno, readable.set)
        try:
            while True:
                size, _ = self._pgconn.get_copy_data(1)
                if size < 0:
                    break
                if size == 0:
                    readable.clear()
                    await readable.wait()
                    self._pgconn.consume_input()
            while True:
                while self._pgconn.is_busy():
                    readable.clear()
                    await readable.wait()
                    self._pgconn.consume_input()
                if self._pgconn.get_result() is None:
                    return
        finally:
            self._loop.remove_reader(fileno)

    async def _command(self, command: sql.SQL | sql.Composed) -> list[pq.abc.PGresult]:
        """Run one replication command, which knows only the simple protocol. Raises psycopg.Error of its SQLSTATE."""
        self._pgconn.send_query(command.as_bytes())
        results: list[pq.abc.PGresult] = await self._connection.wait(generators.execute(self._pgconn))
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        return results


def _text(result: pq.abc.PGresult, column: int) -> str:
    value = result.get_value(0, column)
    assert value is not None
    return value.decode()
