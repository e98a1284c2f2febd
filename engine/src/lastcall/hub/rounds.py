"""Writes on their way: one round hands the same bytes to all members of one interest.

A round over a large interest takes several turns, so that thousands of writes never keep the loop from other work. In
between members may leave, and change what they hear; who joins meanwhile is not part of the round. Promise: when a
member is given anything else, it has been given its round first.
"""

from __future__ import annotations

import contextlib
from itertools import islice
from operator import length_hint
from typing import Final

from lastcall.hub.interest import Interest, Subscriber, Writer
from lastcall.meter import Meter

BATCH: Final = 64
"""Writes between two looks at the clock: some hundred microseconds."""


class Round:
    """One interest's bytes on their way to those who were members when it began."""

    __slots__ = ("_left", "_places", "_subscribers", "_writers", "data")

    def __init__(self, data: bytes, members: dict[Subscriber, Writer]) -> None:
        self.data = data
        self._subscribers = list(members)
        self._writers = list(members.values())
        self._left = iter(self._writers)
        self._places: dict[Subscriber, int] | None = None

    def write(self, most: int) -> bool:
        """Hand the bytes to the next `most` members. False when that was the last of them."""
        # Who fails ends this turn; the iterator is past it, so the others' turn comes.
        with contextlib.suppress(OSError, RuntimeError):
            data = self.data
            for write in islice(self._left, most):
                write(data)
        return length_hint(self._left) > 0

    def take_out(self, subscriber: Subscriber) -> Writer | None:
        """The member is not written to any more. Its writer, when its turn had not come."""
        if self._places is None:
            self._places = {one: place for place, one in enumerate(self._subscribers)}
        place = self._places.pop(subscriber, None)
        if place is None or place < len(self._writers) - length_hint(self._left):
            return None
        writer, self._writers[place] = self._writers[place], bool  # `bool` takes the bytes and does nothing
        return writer


class Rounds:
    """All rounds that are not done. open: by their interest; batch: writes between two looks at the clock."""

    __slots__ = ("_meter", "batch", "open")

    def __init__(self, meter: Meter, batch: int = BATCH) -> None:
        self._meter = meter
        self.open: dict[Interest, Round] = {}
        self.batch = batch

    def begin(self, interest: Interest, data: bytes, events: int) -> None:
        """Hand `data`, which holds so many events, to all members: now where they are few, else in `step`."""
        members = len(interest.members)
        self._meter.deliveries += events * members
        self._meter.delivered_bytes += len(data) * members
        if self.open:
            self.finish(interest)
        if members <= self.batch:
            interest.write(data)
        else:
            self.open[interest] = Round(data, interest.members)

    def begin_whole(self, interest: Interest) -> None:
        """A round with all that is pending."""
        pending = interest.pending
        if pending:
            interest.pending = []
            self.begin(interest, b"".join(pending), len(pending))

    def step(self) -> bool:
        """Some writes of a round. False when there is none to be done."""
        for interest, current in self.open.items():
            if not current.write(self.batch):
                del self.open[interest]
            return True
        return False

    def finish(self, interest: Interest) -> None:
        """The rest of the interest's round, now."""
        current = self.open.pop(interest, None)
        while current is not None and current.write(self.batch):
            pass

    def bring_up(self, subscriber: Subscriber) -> None:
        """Give the member everything that its interest has, so that it may be given something else."""
        interest = subscriber.interest
        if interest is None:
            return
        self.begin_whole(interest)
        current = self.open.get(interest)
        if current is not None:
            write = current.take_out(subscriber)
            if write is not None:
                with contextlib.suppress(OSError, RuntimeError):
                    write(current.data)

    def discard(self, interest: Interest, subscriber: Subscriber) -> None:
        """The member has left: it is not written to any more."""
        current = self.open.get(interest)
        if current is not None:
            current.take_out(subscriber)
