"""How a listener comes in without a gap and without anything twice.

    reserve → authorise → (state) → joiner → piece, piece … → join

From `reserve` on the hub notes what must not be missed although the listener is not a member yet: that its subject lost
a channel, and that everything was reset. A joiner reads the history in pieces that a slow reader can take, each time
from where it stopped; whether history still reaches back to there is looked at anew after every wait. The last piece
and the membership come in one turn, so nothing can fall between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from lastcall.hub.history import Heard, History
from lastcall.hub.interest import Interest, Subscriber
from lastcall.position import Position
from lastcall.wire import payload
from lastcall.wire.encoding import Encoding

EVERY_KIND: Final = ""


def kind_of(channel: str) -> str:
    """What stands before the colon."""
    return channel.partition(":")[0]


class Reservation:
    """A place in the hub, and what has happened since it was taken.

    counts: whether it takes one of `connections_max` (a further subscribe of a connection does not).
    revoked: channels that the subject has lost since.
    resets: why channels were reset since, by their kind; under EVERY_KIND what concerns all.
    """

    __slots__ = ("counts", "resets", "revoked", "subject")

    def __init__(self, subject: str | None, counts: bool) -> None:
        self.subject = subject
        self.counts = counts
        self.revoked: set[str] = set()
        self.resets: dict[str, str] = {}

    def reset_reason(self, channel: str) -> str | None:
        """Why the channel was reset since; None where it was not."""
        return self.resets.get(EVERY_KIND) or self.resets.get(kind_of(channel))


class Stream(Protocol):
    """What a joiner needs of the hub."""

    head: Position
    history: History


class Joiner:
    """One listener on its way in.

    starts: for each channel that it will hear, the position after which it hears it. Kept up to date.
    opening: bytes that go before everything else.
    ids: whether history carries its positions (what a later subscribe brings is older than what was already received).
    beat: whether a heartbeat tells that the history ends here.
    admitted: called when it has become a member, or was found to be gone, after it had to wait.
    """

    __slots__ = (
        "_gathered",
        "_next",
        "_piece_max_bytes",
        "_stream",
        "admitted",
        "beat",
        "encoding",
        "ids",
        "opening",
        "reservation",
        "revoked",
        "starts",
        "subscriber",
        "target",
    )

    def __init__(
        self,
        stream: Stream,
        reservation: Reservation,
        encoding: Encoding,
        starts: dict[str, Position],
        *,
        piece_max_bytes: int,
        opening: bytes = b"",
        ids: bool = True,
        beat: bool = False,
    ) -> None:
        self._stream = stream
        self._piece_max_bytes = piece_max_bytes
        self._gathered: list[Heard] = []
        self._next = 0
        self.reservation = reservation
        self.encoding = encoding
        self.starts = starts
        self.opening = opening
        self.ids = ids
        self.beat = beat
        self.revoked: list[str] = []
        self.admitted: Callable[[], object] = bool
        self.subscriber: Subscriber | None = None
        self.target: Interest | None = None

    def piece(self) -> bytes | None:
        """The next piece of history, at most `piece_max_bytes` or one event; None when what is left is one piece.

        The caller writes it and waits until the reader has taken it.
        """
        if self._next == len(self._gathered):
            self._gather()
        left = sum(len(event.data) for event, _ in self._gathered[self._next :])
        if len(self.opening) + left <= self._piece_max_bytes:
            return None
        return self._encode(self._piece_max_bytes)

    def rest(self) -> bytes:
        """Everything up to the head. The caller makes the listener a member in the same turn."""
        parts = [self._encode(None)]
        self._gather()
        parts.append(self._encode(None))
        if self.revoked:
            parts.append(self.encoding.frame("revoked", payload.revoked(self.revoked)))
        if self.beat:
            parts.append(self.encoding.frame("heartbeat", payload.EMPTY, id=str(self._stream.head)))
        return b"".join(parts)

    def _gather(self) -> None:
        """Read on from the starts to the head, and move the starts there."""
        history, head = self._stream.history, self._stream.head
        for channel in self.reservation.revoked & self.starts.keys():
            del self.starts[channel]
            self.revoked.append(channel)
        lost: dict[str, list[str]] = {}
        for channel, start in self.starts.items():
            reason = self.reservation.reset_reason(channel) or ("history" if start < history.floor(channel) else None)
            if reason is not None:
                lost.setdefault(reason, []).append(channel)
        self.reservation.resets.clear()
        for reason, channels in lost.items():
            self._reset(channels, reason, head)
        self._gathered = history.merged(self.starts)
        self._next = 0
        self.starts = dict.fromkeys(self.starts, head)

    def _reset(self, channels: Sequence[str], reason: str, head: Position) -> None:
        self.opening += self.encoding.frame("reset", payload.reset(channels, reason))
        self.starts |= dict.fromkeys(channels, head)

    def _encode(self, most_bytes: int | None) -> bytes:
        parts = [self.opening]
        size = len(self.opening)
        self.opening = b""
        while self._next < len(self._gathered) and (most_bytes is None or size < most_bytes):
            event, channels = self._gathered[self._next]
            parts.append(self.encoding.event(event, channels, with_id=self.ids))
            size += len(parts[-1])
            self._next += 1
        return b"".join(parts)
