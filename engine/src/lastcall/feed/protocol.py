"""The port of the feed: what every source of committed transactions promises to whoever listens.

A feed calls its sink. All calls come in the event loop's thread, synchronously, never concurrently, so that a flush can
happen in the very turn in which the transaction came.

Promises of a feed, to its sink:

1. Within an epoch, every committed change that a watch names, and every `lastcall.publish`, arrives exactly once, in
   whole transactions, in commit order. What was delivered before is never delivered again in the same epoch by the
   same feed object, whatever happens to the connection to its source.
2. `begin(epoch, floor)` comes before anything else and again whenever the epoch changes. Everything after `floor`
   will be delivered; nothing before it will. When the same process saw another epoch before, listeners need a reset.
3. `advance(head)` moves the head where no transaction does (a quiet database). Heads never go back within an epoch.
4. A stretch the feed cannot deliver exactly is announced as an event named `reset` at its own position on the channels
   concerned; as `reset_kinds` where only their kinds are known (a table was truncated, a watch changed); or as
   `reset_all`. Silence is never an answer.
5. After a restart the feed delivers the stretch since `floor` again, to a new sink, with the same positions: history
   survives a restart without being written a second time.
"""

from __future__ import annotations

from typing import Protocol

from lastcall.event import Transaction
from lastcall.position import Position


class Sink(Protocol):
    """What a feed delivers to. No method may block or raise."""

    def begin(self, epoch: str, floor: Position) -> None:
        """A (new) epoch starts; `floor` and everything before it are forgotten."""

    def deliver(self, transactions: list[Transaction]) -> None:
        """Whole transactions in commit order, each after the head; the head becomes the last one's `end_lsn.0`."""

    def advance(self, head: Position) -> None:
        """Everything before `head` has been delivered."""

    def reset_all(self, reason: str) -> None:
        """Every channel's listeners must fetch their state anew; `reason` is one of spec/protocol.md's.

        The head becomes the floor of every channel: who is connected gets a `reset`, who resumes from before gets one.
        """

    def reset_kinds(self, kinds: frozenset[str], reason: str) -> None:
        """The same for all channels of these kinds (what stands before the colon), known to the sink or not."""


class Feed(Protocol):
    """A source of committed transactions with one service life: start, started, stop."""

    @property
    def caught_up(self) -> bool:
        """True once the feed has passed the flush LSN that was sampled at its start (see `/readyz`)."""

    @property
    def alive(self) -> bool:
        """True while the feed is connected and has heard from its source within `walsender_timeout_s`."""

    async def start(self, sink: Sink) -> None:
        """Take the source, call `sink.begin`, and run until `stop`. Raises a LastcallError with the reason when the
        source cannot be had (the slot is held by another node: LC201)."""

    def acknowledge(self, position: Position) -> None:
        """Whatever is at or before `position` is safe downstream. The feed lets the source forget no more than the
        smallest of this, the history window, and the oldest transaction not yet seen visible (`unseen`).

        Until the first call, delivery itself is the acknowledgement; a sink that writes elsewhere calls it in `begin`.
        """

    async def stop(self) -> None:
        """Give the source back within a second. A second stop is harmless."""
