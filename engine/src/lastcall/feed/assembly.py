"""From raw messages to whole transactions of events: bytes in, transactions and resets out. No I/O.

    idle ── Begin (new) ──> open ── Commit ──> idle, one Transaction more
         ── Begin (old) ──> passing ── Commit ──> idle, nothing

Promises:

* Transactions come whole, in commit order, each once: what commits before the head is dropped when it is decoded again.
* The ordinals of a transaction's events depend on the raw messages alone: message n (changes and transactional
  messages, whoever emitted them; not Relation and Type, which depend on the session) has 2n - 1 and 2n.
* What cannot be told exactly becomes a reset: of a channel on which there were too many events, of kinds of channel
  where a table was truncated or no longer fits its watches, or where a transaction is too large altogether.
* A transaction holds at most `transaction_max_bytes` of events in memory, whatever its size (revocations on top).
* After a reconnect the transaction that was delivered last must come again, unless the slot has let go of it: if
  another stands in its place, the log is not the one we knew (Diverged).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from lastcall.config import Config
from lastcall.event import REVOKED, Event, Transaction
from lastcall.feed import messages
from lastcall.feed.catalog import PATH, PUBLISHED_ROWS, Catalog
from lastcall.feed.pgoutput import (
    Begin,
    Commit,
    DecodeError,
    Delete,
    Insert,
    Message,
    Relation,
    Truncate,
    Update,
    decode,
)
from lastcall.feed.render import Draft, NotRenderable, Renderer
from lastcall.feed.replication import to_unix_s
from lastcall.feed.watch import Watch, by_table, kinds_of
from lastcall.meter import Meter
from lastcall.position import Position

EVENT_OVERHEAD_BYTES: Final = 400
"""What an event costs beside its data, roughly; counted against `transaction_max_bytes`."""


class Diverged(Exception):
    """The log has another history than the one that was delivered."""


class Reset(NamedTuple):
    """All channels of these kinds need their state anew; takes effect behind the transaction before it."""

    kinds: frozenset[str] | None
    """None: of all kinds."""
    reason: str


class Mark(NamedTuple):
    """A transaction that was delivered: it must be found again where it was. A restored copy that goes on like the
    original has the same addresses and ids; the microsecond differs."""

    commit_lsn: int
    xid: int
    commit_time_us: int


Finished: TypeAlias = Transaction | Reset


class _PublishedRows:
    """`lastcall.published`: rows that stand for messages."""

    def __init__(self, relation: Relation) -> None:
        names = [column.name for column in relation.columns]
        self.broken = "" if {"prefix", "content"} <= set(names) else f"{PUBLISHED_ROWS} has other columns"
        self._prefix = names.index("prefix") if not self.broken else 0
        self._content = names.index("content") if not self.broken else 0

    def message(self, change: Insert) -> Message:
        """The message that the row stands for."""
        prefix, content = change.new[self._prefix], change.new[self._content]
        if not isinstance(prefix, bytes) or not isinstance(content, bytes):
            raise DecodeError(f"a row of {PUBLISHED_ROWS} is not one of ours")
        return Message(True, 0, prefix.decode(), content)


class _Path:
    """`lastcall.path`: whether messages can be trusted, from this place of the stream on."""

    def __init__(self, relation: Relation) -> None:
        names = [column.name for column in relation.columns]
        self._messages = names.index("messages") if "messages" in names else None

    def trusted(self, change: Insert | Update) -> bool:
        """What the row says now."""
        return self._messages is not None and change.new[self._messages] == b"t"


class _Open:
    """A transaction whose Commit has not come."""

    __slots__ = (
        "begin",
        "bytes",
        "count",
        "counts",
        "events",
        "everything",
        "flooded",
        "overflowed",
        "passing",
        "resets",
    )

    def __init__(self, begin: Begin, passing: bool) -> None:
        self.begin = begin
        self.passing = passing
        self.count = 0
        self.events: list[Event] = []
        self.bytes = 0
        self.flooded = False
        self.counts: Counter[str] | None = None
        self.overflowed: dict[str, None] = {}
        self.resets: dict[str, frozenset[str]] = {}
        self.everything = False

    def reset(self, kinds: frozenset[str], reason: str) -> None:
        self.resets[reason] = self.resets.get(reason, frozenset()) | kinds


class Assembly:
    """Decodes one stream after another (sessions of one slot) into one sequence.

    finished: what is ready, in order; the caller takes it and clears it.
    head_lsn: everything that commits before it has been put into `finished`.
    last: the last transaction that had any message.
    on_mismatch: called when a table does not fit its watches as the catalog was known.
    """

    def __init__(self, config: Config, watches: Sequence[Watch], meter: Meter, on_mismatch: Callable[[], None]) -> None:
        self.finished: list[Finished] = []
        self.head_lsn = 0
        self.last: Mark | None = None
        self._config = config
        self._meter = meter
        self._on_mismatch = on_mismatch
        self._watches = by_table(watches)
        self._epoch = ""
        self._catalog: Catalog | None = None
        self._tables_by_oid: dict[int, str] = {}
        self._trusted = False
        self._expected: Mark | None = None
        self._open: _Open | None = None
        self._relations: dict[int, Relation] = {}
        self._renderers: dict[int, Renderer | _PublishedRows | _Path | frozenset[str] | None] = {}
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            Begin: self._begin,
            Commit: self._commit,
            Relation: self._relation,
            Insert: self._insert,
            Update: self._update,
            Delete: self._delete,
            Truncate: self._truncate,
            Message: self._message,
        }

    @property
    def idle(self) -> bool:
        """Whether no transaction is half received."""
        return self._open is None

    def learn(self, catalog: Catalog, *, trusted: bool | None = None) -> None:
        """What is known of tables and types now; trusted: messages with our prefixes come from our functions only."""
        if self._catalog is not None:
            # A table that is gone is still needed for the stretch of the log in which it was there.
            catalog = Catalog(
                catalog.version,
                catalog.publication,
                {**self._catalog.tables, **catalog.tables},
                {**self._catalog.types, **catalog.types},
            )
        self._catalog = catalog
        if trusted is not None:
            self._trusted = trusted
        self._tables_by_oid |= {table.oid: name for name, table in catalog.tables.items()}
        for relation in self._relations.values():
            self._fit(relation)

    def restart(self, epoch: str, head_lsn: int, last: Mark | None, expected: Mark | None) -> None:
        """A new session begins: forget what was half received. expected: the transaction that must come again."""
        self.finished.clear()
        self._epoch = epoch
        self.head_lsn = head_lsn
        self.last = last
        self._expected = expected
        self._open = None
        self._relations.clear()
        self._renderers.clear()

    def take(self, data: bytes, at: int = 0) -> None:
        """One message of pgoutput. Raises DecodeError or Diverged; the session is then of no more use."""
        message = decode(data, at)
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message)

    def keepalive(self, end_lsn: int) -> None:
        """Everything that commits before `end_lsn` has been sent. Raises Diverged."""
        if self._open is None:
            if self._expected is not None and end_lsn > self._expected.commit_lsn:
                raise Diverged("the transaction that was delivered last is not in the log")
            self.head_lsn = max(self.head_lsn, end_lsn)

    # Transactions

    def _begin(self, message: Begin) -> None:
        if self._open is not None:
            raise DecodeError("a transaction begins within another")
        expected = self._expected
        if expected is not None and message.commit_lsn >= expected.commit_lsn:
            if Mark(message.commit_lsn, message.xid, message.commit_time_us) != expected:
                raise Diverged("another transaction stands where the one that was delivered last was")
            self._expected = None
        # The head S.0 means "everything that commits before S": what commits at S is new (it can, where one
        # transaction's commit record follows the other's at once).
        self._open = _Open(message, passing=message.commit_lsn < self.head_lsn)

    def _commit(self, message: Commit) -> None:
        current = self._open
        if current is None or message.commit_lsn != current.begin.commit_lsn:
            raise DecodeError("a transaction ends that has not begun")
        self._open = None
        if current.passing:
            return
        events = self._within_limits(current) if current.overflowed or current.flooded else current.events
        resets = [Reset(kinds, reason) for reason, kinds in current.resets.items()]
        if current.everything:
            resets = [Reset(None, "schema")]
        if events or resets:
            self.finished.append(
                Transaction(
                    commit_lsn=message.commit_lsn,
                    end_lsn=message.end_lsn,
                    xid=current.begin.xid,
                    commit_time=to_unix_s(message.commit_time_us),
                    events=tuple(events),
                )
            )
            self.finished += resets
            self._meter.feed_events += len(events)
            self._meter.feed_resets += len(resets) + len(current.overflowed)
        self._meter.feed_transactions += 1
        self.head_lsn = message.end_lsn
        self.last = Mark(message.commit_lsn, current.begin.xid, message.commit_time_us)

    def _within_limits(self, current: _Open) -> list[Event]:
        """The events without those of overflowed channels, for which a reset each comes last."""
        kept: list[Event] = []
        for event in current.events:
            channels = tuple(name for name in event.channels if name not in current.overflowed)
            if event.name == REVOKED or len(channels) == len(event.channels):
                kept.append(event)
            elif channels:
                kept.append(Event(event.position, channels, event.name, event.data))
        if current.flooded:
            return kept
        place = 2 * current.count
        for number, channel in enumerate(current.overflowed, start=1):
            channels, name, data = messages.reset_of(channel, "overflow")
            kept.append(Event(Position(self._epoch, current.begin.commit_lsn, place + number), channels, name, data))
        return kept

    # Relations

    def _relation(self, relation: Relation) -> None:
        # PostgreSQL describes a table anew after every invalidation, mostly without a difference.
        if self._relations.get(relation.oid) != relation:
            self._relations[relation.oid] = relation
            self._fit(relation)

    def _fit(self, relation: Relation) -> None:
        name = f"{relation.schema}.{relation.name}"
        renderer: Renderer | _PublishedRows | _Path | frozenset[str] | None = None
        watches = self._watches.get(name)
        formerly = self._watches.get(self._tables_by_oid.get(relation.oid, ""))
        assert self._catalog is not None, "learn() comes first"
        if name == PUBLISHED_ROWS:
            renderer = _PublishedRows(relation)
        elif name == PATH:
            renderer = _Path(relation)
        elif watches is not None and name in self._catalog.tables:
            table = self._catalog.tables[name]
            renderer = Renderer(watches, relation, table, self._catalog.types, self._malformed_channel)
        elif watches is not None or formerly is not None:
            # A watched table that is not in the catalog, or was renamed: its changes cannot be told, only that there
            # were some.
            renderer = kinds_of(watches or formerly or ())
        if isinstance(renderer, Renderer) and renderer.broken:
            renderer = renderer.kinds
        if isinstance(renderer, frozenset):
            self._on_mismatch()
        self._renderers[relation.oid] = renderer

    def _malformed_channel(self) -> None:
        self._meter.alarm("channel_malformed")

    def _counted(self) -> _Open:
        """The open transaction, one message further."""
        current = self._open
        if current is None:
            raise DecodeError("a change stands outside of a transaction")
        current.count += 1
        return current

    def _renderer(self, current: _Open, oid: int) -> Renderer | _PublishedRows | _Path | None:
        """Who renders changes of relation `oid`; what cannot be rendered is reset here."""
        try:
            renderer = self._renderers[oid]
        except KeyError:
            raise DecodeError("a change of a relation that was not described") from None
        if isinstance(renderer, frozenset):
            current.reset(renderer, "schema")
            return None
        if current.flooded and isinstance(renderer, Renderer):
            current.reset(renderer.kinds, "overflow")
            return None
        return renderer

    # Changes

    def _insert(self, message: Insert) -> None:
        current = self._counted()
        if current.passing:
            return
        renderer = self._renderer(current, message.relation)
        if not isinstance(renderer, Renderer):
            if isinstance(renderer, _PublishedRows):
                self._said(current, renderer.message(message))
            elif renderer is not None:
                self._trust(current, renderer.trusted(message))
            return
        try:
            draft = renderer.insert(message)
        except NotRenderable:
            self._not_renderable(current, renderer)
            return
        if draft is not None:
            self._add(current, 2 * current.count, draft)

    def _update(self, message: Update) -> None:
        current = self._counted()
        if current.passing:
            return
        renderer = self._renderer(current, message.relation)
        if not isinstance(renderer, Renderer):
            if isinstance(renderer, _Path):
                self._trust(current, renderer.trusted(message))
            return
        try:
            gone, became = renderer.update(message)
        except NotRenderable:
            self._not_renderable(current, renderer)
            return
        if gone is not None:
            self._add(current, 2 * current.count - 1, gone)
        if became is not None:
            self._add(current, 2 * current.count, became)

    def _delete(self, message: Delete) -> None:
        current = self._counted()
        if current.passing:
            return
        renderer = self._renderer(current, message.relation)
        if not isinstance(renderer, Renderer):
            return
        try:
            gone = renderer.delete(message)
        except NotRenderable:
            self._not_renderable(current, renderer)
            return
        if gone is not None:
            self._add(current, 2 * current.count - 1, gone)

    def _truncate(self, message: Truncate) -> None:
        current = self._counted()
        for oid in message.relations:
            renderer = self._renderers.get(oid)
            if isinstance(renderer, Renderer):
                current.reset(renderer.kinds, "truncate")
            elif isinstance(renderer, frozenset):
                current.reset(renderer, "truncate")

    def _message(self, message: Message) -> None:
        if not message.transactional:
            return
        current = self._counted()
        if current.passing or message.prefix not in messages.PREFIXES:
            return
        if self._trusted:
            self._said(current, message)
        else:
            self._meter.alarm("message_untrusted")

    def _trust(self, current: _Open, trusted: bool) -> None:
        """Messages are believed from here on, or no longer. What was said before may be judged otherwise when it is
        decoded again, so that nobody can continue from there."""
        self._trusted = trusted
        current.everything = True

    def _said(self, current: _Open, message: Message) -> None:
        """Something that `lastcall.publish`, `lastcall.revoke` or the feed put into the log."""
        try:
            found = messages.read(message.prefix, message.content, self._config.event_data_max_bytes)
        except messages.Malformed:
            self._meter.alarm("message_malformed")
            return
        if isinstance(found, messages.KindsReset):
            current.reset(found.kinds, found.reason)
        elif isinstance(found, messages.Revocation):
            position = Position(self._epoch, current.begin.commit_lsn, 2 * current.count)
            current.events.append(Event(position, *found.draft(), found.subject))
        elif current.flooded:
            current.reset(frozenset({found.channels[0].partition(":")[0]}), "overflow")
        else:
            self._add(current, 2 * current.count, found)

    def _not_renderable(self, current: _Open, renderer: Renderer) -> None:
        self._meter.alarm("not_renderable")
        current.reset(renderer.kinds, "schema")

    def _add(self, current: _Open, ordinal: int, draft: Draft) -> None:
        """One event more, unless that is too many."""
        channels, name, data = draft
        if current.counts is not None or len(current.events) >= self._config.events_per_transaction_max:
            channels = self._counted_channels(current, channels)
            if not channels:
                return
        current.bytes += EVENT_OVERHEAD_BYTES + len(data)
        current.events.append(Event(Position(self._epoch, current.begin.commit_lsn, ordinal), channels, name, data))
        if current.bytes > self._config.transaction_max_bytes:
            self._flood(current)

    def _counted_channels(self, current: _Open, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the channels that have room for one more. Counting begins when one channel could be full."""
        if current.counts is None:
            current.counts = Counter(name for event in current.events for name in event.channels)
        for channel in channels:
            current.counts[channel] += 1
            if current.counts[channel] > self._config.events_per_transaction_max:
                current.overflowed[channel] = None
        return tuple(channel for channel in channels if channel not in current.overflowed)

    def _flood(self, current: _Open) -> None:
        """The transaction is too large to be told: its kinds of channel are reset, revocations are kept."""
        if not current.flooded:
            current.flooded = True
            self._meter.alarm("transaction_too_large")
        told = [event for event in current.events if event.name != REVOKED]
        current.reset(frozenset(name.partition(":")[0] for event in told for name in event.channels), "overflow")
        current.events = [event for event in current.events if event.name == REVOKED]
        current.overflowed.clear()
