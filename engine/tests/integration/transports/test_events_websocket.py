"""WebSocket over real sockets (spec/protocol.md, 5)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lastcall.event import REVOKED
from lastcall.testing.site import Connection, Site, target
from lastcall.testing.waiting import eventually_async

BOTH_LOOPS = True


class Talk:
    """A client that talks."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def next(self, event: str | None = None) -> dict[str, Any]:
        """The next frame (of that name)."""
        while True:
            async with asyncio.timeout(10):
                frame: dict[str, Any] = json.loads(await self.socket.recv())
            if event in {None, frame["event"]}:
                return frame

    async def say(self, **operation: Any) -> None:
        """Send an operation."""
        await self.socket.send(json.dumps(operation))

    async def closed(self) -> int:
        """Read on until the server closes; its code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                async with asyncio.timeout(10):
                    await self.socket.recv()
        assert self.socket.close_code is not None
        return self.socket.close_code


@asynccontextmanager
async def talk(site: Site, *channels: str, more: str = "", **options: Any) -> AsyncIterator[Talk]:
    """A WebSocket on these channels."""
    url = f"ws://127.0.0.1:{site.port}{target(*channels, more=more)}"
    options.setdefault("compression", None)
    async with connect(url, max_size=1 << 24, **options) as socket:
        yield Talk(socket)


async def refusal(site: Site, *headers: str, path: str = "/events?channel=a:1") -> tuple[int, dict[str, Any]]:
    """The answer to a handshake that is refused."""
    connection = await site.connect()
    connection.send(handshake(site, *headers, path=path))
    answer = await connection.answer()
    return answer.status, answer.json


def handshake(site: Site, *headers: str, path: str = "/events?channel=a:1") -> bytes:
    """The bytes of an opening handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    return site.request(
        path,
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    )


async def test_joined_then_live() -> None:
    """The same frames in the same order as SSE, and the socket is handed over."""
    async with Site.open() as site, talk(site, "a:1", subprotocols=["lastcall.v1"]) as client:
        assert client.socket.subprotocol == "lastcall.v1"
        head = site.hub.head
        assert await client.next() == {
            "id": str(head),
            "event": "joined",
            "data": {"channels": ["a:1"], "heartbeat_s": 15, "resumed": False},
        }
        position = site.feed.publish("a:1", "note", b'{"x":1}')
        assert await client.next() == {"id": str(position), "event": "note", "channels": ["a:1"], "data": {"x": 1}}
        assert site.meter.connections["websocket"] == site.meter.connections_handed_over == 1
        await eventually_async(lambda: not site.server.server_state.tasks)
        assert not site.server.server_state.connections


async def test_no_compression_and_no_subprotocol() -> None:
    """A client that offers neither is served the same; an offer of compression is not taken."""
    async with Site.open() as site, talk(site, "a:1", compression="deflate") as client:
        assert client.socket.subprotocol is None
        assert "Sec-WebSocket-Extensions" not in client.socket.response.headers  # type: ignore[union-attr]
        assert (await client.next())["event"] == "joined"


async def test_a_token_in_the_subprotocol_is_never_echoed() -> None:
    """A browser's token comes as a subprotocol; only the other one is answered."""
    async with Site.open() as site:
        site.reader.forbidden = {None: {"a:1"}}
        offered = ["lastcall.v1", f"lastcall.token.{site.token('ann')}"]
        async with talk(site, "a:1", subprotocols=offered) as client:
            assert client.socket.subprotocol == "lastcall.v1"
            assert (await client.next())["event"] == "joined"
        async with talk(site, "a:1", subprotocols=offered[1:]) as client:
            assert client.socket.subprotocol is None


