"""A listener for tests: follows `/events` by SSE, reconnects with its position, and keeps all it was told.

It is deliberately not `clients/core`: a second reading of spec/protocol.md, so that one mistake is not made twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

CONNECT_TIMEOUT_S = 5.0
RETRY_MAX_S = 0.3


class Heard(NamedTuple):
    """One block of the stream. id: None where it had none. data: decoded JSON."""

    id: str | None
    event: str
    channels: tuple[str, ...]
    data: Any


class Refused(Exception):
    """The server answered with something else than a stream."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        super().__init__(f"HTTP {status} {body[:300]!r}")


@dataclass(slots=True)
class Listener:
    """Listens from `start()` to `stop()`, through any number of broken connections.

    heard: all events in the order in which they came, protocol frames left out.
    resets: every reset that came. states: every state that came.
    connections: how often a stream was opened.
    """

    host: str
    port: int
    channels: tuple[str, ...]
    token: str | None = None
    position: str | None = None
    with_state: bool = False
    heard: list[Heard] = field(default_factory=list)
    resets: list[Heard] = field(default_factory=list)
    states: list[Heard] = field(default_factory=list)
    protocol_frames: list[Heard] = field(default_factory=list)
    connections: int = 0
    refusal: Refused | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _writer: asyncio.StreamWriter | None = None

    async def start(self) -> Listener:
        """Return when the first stream is joined. Raises Refused."""
        self._task = asyncio.create_task(self._follow())
        await self.until(lambda: self.connections > 0 or self.refusal is not None)
        if self.refusal is not None:
            raise self.refusal
        return self

    async def stop(self) -> None:
        """Let go; a second stop is harmless."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def cut(self) -> None:
        """Break the connection as a dead network would; the listener comes back by itself."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def until(self, condition: Callable[[], bool], within_s: float = 30.0) -> None:
        """Wait until the condition holds, looked at after every block. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_heard(self, count: int, within_s: float = 30.0) -> None:
        """Wait until `count` events have come."""
        await self.until(lambda: len(self.heard) >= count, within_s)

    async def _follow(self) -> None:
        while True:
            try:
                await self._stream()
            except Refused as refused:
                if refused.status < 500:
                    self.refusal = refused
                    self._changed.set()
                    return
            except (OSError, EOFError, TimeoutError, ValueError):
                pass
            await asyncio.sleep(random.uniform(0.01, RETRY_MAX_S))  # noqa: S311

    def _request(self) -> bytes:
        query = "&".join(f"channel={channel}" for channel in self.channels) + ("&state=true" if self.with_state else "")
        lines = [f"GET /events?{query} HTTP/1.1", f"Host: {self.host}:{self.port}", "Accept: text/event-stream"]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        if self.position:
            lines.append(f"Last-Event-ID: {self.position}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def _stream(self) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(self.host, self.port, limit=1 << 24)
        self._writer = writer
        try:
            writer.write(self._request())
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status != 200:
                raise Refused(status, await reader.read(4096))
            await self._blocks(reader)
        finally:
            self._writer = None
            writer.transport.abort()

    async def _blocks(self, reader: asyncio.StreamReader) -> None:
        buffer = b""
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                return
            buffer += (await reader.readexactly(size + 2))[:-2]
            *blocks, buffer = buffer.split(b"\n\n")
            for block in blocks:
                self._take(block.decode())
            self._changed.set()

    def _take(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        channels = tuple(fields["channel"].split(",")) if "channel" in fields else ()
        heard = Heard(
            fields.get("id"), fields.get("event", "message"), channels, json.loads(fields.get("data", "null"))
        )
        match heard.event:
            case "reset":
                self.resets.append(heard)
            case "state":
                self.states.append(heard)
            case "joined" | "heartbeat" | "close" | "revoked":
                self.protocol_frames.append(heard)
                self.connections += heard.event == "joined"
            case _:
                self.heard.append(heard)
        if heard.id is not None:
            self.position = heard.id
