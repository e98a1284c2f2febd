"""Statements that travel together: one write, one wait, all results.

The layer below psycopg's cursors (libpq's pipeline mode on the connection's own `pgconn`), because a call is worth
measuring: limits, role, claims, function, commit and position cost one round trip and no object per statement.

Promises:

* The commands run in order; the first that fails keeps the rest from running ("Pipelining" in the PostgreSQL
  documentation). Without `begin` among them they are one transaction.
* Named statements are prepared once per connection, unnamed ones each time.
* Whatever happens, the connection is outside a transaction and ready for the next user afterwards, or closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq

PREPARED_MAX: Final = 1_000
"""Statements prepared on one connection; what comes after them is parsed each time."""

_COMMAND_OK: Final = int(pq.ExecStatus.COMMAND_OK)
_TUPLES_OK: Final = int(pq.ExecStatus.TUPLES_OK)
_PIPELINE_SYNC: Final = int(pq.ExecStatus.PIPELINE_SYNC)
_BAD: Final = int(pq.ConnStatus.BAD)
_IDLE: Final = int(pq.TransactionStatus.IDLE)

Connection = psycopg.AsyncConnection[Any]
Row = tuple[bytes | None, ...]


class Statement(NamedTuple):
    """SQL with `$1` parameters and the name it is prepared under; without a name it is parsed each time."""

    text: bytes
    name: bytes = b""


class Command(NamedTuple):
    """A statement and its parameters, as PostgreSQL's text or None for NULL."""

    statement: Statement
    parameters: Sequence[bytes | None] = ()


BEGIN: Final = Command(Statement(b"begin", b"lastcall_begin"))
BEGIN_READING: Final = Command(
    Statement(b"begin isolation level repeatable read, read only", b"lastcall_begin_reading")
)
COMMIT: Final = Command(Statement(b"commit", b"lastcall_commit"))
_ROLLBACK: Final = Command(Statement(b"rollback", b"lastcall_rollback"))


class Outcome(NamedTuple):
    """What became of the commands.

    rows: of each command that succeeded, in order, its first row as text (empty where it has none).
    error: what PostgreSQL said about the first command that did not; None when there was no such command.
    finished: whether PostgreSQL has answered everything; if not, the connection has broken.
    """

    rows: list[Row]
    error: psycopg.Error | None
    finished: bool

    def unknown(self, place: int) -> bool:
        """Whether nobody can say if the command at `place`, a COMMIT, took effect: the connection broke first.

        An ERROR rolls back. So does a FATAL that came instead of an earlier command's result; one that came instead of
        the COMMIT's may have met the transaction behind its commit.
        """
        if self.finished or len(self.rows) > place:
            return False
        if self.error is None:
            return True
        return len(self.rows) == place and self.error.diag.severity_nonlocalized != "ERROR"


class NotSent(Exception):
    """The connection was found broken before anything was sent; another one can be tried."""


_prepared: WeakKeyDictionary[Connection, set[bytes]] = WeakKeyDictionary()


async def run(connection: Connection, commands: Sequence[Command], wait_max_s: float) -> Outcome:
    """Run the commands in one round trip; a second one rolls back where a command after a `begin` has failed.

    Raises NotSent. A connection that breaks later is no exception but an Outcome that is not `finished`. After
    `wait_max_s`, and when the caller is cancelled, the connection is closed.
    """
    pgconn = connection.pgconn
    prepared = _prepared.get(connection)
    if prepared is None:
        prepared = _prepared[connection] = set()
    try:
        pgconn.enter_pipeline_mode()
    except psycopg.Error:
        pgconn.finish()
        raise NotSent from None
    exchange = _Exchange(pgconn, prepared, wait_max_s)
    try:
        exchange.start(commands)
        await exchange.ended
    except psycopg.Error:
        # What came before the break has been read and still counts.
        pass
    finally:
        exchange.leave()
        if exchange.whole:
            pgconn.exit_pipeline_mode()
        else:
            pgconn.finish()
    if exchange.whole and pgconn.transaction_status != _IDLE:
        # Where it breaks in between, the refusal stands, and the pool gets a closed connection.
        with contextlib.suppress(NotSent):
            await run(connection, (_ROLLBACK,), wait_max_s)
    return exchange.outcome()


