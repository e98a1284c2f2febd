"""uvicorn's protocols, taught to hand a socket over.

The endpoint authenticates and sends its headers through ASGI, so that every middleware has its say; then it calls what
`scope["extensions"]["lastcall.handover"]` holds. From then on the transport belongs to whom it was given, uvicorn
forgets the connection, and nothing of the request stays in memory.

Promises:

* A hand-over is bound to its own request. It is refused when the connection is closing, and when anything of a further
  request has come.
* Reading is resumed, timers are cancelled, the connection leaves uvicorn's set; what uvicorn still holds is a transport
  that is closed for ever.
* What cannot be a request is answered with a numbered problem document: LC101, or LC104 for the target.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from typing import Any, Final, TypeVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.server import ServerProtocol

from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.wire import problem

HANDOVER: Final = "lastcall.handover"

HEADERS_MAX: Final = 128
LINE_MAX_BYTES: Final = 8_000
"""Of a header, and of a WebSocket's request target: what the `websockets` library reads."""

LINGER_S: Final = 1.0
"""A client that is refused in the middle of its request is read from for so long, so that it gets the answer."""

Taker = TypeVar("Taker", bound=asyncio.BaseProtocol)


class Released(asyncio.Transport):
    """What uvicorn holds of a socket that is no longer its own: closed, whatever is done to it."""

    def is_closing(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing."""

    def abort(self) -> None:
        """Nothing."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Nothing."""

    def pause_reading(self) -> None:
        """Nothing."""

    def resume_reading(self) -> None:
        """Nothing."""


RELEASED: Final = Released()


class HttpHandover:
    """Hands over the socket of one HTTP request."""

    __slots__ = ("_number", "_protocol")

    def __init__(self, protocol: HandoverProtocol, number: int) -> None:
        self._protocol: HandoverProtocol | None = protocol
        self._number = number

    @property
    def possible(self) -> bool:
        """Whether this request is the last thing that has come on a connection that is open."""
        protocol = self._protocol
        return protocol is not None and protocol.messages == self._number and not protocol.transport.is_closing()

    def unchunked(self) -> None:
        """Send the response without the chunked coding: HTTP/1.0 does not know it (RFC 9112, 6.1). To be called before
        the response starts, and followed by `take`."""
        if self._protocol is not None and self.possible:
            self._protocol.cycle.chunked_encoding = False

    def take(self, adopt: Callable[[asyncio.Transport], Taker]) -> Taker | None:
        """Give the transport to what `adopt` returns. None, and nothing is done, when it is not possible any more."""
        protocol = self._protocol
        if protocol is None or not self.possible or protocol.cycle.disconnected:
            return None
        transport, cycle = protocol.transport, protocol.cycle
        protocol._unset_keepalive_if_required()
        protocol.flow.resume_reading()
        protocol.connections.discard(protocol)
        cycle.disconnected = True
        cycle.message_event.set()
        adopted = adopt(transport)
        transport.set_protocol(adopted)
        protocol.transport = cycle.transport = RELEASED
        protocol.parser = None  # type: ignore[assignment]
        self.forget()
        return adopted

    def forget(self) -> None:
        """Hold nothing any more, so that no reference cycle outlives the connection."""
        self._protocol = None


class HandoverProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with the hand-over. The classes made by `bounded` have the settings' limits.

    messages: how many requests have begun on this connection.
    """

    url_max_bytes = 16 << 10
    headers_max_bytes = 32 << 10
    head_wait_max_s = 15.0

    messages = 0
    _in_head = True
    _head_late: asyncio.TimerHandle | None = None
    _headers_bytes = 0
    _refusal: Refusal | None = None
    _refused = False
    _handover: HttpHandover | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is here, and has to say what it wants in time."""
        super().connection_made(transport)
        self._watch_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.messages += 1
        self._headers_bytes = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        super().on_url(url)
        if len(self.url) > self.url_max_bytes:
            self._refuse(Refusal("LC104"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        size = len(name) + len(value) + 4
        self._headers_bytes += size
        if size > LINE_MAX_BYTES or self._headers_bytes > self.headers_max_bytes or len(self.headers) >= HEADERS_MAX:
            self._refuse(Refusal("LC101", "the head of the request is too large"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request can be answered."""
        self._in_head = False
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self._forget_handover()
            self._handover = HttpHandover(self, self.messages)
            extensions: dict[str, Any] = {HANDOVER: self._handover}
            self.cycle.scope["extensions"] = extensions

    def data_received(self, data: bytes) -> None:
        """Bytes of the client; after a refusal they are only read."""
        if not self._refused:
            super().data_received(data)
            self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._forget_handover()
        self._in_head = False
        self._watch_head()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Check what the next protocol would not answer with a number, then go on with it."""
        refusal = self._handshake_problem()
        if refusal is None:
            super().handle_websocket_upgrade()
        else:
            self._refusal = refusal
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Answer with the problem document, and close when the client has had time to read it."""
        refusal = self._refusal or Refusal("LC101")
        body = problem.document(refusal)
        lines = [STATUS_LINE[refusal.code.status]]
        for name, value in [*problem.headers(refusal), (b"content-length", b"%d" % len(body))]:
            lines.append(b"%b: %b\r\n" % (name, value))
        lines += [b"connection: close\r\n\r\n", body]
        self._refused = True
        self.transport.write(b"".join(lines))
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _watch_head(self) -> None:
        """A head that has begun has `head_wait_max_s` to arrive; then the connection is cut."""
        if self._in_head and self._head_late is None:
            self._head_late = self.loop.call_later(self.head_wait_max_s, self.transport.abort)
        elif not self._in_head and self._head_late is not None:
            self._head_late.cancel()
            self._head_late = None

    def _refuse(self, refusal: Refusal) -> None:
        """From within the parser: stop it. `data_received` answers."""
        self._refusal = refusal
        raise refusal

    def _forget_handover(self) -> None:
        if self._handover is not None:
            self._handover.forget()
            self._handover = None

    def _handshake_problem(self) -> Refusal | None:
        """Why this is not a WebSocket's opening handshake (RFC 6455, 4.2.1)."""
        if len(self.url) > LINE_MAX_BYTES:
            return Refusal("LC104")
        headers = dict(self.headers)
        if self.scope["method"] != "GET" or headers.get(b"sec-websocket-version") != b"13":
            return Refusal("LC101", "a WebSocket is opened with GET and Sec-WebSocket-Version: 13")
        try:
            key = base64.b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
        except binascii.Error:
            key = b""
        return None if len(key) == 16 else Refusal("LC101", "Sec-WebSocket-Key is not one")


class SocketHandover:
    """Hands over the socket of one WebSocket, after it was accepted."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: HandoverWebSocketProtocol) -> None:
        self._protocol: HandoverWebSocketProtocol | None = protocol

    def take(self, adopt: Callable[[asyncio.Transport, ServerProtocol], Taker]) -> tuple[Taker, Backlog] | None:
        """Give the transport and the state of the WebSocket to what `adopt` returns, with what came already. None when
        the client is gone."""
        protocol, self._protocol = self._protocol, None  # the scope holds us, and the protocol holds the scope
        if protocol is None or protocol.disconnected or protocol.close_sent or protocol.transport.is_closing():
            return None
        transport = protocol.transport
        protocol.stop_keepalive()
        protocol.connections.discard(protocol)
        backlog = Backlog(protocol)
        adopted = adopt(transport, protocol.conn)
        transport.set_protocol(adopted)
        protocol.transport = RELEASED
        if protocol.read_paused:
            transport.resume_reading()
        return adopted, backlog


class Backlog:
    """What came before the hand-over: whole messages (None: binary ones), and the parts of an unfinished one."""

    __slots__ = ("fragments", "is_text", "messages")

    def __init__(self, protocol: HandoverWebSocketProtocol) -> None:
        self.messages: list[bytes | None] = []
        while not protocol.queue.empty():
            message: dict[str, Any] = dict(protocol.queue.get_nowait())
            if message["type"] == "websocket.receive":
                text = message.get("text")
                self.messages.append(None if text is None else text.encode())
        self.fragments = [bytes(part) for part in protocol.frames]
        self.is_text = protocol.curr_msg_data_type == "text"


class HandoverWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with the hand-over."""

    def handle_connect(self, event: Request) -> None:
        """The handshake is read."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = {**self.scope["extensions"], HANDOVER: SocketHandover(self)}
            self.scope["extensions"] = extensions

    def handle_parser_exception(self) -> None:
        """The client does not speak WebSocket."""
        if self.handshake_initiated:
            super().handle_parser_exception()
        else:
            self.transport.close()


def bounded(config: Config) -> type[HandoverProtocol]:
    """The HTTP protocol with the settings' limits."""
    limits = {name: getattr(config, name) for name in ("url_max_bytes", "headers_max_bytes", "head_wait_max_s")}
    return type("BoundedHandoverProtocol", (HandoverProtocol,), limits)
