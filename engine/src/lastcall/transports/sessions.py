"""Who must be found again: a stream by the secret of its connection, a listener when its token ends."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lastcall.errors import CODES

if TYPE_CHECKING:
    from lastcall.transports.listener import Listener

TICK_S: Final = 1.0
"""A listener ends at most this long after its token."""


class Sessions:
    """All listeners of a node that have a secret or an end. One timer for all, running while anybody has an end."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_secret: dict[str, Listener] = {}
        self._ending: dict[int, set[Listener]] = {}
        self._ticking = False

    def secret(self) -> str:
        """A name for a connection that nobody guesses: 128 random bits."""
        return secrets.token_urlsafe(16)

    def add(self, listener: Listener) -> None:
        """Remember a listener by its `secret` and `expires_at`, where it has them."""
        if listener.secret is not None:
            self._by_secret[listener.secret] = listener
        if listener.expires_at is not None:
            self._ending.setdefault(math.ceil(listener.expires_at), set()).add(listener)
            if not self._ticking:
                self._ticking = True
                asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def discard(self, listener: Listener) -> None:
        """Forget a listener. Harmless when done twice."""
        if listener.secret is not None:
            self._by_secret.pop(listener.secret, None)
        if listener.expires_at is not None:
            second = math.ceil(listener.expires_at)
            ending = self._ending.get(second, set())
            ending.discard(listener)
            if not ending:
                self._ending.pop(second, None)

    def find(self, secret: str) -> Listener | None:
        """The listener whose `joined` named this connection."""
        return self._by_secret.get(secret)

    def prolong(self, listener: Listener, expires_at: float | None) -> None:
        """The listener has a new token."""
        self.discard(listener)
        listener.expires_at = expires_at
        self.add(listener)

    def _tick(self) -> None:
        now = self._clock()
        for second in [second for second in self._ending if second <= now]:
            for listener in self._ending.pop(second):
                listener.end(CODES["LC303"])
        if self._ending:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        else:
            self._ticking = False