async def test_resume() -> None:
    """With a position: joined with it, what came after it, a heartbeat with the head, then live."""
    async with Site.open() as site:
        first = site.feed.publish("a:1", "note", b"1")
        site.feed.publish("a:1", "note", b"2")
        async with talk(site, "a:1", more=f"position={first}") as client:
            frames = [await client.next() for _ in range(3)]
            assert [frame["event"] for frame in frames] == ["joined", "note", "heartbeat"]
            assert frames[0]["id"] == str(first)
            assert frames[2]["id"] == str(site.hub.head)


async def test_subscribe_with_history_and_state() -> None:
    """A subscribe is acknowledged, brings reset, state and history without ids, then a heartbeat with the head."""
    async with Site.open(history_events_max=3) as site, talk(site, "a:1") as client:
        await client.next("joined")
        start = site.hub.head
        for number in range(5):
            site.feed.publish("b:1", "note", b"%d" % number)
        site.feed.publish("c:1", "note", b"9")
        site.reader.states = {"b:1": b"[]"}
        await client.say(op="subscribe", ref=7, channels=["b:1", "c:1", "a:1"], position=str(start), state=True)
        frames = [await client.next() for _ in range(5)]
        assert frames[0] == {"event": "ack", "ref": 7, "channels": ["b:1", "c:1", "a:1"]}
        assert frames[1] == {"event": "reset", "data": {"channels": ["b:1"], "reason": "history"}}
        assert frames[2] == {"event": "state", "data": {"channel": "b:1", "state": []}}
        assert frames[3] == {"event": "note", "channels": ["c:1"], "data": 9}
        assert frames[4] == {"id": str(site.hub.head), "event": "heartbeat", "data": {}}
        position = site.feed.publish("b:1", "note", b"10")
        assert (await client.next())["id"] == str(position)


async def test_unsubscribe_and_again() -> None:
    """After the ack of an unsubscribe no event of the channel comes; a connection may be without channels."""
    async with Site.open() as site, talk(site, "a:1") as client:
        await client.next("joined")
        await client.say(op="unsubscribe", ref=1, channels=["a:1"])
        assert (await client.next())["event"] == "ack"
        site.feed.publish("a:1", "note", b"1")
        await client.say(op="subscribe", ref=2, channels=["a:1"])
        assert (await client.next())["ref"] == 2
        assert (await client.next())["event"] == "heartbeat"
        site.feed.publish("a:1", "note", b"2")
        assert (await client.next())["data"] == 2


async def test_a_subscribe_to_what_is_heard_does_nothing() -> None:
    """It is acknowledged, and that is all."""
    async with Site.open() as site, talk(site, "a:1") as client:
        await client.next("joined")
        await client.say(op="subscribe", ref=1, channels=["a:1"], position="e0.1.0", state=True)
        assert (await client.next())["event"] == "ack"
        site.feed.publish("a:1", "note", b"1")
        assert (await client.next())["event"] == "note"


async def test_operations_before_anything_was_joined_are_answered_in_order() -> None:
    """What a client says while it is still let in is carried out after `joined`, in order."""
    async with Site.open() as site:
        site.reader.gate = asyncio.Event()
        connection = await site.connect()
        connection.send(handshake(site, path="/events"))
        status, _ = await connection.head()
        assert status == 101
        connection.send(masked(b'{"op":"subscribe","ref":1,"channels":["a:1"]}'))
        connection.send(masked(b'{"op":"unsubscribe","ref":2,"channels":["a:1"]}'))
        await site.reader.asked.wait()
        site.reader.gate.set()
        events = [json.loads(await read_frame(connection)) for _ in range(4)]
        assert [frame["event"] for frame in events] == ["joined", "ack", "heartbeat", "ack"]
        assert events[3]["ref"] == 2
        assert site.hub.describe("a:1")[0] == 0


