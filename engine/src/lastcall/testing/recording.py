"""A sink that keeps what a feed tells it, and holds the feed to the promises of its port."""

from __future__ import annotations

from lastcall.event import Event, Transaction
from lastcall.position import Position


class RecordingSink:
    """Implements feed.protocol.Sink. `broken` lists every promise that the feed has broken; a test asserts it empty.

    calls: everything in order, as (name, argument). events, transactions: since the last `begin`.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.broken: list[str] = []
        self.epochs: list[str] = []
        self.floor: Position | None = None
        self.head: Position | None = None
        self.transactions: list[Transaction] = []
        self.resets: list[tuple[frozenset[str] | None, str, Position]] = []

    @property
    def events(self) -> list[Event]:
        """All events of the current epoch, in order."""
        return [event for transaction in self.transactions for event in transaction.events]

    def begin(self, epoch: str, floor: Position) -> None:
        """A (new) epoch."""
        self.calls.append(("begin", floor))
        if epoch in self.epochs:
            self.broken.append(f"the epoch {epoch} began twice")
        if floor.epoch != epoch or floor.ordinal != 0:
            self.broken.append(f"the floor {floor} is no head of the epoch {epoch}")
        self.epochs.append(epoch)
        self.floor = self.head = floor
        self.transactions = []

    def deliver(self, transactions: list[Transaction]) -> None:
        """Transactions behind the head, their events behind each other."""
        self.calls.append(("deliver", list(transactions)))
        if not transactions:
            self.broken.append("nothing was delivered")
        for transaction in transactions:
            self._check(transaction)
            self.transactions.append(transaction)
            self._move(Position(self._epoch, transaction.end_lsn, 0))

    def advance(self, head: Position) -> None:
        """The head moves."""
        self.calls.append(("advance", head))
        self._move(head)

    def reset_all(self, reason: str) -> None:
        """Everybody needs a state."""
        self.calls.append(("reset_all", reason))
        self._reset(None, reason)

    def reset_kinds(self, kinds: frozenset[str], reason: str) -> None:
        """Everybody on channels of these kinds needs a state."""
        self.calls.append(("reset_kinds", (kinds, reason)))
        self._reset(kinds, reason)

    @property
    def _epoch(self) -> str:
        return self.epochs[-1] if self.epochs else ""

    def _reset(self, kinds: frozenset[str] | None, reason: str) -> None:
        if self.head is None:
            self.broken.append("a reset before the first begin")
        else:
            self.resets.append((kinds, reason, self.head))

    def _move(self, head: Position) -> None:
        if self.head is None or head.epoch != self._epoch or head.ordinal != 0 or head < self.head:
            self.broken.append(f"the head moved from {self.head} to {head}")
        self.head = head

    def _check(self, transaction: Transaction) -> None:
        if self.head is None or transaction.commit_lsn < self.head.lsn:
            self.broken.append(f"{transaction.commit_lsn:x} committed before the head {self.head}")
        if transaction.end_lsn <= transaction.commit_lsn:
            self.broken.append(f"{transaction.commit_lsn:x} ends before it commits")
        places = [event.position.ordinal for event in transaction.events]
        if places != sorted(set(places)) or (places and places[0] < 1):
            self.broken.append(f"ordinals {places}")
        for event in transaction.events:
            if event.position[:2] != (self._epoch, transaction.commit_lsn):
                self.broken.append(f"the position {event.position} is not its transaction's")
            if not event.channels or len(set(event.channels)) != len(event.channels):
                self.broken.append(f"channels {event.channels}")
            if b"\n" in event.data or b"\r" in event.data:
                self.broken.append(f"a line break in {event.position}")
