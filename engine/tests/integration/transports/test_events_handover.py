"""The hand-over of sockets, and what is not a request that can be handed over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from lastcall.testing.site import Connection, Listening, Site, target
from lastcall.testing.waiting import eventually_async
from lastcall.transports.handover import HandoverProtocol, HandoverWebSocketProtocol

BOTH_LOOPS = True
SSE = "Accept: text/event-stream"


async def test_nothing_of_the_request_stays_in_memory() -> None:
    """After the hand-over uvicorn's protocol is garbage: without waiting for the cycle collector."""
    made: list[weakref.ref[HandoverProtocol]] = []
    async with Site.open() as site:
        whole = HandoverProtocol.connection_made
        try:
            HandoverProtocol.connection_made = lambda self, transport: (  # type: ignore[method-assign]
                made.append(weakref.ref(self)),
                whole(self, transport),
            )[1]
            gc.disable()
            stream = await site.stream("a:1")
            await stream.frame()
            await eventually_async(lambda: made[0]() is None)
        finally:
            gc.enable()
            HandoverProtocol.connection_made = whole  # type: ignore[method-assign]


async def test_nothing_of_a_handshake_stays_in_memory() -> None:
    """The same for a WebSocket."""
    made: list[weakref.ref[HandoverWebSocketProtocol]] = []
    async with Site.open() as site:
        whole = HandoverWebSocketProtocol.connection_made
        try:
            HandoverWebSocketProtocol.connection_made = lambda self, transport: (  # type: ignore[method-assign]
                made.append(weakref.ref(self)),
                whole(self, transport),
            )[1]
            gc.disable()
            async with connect(f"ws://127.0.0.1:{site.port}{target('a:1')}") as socket:
                await socket.recv()
                await eventually_async(lambda: made[0]() is None)
        finally:
            gc.enable()
            HandoverWebSocketProtocol.connection_made = whole  # type: ignore[method-assign]


async def test_keep_alive_before_a_stream() -> None:
    """A connection that has answered other requests can still become a stream, and no timer of uvicorn ends it."""
    async with Site.open() as site:
        connection = await site.connect(Listening)
        assert isinstance(connection, Listening)
        for _ in range(3):
            connection.send(site.request(target("a:1", more="wait=0")))
            assert (await connection.answer()).status == 200
        connection.send(site.request(target("a:1"), SSE))
        _, connection.headers = await connection.head()
        assert (await connection.frame()).event == "joined"
        assert site.meter.connections_handed_over == 1


async def test_a_request_pipelined_behind_a_stream_is_refused_with_it() -> None:
    """What came with a second request behind it is LC101: that request could never be answered."""
    async with Site.open() as site:
        connection = await site.connect()
        connection.send(site.request(target("a:1"), SSE) + site.request("/other"))
        answer = await connection.answer()
        assert (answer.status, answer.json["code"]) == (400, "LC101")
        assert site.hub.places_taken == 0
        assert (await connection.answer()).status == 404


async def test_the_head_of_a_request_behind_a_stream_is_enough() -> None:
    """A part of a second request is seen too."""
    async with Site.open() as site:
        connection = await site.connect()
        connection.send(site.request(target("a:1"), SSE) + b"GET /oth")
        assert (await connection.answer()).json["code"] == "LC101"


async def test_a_stream_behind_another_request() -> None:
    """A stream may itself be pipelined behind a request that is answered first."""
    async with Site.open() as site:
        connection = await site.connect(Listening)
        assert isinstance(connection, Listening)
        connection.send(site.request(target("a:1", more="wait=0")) + site.request(target("a:1"), SSE))
        assert (await connection.answer()).status == 200
        _, connection.headers = await connection.head()
        assert (await connection.frame()).event == "joined"
        site.feed.publish("a:1", "note", b"1")
        assert (await connection.frame()).data == 1


async def test_a_request_during_a_stream_ends_it() -> None:
    """Bytes of a client that is streamed to end the stream with LC101, and others are not disturbed."""
    async with Site.open() as site:
        stream, other = await site.stream("a:1"), await site.stream("a:1")
        await stream.frame()
        stream.send(site.request("/other"))
        assert (await stream.frame()).data["code"] == "LC101"
        with pytest.raises(EOFError):
            await stream.frame()
        site.feed.publish("a:1", "note", b"1")
        assert (await other.next("note")).data == 1


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods(method: str) -> None:
    """Only GET listens; HEAD gets the same status without a body."""
    async with Site.open() as site:
        connection = await site.connect()
        connection.send(site.request(target("a:1"), SSE, method=method))
        status, _ = await connection.head()
        assert status == 405


