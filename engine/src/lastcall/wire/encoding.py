"""The encodings behind one interface: what the hub encodes once and shares among all who listen with it.

Promise: the bytes of several events joined in order are the encoding of these events in order; a receiver cannot tell
one write from many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from lastcall.errors import Code
from lastcall.event import RESET, Event
from lastcall.wire import payload
from lastcall.wire.json import event_text
from lastcall.wire.sse import LAST_CHUNK, block, chunk, one_line
from lastcall.wire.websocket import close_frame, text_frame

Names = Sequence[str]


class Encoding(ABC):
    """How events become bytes on one kind of connection."""

    __slots__ = ()

    @abstractmethod
    def frame(
        self,
        name: str,
        data: bytes,
        *,
        id: str | None = None,
        channels: Sequence[str] = (),
        retry_ms: int | None = None,
    ) -> bytes:
        """One event. retry_ms: only SSE has a place for it."""

    @abstractmethod
    def closing(self, code: Code) -> bytes:
        """The last bytes of a stream that the server ends: the event `close` and what the transport itself needs."""

    def event(self, event: Event, channels: Names, *, with_id: bool = True) -> bytes:
        """An event of the feed for listeners that hear it on `channels`."""
        id = str(event.position) if with_id else None
        if event.name == RESET:
            return self.frame(RESET, payload.reset(channels, payload.reason_of(event.data)), id=id)
        return self.frame(event.name, event.data, id=id, channels=channels)


class _SsePlain(Encoding):
    __slots__ = ()

    def frame(
        self,
        name: str,
        data: bytes,
        *,
        id: str | None = None,
        channels: Sequence[str] = (),
        retry_ms: int | None = None,
    ) -> bytes:
        return block(name, data, id=id, channels=channels, retry_ms=retry_ms)

    def closing(self, code: Code) -> bytes:
        return self.frame("close", payload.close(code))


class _SseChunked(_SsePlain):
    __slots__ = ()

    def frame(
        self,
        name: str,
        data: bytes,
        *,
        id: str | None = None,
        channels: Sequence[str] = (),
        retry_ms: int | None = None,
    ) -> bytes:
        return chunk(block(name, data, id=id, channels=channels, retry_ms=retry_ms))

    def closing(self, code: Code) -> bytes:
        return self.frame("close", payload.close(code)) + LAST_CHUNK


class _WebSocket(Encoding):
    __slots__ = ()

    def frame(
        self,
        name: str,
        data: bytes,
        *,
        id: str | None = None,
        channels: Sequence[str] = (),
        retry_ms: int | None = None,
    ) -> bytes:
        return text_frame(event_text(name, data, id=id, channels=channels))

    def closing(self, code: Code) -> bytes:
        return self.frame("close", payload.close(code)) + close_frame(code.close or 1011, code.number)


class _JsonLines(Encoding):
    __slots__ = ()

    def frame(
        self,
        name: str,
        data: bytes,
        *,
        id: str | None = None,
        channels: Sequence[str] = (),
        retry_ms: int | None = None,
    ) -> bytes:
        return event_text(name, one_line(data), id=id, channels=channels) + b"\n"

    def closing(self, code: Code) -> bytes:
        return self.frame("close", payload.close(code))


SSE_PLAIN: Final[Encoding] = _SsePlain()
SSE_CHUNKED: Final[Encoding] = _SseChunked()
WEBSOCKET: Final[Encoding] = _WebSocket()
JSON_LINES: Final[Encoding] = _JsonLines()
"""One JSON text a line: for WebSockets of a foreign server, which makes the frames itself."""