class _Exchange:
    """One write and the reading of its results, driven by the loop's readiness callbacks."""

    __slots__ = (
        "_expected",
        "_listening",
        "_loop",
        "_pgconn",
        "_prepared",
        "_results",
        "_socket",
        "_timer",
        "_writing",
        "ended",
        "whole",
    )

    def __init__(self, pgconn: pq.abc.PGconn, prepared: set[bytes], wait_max_s: float) -> None:
        self._pgconn = pgconn
        self._prepared = prepared
        self._loop = loop = asyncio.get_running_loop()
        self._socket = pgconn.socket
        self._results: list[pq.abc.PGresult] = []
        # Of each result: the name of the statement that it prepares, None for a command's own.
        self._expected: list[bytes | None] = []
        self._listening = False
        self._writing = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self.whole = False
        self._timer = loop.call_later(wait_max_s, self._end)

    def start(self, commands: Sequence[Command]) -> None:
        """Send. Raises psycopg.Error when the connection breaks meanwhile."""
        pgconn, prepared, expected = self._pgconn, self._prepared, self._expected
        for (text, name), parameters in commands:
            if name in prepared:
                pgconn.send_query_prepared(name, parameters)
            elif not name or len(prepared) >= PREPARED_MAX:
                pgconn.send_query_params(text, parameters)
            else:
                pgconn.send_prepare(name, text)
                expected.append(name)
                # Counted at once, so that a statement used twice in one exchange is prepared once.
                prepared.add(name)
                pgconn.send_query_prepared(name, parameters)
            expected.append(None)
        pgconn.pipeline_sync()
        # Reading begins before writing ends, so that neither side waits for the other with full buffers.
        if pgconn.status != _BAD:
            self._loop.add_reader(self._socket, self._readable)
            self._listening = True
        self._flush()

    def _flush(self) -> None:
        try:
            more = bool(self._pgconn.flush())
        except psycopg.Error:
            more = False
        if self._pgconn.status == _BAD:
            self._readable()
            return
        if more and not self._writing:
            self._loop.add_writer(self._socket, self._flush)
        elif self._writing and not more:
            self._loop.remove_writer(self._socket)
        self._writing = more

    def _readable(self) -> None:
        pgconn, results = self._pgconn, self._results
        broken = False
        try:
            pgconn.consume_input()
        except psycopg.Error:
            # What came before the break has been read and still counts.
            broken = True
        while not self.whole and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if broken or pgconn.status == _BAD:
                    break
            elif result.status == _PIPELINE_SYNC:
                self.whole = True
            else:
                results.append(result)
        if self.whole or broken or pgconn.status == _BAD:
            self._end()

    def _end(self) -> None:
        # At once, not when the waiting coroutine gets its turn: where libpq has closed the socket, its number may be
        # another connection's by then.
        self.leave()
        if not self.ended.done():
            self.ended.set_result(None)

    def leave(self) -> None:
        """Let go of the socket; a second time is harmless."""
        self._timer.cancel()
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._socket)
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def outcome(self) -> Outcome:
        """What was received."""
        rows: list[Row] = []
        error: psycopg.Error | None = None
        good = 0
        for name, result in zip(self._expected, self._results, strict=False):
            status = result.status
            if status == _TUPLES_OK:
                rows.append(_row(result))
            elif status != _COMMAND_OK:
                break
            elif name is None:
                rows.append(())
            good += 1
        if good < len(self._expected):
            self._prepared.difference_update(name for name in self._expected[good:] if name is not None)
            error = _error(self._results[good:])
        # One may be left over: what failed at the very end, a constraint that is checked at commit.
        elif len(self._results) > good:
            error = _error(self._results[good:])
        return Outcome(rows, error, self.whole)


def _row(result: pq.abc.PGresult) -> Row:
    if not result.ntuples:
        return ()
    value = result.get_value
    return tuple([value(0, column) for column in range(result.nfields)])


def _error(results: Sequence[pq.abc.PGresult]) -> psycopg.Error | None:
    """The first that PostgreSQL itself has said; a broken connection is libpq's own, without a SQLSTATE."""
    for result in results:
        if result.error_field(pq.DiagnosticField.SQLSTATE) is not None:
            return psycopg.errors.error_from_result(result)
    return None
