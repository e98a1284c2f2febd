"""A server of the transports alone, in the test's own loop, on a real socket: no database, a feed turned by hand.

async with Site.open() as site:
    stream = await site.stream("a:1")
    site.feed.publish("a:1", "note", b"1")
    assert (await stream.next("note")).data == 1
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Self

import msgspec
import uvicorn

from lastcall.auth import Principal, Tokens
from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.front import Front
from lastcall.hub import Hub
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.testing.hub_alone import Stream as Feed
from lastcall.testing.waiting import eventually_async
from lastcall.transports import Server, routes

SECRET: Final = "a secret of the site, used by nobody else"  # noqa: S105
WITHIN_S: Final = 10.0


class StandIn:
    """Says what the database would: who may hear what, and what the state is.

    forbidden: subject (or None) → channels that it may not hear. states: channel → JSON. gate: when set, answers of the
    method `gated` wait until it is opened; `asked` is set when somebody waits there.
    """

    def __init__(self) -> None:
        self.forbidden: dict[str | None, set[str]] = {}
        self.states: dict[str, bytes] = {}
        self.tickets = True
        self.gate: asyncio.Event | None = None
        self.gated = "refused"
        self.asked = asyncio.Event()
        self.failure: Exception | None = None

    async def refused(self, principal: Principal, channels: Sequence[str], position: Position) -> list[str]:
        """Those that are forbidden; LC409 for the kind `unknown`."""
        await self._wait("refused")
        if any(channel.startswith("unknown:") for channel in channels):
            raise Refusal("LC409")
        return [channel for channel in channels if channel in self.forbidden.get(principal.subject, ())]

    async def read(
        self, principal: Principal, channels: Sequence[str], position: Position
    ) -> Mapping[str, bytes | None]:
        """What `states` says."""
        await self._wait("read")
        return {channel: self.states.get(channel) for channel in channels}

    def tickets_allowed(self, channels: Sequence[str]) -> bool:
        """As told."""
        return self.tickets

    async def _wait(self, method: str) -> None:
        if self.failure is not None:
            raise self.failure
        if self.gate is not None and self.gated == method:
            self.asked.set()
            await self.gate.wait()


class Frame(NamedTuple):
    """What a listener was told."""

    id: str | None
    event: str
    channels: tuple[str, ...]
    data: Any
    retry: int | None = None


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Connection:
    """A client's end of a connection: bytes out, bytes in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        """Write."""
        self.writer.write(data)

    async def read(self, most: int = 1 << 16) -> bytes:
        """What comes next; empty at the end."""
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.read(most)

    async def to_end(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.read()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        async with asyncio.timeout(WITHIN_S):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = text.strip().split("\r\n")
        return int(status.split(" ")[1]), dict(line.lower().split(": ", 1) for line in lines)

    async def answer(self) -> Answer:
        """A whole answer with a Content-Length."""
        status, headers = await self.head()
        async with asyncio.timeout(WITHIN_S):
            return Answer(status, headers, await self.reader.readexactly(int(headers.get("content-length", "0"))))

    async def chunk(self) -> bytes:
        """The next chunk; empty: the last one. Raises IncompleteReadError at the end of the connection."""
        async with asyncio.timeout(WITHIN_S):
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    def stop_reading(self) -> None:
        """Take nothing more from the socket."""
        transport: Any = self.writer.transport
        transport.pause_reading()

    def close(self) -> None:
        """Let go."""
        self.writer.transport.abort()


class Listening(Connection):
    """A client that reads server-sent events. frames: all that it was told so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.frames: list[Frame] = []
        self.headers: dict[str, str] = {}
        self._rest = b""

    async def frame(self) -> Frame:
        """The next block. Raises EOFError at the last chunk or the end of the connection."""
        while b"\n\n" not in self._rest:
            part = await (self.chunk() if "transfer-encoding" in self.headers else self.read())
            if not part:
                raise EOFError
            self._rest += part
        block, self._rest = self._rest.split(b"\n\n", 1)
        self.frames.append(read_block(block.decode()))
        return self.frames[-1]

    async def next(self, event: str) -> Frame:
        """The next block of that name; others are read over."""
        while (frame := await self.frame()).event != event:
            pass
        return frame

    async def until(self, position: Position | str) -> list[Frame]:
        """Everything up to and including the block with this id."""
        found = []
        while (frame := await self.frame()).id != str(position):
            found.append(frame)
        return [*found, frame]


def read_block(block: str) -> Frame:
    """One block of server-sent events."""
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    channels = tuple(fields["channel"].split(",")) if "channel" in fields else ()
    retry = int(fields["retry"]) if "retry" in fields else None
    return Frame(fields.get("id"), fields["event"], channels, json.loads(fields["data"]), retry)


class Site:
    """The server and what is behind it. foreign: uvicorn as it comes, which hands nothing over."""

    def __init__(self, config: Config, foreign: bool) -> None:
        self.config = msgspec.structs.replace(config, jwt_secret=SECRET, port=0)
        self.meter = Meter()
        self.hub = Hub(self.config, self.meter, asyncio.get_running_loop())
        self.feed = Feed(self.hub)
        self.reader = StandIn()
        self.tokens = Tokens(self.config)
        every = routes(self.hub, self.tokens, self.reader, self.config, self.meter, ["https://page.example"])
        front = Front(self.config, (), every, None, None)
        self.server = Server(front, self.config, self.hub)
        if foreign:
            self.server.config = uvicorn.Config(
                front, port=0, http="h11", ws="websockets-sansio", lifespan="off", log_config=None, log_level="warning"
            )
        self.port = 0
        self._connections: list[Connection] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, *, foreign: bool = False, **settings: Any) -> AsyncIterator[Self]:
        """A running server; it is stopped at the end, and must have forgotten everybody by then."""
        site = cls(Config(**settings), foreign)
        serving = asyncio.create_task(site.server.serve())
        try:
            await eventually_async(lambda: site.server.started)
            site.port = site.server.port
            yield site
        finally:
            for connection in site._connections:
                connection.close()
            site.server.should_exit = True
            async with asyncio.timeout(WITHIN_S):
                await serving
            site.hub.stop()
        assert site.hub.places_taken == 0
        assert set(site.meter.connections.values()) == {0}
        assert site.meter.connections_handed_over == 0

    async def connect(self, kind: type[Connection] = Connection) -> Connection:
        """A connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        connection = kind(reader, writer)
        self._connections.append(connection)
        return connection

    def request(
        self, target: str, *headers: str, method: str = "GET", version: str = "1.1", body: bytes = b""
    ) -> bytes:
        """The bytes of a request."""
        lines = [f"{method} {target} HTTP/{version}", f"Host: 127.0.0.1:{self.port}", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body

    async def ask(self, target: str, *headers: str, **more: Any) -> Answer:
        """One request on a connection of its own, and its answer."""
        connection = await self.connect()
        connection.send(self.request(target, *headers, **more))
        answer = await connection.answer()
        connection.close()
        return answer

    async def stream(
        self,
        *channels: str,
        position: Position | str | None = None,
        state: bool = False,
        token: str | None = None,
        headers: Sequence[str] = (),
        version: str = "1.1",
    ) -> Listening:
        """A stream of server-sent events, its head read. Raises AssertionError when it is refused."""
        connection = await self.connect(Listening)
        assert isinstance(connection, Listening)
        lines = ["Accept: text/event-stream", *headers]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        connection.send(self.request(target(*channels, position=position, state=state), *lines, version=version))
        status, connection.headers = await connection.head()
        if status != 200:
            raise AssertionError((status, await connection.read()))
        return connection

    def token(self, subject: str | None = "ann", life_s: float = 60.0) -> str:
        """A token of a member."""
        return self.tokens.mint(subject, "member", life_s=life_s)


def target(*channels: str, position: Position | str | None = None, state: bool = False, more: str = "") -> str:
    """The address of `/events` with these parameters."""
    parts = [f"channel={channel}" for channel in channels]
    if position is not None:
        parts.append(f"position={position}")
    if state:
        parts.append("state=true")
    return "/events?" + "&".join(parts + ([more] if more else []))