@pytest.mark.parametrize("headers", [["Content-Length: 3"], ["Transfer-Encoding: chunked"]])
async def test_a_request_with_a_body(headers: list[str]) -> None:
    """A request to listen has no body: LC101."""
    async with Site.open() as site:
        connection = await site.connect()
        connection.send(site.request(target("a:1"), SSE, *headers) + b"abc")
        answer = await connection.answer()
        assert (answer.status, answer.json["code"]) == (400, "LC101")


async def test_content_length_zero_is_no_body() -> None:
    """Some clients say so explicitly."""
    async with Site.open() as site:
        stream = await site.stream("a:1", headers=["Content-Length: 0"])
        assert (await stream.frame()).event == "joined"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "LC408"),
        ("channel=", 400, "LC401"),
        ("channel=nocolon", 400, "LC401"),
        ("channel=a:1%0d%0aid:%20x", 400, "LC401"),
        ("channel=a:1&channel=A:1", 400, "LC401"),
        ("channel=unknown:1", 404, "LC409"),
        ("&".join(f"channel=a:{n}" for n in range(101)), 400, "LC402"),
        ("&".join(f"channel=a:{n}" for n in range(1_000)), 400, "LC402"),
        ("&".join(f"channel=a:{n}" for n in range(10_000)), 414, "LC104"),
        ("channel=a:" + "x" * (1 << 20), 414, "LC104"),
        ("channel=a:1&position=", 400, "LC403"),
        ("channel=a:1&position=..", 400, "LC403"),
        ("channel=a:1&position=e0.FF.0", 400, "LC403"),
        ("channel=a:1&position=e0.1.99999999999", 400, "LC403"),
        ("channel=a:1&position=e0.1.1&position=e0.1.2", 400, "LC101"),
        ("channel=a:1&state=maybe", 400, "LC101"),
        ("channel=a:1&wait=soon", 400, "LC101"),
        ("channel=a:1&wait=-1", 400, "LC101"),
        ("channel=a:1&token=x", 401, "LC302"),
    ],
)
async def test_bad_queries(query: str, status: int, code: str) -> None:
    """Every malformed question has its number, on both HTTP transports, and leaves nothing behind."""
    async with Site.open() as site:
        for headers in ([SSE], []):
            answer = await site.ask(f"/events?{query}", *headers)
            assert (answer.status, answer.json["code"]) == (status, code)
            assert answer.headers["content-type"] == "application/problem+json"
        assert site.hub.places_taken == 0


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (["Last-Event-ID: nonsense"], "LC403"),
        (["Authorization: Basic x"], "LC302"),
        (["Authorization: Bearer x"], "LC302"),
        (["Authorization: Bearer x", "Authorization: Bearer y"], "LC302"),
        (["X: " + "x" * 9_000], "LC101"),
        ([f"X{n}: y" for n in range(200)], "LC101"),
        (["X: " + "y" * 7_000] * 6, "LC101"),
    ],
)
async def test_bad_headers(headers: list[str], code: str) -> None:
    """So has every malformed header, and a head that is too large."""
    async with Site.open() as site:
        answer = await site.ask(target("a:1"), SSE, *headers)
        assert answer.json["code"] == code


async def test_an_expired_token() -> None:
    """An expired token is LC303, so that the client knows to get a fresh one."""
    async with Site.open() as site:
        answer = await site.ask(target("a:1"), SSE, f"Authorization: Bearer {site.token(life_s=-1)}")
        assert (answer.status, answer.json["code"], answer.json["retry"]) == (401, "LC303", "fresh")


async def test_percent_encoded_channels_and_duplicates() -> None:
    """A channel may be percent-encoded, and named twice."""
    async with Site.open() as site:
        connection = await site.connect(Listening)
        assert isinstance(connection, Listening)
        connection.send(site.request("/events?channel=a%3A1&channel=a:1&unknown=x", SSE))
        _, connection.headers = await connection.head()
        assert (await connection.frame()).data["channels"] == ["a:1"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /events HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /events HTTP/1.1\r\nbad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    ],
)
async def test_what_is_not_http(garbage: bytes) -> None:
    """What is not HTTP is answered with LC101 and an end of the connection."""
    async with Site.open() as site:
        connection = await site.connect()
        connection.send(garbage)
        answer = await connection.answer()
        assert (answer.status, answer.json["code"]) == (400, "LC101")
        assert await connection.to_end() == b""


