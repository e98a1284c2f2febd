"""Writes on their way: one round hands the same bytes to all members of one interest.

A round over a large interest takes several turns, so that thousands of writes never keep the loop from other work. In
between members may leave, and change what they hear; who joins meanwhile is not part of the round. Promise: when a
member is given anything else, it has been given its round first.
"""

from __future__ import annotations

import contextlib
from typing import Final

from lastcall.hub.interest import Interest, Subscriber, Writer
from lastcall.meter import Meter

BATCH: Final = 64
"""Writes between two looks at the clock: some hundred microseconds."""


class Round:
    """One interest's bytes, and who has not been handed them yet."""

    __slots__ = ("data", "todo")

    def __init__(self, data: bytes, todo: dict[Subscriber, Writer]) -> None:
        self.data = data
        self.todo = todo


class Rounds:
    """All rounds that are not done. batch: writes between two looks at the clock."""

    __slots__ = ("_meter", "_open", "batch")

    def __init__(self, meter: Meter, batch: int = BATCH) -> None:
        self._meter = meter
        self._open: dict[Interest, Round] = {}
        self.batch = batch

    def begin(self, interest: Interest, data: bytes, events: int) -> None:
        """Hand `data`, which holds so many events, to all members: now where they are few, else in `step`."""
        members = len(interest.members)
        self._meter.deliveries += events * members
        self._meter.delivered_bytes += len(data) * members
        if self._open:
            self.finish(interest)
        if members <= self.batch:
            interest.write(data)
        else:
            self._open[interest] = Round(data, dict(interest.members))

    def begin_whole(self, interest: Interest) -> None:
        """A round with all that is pending."""
        pending = interest.pending
        if pending:
            interest.pending = []
            self.begin(interest, b"".join(pending), len(pending))

    def step(self) -> bool:
        """Some writes of a round. False when there is none to be done."""
        for interest, current in self._open.items():
            todo, data = current.todo, current.data
            with contextlib.suppress(OSError, RuntimeError):  # who fails is taken out, and the others' turn comes
                for _ in range(min(self.batch, len(todo))):
                    todo.popitem()[1](data)
            if not todo:
                del self._open[interest]
            return True
        return False

    def finish(self, interest: Interest) -> None:
        """The rest of the interest's round, now."""
        current = self._open.pop(interest, None)
        while current is not None and current.todo:
            with contextlib.suppress(OSError, RuntimeError):
                current.todo.popitem()[1](current.data)

    def bring_up(self, subscriber: Subscriber) -> None:
        """Give the member everything that its interest has, so that it may be given something else."""
        interest = subscriber.interest
        if interest is None:
            return
        self.begin_whole(interest)
        current = self._open.get(interest)
        if current is not None:
            write = current.todo.pop(subscriber, None)
            if write is not None:
                with contextlib.suppress(OSError, RuntimeError):
                    write(current.data)

    def discard(self, interest: Interest, subscriber: Subscriber) -> None:
        """The member has left: it is not written to any more."""
        current = self._open.get(interest)
        if current is not None:
            current.todo.pop(subscriber, None)
