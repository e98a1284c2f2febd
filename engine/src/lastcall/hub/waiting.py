"""Long-polls that wait for the first event on any of their channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Waiter:
    """One long-poll.

    wake: called once there is something to read, after the flush that brought it. It never calls the hub back.
    revoked: channels that its subject has lost since it came.
    """

    __slots__ = ("channels", "revoked", "subject", "wake")

    def __init__(self, channels: Iterable[str], subject: str | None, wake: Callable[[], object]) -> None:
        self.channels = tuple(channels)
        self.subject = subject
        self.wake = wake
        self.revoked: set[str] = set()


class Waiting:
    """Who waits on which channel, and whom the next flush wakes. channels: empty while nobody waits."""

    __slots__ = ("_woken", "channels")

    def __init__(self) -> None:
        self.channels: dict[str, dict[Waiter, None]] = {}
        self._woken: dict[Waiter, None] = {}

    @property
    def due(self) -> bool:
        """Whether anybody is to be woken."""
        return bool(self._woken)

    def on(self, channel: str) -> int:
        """How many wait on the channel."""
        return len(self.channels.get(channel, ()))

    def add(self, waiter: Waiter) -> None:
        """Wait from now on."""
        for channel in waiter.channels:
            self.channels.setdefault(channel, {})[waiter] = None

    def discard(self, waiter: Waiter) -> None:
        """Wait no longer. Harmless when done twice."""
        self._woken.pop(waiter, None)
        for channel in waiter.channels:
            waiters = self.channels.get(channel)
            if waiters is not None:
                waiters.pop(waiter, None)
                if not waiters:
                    del self.channels[channel]

    def touch(self, channel: str) -> None:
        """Something came on the channel."""
        waiters = self.channels.get(channel)
        if waiters:
            self._woken |= waiters

    def revoke(self, channel: str, subject: str) -> None:
        """The subject has lost the channel."""
        for waiter in self.channels.get(channel, ()):
            if waiter.subject == subject:
                waiter.revoked.add(channel)
                self._woken[waiter] = None

    def touch_all(self) -> None:
        """Something concerns everybody."""
        for waiters in self.channels.values():
            self._woken |= waiters

    def wake(self) -> None:
        """Wake whoever is due."""
        woken, self._woken = self._woken, {}
        for waiter in woken:
            waiter.wake()