async def test_an_endless_target_is_refused_while_it_comes() -> None:
    """A client that never ends its target is answered as soon as that is too long."""
    async with Site.open() as site:
        connection = await site.connect()
        connection.send(b"GET /events?channel=")
        for _ in range(40):
            connection.send(b"x" * 1_000)
            await asyncio.sleep(0)
        answer = await connection.answer()
        assert (answer.status, answer.json["code"]) == (414, "LC104")


@pytest.mark.parametrize("begun", [b"", b"GET /events?channel=a:1 HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_come(begun: bytes) -> None:
    """A client that says nothing, or never ends what it says, is cut after head_wait_max_s; also behind an answer."""
    async with Site.open(head_wait_max_s=0.1) as site:
        stream = await site.stream("a:1")
        connection = await site.connect()
        connection.send(begun)
        with contextlib.suppress(ConnectionResetError):
            assert await connection.to_end() == b""
        again = await site.connect()
        again.send(site.request(target("a:1", more="wait=0")) + b"GET /ev")
        assert (await again.answer()).status == 200
        with contextlib.suppress(ConnectionResetError):
            assert await again.to_end() == b""
        site.feed.publish("a:1", "note", b"1")
        assert (await stream.next("note")).data == 1


async def test_a_client_that_leaves_while_it_is_looked_at() -> None:
    """A client that goes away before the hand-over leaves nothing behind."""
    async with Site.open() as site:
        site.reader.gate = asyncio.Event()
        connection = await site.connect()
        connection.send(site.request(target("a:1"), SSE))
        await site.reader.asked.wait()
        connection.close()
        await eventually_async(lambda: not site.server.server_state.connections)
        site.reader.gate.set()
        await eventually_async(lambda: site.hub.places_taken == 0)
        assert site.meter.connections_handed_over == 0


async def test_a_client_that_leaves_in_its_catch_up() -> None:
    """A client that goes away while it is told its history leaves nothing behind."""
    async with Site.open(
        write_buffer_max_bytes=64 << 10, flush_max_bytes=16 << 10, history_channel_max_bytes=32 << 20
    ) as site:
        start = site.hub.head
        for _ in range(900):
            site.feed.publish("a:1", "note", b'"%b"' % (b"x" * 16_000))
        stream = await site.stream("a:1", position=start)
        stream.stop_reading()
        await eventually_async(lambda: site.meter.connections_handed_over == 1)
        stream.close()
        await eventually_async(lambda: site.hub.places_taken == 0)


async def test_uvicorns_connections_are_drained_too() -> None:
    """A stop ends idle keep-alive connections and streams alike, at once."""
    async with Site.open() as site:
        idle = await site.connect()
        idle.send(site.request(target("a:1", more="wait=0")))
        await idle.answer()
        stream = await site.stream("a:1")
        began = asyncio.get_running_loop().time()
        site.server.should_exit = True
        assert await idle.to_end() == b""
        assert (await stream.next("close")).data["code"] == "LC209"
        assert asyncio.get_running_loop().time() - began < 3.0


async def _whatever(connection: Connection) -> bytes:
    async with asyncio.timeout(5):
        return await connection.reader.read(1 << 16)


REQUEST = b"GET /events?channel=a:1 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"


@given(st.lists(st.tuples(st.integers(0, len(REQUEST) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fuzzed_requests_never_harm_the_server(changes: list[tuple[int, int]]) -> None:
    """A request with random bytes changed is answered or closed; the server goes on and holds no place."""
    data = bytearray(REQUEST)
    for at, value in changes:
        data[at] = value

    async def run() -> None:
        async with Site.open() as site:
            connection = await site.connect()
            connection.send(bytes(data) + b"\r\n\r\n")
            connection.writer.write_eof()
            await _whatever(connection)
            connection.close()
            await eventually_async(lambda: site.hub.places_taken == 0)
            stream = await site.stream("a:1")
            assert (await stream.frame()).event == "joined"

    asyncio.run(run())
