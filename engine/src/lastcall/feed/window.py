"""How much of the log the slot holds back, so that history survives a restart.

Promises:

* What was delivered within the window (by the database's clock, by number, by bytes of log) lies at or after `floor`.
* What left it is let go of, at the latest one bucket (a hundredth of the window) later.
* A stretch without transactions counts too: a listener of a quiet channel whose position is within the window resumes.
* `floor` never goes back.
"""

from __future__ import annotations

from collections import deque
from typing import Final

BUCKETS: Final = 100


class _Bucket:
    __slots__ = ("lsn", "newest_s", "oldest_s", "transactions")

    def __init__(self, lsn: int, time_s: float) -> None:
        self.lsn = lsn
        self.oldest_s = time_s
        self.newest_s = time_s
        self.transactions = 0


class Window:
    """The last stretch of the stream, in buckets that know where they begin in the log."""

    def __init__(self, *, seconds: float, transactions_max: int, bytes_max: int) -> None:
        self._seconds = seconds
        self._transactions_max = transactions_max
        self._bytes_max = bytes_max
        self._buckets: deque[_Bucket] = deque()
        self._transactions = 0
        self._floor = 0

    def restart(self, lsn: int) -> None:
        """Another stream begins at `lsn`."""
        self._buckets.clear()
        self._transactions = 0
        self._floor = lsn

    def note(self, lsn: int, time_s: float, transactions: int) -> None:
        """What follows the head `lsn` was delivered; it happened at `time_s` of the database's clock."""
        last = self._buckets[-1] if self._buckets else None
        if last is None or self._full(last, lsn, time_s):
            last = _Bucket(lsn, time_s)
            self._buckets.append(last)
        last.newest_s = max(last.newest_s, time_s)
        last.transactions += transactions
        self._transactions += transactions

    def floor(self, now_s: float, head_lsn: int) -> int:
        """Everything before this may be forgotten. now_s: the database's clock."""
        while self._buckets and self._outside(self._buckets[0], now_s, head_lsn):
            self._transactions -= self._buckets.popleft().transactions
        self._floor = max(self._floor, self._buckets[0].lsn if self._buckets else head_lsn)
        return self._floor

    def _full(self, bucket: _Bucket, lsn: int, time_s: float) -> bool:
        return (
            time_s - bucket.oldest_s >= self._seconds / BUCKETS
            or bucket.transactions * BUCKETS >= self._transactions_max
            or (lsn - bucket.lsn) * BUCKETS >= self._bytes_max
        )

    def _outside(self, bucket: _Bucket, now_s: float, head_lsn: int) -> bool:
        return (
            bucket.newest_s < now_s - self._seconds
            or self._transactions > self._transactions_max
            or head_lsn - bucket.lsn > self._bytes_max
        )
