"""The same listeners on a server that cannot hand its socket over: bytes wait here until its `send` takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from starlette.types import Message, Receive, Send

from lastcall.auth import Principal
from lastcall.hub import Joiner, Writer
from lastcall.transports.listener import Context, Listener
from lastcall.transports.operations import Operations
from lastcall.wire.encoding import JSON_LINES, SSE_PLAIN, Encoding

if TYPE_CHECKING:
    from lastcall.errors import Code, Language

Transmit = Callable[[bytes], Awaitable[None]]


class Foreign(Listener):
    """A listener behind somebody else's `send`."""

    __slots__ = ("_cut", "_ended", "_parts", "_size", "_something")

    def __init__(self, context: Context, encoding: Encoding, principal: Principal, secret: str | None = None) -> None:
        super().__init__(context, encoding, principal, secret)
        self._parts: list[bytes] = []
        self._size = 0
        self._something = asyncio.Event()
        self._ended = False
        self._cut = asyncio.get_running_loop().create_future()

    def writer(self) -> Writer:
        """As `send`."""
        return self.send

    def send(self, data: bytes) -> None:
        """Keep the bytes for the server; more than may be unread cuts the connection."""
        self._parts.append(data)
        self._size += len(data)
        self._something.set()
        if self._size > self.context.config.write_buffer_max_bytes and not self.opening:
            asyncio.get_running_loop().call_soon(self.too_slow)

    def buffered(self) -> int:
        """What the server has not taken yet."""
        return self._size

    def end(self, code: Code) -> None:
        """Say why; the stream ends when that is taken."""
        if not self.gone:
            self.context.hub.leave(self)
            self._parts.append(self.encoding.closing(code))
            self._ended = True
            self._something.set()

    def abort(self) -> None:
        """Let go of everything that is unread."""
        self.context.hub.leave(self)
        if not self._cut.done():
            self._cut.set_result(None)

    async def run(
        self,
        joiner: Joiner,
        leaving: Coroutine[Any, Any, None],
        transmit: Transmit,
        joined: Callable[[], object] = bool,
    ) -> None:
        """Join, and pass bytes on until the client leaves, or the stream is ended or cut."""
        watching = asyncio.ensure_future(leaving)
        watching.add_done_callback(lambda _: self.abort())
        pumping = asyncio.ensure_future(self._pump(transmit))
        try:
            await self.catch_up(joiner)
            joined()
            await asyncio.wait({pumping, self._cut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.closed()
            watching.cancel()
            pumping.cancel()
            await asyncio.gather(watching, pumping, return_exceptions=True)

    async def _pump(self, transmit: Transmit) -> None:
        while not self._ended or self._parts:
            await self._something.wait()
            self._something.clear()
            data, self._parts = b"".join(self._parts), []
            if data:
                await transmit(data)
                self._size -= len(data)


async def foreign_stream(
    context: Context, principal: Principal, secret: str, joiner: Joiner, receive: Receive, send: Send
) -> None:
    """Server-sent events as an ordinary streaming response; the server makes the chunks."""
    listener = ForeignStream(context, SSE_PLAIN, principal, secret)

    async def leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def transmit(data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    await listener.run(joiner, leaving(), transmit)
    await send({"type": "http.response.body", "body": b""})


async def foreign_socket(
    context: Context, principal: Principal, language: Language, joiner: Joiner, receive: Receive, send: Send
) -> None:
    """A WebSocket whose frames the server makes."""
    listener = ForeignSocket(context, JSON_LINES, principal)
    readable = asyncio.Event()
    readable.set()
    operations = Operations(
        context,
        listener,
        principal,
        language,
        reply=lambda text: listener.send(text + b"\n"),
        flow=(readable.clear, readable.set),
    )

    async def leaving() -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            operations.receive(_text_of(message))
            await readable.wait()

    async def transmit(data: bytes) -> None:
        for line in data.splitlines():
            await send({"type": "websocket.send", "text": line.decode()})

    try:
        await listener.run(joiner, leaving(), transmit, joined=operations.start)
    finally:
        operations.stop()
    await send({"type": "websocket.close", "code": listener.close_code})


def _text_of(message: Message) -> bytes | None:
    text = message.get("text")
    return None if text is None else text.encode()


class ForeignStream(Foreign):
    """Server-sent events."""

    __slots__ = ()

    kind = "sse"


class ForeignSocket(Foreign):
    """A WebSocket. close_code: what it ends with."""

    __slots__ = ("close_code",)

    kind = "websocket"

    def __init__(self, context: Context, encoding: Encoding, principal: Principal) -> None:
        super().__init__(context, encoding, principal)
        self.close_code = 1000

    def end(self, code: Code) -> None:
        """As ever, and with the number's close code."""
        if not self.gone:
            self.close_code = code.close or 1011
        super().end(code)
