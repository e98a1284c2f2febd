"""A world for the hub's tests: time that is turned by hand, listeners that remember what they were written."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lastcall.config import Config
from lastcall.errors import Code
from lastcall.event import Event, Transaction
from lastcall.hub import Hub, Joiner, Reservation, Subscriber, Writer
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.wire import payload
from lastcall.wire.encoding import JSON_LINES, Encoding


class Due:
    """A call that is due."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Time:
    """A scheduler and a clock; a write takes `write_s`, so that flushes have a length."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._calls: list[tuple[float, int, Due, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def call_soon(self, callback: Callable[[], object]) -> Due:
        return self.call_later(0.0, callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Due:
        due = Due()
        heapq.heappush(self._calls, (self.now + delay, next(self._numbers), due, callback))
        return due

    def run(self, seconds: float) -> None:
        """Let so much time pass, calling what becomes due."""
        until = self.now + seconds
        while self._calls and self._calls[0][0] <= until:
            moment, _, due, callback = heapq.heappop(self._calls)
            self.now = max(self.now, moment)
            if not due.cancelled:
                callback()
        self.now = max(self.now, until)


class Frame(NamedTuple):
    """What a listener was told. head: the hub's head when it was written."""

    id: Position | None
    event: str
    channels: tuple[str, ...]
    data: Any
    head: Position


class Ear(Subscriber):
    """A listener that remembers."""

    def __init__(self, world: World, subject: str | None = None, encoding: Encoding = JSON_LINES) -> None:
        super().__init__(encoding, subject)
        self.world = world
        self.frames: list[Frame] = []
        self.writes = 0
        self.ended: Code | None = None
        self.broken = False

    def writer(self) -> Writer:
        return self.write

    def write(self, data: bytes) -> None:
        """Remember the frames, and let time pass."""
        if self.broken:
            raise OSError("the connection is gone")
        assert not self.ended, "written to after its end"
        self.writes += 1
        self.world.time.now += self.world.write_s
        for line in data.splitlines():
            said = json.loads(line)
            id = Position.parse(said["id"]) if "id" in said else None
            channels = tuple(said.get("channels", ()))
            self.frames.append(Frame(id, said["event"], channels, said["data"], self.world.hub.head))

    def end(self, code: Code) -> None:
        self.world.hub.leave(self)
        self.ended = code

    def abort(self) -> None:
        self.world.hub.leave(self)

    def named(self, event: str) -> list[Frame]:
        """The frames of that name."""
        return [frame for frame in self.frames if frame.event == event]

    def heard(self, channel: str | None = None) -> list[Any]:
        """The data of the events, of one channel or of all."""
        return [
            frame.data for frame in self.frames if frame.channels and (channel is None or channel in frame.channels)
        ]

    @property
    def position(self) -> Position | None:
        """The last id."""
        return next((frame.id for frame in reversed(self.frames) if frame.id is not None), None)


class World:
    """A hub with its time and its feed."""

    def __init__(self, *, write_s: float = 0.001, batch: int = 64, **settings: Any) -> None:
        self.write_s = write_s
        self.time = Time()
        self.meter = Meter()
        self.config = Config(**settings)
        self.hub = Hub(self.config, self.meter, self.time, now=lambda: self.time.now, wall=lambda: 0.0, batch=batch)
        self.lsn = 100
        self.epoch = "e0"
        self.hub.begin(self.epoch, Position(self.epoch, self.lsn, 0))
        self.hub.set_ready()
        self.events: list[Event] = []
        self._numbers = itertools.count(1)

    def transaction(self, *events: Iterable[str] | Event, filler: str = "") -> Transaction:
        """The next transaction; an event is given by its channels, and its data is a number of its own."""
        commit, self.lsn = self.lsn, self.lsn + 10
        made = []
        for ordinal, given in enumerate(events, start=1):
            position = Position(self.epoch, commit, ordinal)
            if isinstance(given, Event):
                event = Event(position, given.channels, given.name, given.data, given.subject)
            else:
                data = json.dumps([next(self._numbers), filler] if filler else next(self._numbers)).encode()
                event = Event(position, tuple(given), "note", data)
                self.events.append(event)
            made.append(event)
        return Transaction(commit, self.lsn, 7, 0.0, tuple(made))

    def publish(self, *events: Iterable[str] | Event, filler: str = "") -> Transaction:
        """Deliver a transaction."""
        transaction = self.transaction(*events, filler=filler)
        self.hub.deliver([transaction])
        return transaction

    def numbers(self, channel: str, after: Position | None = None, through: Position | None = None) -> list[int]:
        """The data of the channel's events in a stretch."""
        return [
            json.loads(event.data)
            for event in self.events
            if channel in event.channels
            and (after is None or event.position > after)
            and (through is None or event.position <= through)
        ]

    def joiner(
        self,
        channels: Sequence[str],
        position: Position | None = None,
        subject: str | None = None,
        reservation: Reservation | None = None,
        *,
        ids: bool = True,
        counts: bool = True,
        encoding: Encoding = JSON_LINES,
    ) -> Joiner:
        """What an endpoint does between `reserve` and `join`."""
        reservation = reservation or self.hub.reserve(subject, counts=counts)
        lost: dict[str, list[str]] = {}
        starts: dict[str, Position] = {}
        for channel in channels:
            reason = None if position is None else self.hub.gap(channel, position)
            if reason is not None:
                lost.setdefault(reason, []).append(channel)
            starts[channel] = self.hub.head if position is None or reason is not None else position
        opening = b"".join(encoding.frame("reset", payload.reset(names, reason)) for reason, names in lost.items())
        beat = position is not None or not counts
        return self.hub.joiner(reservation, encoding, starts, opening=opening, ids=ids, beat=beat)

    def join(
        self, channels: Sequence[str], position: Position | None = None, subject: str | None = None, **more: Any
    ) -> Ear:
        """A new listener, joined (or waiting for the pending flush)."""
        ear = Ear(self, subject, **more)
        self.take_in(ear, self.joiner(channels, position, subject, **more))
        return ear

    def subscribe(self, ear: Ear, channels: Sequence[str], position: Position | None = None) -> None:
        """A listener listens on further channels."""
        new = [channel for channel in channels if channel not in ear.channels]
        if new:
            self.take_in(ear, self.joiner(new, position, ear.subject, ids=False, counts=False))

    def take_in(self, ear: Ear, joiner: Joiner) -> None:
        """Pieces, then the membership."""
        while (piece := joiner.piece()) is not None:
            ear.write(piece)
        self.hub.join(joiner, ear)

    def settle(self) -> None:
        """Let time pass until no flush is due."""
        self.time.run(0.05)
        for _ in range(200):
            if self.hub._flush_due is not None:
                self.time.run(0.05)


def plain(name: str, channels: Sequence[str], data: Mapping[str, Any], subject: str | None = None) -> Event:
    """An event that the feed itself makes; `World.transaction` gives it its position."""
    return Event(Position("e0", 0, 0), tuple(channels), name, json.dumps(data).encode(), subject)
