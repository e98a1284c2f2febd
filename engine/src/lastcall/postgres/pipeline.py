"""Statements that travel together: one write, one wait, all results.

The layer below psycopg's cursors (libpq's pipeline mode on the connection's own `pgconn`), because a call is worth
measuring: role, claims, limits, function, commit and position cost one round trip and no object per statement.

Promises:

* The statements of a segment are one transaction: PostgreSQL commits it at the segment's end (Sync) and rolls it back
  whole when one of them fails ("Extended Query", "Pipelining" in the PostgreSQL documentation).
* Segments run one after the other; a failed one does not keep the next from running.
* Named statements are prepared once per connection, unnamed ones each time.
* Whatever happens, the connection is either ready for the next user afterwards, or closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq

PREPARED_MAX: Final = 1_000
"""Statements prepared on one connection; what comes after them is parsed each time."""

_OK: Final = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK})
Connection = psycopg.AsyncConnection[Any]


class Statement(NamedTuple):
    """SQL with `$1` parameters and the name it is prepared under; without a name it is parsed each time."""

    text: bytes
    name: bytes = b""


class Command(NamedTuple):
    """A statement and its parameters, as PostgreSQL's text or None for NULL."""

    statement: Statement
    parameters: Sequence[bytes | None] = ()


class Segment(NamedTuple):
    """What became of one segment.

    rows: of each command that succeeded, in order, its first row as text (empty where it has none).
    error: what PostgreSQL said about the first command that did not; None when there was no such command.
    finished: whether PostgreSQL has answered the segment to its end.
    complete: whether every command has succeeded, so that only the end was missing.
    """

    rows: list[tuple[bytes | None, ...]]
    error: psycopg.Error | None
    finished: bool
    complete: bool

    @property
    def committed(self) -> bool:
        """True when it certainly was."""
        return self.finished and self.error is None

    @property
    def unknown(self) -> bool:
        """True when it may have been committed or not: the connection ended and PostgreSQL had refused nothing.

        An ERROR rolls back. A FATAL instead of a command's result does, too; one that came after the last result may
        have met the transaction behind its commit.
        """
        if self.finished:
            return False
        return self.error is None or (self.complete and self.error.diag.severity_nonlocalized != "ERROR")


class NotSent(Exception):
    """The connection was found broken before anything was sent; another one can be tried."""


_prepared: WeakKeyDictionary[Connection, set[bytes]] = WeakKeyDictionary()


async def run(connection: Connection, segments: Sequence[Sequence[Command]], wait_max_s: float) -> list[Segment]:
    """Run the segments in one round trip; one Segment for each.

    Raises NotSent. A connection that breaks later is no exception: the segments it left open are not `finished`. After
    `wait_max_s`, and when the caller is cancelled, the connection is closed.
    """
    pgconn = connection.pgconn
    try:
        pgconn.enter_pipeline_mode()
    except psycopg.Error:
        pgconn.finish()
        raise NotSent from None
    exchange = _Exchange(pgconn, _prepared.setdefault(connection, set()), segments)
    whole = False
    try:
        exchange.start()
        async with asyncio.timeout(wait_max_s):
            await exchange.ended
        whole = exchange.whole
    except (TimeoutError, psycopg.Error):
        pass
    finally:
        exchange.leave()
        if whole:
            pgconn.exit_pipeline_mode()
        else:
            pgconn.finish()
    return exchange.segments()


class _Exchange:
    """One write and the reading of its results, driven by the loop's readiness callbacks."""

    def __init__(self, pgconn: pq.abc.PGconn, prepared: set[bytes], segments: Sequence[Sequence[Command]]) -> None:
        self._pgconn = pgconn
        self._prepared = prepared
        self._commands = segments
        self._loop = asyncio.get_running_loop()
        self._socket = pgconn.socket
        self._results: list[list[pq.abc.PGresult]] = [[]]
        self._expected: list[list[bytes | None]] = []
        self._left = len(segments)
        self._writing = False
        self.ended: asyncio.Future[None] = self._loop.create_future()

    @property
    def whole(self) -> bool:
        """Whether every segment has been answered."""
        return not self._left

    def start(self) -> None:
        """Send. Raises psycopg.Error when the connection breaks meanwhile."""
        for segment in self._commands:
            self._expected.append([name for command in segment for name in self._send(command)])
            self._pgconn.pipeline_sync()
        self._loop.add_reader(self._socket, self._readable)
        self._flush()

    def _send(self, command: Command) -> list[bytes | None]:
        """Queue a command; which result is the preparation of which name (None: a command's own)."""
        (text, name), parameters = command
        if name in self._prepared:
            self._pgconn.send_query_prepared(name, parameters)
            return [None]
        if not name or len(self._prepared) >= PREPARED_MAX:
            self._pgconn.send_query_params(text, parameters)
            return [None]
        self._pgconn.send_prepare(name, text)
        self._pgconn.send_query_prepared(name, parameters)
        # Counted at once, so that a statement used twice in one exchange is prepared once.
        self._prepared.add(name)
        return [name, None]

    def _flush(self) -> None:
        try:
            more = bool(self._pgconn.flush())
        except psycopg.Error:
            self._end()
            return
        if more and not self._writing:
            self._loop.add_writer(self._socket, self._flush)
        elif self._writing and not more:
            self._loop.remove_writer(self._socket)
        self._writing = more

    def _readable(self) -> None:
        pgconn = self._pgconn
        broken = False
        try:
            pgconn.consume_input()
        except psycopg.Error:
            # What came before the break has been read and still counts.
            broken = True
        while self._left and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if broken or pgconn.status == pq.ConnStatus.BAD:
                    break
            elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                self._left -= 1
                self._results.append([])
            else:
                self._results[-1].append(result)
        if not self._left or broken or pgconn.status == pq.ConnStatus.BAD:
            self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def leave(self) -> None:
        """Let go of the socket."""
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)

    def segments(self) -> list[Segment]:
        """What was received, by segment."""
        found = []
        for place in range(len(self._commands)):
            expected = self._expected[place] if place < len(self._expected) else []
            results = self._results[place] if place < len(self._results) else []
            found.append(self._segment(expected, results, place < len(self._results) - 1))
        return found

    def _segment(self, expected: Sequence[bytes | None], results: Sequence[pq.abc.PGresult], finished: bool) -> Segment:
        rows: list[tuple[bytes | None, ...]] = []
        error: psycopg.Error | None = None
        good = 0
        for place, result in enumerate(results):
            name = expected[place] if place < len(expected) else None
            if result.status in _OK:
                good += 1
                if name is None:
                    rows.append(_row(result))
                continue
            if error is None and result.error_field(pq.DiagnosticField.SQLSTATE) is not None:
                error = psycopg.errors.error_from_result(result)
        self._prepared.difference_update(name for name in expected[good:] if name is not None)
        return Segment(rows, error, finished, good == len(expected) > 0)


def _row(result: pq.abc.PGresult) -> tuple[bytes | None, ...]:
    return tuple(result.get_value(0, column) for column in range(result.nfields)) if result.ntuples else ()
