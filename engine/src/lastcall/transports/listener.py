"""One listener, whatever carries it: a socket of our own, or a foreign server's `send`."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from lastcall.auth import Principal, Tokens
from lastcall.config import Config
from lastcall.hub import Hub, Joiner, Subscriber
from lastcall.meter import Meter
from lastcall.transports.ports import Reader
from lastcall.transports.sessions import Sessions
from lastcall.wire.encoding import Encoding

if TYPE_CHECKING:
    from lastcall.errors import Code

ROOM_POLL_S: Final = 0.01
"""How often a catch-up looks whether its reader has made room. The transport's own signal means abort, see below."""

LINGER_S: Final = 1.0
"""An ended connection that does not take its last bytes within this time is cut."""


class Context:
    """What every transport needs."""

    __slots__ = ("config", "hub", "meter", "origins", "reader", "sessions", "tokens")

    def __init__(
        self, hub: Hub, tokens: Tokens, reader: Reader, config: Config, meter: Meter, origins: frozenset[str]
    ) -> None:
        self.hub = hub
        self.tokens = tokens
        self.reader = reader
        self.config = config
        self.meter = meter
        self.origins = origins
        self.sessions = Sessions()


class Listener(Subscriber):
    """A connection that listens.

    secret: names the connection where its token can be refreshed by another request.
    expires_at: seconds since 1970 when its token ends; None: never.
    opening: while it is told what came before; it may then hold more than `write_buffer_max_bytes`, because its state
        can be larger than that. Afterwards, whoever does not read that much is aborted.
    """

    __slots__ = ("context", "expires_at", "opening", "secret")

    kind: ClassVar[str]

    def __init__(self, context: Context, encoding: Encoding, principal: Principal, secret: str | None = None) -> None:
        super().__init__(encoding, principal.subject)
        self.context = context
        self.secret = secret
        self.expires_at = principal.expires_at
        self.opening = True
        context.meter.connections[self.kind] += 1
        context.sessions.add(self)

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Write to the listener without waiting."""

    @abstractmethod
    def buffered(self) -> int:
        """Bytes that were sent and that the reader has not taken."""

    def closed(self) -> None:
        """The connection is gone. To be called once."""
        self.context.hub.leave(self)
        self.context.sessions.discard(self)
        self.context.meter.connections[self.kind] -= 1

    def too_slow(self) -> None:
        """The reader left more unread than it may."""
        if not self.gone:
            self.context.meter.slow_aborts += 1
            self.abort()

    @abstractmethod
    def end(self, code: Code) -> None:
        """Leave the hub, say why, and close. Harmless when done twice."""

    async def room(self) -> None:
        """Return when the reader has taken most of what was sent, or is gone. A reader that takes nothing for
        `catch_up_wait_max_s`, or lets as much again pile up, is aborted."""
        config = self.context.config
        enough = config.write_buffer_max_bytes // 4
        most = self.buffered() + config.write_buffer_max_bytes
        clock = asyncio.get_running_loop().time
        least, since = most, clock()
        while (size := self.buffered()) > enough and not self.gone:
            if size < least:
                least, since = size, clock()
            if size > most or clock() - since > config.catch_up_wait_max_s:
                self.too_slow()
                return
            await asyncio.sleep(ROOM_POLL_S)

    async def catch_up(self, joiner: Joiner) -> None:
        """Tell the listener what came before, as fast as it reads, and return when it is a member (or gone). Takes the
        reservation over."""
        hub = self.context.hub
        try:
            while not self.gone and (piece := joiner.piece()) is not None:
                self.send(piece)
                await self.room()
            self.opening = False
            if not hub.join(joiner, self):
                admitted = asyncio.Event()
                joiner.admitted = admitted.set
                await admitted.wait()
        except BaseException:
            hub.release(joiner.reservation)
            self.abort()
            raise