async def test_events_come_while_a_subscribe_waits_for_the_database() -> None:
    """The channels already heard go on meanwhile; what happens on the new one before the ack is not asked for."""
    async with Site.open() as site, talk(site, "a:1") as client:
        await client.next("joined")
        site.reader.gate = asyncio.Event()
        await client.say(op="subscribe", ref=1, channels=["b:1"])
        await site.reader.asked.wait()
        site.feed.publish("a:1", "note", b"1")
        assert (await client.next())["data"] == 1
        site.reader.gate.set()
        assert (await client.next())["event"] == "ack"


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"op": "subscribe", "ref": 1, "channels": ["nocolon"]}, "LC401"),
        ({"op": "subscribe", "ref": 1, "channels": ["unknown:1"]}, "LC409"),
        ({"op": "subscribe", "ref": 1, "channels": ["b:1"]}, "LC305"),
        ({"op": "subscribe", "ref": 1, "channels": ["c:1"], "position": "?"}, "LC403"),
        ({"op": "subscribe", "ref": 1, "channels": [f"c:{n}" for n in range(100)]}, "LC402"),
        ({"op": "unsubscribe", "ref": 1, "channels": ["?"]}, "LC401"),
        ({"op": "token", "ref": 1, "token": "x"}, "LC302"),
    ],
)
async def test_refused_operations_change_nothing(operation: dict[str, Any], code: str) -> None:
    """A refused frame is answered with a problem and its ref, any number of times, and the connection goes on."""
    async with Site.open() as site:
        site.reader.forbidden = {None: {"b:1"}}
        async with talk(site, "a:1") as client:
            await client.next("joined")
            for _ in range(6):
                await client.say(**operation)
                frame = await client.next()
                assert (frame["event"], frame["ref"], frame["problem"]["code"]) == ("error", 1, code)
            site.feed.publish("a:1", "note", b"1")
            assert (await client.next())["event"] == "note"
            assert not site.hub._reservations


async def test_a_mistake_of_the_server_has_an_incident() -> None:
    """An unexpected failure is LC100 with an incident number, and says nothing else."""
    async with Site.open() as site, talk(site, "a:1") as client:
        await client.next("joined")
        site.reader.failure = RuntimeError("secret")
        await client.say(op="subscribe", ref=1, channels=["b:1"])
        frame = await client.next()
        assert frame["problem"]["code"] == "LC100"
        assert frame["problem"]["incident"]
        assert "secret" not in json.dumps(frame)


async def test_malformed_frames() -> None:
    """Three are answered, the fourth closes with 4406; a binary frame counts."""
    async with Site.open() as site, talk(site, "a:1") as client:
        await client.next("joined")
        for text in ('{"op":"dance","ref":5}', "{", b"binary"):
            await client.socket.send(text)
            frame = await client.next()
            assert (frame["event"], frame["problem"]["code"]) == ("error", "LC406")
            assert frame.get("ref") == (5 if "dance" in str(text) else None)
        await client.socket.send("null")
        assert (await client.next())["data"]["code"] == "LC406"
        assert await client.closed() == 4406


async def test_a_frame_that_is_too_large() -> None:
    """Beyond websocket_frame_max_bytes the connection closes with 1009, the last frame saying LC407."""
    async with Site.open(websocket_frame_max_bytes=1024) as site, talk(site, "a:1") as client:
        await client.next("joined")
        await client.socket.send("x" * 2000)
        assert (await client.next())["data"]["code"] == "LC407"
        assert await client.closed() == 1009


async def test_fragments_make_one_message() -> None:
    """A message in several frames is one operation; so is one that was cut by the hand-over."""
    async with Site.open() as site:
        connection = await site.connect()
        connection.send(handshake(site))
        await connection.head()
        text = b'{"op":"unsubscribe","ref":1,"channels":["a:1"]}'
        connection.send(masked(text[:10], fin=False) + masked(b"ping", opcode=9) + masked(text[10:], opcode=0))
        frames = [await read_frame(connection) for _ in range(3)]
        assert b"ping" in frames
        assert any(b'"ack"' in frame for frame in frames)


