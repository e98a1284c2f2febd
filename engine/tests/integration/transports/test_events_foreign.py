"""On an ASGI server that hands nothing over, listening is the same, and `/metrics` would show it."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from lastcall.testing.site import Site, target
from lastcall.testing.waiting import eventually_async


async def test_server_sent_events() -> None:
    """A stream is an ordinary streaming response: history, live events, heartbeats of the hub."""
    async with Site.open(foreign=True, heartbeat_interval_s=0.2) as site:
        first = site.feed.publish("a:1", "note", b"1")
        site.feed.publish("a:1", "note", b"2")
        stream = await site.stream("a:1", position=first)
        assert [(await stream.frame()).event for _ in range(3)] == ["joined", "note", "heartbeat"]
        site.feed.publish("a:1", "note", b"3")
        assert (await stream.next("note")).data == 3
        assert (await stream.next("heartbeat")).id == str(site.hub.head)
        assert site.meter.connections["sse"] == 1
        assert site.meter.connections_handed_over == 0


async def test_a_client_that_leaves_is_forgotten() -> None:
    """The place is given back when the client goes."""
    async with Site.open(foreign=True) as site:
        stream = await site.stream("a:1")
        await stream.frame()
        stream.close()
        await eventually_async(lambda: site.hub.places_taken == 0)


async def test_a_reader_that_stops_is_cut() -> None:
    """Bytes that nobody takes are bounded here too."""
    async with Site.open(foreign=True, write_buffer_max_bytes=64 << 10) as site:
        stalled, reader = await site.stream("a:1"), await site.stream("a:1")
        stalled.stop_reading()
        reading = asyncio.create_task(reader.next("end"))
        for _ in range(5_000):
            site.feed.publish("a:1", "note", b'"%b"' % (b"x" * 16_000))
            await asyncio.sleep(0.001)
            if site.meter.slow_aborts:
                break
        assert site.meter.slow_aborts == 1
        site.feed.publish("a:1", "end", b"1")
        assert (await reading).data == 1
        await eventually_async(lambda: site.meter.connections["sse"] == 1)


async def test_the_end_of_a_token_and_a_drain() -> None:
    """`close` is the last frame, and the response ends properly."""
    async with Site.open(foreign=True) as site:
        stream = await site.stream("a:1", token=site.token("ann", 0.5))
        assert (await stream.next("close")).data["code"] == "LC303"
        with pytest.raises(EOFError):
            await stream.frame()
        other = await site.stream("a:1")
        await other.frame()
        site.server.should_exit = True
        assert (await other.next("close")).data["code"] == "LC209"


async def test_refusals() -> None:
    """Refusals are the same problem documents."""
    async with Site.open(foreign=True) as site:
        answer = await site.ask(target("?"), "Accept: text/event-stream")
        assert (answer.status, answer.json["code"]) == (400, "LC401")


async def test_websocket() -> None:
    """Frames, operations and close codes are the same."""
    async with Site.open(foreign=True) as site:
        url = f"ws://127.0.0.1:{site.port}{target('a:1')}"
        async with connect(url, compression=None) as socket:
            assert json.loads(await socket.recv())["event"] == "joined"
            site.feed.publish("a:1", "note", b"1")
            site.feed.publish("a:1", "note", b"2")
            assert [json.loads(await socket.recv())["data"] for _ in range(2)] == [1, 2]
            await socket.send('{"op":"subscribe","ref":1,"channels":["b:1"]}')
            assert [json.loads(await socket.recv())["event"] for _ in range(2)] == ["ack", "heartbeat"]
            for text in ("{", "{", b"x"):
                await socket.send(text)
                assert json.loads(await socket.recv())["problem"]["code"] == "LC406"
            await socket.send("{")
            assert json.loads(await socket.recv())["event"] == "close"
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                assert closed.rcvd.code == 4406


async def test_long_poll() -> None:
    """Long-polls need no hand-over."""
    async with Site.open(foreign=True) as site:
        start = site.hub.head
        site.feed.publish("a:1", "note", b"1")
        assert len((await site.ask(target("a:1", position=start))).json["events"]) == 1
