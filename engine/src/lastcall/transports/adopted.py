"""Sockets that uvicorn has handed over: from here on the hub writes shared bytes, and no coroutine runs per client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final

from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from lastcall.auth import Principal
from lastcall.errors import CODES
from lastcall.hub import Joiner, Writer
from lastcall.transports.handover import Backlog
from lastcall.transports.listener import LINGER_S, Context, Listener
from lastcall.transports.operations import Operations
from lastcall.wire.encoding import WEBSOCKET, Encoding
from lastcall.wire.websocket import text_frame

if TYPE_CHECKING:
    from lastcall.errors import Code, Language

DEAD_PEER_MS: Final = 40_000
"""A peer that acknowledges nothing for so long is gone (RFC 5482); heartbeats make sure there is something to be
acknowledged."""


class Adopted(Listener, asyncio.Protocol):
    """A listener with a socket of its own."""

    __slots__ = ("transport",)

    def __init__(
        self,
        context: Context,
        encoding: Encoding,
        principal: Principal,
        transport: asyncio.Transport,
        secret: str | None = None,
    ) -> None:
        super().__init__(context, encoding, principal, secret)
        self.transport = transport
        context.meter.connections_handed_over += 1
        most = context.config.write_buffer_max_bytes
        # From here on `pause_writing` says that the reader left more unread than it may.
        transport.set_write_buffer_limits(high=most, low=most // 4)
        with contextlib.suppress(OSError, AttributeError):
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)

    def writer(self) -> Writer:
        """The transport's own `write`: nothing of ours is between the hub and the socket."""
        return self.transport.write

    def send(self, data: bytes) -> None:
        """Write to the socket."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def buffered(self) -> int:
        """What the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.context.meter.connections_handed_over -= 1
        self.closed()

    def pause_writing(self) -> None:
        """The buffer is beyond its limit. This comes from within a write, so the cut waits for the next turn."""
        if not self.opening:
            asyncio.get_running_loop().call_soon(self.too_slow)

    def resume_writing(self) -> None:
        """The reader has made room."""

    def end(self, code: Code) -> None:
        """Say why, close, and cut after LINGER_S what is not taken."""
        if not self.gone:
            self.context.hub.leave(self)
            self.send(self.encoding.closing(code))
            self._close()

    def abort(self) -> None:
        """Cut the connection; `abort`, because `close` would keep the buffer until the peer is dead."""
        self.context.hub.leave(self)
        self.transport.abort()

    def _close(self) -> None:
        self.transport.close()
        if self.transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER_S, self.transport.abort)


class Stream(Adopted):
    """Server-sent events."""

    __slots__ = ()

    kind = "sse"

    def data_received(self, data: bytes) -> None:
        """A stream is a response without an end, so a further request behind it can never be answered: LC101."""
        self.end(CODES["LC101"])


class Socket(Adopted):
    """A WebSocket.

    protocol: the state that uvicorn's handshake left, which may hold a part of a frame.
    """

    __slots__ = ("_fragments", "_is_text", "_operations", "protocol")

    kind = "websocket"

    def __init__(
        self,
        context: Context,
        principal: Principal,
        transport: asyncio.Transport,
        protocol: ServerProtocol,
        language: Language,
    ) -> None:
        super().__init__(context, WEBSOCKET, principal, transport)
        self.protocol = protocol
        self._fragments: list[bytes] = []
        self._is_text = True
        self._operations = Operations(
            context, self, principal, language, reply=self.reply, flow=(transport.pause_reading, self._read_on)
        )

    def reply(self, text: bytes) -> None:
        """Send one JSON text as a frame."""
        self.send(text_frame(text))

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, and what it asked for is no longer wanted."""
        self._operations.stop()
        super().connection_lost(exc)

    def end(self, code: Code) -> None:
        """Say why, and leave the peer LINGER_S to answer the close frame (RFC 6455, 7.1.1)."""
        if not self.gone:
            self.context.hub.leave(self)
            self._operations.stop()
            self.send(self.encoding.closing(code))
            asyncio.get_running_loop().call_later(LINGER_S, self.transport.abort)

    def take_backlog(self, backlog: Backlog) -> None:
        """Take what came before the socket was handed over."""
        for message in backlog.messages:
            self._message(message)
        self._fragments = backlog.fragments
        self._is_text = backlog.is_text

    async def catch_up(self, joiner: Joiner) -> None:
        """Operations wait until the listener has joined."""
        await super().catch_up(joiner)
        self._operations.start()

    def data_received(self, data: bytes) -> None:
        """Read frames; answer pings and a close."""
        if self.gone:
            self._read_last(data)
            return
        self.protocol.receive_data(data)
        for frame in self.protocol.events_received():
            if isinstance(frame, Frame) and frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
                self._frame(frame)
        if self.gone:
            return
        problem = self.protocol.parser_exc
        if problem is not None:
            self.end(CODES["LC407" if type(problem).__name__ == "PayloadTooBig" else "LC406"])
            return
        answer = b"".join(self.protocol.data_to_send())
        if answer:
            self.send(answer)
        if self.protocol.close_rcvd is not None:
            self.context.hub.leave(self)
            self._operations.stop()
            self._close()

    def _read_last(self, data: bytes) -> None:
        """After our close frame only the peer's counts."""
        self.protocol.receive_data(data)
        if self.protocol.close_rcvd is not None or self.protocol.parser_exc is not None:
            self._close()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._fragments = []
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            message, self._fragments = b"".join(self._fragments), []
            self._message(message if self._is_text else None)

    def _message(self, message: bytes | None) -> None:
        if not self.gone:
            self._operations.receive(message)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
