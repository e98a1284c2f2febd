"""Transactions that were delivered and may not be visible to readers yet.

A walsender can show a commit before other sessions see it (with synchronous replication by seconds). A state that is
read "at position P" must see everything at or before P, and the slot must not forget what no reader has seen.

Promises:

* A transaction is kept from `add` until a snapshot shows it; a snapshot taken before its commit never removes it.
* `oldest` and `up_to` know commit LSNs in the order of delivery, which is commit order.

Source: PostgreSQL, "Transaction ID and Snapshot Information Functions": `xmin:xmax:xip_list`; everything below xmin has
ended, everything at or above xmax has not, between them what is not in the list has.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_HALF = 1 << 31
_WHOLE = 1 << 32


class Snapshot(NamedTuple):
    """`pg_current_snapshot()`: 64 bit transaction ids."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read the text form. Raises ValueError on anything else."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, running.split(","))) if running else frozenset())

    def widen(self, xid: int) -> int:
        """The 64 bit id nearest to xmax whose low half is `xid`."""
        distance = (xid - self.xmax) % _WHOLE
        return self.xmax + (distance if distance < _HALF else distance - _WHOLE)

    def shows(self, xid: int) -> bool:
        """Whether the committed transaction `xid` (32 bit) is visible."""
        wide = self.widen(xid)
        return wide < self.xmin or (wide < self.xmax and wide not in self.running)


class Unseen:
    """Delivered transactions, until they have been seen."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, commit_lsn: int, xid: int) -> None:
        """The transaction is about to be delivered. LSNs must rise."""
        self._waiting.append((commit_lsn, xid))

    def seen(self, snapshot_text: str) -> None:
        """Forget what this snapshot of the primary shows. Raises ValueError where it is none."""
        snapshot = Snapshot.parse(snapshot_text)
        if self._waiting:
            self._waiting = deque(entry for entry in self._waiting if not snapshot.shows(entry[1]))

    def oldest(self) -> int | None:
        """The smallest commit LSN that is unseen."""
        return self._waiting[0][0] if self._waiting else None

    def up_to(self, lsn: int) -> list[int]:
        """The 32 bit ids of unseen transactions whose commit LSN is at most `lsn`."""
        found = []
        for commit_lsn, xid in self._waiting:
            if commit_lsn > lsn:
                break
            found.append(xid)
        return found

    def clear(self) -> None:
        """Forget everything: another epoch has begun."""
        self._waiting.clear()