async def test_a_ping_is_answered_and_a_close_echoed() -> None:
    """Control frames are answered as RFC 6455 asks."""
    async with Site.open() as site, talk(site, "a:1") as client:
        await (await client.socket.ping())
        await client.socket.close(1000)
        assert client.socket.close_code == 1000
        await eventually_async(lambda: site.hub.places_taken == 0)


async def test_token_refresh() -> None:
    """A new token is acknowledged with the channels still heard; those it may not hear are revoked first."""
    async with Site.open() as site:
        options = {"additional_headers": {"Authorization": f"Bearer {site.token('ann', 1.2)}"}}
        async with talk(site, "a:1", "b:1", **options) as client:
            await client.next("joined")
            site.reader.forbidden = {"bob": {"b:1", "c:1"}}
            await client.say(op="token", ref=1, token=site.token("bob"))
            assert await client.next() == {"event": "revoked", "data": {"channels": ["b:1"]}}
            assert await client.next() == {"event": "ack", "ref": 1, "channels": ["a:1"]}
            await client.say(op="subscribe", ref=2, channels=["c:1"])
            assert (await client.next())["problem"]["code"] == "LC305"


async def test_a_token_that_hears_nothing_and_one_that_ends() -> None:
    """The close codes 4405 and 4403."""
    async with Site.open() as site:
        async with talk(site, "a:1") as client:
            await client.next("joined")
            site.reader.forbidden = {"bob": {"a:1"}}
            await client.say(op="token", ref=1, token=site.token("bob"))
            assert (await client.next("ack"))["channels"] == []
            assert await client.closed() == 4405
        options = {"additional_headers": {"Authorization": f"Bearer {site.token('ann', 0.5)}"}}
        async with talk(site, "a:1", **options) as client:
            assert (await client.next("close"))["data"]["code"] == "LC303"
            assert await client.closed() == 4403


async def test_revocation_in_the_stream() -> None:
    """A subject that loses one of its channels goes on with the other."""
    async with Site.open() as site:
        options = {"additional_headers": {"Authorization": f"Bearer {site.token('ann')}"}}
        async with talk(site, "a:1", "b:1", **options) as client:
            await client.next("joined")
            site.hub.deliver([site.feed.transaction((["a:1"], REVOKED, b"{}"), subject="ann")])
            assert (await client.next())["data"] == {"channels": ["a:1"]}
            site.feed.publish("a:1", "note", b"1")
            site.feed.publish("b:1", "note", b"2")
            assert (await client.next())["data"] == 2


async def test_drain() -> None:
    """When the server stops: `close` with LC209, and the close code 1012."""
    async with Site.open() as site, talk(site, "a:1") as client:
        await client.next("joined")
        site.server.should_exit = True
        assert (await client.next("close"))["data"]["code"] == "LC209"
        assert await client.closed() == 1012


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (["Origin: https://evil.example"], 403, "LC307"),
        (["Origin: null"], 403, "LC307"),
        (["Authorization: Bearer x"], 401, "LC302"),
        (["Sec-WebSocket-Protocol: lastcall.token.x"], 401, "LC302"),
    ],
)
async def test_refused_handshakes(headers: list[str], status: int, code: str) -> None:
    """What is refused is refused before the upgrade, with a problem document."""
    async with Site.open() as site:
        found, document = await refusal(site, *headers)
        assert (found, document["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/events?channel=A", "LC401"),
        ("/events?channel=b:1", "LC305"),
        ("/events?channel=a:1&position=x", "LC403"),
        ("/events?channel=" + "x" * 9_000, "LC104"),
    ],
)
async def test_refused_addresses(path: str, code: str) -> None:
    """The same for what the address asks."""
    async with Site.open() as site:
        site.reader.forbidden = {None: {"b:1"}}
        assert (await refusal(site, path=path))[1]["code"] == code


