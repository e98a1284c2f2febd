"""WalFeed: a slot of PostgreSQL as a Feed.

    stopped ── start ──> streaming ── end of stream, silence ──> away ── connected again ──> streaming
    stopped <── stop ── streaming, away

Promises beyond those of the port (feed/protocol.py):

* `start` raises Refusal LC201 while another node holds the slot (which it names), Refusal LC202 where there is no
  database, StartRefused where it is not as it must be. The slot is held exactly while the feed is streaming.
* What has arrived is delivered in the turn of the loop in which it arrived, everything complete in one call, and after
  `feed_yield_messages` the loop gets its turn.
* PostgreSQL is told every `status_interval_s` how far the log may be forgotten: not past the window, not past what the
  sink has acknowledged, not past a transaction that no reader sees yet.
* A server that says nothing for `walsender_timeout_s` is given up and connected to again, with waits that double from
  RECONNECT_WAIT_MIN_S to `reconnect_wait_max_s`, jittered.
* Whatever makes it impossible to continue exactly (slot lost, another log, another publication) begins a new epoch,
  with `reset_all("epoch")` and an alarm. A stretch that the slot has let go of is `reset_all("history")` and an alarm.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from typing import Final

import psycopg
import structlog

from lastcall.config import Config
from lastcall.errors import LastcallError, Refusal, StartRefused
from lastcall.event import Transaction
from lastcall.feed import replication
from lastcall.feed.assembly import Assembly, Diverged, Mark
from lastcall.feed.catalog import Catalog
from lastcall.feed.epoch import Source, parse_source
from lastcall.feed.pgoutput import DecodeError
from lastcall.feed.protocol import Sink
from lastcall.feed.publication import verify
from lastcall.feed.unseen import Unseen
from lastcall.feed.wal.session import Session
from lastcall.feed.wal.slot import Known, Taken, take
from lastcall.feed.wal.surroundings import Surroundings
from lastcall.feed.wal.walsender import StreamEnded, Walsender, reason
from lastcall.feed.watch import Watch, check
from lastcall.feed.window import Window
from lastcall.meter import Meter
from lastcall.position import Position, parse_lsn

RECONNECT_WAIT_MIN_S: Final = 0.05
SLOT_POLL_S: Final = 0.1
CATCH_UP_POLL_S: Final = 0.05
STOP_WAIT_MAX_S: Final = 0.8
WINDOW_OF_KEEP: Final = 4
"""The window takes at most this part of max_slot_wal_keep_size: a quarter."""
_MEGABYTE: Final = 1 << 20
_AWAY: Final = (psycopg.Error, OSError, TimeoutError, LastcallError)
"""What a database that is away, or not as it must be, raises. Anything else is a mistake of ours: tried again, too, and
an alarm."""

_log = structlog.get_logger("lastcall.feed")


class WalFeed:
    """Implements feed.protocol.Feed. url: a login with REPLICATION that may use the schema lastcall."""

    def __init__(self, config: Config, url: str, watches: Sequence[Watch], meter: Meter) -> None:
        self.unseen = Unseen()
        self.epoch = ""
        self._config = config
        self._url = url
        self._watches = tuple(watches)
        self._meter = meter
        self._surroundings = Surroundings(url, config, self._watches, meter, self._learn)
        self._assembly = Assembly(config, self._watches, meter, self._surroundings.look_soon)
        self._window: Window | None = None
        self._walsender: Walsender | None = None
        self._sink: Sink | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()
        self._head_lsn = 0
        self._last: Mark | None = None
        self._caught_up_lsn: int | None = None
        self._acknowledged: Position | None = None
        self._written_lsn = 0
        self._database_s = 0.0
        self._heard_at = 0.0
        self._diverged = False

    # The port

    @property
    def caught_up(self) -> bool:
        """True once what was in the log at the start has been delivered."""
        return self._caught_up_lsn is not None and self._head_lsn >= self._caught_up_lsn

    @property
    def alive(self) -> bool:
        """True while streaming and not in silence for longer than `walsender_timeout_s`."""
        silence_s = time.monotonic() - self._heard_at
        return self._streaming() and silence_s <= self._config.walsender_timeout_s

    @property
    def head(self) -> Position:
        """Everything before it has been delivered."""
        return Position(self.epoch, self._head_lsn, 0)

    async def start(self, sink: Sink, *, wait_max_s: float = 0.0) -> None:
        """Take the slot, call `sink.begin`, and run until `stop`. Raises Refusal LC201, LC202, StartRefused.

        wait_max_s: how long to wait for a slot that another node holds.
        """
        check(self._watches)
        self._sink = sink
        deadline = time.monotonic() + wait_max_s
        try:
            while True:
                try:
                    await self._connect()
                    break
                except Refusal as refusal:
                    if refusal.code.number != "LC201" or time.monotonic() >= deadline:
                        raise
                await asyncio.sleep(SLOT_POLL_S * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, not a secret)
        except BaseException as error:
            await self._disconnect()
            meaning = _meaning(error)
            if meaning is not None:
                raise meaning from None
            raise
        self._tasks = [
            asyncio.create_task(self._stay(), name="feed: stay connected"),
            asyncio.create_task(self._report(), name="feed: report status"),
            asyncio.create_task(self._surroundings.run(self._streaming, self.unseen), name="feed: surroundings"),
        ]

    def acknowledge(self, position: Position) -> None:
        """Whatever is at or before `position` is safe downstream."""
        if position.epoch == self.epoch:
            self._acknowledged = position

    async def stop(self) -> None:
        """Give the slot back. A second stop is harmless."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            # Bounded: a question to a server that does not answer takes the driver seconds to give up.
            await asyncio.wait(tasks, timeout=STOP_WAIT_MAX_S)
        if self._streaming():
            with contextlib.suppress(psycopg.Error):
                self._send_status(ask=False)
        await self._disconnect()

    # Connecting

    def _streaming(self) -> bool:
        return self._walsender is not None and not self._ended.is_set()

    async def _connect(self) -> None:
        """From nothing to streaming; the sink has been told of the epoch."""
        session = Session(self._url, self._config)
        try:
            await self._connect_with(session)
        finally:
            session.close()

    async def _connect_with(self, session: Session) -> None:
        source = parse_source(await session.ask("select lastcall.feed_source(%s)", self._config.slot))
        source.check(self._config.slot)
        catalog = await self._surroundings.read_catalog(session)
        if catalog.publication is None or self._surroundings.catalog is None:
            # Later a broken watch must not keep the others from being heard.
            verify(self._watches, catalog)
        assert catalog.publication is not None
        self._surroundings.catalog = catalog
        self._assembly.learn(catalog, trusted=source.messages_trusted)
        walsender = await Walsender.connect(self._url, self._config)
        try:
            taken = await take(
                session,
                walsender,
                self._config.slot,
                source,
                publication=catalog.publication.oid,
                fingerprints=self._surroundings.fingerprints(catalog),
                known=Known(
                    self.epoch,
                    self._head_lsn,
                    self._last.commit_lsn if self._last else self._head_lsn,
                    self._diverged,
                ),
            )
        except BaseException:
            await walsender.close()
            raise
        self._join(taken, source)
        self._walsender = walsender
        self._heard_at = time.monotonic()
        self._ended.clear()
        walsender.listen(self._turn)
        await self._surroundings.mark(session)
        if self._caught_up_lsn is None:
            self._caught_up_lsn = parse_lsn(await session.ask("select pg_current_wal_flush_lsn()::text"))
        if self._streaming():
            self._send_status(ask=True)

    def _join(self, taken: Taken, source: Source) -> None:
        """Tell the sink whether the stream goes on or begins anew."""
        if taken.why_new:
            self._meter.feed_epochs += 1
            if taken.why_new != "first":
                self._meter.alarm("epoch")
        if taken.epoch != self.epoch:
            self._begin(taken, source)
        else:
            self._continue(taken.confirmed_lsn)

    def _begin(self, taken: Taken, source: Source) -> None:
        """An epoch that this process has not seen yet."""
        assert self._sink is not None
        again = self.epoch != ""
        self.epoch = taken.epoch
        self._head_lsn = self._written_lsn = taken.confirmed_lsn
        self._last = None
        self._acknowledged = None
        self._caught_up_lsn = None
        self._diverged = False
        self.unseen.clear()
        self._window = Window(
            seconds=self._config.window_s,
            transactions_max=self._config.window_transactions_max,
            bytes_max=source.slot_wal_keep_mb * _MEGABYTE // WINDOW_OF_KEEP,
        )
        self._window.restart(taken.confirmed_lsn)
        self._assembly.restart(self.epoch, self._head_lsn, None, None)
        self._sink.begin(self.epoch, self.head)
        if again:
            self._sink.reset_all("epoch")

    def _continue(self, confirmed_lsn: int) -> None:
        """The same epoch again: what comes must join what was delivered."""
        assert self._sink is not None
        self._meter.feed_reconnects += 1
        if confirmed_lsn > self._head_lsn:
            # Somebody else has read on with our slot.
            self._meter.alarm("history_gap")
            self._head_lsn = confirmed_lsn
            self._last = None
            self._sink.advance(self.head)
            self._sink.reset_all("history")
        last = self._last
        expected = last if last is not None and confirmed_lsn <= last.commit_lsn else None
        self._assembly.restart(self.epoch, self._head_lsn, last, expected)

    async def _disconnect(self) -> None:
        walsender, self._walsender = self._walsender, None
        if walsender is not None:
            await walsender.close()

    async def _stay(self) -> None:
        """Connect again whenever the stream has ended."""
        while True:
            await self._ended.wait()
            await self._disconnect()
            attempt = 0
            refused = ""
            while not self._streaming():
                wait_s = min(RECONNECT_WAIT_MIN_S * 2**attempt, self._config.reconnect_wait_max_s)
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, not a secret)
                attempt = min(attempt + 1, 16)
                try:
                    await self._connect()
                except Exception as error:
                    await self._disconnect()
                    if isinstance(error, StartRefused) or not isinstance(error, _AWAY):
                        self._meter.alarm("feed_refused")
                    if reason(error) != refused:
                        refused = reason(error)
                        _log.warning("not connected", reason=refused)

    # Streaming

    def _turn(self) -> None:
        """Take what has arrived and deliver what is complete."""
        walsender = self._walsender
        if walsender is None or self._ended.is_set():
            return
        try:
            try:
                more = walsender.receive(self._take, self._config.feed_yield_messages)
            finally:
                self._deliver()
            if more:
                asyncio.get_running_loop().call_soon(self._turn)
        except Exception as error:
            self._give_up(walsender, error)

    def _take(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        kind = data[0]
        if kind == replication.XLOG_DATA:
            self._assembly.take(data, replication.PAYLOAD_AT)
        elif kind == replication.KEEPALIVE:
            keepalive = replication.Keepalive.parse(data)
            self._database_s = replication.to_unix_s(keepalive.sent_us)
            self._assembly.keepalive(keepalive.end_lsn)
            self._written_lsn = max(self._written_lsn, keepalive.end_lsn)
            if keepalive.reply:
                self._deliver()
                self._send_status(ask=False)
        else:
            raise DecodeError("neither data nor a keepalive")

    def _deliver(self) -> None:
        """Everything complete, in order, in as few calls as possible."""
        assembly, sink = self._assembly, self._sink
        assert sink is not None and self._window is not None
        if assembly.finished:
            finished, assembly.finished = assembly.finished, []
            batch: list[Transaction] = []
            for each in finished:
                if isinstance(each, Transaction):
                    self.unseen.add(each.commit_lsn, each.xid)
                    batch.append(each)
                    continue
                self._deliver_batch(sink, batch)
                batch = []
                if each.kinds is None:
                    sink.reset_all(each.reason)
                else:
                    sink.reset_kinds(each.kinds, each.reason)
            self._deliver_batch(sink, batch)
        if assembly.head_lsn > self._head_lsn:
            self._window.note(self._head_lsn, self._database_s, 0)
            self._head_lsn = assembly.head_lsn
            sink.advance(self.head)
        self._last = assembly.last
        self._written_lsn = max(self._written_lsn, self._head_lsn)

    def _deliver_batch(self, sink: Sink, batch: list[Transaction]) -> None:
        if not batch:
            return
        assert self._window is not None
        sink.deliver(batch)
        for transaction in batch:
            self._database_s = max(self._database_s, transaction.commit_time)
            self._window.note(self._head_lsn, transaction.commit_time, 1)
            self._head_lsn = transaction.end_lsn

    def _give_up(self, walsender: Walsender, error: Exception) -> None:
        """The stream has ended, or can no longer be trusted."""
        walsender.forget()
        if walsender is self._walsender and not self._ended.is_set():
            if isinstance(error, Diverged):
                self._diverged = True
            elif not isinstance(error, (StreamEnded, psycopg.OperationalError)):
                self._meter.alarm("feed_failed")
            _log.warning("the stream has ended", reason=reason(error))
            self._ended.set()

    def _learn(self, catalog: Catalog) -> None:
        self._assembly.learn(catalog)

    # Status

    def _confirmed_lsn(self) -> int:
        """What the slot may forget: the least of what window, sink and readers allow."""
        assert self._window is not None
        bounds = [self._window.floor(self._database_s, self._head_lsn)]
        if self._acknowledged is not None:
            bounds.append(self._acknowledged.lsn)
        unseen = self.unseen.oldest()
        if unseen is not None:
            bounds.append(unseen)
        return min(bounds)

    def _send_status(self, *, ask: bool) -> None:
        assert self._walsender is not None
        now_us = int((time.time() - replication.POSTGRES_EPOCH_S) * 1_000_000)
        updates = replication.statuses(
            written=self._written_lsn, confirmed=self._confirmed_lsn(), now_us=now_us, ask=ask
        )
        self._walsender.send(*updates)

    async def _report(self) -> None:
        """The status, unasked and asking, and the watchdog."""
        while True:
            # Until it has caught up a quiet server is asked often how far it is.
            interval_s = self._config.status_interval_s
            await asyncio.sleep(interval_s if self.caught_up else min(interval_s, CATCH_UP_POLL_S))
            # What waits in the socket was said in time, however late we are to hear it.
            self._turn()
            walsender = self._walsender
            if walsender is None or self._ended.is_set():
                continue
            try:
                if time.monotonic() - self._heard_at > self._config.walsender_timeout_s:
                    raise StreamEnded("the server has been silent for too long")
                self._send_status(ask=True)
            except Exception as error:
                self._give_up(walsender, error)


def _meaning(error: BaseException) -> LastcallError | None:
    """What a failure of the driver at start means for the operator."""
    if isinstance(error, (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName)):
        return StartRefused("the database has no schema lastcall, or an older one: run `lastcall migrate`")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return StartRefused(f"the feed's login lacks a privilege ({error}): run `lastcall migrate`")
    if isinstance(error, (psycopg.Error, OSError, TimeoutError)):
        return Refusal("LC202", reason(error))
    return None
