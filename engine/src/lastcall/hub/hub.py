"""From the feed to every listener: each event once, in commit order, in as few writes as possible.

Promises:

* A member of an interest is given every event of its channels after the position at which it joined, in position order
  over all of them, once. A stretch that cannot be given is a `reset`, never a gap.
* Events are flushed in the turn in which they came when the hub is idle. What comes within a while after a flush (as
  long as the flush took, at most `flush_wait_max_ms`) leaves together: one joined write per subscriber.
* A flush gives way to other work every `flush_turn_max_ms`, and is cut at `flush_max_bytes`; what waits longer than a
  subscriber's buffer may hold (`write_buffer_max_bytes`) is written all the same: nothing here grows without bound.
* A subscriber never slows another: writers do not block, and whose buffer overflows is aborted by its transport.
* Every `heartbeat_interval_s` each member is told the head, unless events are on their way to it.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from lastcall.config import Config
from lastcall.errors import CODES, Refusal
from lastcall.event import REVOKED, Event, Transaction
from lastcall.hub.heartbeat import PHASES, Phases
from lastcall.hub.history import Heard, History
from lastcall.hub.interest import Interest, Interests, Subscriber
from lastcall.hub.joining import EVERY_KIND, Joiner, Reservation, kind_of
from lastcall.hub.rounds import BATCH, Rounds
from lastcall.hub.scheduler import Cancellable, Scheduler
from lastcall.hub.waiting import Waiter, Waiting
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.wire import payload
from lastcall.wire.encoding import Encoding

FLUSH_WAIT_MIN_S: Final = 0.0005
"""A wait shorter than this is none: timers are not finer than a millisecond."""


class Hub:
    """The sink of one node's feed (feed/protocol.py), and where its listeners are.

    All methods are to be called in the scheduler's thread. now: seconds that never go back; wall: seconds since 1970;
    batch: writes between two looks at the clock.

    head: the position before which everything has been delivered.
    ready: whether the feed has passed what was committed at its start; until then resumes wait.
    draining: whether the node stops, and takes nobody in any more.
    """

    def __init__(
        self,
        config: Config,
        meter: Meter,
        scheduler: Scheduler,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        batch: int = BATCH,
    ) -> None:
        self.head = Position("0", 0, 0)
        self.history = History(config, now)
        self.ready = False
        self.draining = False
        self._config = config
        self._meter = meter
        self._scheduler = scheduler
        self._now = now
        self._wall = wall
        self._begun = False
        self._reset_through: dict[str, Position] = {}
        self._interests = Interests()
        self._waiting = Waiting()
        self._phases = Phases()
        self._reservations: set[Reservation] = set()
        self._places_taken = 0
        self._rounds = Rounds(meter, batch)
        self._dirty: list[Interest] = []
        self._queue: deque[Interest] = deque()
        self._commits: list[float] = []
        self._commits_on_their_way: list[float] = []
        self._flush_began = self._turn_ended = 0.0
        self._flush_due: Cancellable | None = None
        self._quiet_until = now()
        self._ticker: Cancellable | None = None
        self._when_ready: list[Callable[[], object]] = []

    # The feed's side (feed/protocol.py: Sink)

    def begin(self, epoch: str, floor: Position) -> None:
        """A (new) epoch starts; `floor` and everything before it are forgotten. When the same epoch begins again where
        it is known, it goes on, and `deliver` passes over what it has seen."""
        if not self._begun:
            self._begun = True
            self.head = floor
            self.history.begin(floor)
            self._beat()
        elif epoch != self.head.epoch:
            self._start_anew(floor, "epoch")
        elif floor > self.head:
            self._start_anew(floor, "history")

    def deliver(self, transactions: list[Transaction]) -> None:
        """Whole transactions in commit order; the head becomes the last one's `end_lsn.0`."""
        epoch, lsn, _ = self.head
        for transaction in transactions:
            if transaction.commit_lsn < lsn:
                continue
            for event in transaction.events:
                self._take(event)
            if transaction.events and self.ready:
                self._commits.append(transaction.commit_time)
            lsn = transaction.end_lsn
            self.head = Position(epoch, lsn, 0)
        self._settle()

    def advance(self, head: Position) -> None:
        """Everything before `head` has been delivered."""
        self.head = max(self.head, head)

    def reset_all(self, reason: str) -> None:
        """Every channel's listeners must fetch their state anew."""
        self._start_anew(self.head, reason)
        # Whoever comes with this very head may have stopped before the reset: the position alone does not say.
        self._reset_through[EVERY_KIND] = self.head

    def reset_kinds(self, kinds: frozenset[str], reason: str) -> None:
        """The same for all channels of these kinds."""
        self.history.forget_kinds(kinds, self.head)
        self._reset_through |= dict.fromkeys(kinds, self.head)
        self._announce_reset(kinds, reason, self.head)

    def set_ready(self, ready: bool = True) -> None:
        """Say whether the feed has caught up."""
        self.ready = ready
        if ready:
            callbacks, self._when_ready = self._when_ready, []
            for callback in callbacks:
                callback()

    # The listeners' side

    def when_ready(self, callback: Callable[[], object]) -> None:
        """Call once the hub is ready; at once when it is."""
        if self.ready:
            callback()
        else:
            self._when_ready.append(callback)

    @property
    def places_taken(self) -> int:
        """Listeners, and requests on their way to become one."""
        return self._places_taken

    def reserve(self, subject: str | None, *, counts: bool = True) -> Reservation:
        """Take a place; from now on revocations of `subject` and resets are noted. Raises Refusal LC404, LC209.

        counts: False for a further subscribe of a connection that has its place.
        """
        if self.draining:
            raise Refusal("LC209")
        if counts and self._places_taken >= self._config.connections_max:
            self._meter.connections_refused += 1
            raise Refusal("LC404")
        reservation = Reservation(subject, counts)
        self._reservations.add(reservation)
        self._places_taken += counts
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Give a place back that did not become a membership. Harmless when it did, or when done twice."""
        if reservation in self._reservations:
            self._reservations.remove(reservation)
            self._places_taken -= reservation.counts

    def gap(self, channel: str, position: Position) -> str | None:
        """Why a listener that stopped at `position` cannot go on with the channel; None when it can."""
        if position.epoch != self.head.epoch:
            return "epoch"
        if position > self.head:
            return "future"
        if position < self.history.floor(channel):
            return "history"
        through = (self._reset_through.get(kind) for kind in (EVERY_KIND, kind_of(channel)))
        return "history" if any(reset is not None and position <= reset for reset in through) else None

    def joiner(
        self,
        reservation: Reservation,
        encoding: Encoding,
        starts: dict[str, Position],
        *,
        opening: bytes = b"",
        ids: bool = True,
        beat: bool = False,
    ) -> Joiner:
        """A listener on its way in, see joining.py. `starts` must be positions at or before the head."""
        most = min(self._config.flush_max_bytes, self._config.write_buffer_max_bytes // 2)
        return Joiner(self, reservation, encoding, starts, piece_max_bytes=most, opening=opening, ids=ids, beat=beat)

    def join(self, joiner: Joiner, subscriber: Subscriber) -> bool:
        """Make the subscriber a member of what it hears already and what it joins: now, or when the pending flush of
        that interest is written; `joiner.admitted` is called then. Takes the reservation over. Answers whether now."""
        joiner.subscriber = subscriber
        joiner.target = interest = self._interests.of(joiner.encoding, subscriber.channels.union(joiner.starts))
        if interest.pending:
            interest.joining = [*interest.joining, joiner]
            return False
        self._admit(joiner)
        return True

    def leave(self, subscriber: Subscriber) -> None:
        """The subscriber hears nothing from now on and never comes back. Harmless when done twice."""
        subscriber.gone = True
        interest, subscriber.interest = subscriber.interest, None
        if interest is not None:
            self._phases.discard(subscriber)
            self._rounds.discard(interest, subscriber)
            del interest.members[subscriber]
            self._interests.forget_if_empty(interest)
            self._places_taken -= 1

    def drop(self, subscriber: Subscriber, channels: Iterable[str]) -> None:
        """The subscriber is given everything so far, and hears these channels no longer."""
        old = subscriber.interest
        if old is not None:
            new = self._interests.of(old.encoding, old.channels.difference(channels))
            self._rounds.bring_up(subscriber)
            self._rounds.begin_whole(new)
            self._interests.move(subscriber, new)

    def read(self, starts: dict[str, Position]) -> list[Heard]:
        """What each of these channels has after its start, of which `gap` must be None; in position order."""
        return self.history.merged(starts)

    def wait(self, waiter: Waiter) -> None:
        """Wake the waiter when there is something on its channels, when it loses one, when everything was reset."""
        self._waiting.add(waiter)

    def unwait(self, waiter: Waiter) -> None:
        """Forget the waiter. Harmless when done twice."""
        self._waiting.discard(waiter)

    def describe(self, channel: str) -> tuple[int, Position, Position]:
        """How many listen on the channel, the head, and the channel's floor."""
        members = sum(len(interest.members) for interest in self._interests.on(channel))
        return members + self._waiting.on(channel), self.head, self.history.floor(channel)

    def drain(self) -> None:
        """Take nobody in any more, give everybody what is pending, and end every stream with LC209."""
        self.draining = True
        for interest in [*self._queue, *self._dirty]:
            self._rounds.begin_whole(interest)
            self._rounds.finish(interest)
            self._admit_all(interest)
        for subscriber in self._phases:
            subscriber.end(CODES["LC209"])
        self._waiting.touch_all()
        self._waiting.wake()

    def abort_all(self) -> None:
        """Cut whoever is still here."""
        for subscriber in self._phases:
            subscriber.abort()

    def stop(self) -> None:
        """Call nothing any more. A second stop is harmless."""
        for due in (self._ticker, self._flush_due):
            if due is not None:
                due.cancel()
        self._ticker = self._flush_due = None

    # Delivery

    def _take(self, event: Event) -> None:
        """Keep the event, and let it wait wherever it is heard."""
        if event.name == REVOKED:
            self._revoke(event)
            return
        channels = event.channels
        for channel in channels:
            self.history.append(event, channel)
            if self._waiting.channels:
                self._waiting.touch(channel)
        if len(channels) == 1:
            self._append(event, channels, self._interests.on(channels[0]))
        else:
            for heard, interests in self._interests.split(channels).items():
                self._append(event, heard, interests)

    def _append(self, event: Event, channels: tuple[str, ...], interests: Iterable[Interest]) -> None:
        """Encode the event once per encoding, and let it wait in every interest."""
        blocks: dict[Encoding, bytes] = {}
        for interest in interests:
            encoding = interest.encoding
            block = blocks.get(encoding)
            if block is None:
                block = blocks[encoding] = encoding.event(event, channels)
            pending = interest.pending
            if not pending:
                self._dirty.append(interest)
            pending.append(block)

    def _revoke(self, event: Event) -> None:
        """The subject's listeners get everything before this event, and nothing of its channels after it."""
        if event.subject is None:
            return
        lost = frozenset(event.channels)
        for reservation in self._reservations:
            if reservation.subject == event.subject:
                reservation.revoked |= lost
        for channel in event.channels:
            self._waiting.revoke(channel, event.subject)
        interests = {interest for channel in event.channels for interest in self._interests.on(channel)}
        for subscriber in [member for interest in interests for member in interest.members]:
            if subscriber.subject == event.subject:
                heard = sorted(subscriber.channels & lost)
                self.drop(subscriber, heard)
                frame = subscriber.encoding.frame(REVOKED, payload.revoked(heard), id=str(event.position))
                subscriber.writer()(frame)
                if not subscriber.channels:
                    subscriber.end(CODES["LC305"])

    def _start_anew(self, floor: Position, reason: str) -> None:
        """Nothing from before `floor` can be continued: everybody is told so."""
        self.head = floor
        self.history.begin(floor)
        self._reset_through.clear()
        self._announce_reset(None, reason, floor)

    def _announce_reset(self, kinds: frozenset[str] | None, reason: str, at: Position) -> None:
        """Tell everybody who hears, joins or waits for a channel of these kinds (None: of any)."""
        for reservation in self._reservations:
            reservation.resets |= dict.fromkeys((EVERY_KIND,) if kinds is None else kinds, reason)
        for interest in self._interests.all():
            lost = sorted(c for c in interest.channels if kinds is None or kind_of(c) in kinds)
            if lost:
                if not interest.pending:
                    self._dirty.append(interest)
                interest.pending.append(interest.encoding.frame("reset", payload.reset(lost, reason), id=str(at)))
        self._waiting.touch_all()
        self._settle()

    # Flushing

    def _settle(self) -> None:
        """Flush now when idle; else when the flush that is on its way, and the quiet time after it, are over."""
        if not self._dirty and not self._waiting.due:
            self._observe(self._commits)
        elif self._flush_due is None:
            wait = self._quiet_until - self._now()
            if wait < FLUSH_WAIT_MIN_S:
                self._flush()
            else:
                self._flush_due = self._scheduler.call_later(wait, self._flush)

    def _flush(self) -> None:
        """Begin to write what is pending, and wake who waited for an event."""
        self._flush_began = self._turn_ended = self._now()
        self._queue.extend(self._dirty)
        self._dirty = []
        self._commits_on_their_way, self._commits = self._commits, []
        self._waiting.wake()
        self._go_on()

    def _go_on(self) -> None:
        """Write for `flush_turn_max_ms`, or as long as other work took since the last turn: half of the time is the
        flush's, half is others'. The rest is for the next turn."""
        self._flush_due = None
        began = self._now()
        ends = began + max(self._config.flush_turn_max_ms / 1000, began - self._turn_ended)
        while self._rounds.step() or self._begin_rounds():
            if self._now() >= ends:
                self._turn_ended = self._now()
                self._flush_due = self._scheduler.call_soon(self._go_on)
                return
        ended = self._now()
        self._quiet_until = ended + min(ended - self._flush_began, self._config.flush_wait_max_ms / 1000)
        self._meter.flushes += 1
        self._observe(self._commits_on_their_way)
        if self._dirty:
            self._settle()

    def _begin_rounds(self) -> bool:
        """Begin rounds until there is enough to write for a look at the clock. False when nothing waits."""
        queue, rounds, most = self._queue, self._rounds, self._config.flush_max_bytes
        begun = bool(queue)
        for _ in range(min(rounds.batch, len(queue))):
            interest = queue.popleft()
            pending = interest.pending
            if pending:
                data = pending[0] if len(pending) == 1 else b"".join(pending)
                if len(data) <= most or interest.joining:
                    interest.pending = []
                    rounds.begin(interest, data, len(pending))
                else:
                    self._begin_a_part(interest, len(data))
            if interest.joining:
                self._admit_all(interest)
            if rounds.open:
                break
        return begun

    def _begin_a_part(self, interest: Interest, left: int) -> None:
        """Write as much as a flush may be of `left` pending bytes, more only where too many wait, and come again."""
        pending = interest.pending
        while pending:
            count = len(pending)
            part = interest.take(self._config.flush_max_bytes)
            self._rounds.begin(interest, part, count - len(pending))
            left -= len(part)
            if left <= self._config.write_buffer_max_bytes:
                break
        if pending:
            self._dirty.append(interest)

    def _observe(self, commits: list[float]) -> None:
        """Count what has been written since the last time."""
        if commits:
            wall = self._wall()
            for committed in commits:
                self._meter.commit_to_write.observe(max(0.0, wall - committed))
            commits.clear()
        self._meter.history_events = self.history.events
        self._meter.history_bytes = self.history.kept_bytes

    def _beat(self) -> None:
        """Tell one phase's members the head, and forget what is too old."""
        self._ticker = self._scheduler.call_later(self._config.heartbeat_interval_s / PHASES, self._beat)
        beats: dict[Encoding, bytes] = {}
        for subscriber in self._phases.next():
            interest = subscriber.interest
            assert interest is not None
            if interest.pending or interest in self._rounds.open:
                continue  # events are on their way to it, and their ids say more than the head may yet
            beat = beats.get(interest.encoding)
            if beat is None:
                beat = interest.encoding.frame("heartbeat", payload.EMPTY, id=str(self.head))
                beats[interest.encoding] = beat
            with contextlib.suppress(OSError, RuntimeError):
                interest.members[subscriber](beat)
            self._meter.heartbeats += 1
        self.history.expire()

    # Membership

    def _admit_all(self, interest: Interest) -> None:
        """Those who waited until what was pending is written."""
        joining, interest.joining = interest.joining, ()
        for joiner in joining:
            self._admit(joiner)
            joiner.admitted()

    def _admit(self, joiner: Joiner) -> None:
        """The last piece of history and the membership, in one turn."""
        subscriber, target = joiner.subscriber, joiner.target
        assert subscriber is not None
        assert target is not None
        self.release(joiner.reservation)
        if subscriber.gone or self.draining:
            self._interests.forget_if_empty(target)
            if not subscriber.gone:
                subscriber.end(CODES["LC209"])
            return
        old = subscriber.interest
        self._rounds.bring_up(subscriber)
        data = joiner.rest()
        new = self._interests.of(joiner.encoding, subscriber.channels.union(joiner.starts))
        if new is not target:
            # A channel was lost meanwhile, so it is another interest whose pending events must go first.
            self._interests.forget_if_empty(target)
            self._rounds.begin_whole(new)
        if old is None:
            self._places_taken += 1
            self._phases.add(subscriber)
            subscriber.interest = new
            new.members[subscriber] = subscriber.writer()
        else:
            self._interests.move(subscriber, new)
        if data:
            new.members[subscriber](data)
        if joiner.revoked and not new.channels:
            subscriber.end(CODES["LC305"])