@pytest.mark.parametrize("origin", ["https://page.example", "http://{host}", None])
async def test_allowed_origins(origin: str | None) -> None:
    """Pages of the configured origins and of the server itself may connect; what is not a page may too."""
    async with Site.open() as site:
        options = {} if origin is None else {"origin": origin.format(host=f"127.0.0.1:{site.port}")}
        async with talk(site, "a:1", **options) as client:
            assert (await client.next())["event"] == "joined"


@pytest.mark.parametrize(
    "lines",
    [
        ["Sec-WebSocket-Version: 13"],
        ["Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="],
        ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"],
        ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: !!!"],
    ],
)
async def test_what_is_not_a_handshake(lines: list[str]) -> None:
    """An upgrade that is not WebSocket's is LC101."""
    async with Site.open() as site:
        answer = await site.ask("/events?channel=a:1", "Upgrade: websocket", "Connection: Upgrade", *lines)
        assert (answer.status, answer.json["code"]) == (400, "LC101")


async def test_a_handshake_elsewhere_is_not_found() -> None:
    """Only /events is a WebSocket."""
    async with Site.open() as site:
        with pytest.raises(InvalidStatus):
            async with connect(f"ws://127.0.0.1:{site.port}/nowhere"):
                pass


async def test_a_reader_that_stops_is_cut() -> None:
    """A WebSocket whose client does not read is aborted at the limit."""
    async with Site.open(write_buffer_max_bytes=64 << 10) as site:
        connection = await site.connect()
        connection.send(handshake(site))
        await connection.head()
        connection.stop_reading()
        await eventually_async(lambda: site.hub.describe("a:1")[0] == 1)
        for _ in range(5_000):
            site.feed.publish("a:1", "note", b'"%b"' % (b"x" * 16_000))
            await asyncio.sleep(0)
            if site.meter.slow_aborts:
                break
        assert site.meter.slow_aborts == 1
        await eventually_async(lambda: site.hub.places_taken == 0)


async def test_a_flood_of_operations_is_read_as_fast_as_it_is_answered() -> None:
    """A client with many operations unanswered is not read from; all are answered in the end, in order."""
    async with Site.open() as site, talk(site, "a:1") as client:
        await client.next("joined")
        site.reader.gate = asyncio.Event()
        for ref in range(200):
            await client.say(op="subscribe" if ref % 2 else "unsubscribe", ref=ref, channels=["b:1"])
        await site.reader.asked.wait()
        site.reader.gate.set()
        refs = [(await client.next("ack"))["ref"] for _ in range(200)]
        assert refs == list(range(200))


def masked(payload: bytes, *, opcode: int = 1, fin: bool = True) -> bytes:
    """A client's frame."""
    mask = os.urandom(4)
    length = len(payload)
    head = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    else:
        head += bytes([0x80 | 126]) + struct.pack("!H", length)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


async def read_frame(connection: Connection) -> bytes:
    """The payload of the server's next frame, which must not be masked."""
    async with asyncio.timeout(10):
        _, length = await connection.reader.readexactly(2)
        assert length < 128
        if length == 126:
            length = int.from_bytes(await connection.reader.readexactly(2), "big")
        return await connection.reader.readexactly(length)


@given(st.lists(st.binary(max_size=40) | st.binary(max_size=40).map(masked), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fuzzed_frames_never_harm_the_server(parts: list[bytes]) -> None:
    """Random bytes on a WebSocket are answered or closed with a code of the protocol; others are not disturbed."""

    async def run() -> None:
        async with Site.open() as site, talk(site, "a:1") as other:
            await other.next("joined")
            connection = await site.connect()
            connection.send(handshake(site))
            await connection.head()
            for part in parts:
                connection.send(part)
            connection.send(masked(b"", opcode=8))
            connection.writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                await connection.to_end()
            await eventually_async(lambda: site.hub.places_taken == 1)
            site.feed.publish("a:1", "note", b"1")
            assert (await other.next("note"))["data"] == 1

    asyncio.run(run())
