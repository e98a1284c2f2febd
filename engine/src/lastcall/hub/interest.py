"""Who hears the same things: an interest is a set of channels in one encoding, and everybody who listens so.

An event that concerns an interest is encoded once and waits in `pending`, in position order over all its channels. A
flush joins what waits and hands the very same bytes to every member. Order across channels is right by construction:
delivering channel by channel would let a listener's cursor run past an event that it has not been given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from lastcall.errors import Code
from lastcall.wire.encoding import Encoding

if TYPE_CHECKING:
    from lastcall.hub.joining import Joiner

Writer = Callable[[bytes], object]


class Subscriber(ABC):
    """One listener, as the hub sees it. A transport's connection derives from it.

    encoding: how it is written to; never changes.
    subject: whom it listens for; a revocation finds it by this.
    interest: set by the hub: what it hears; None while it is not a member.
    gone: set by the hub: it has left and never comes back.
    """

    __slots__ = ("encoding", "gone", "interest", "phase", "subject")

    def __init__(self, encoding: Encoding, subject: str | None) -> None:
        self.encoding = encoding
        self.subject = subject
        self.interest: Interest | None = None
        self.phase = 0
        self.gone = False

    @property
    def channels(self) -> frozenset[str]:
        """What it hears."""
        return frozenset() if self.interest is None else self.interest.channels

    @abstractmethod
    def writer(self) -> Writer:
        """What is called with the bytes of each flush. It never blocks, and never calls the hub back."""

    @abstractmethod
    def end(self, code: Code) -> None:
        """Leave the hub, say why, and close."""

    @abstractmethod
    def abort(self) -> None:
        """Leave the hub and cut the connection; what is buffered is lost."""


class Interest:
    """A set of channels in one encoding.

    members: who hears it, and what writes to them.
    pending: encoded events that no member has been given yet.
    joining: who becomes a member when `pending` has been written.
    """

    __slots__ = ("channels", "encoding", "joining", "members", "pending")

    def __init__(self, encoding: Encoding, channels: frozenset[str]) -> None:
        self.encoding = encoding
        self.channels = channels
        self.members: dict[Subscriber, Writer] = {}
        self.pending: list[bytes] = []
        self.joining: Sequence[Joiner] = ()

    def write(self, data: bytes) -> None:
        """Hand `data` to every member. One whose connection is gone without the hub knowing is passed over."""
        writers = iter(self.members.values())
        for _ in range(len(self.members) + 1):  # each turn but the last ends with one that failed
            try:
                for write in writers:
                    write(data)
                return
            except (OSError, RuntimeError):
                continue

    def take(self, most_bytes: int) -> bytes:
        """Remove from `pending` what fits in `most_bytes`, at least one event, and return it joined."""
        taken = size = 0
        for block in self.pending:
            if taken and size + len(block) > most_bytes:
                break
            taken += 1
            size += len(block)
        data = b"".join(self.pending[:taken])
        del self.pending[:taken]
        return data


class Interests:
    """All interests that have, or are about to have, members."""

    __slots__ = ("_by_key", "_on_channel")

    def __init__(self) -> None:
        self._by_key: dict[tuple[Encoding, frozenset[str]], Interest] = {}
        self._on_channel: dict[str, dict[Interest, None]] = {}

    def of(self, encoding: Encoding, channels: frozenset[str]) -> Interest:
        """The interest in just these channels; a new one where there is none."""
        interest = self._by_key.get((encoding, channels))
        if interest is None:
            interest = self._by_key[encoding, channels] = Interest(encoding, channels)
            for channel in channels:
                self._on_channel.setdefault(channel, {})[interest] = None
        return interest

    def on(self, channel: str) -> Collection[Interest]:
        """The interests that the channel is part of."""
        return self._on_channel.get(channel, ())

    def all(self) -> Iterable[Interest]:
        """Every interest."""
        return self._by_key.values()

    def split(self, channels: tuple[str, ...]) -> dict[tuple[str, ...], list[Interest]]:
        """Those of `channels` that are heard together, and by which interests; in the order of `channels`."""
        hearers: dict[Interest, list[str]] = {}
        for channel in channels:
            for interest in self.on(channel):
                hearers.setdefault(interest, []).append(channel)
        found: dict[tuple[str, ...], list[Interest]] = {}
        for interest, heard in hearers.items():
            found.setdefault(tuple(heard), []).append(interest)
        return found

    def move(self, subscriber: Subscriber, new: Interest) -> None:
        """Make a member of one interest a member of another; both have nothing pending."""
        old = subscriber.interest
        if old is not None and old is not new:
            new.members[subscriber] = old.members.pop(subscriber)
            subscriber.interest = new
            self.forget_if_empty(old)

    def forget_if_empty(self, interest: Interest) -> None:
        """Drop an interest that nobody has any more."""
        if interest.members or interest.joining:
            return
        key = (interest.encoding, interest.channels)
        if self._by_key.get(key) is interest:
            del self._by_key[key]
            for channel in interest.channels:
                listening = self._on_channel[channel]
                del listening[interest]
                if not listening:
                    del self._on_channel[channel]
