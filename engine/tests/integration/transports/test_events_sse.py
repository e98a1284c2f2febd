"""Server-sent events over real sockets (spec/protocol.md, 3 and 4)."""

from __future__ import annotations

import asyncio
import time

import pytest

from lastcall.errors import Refusal
from lastcall.event import REVOKED
from lastcall.testing.site import Site, target
from lastcall.testing.waiting import eventually_async

BOTH_LOOPS = True


async def test_a_stream_begins_with_joined_and_goes_on_live() -> None:
    """Without a position: `joined` with the head, nothing else, then every event as it comes."""
    async with Site.open() as site:
        head = site.hub.head
        stream = await site.stream("a:1", "b:2")
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-cache"
        assert stream.headers["x-accel-buffering"] == "no"
        joined = await stream.frame()
        assert (joined.event, joined.id) == ("joined", str(head))
        assert joined.data["channels"] == ["a:1", "b:2"]
        assert joined.data["heartbeat_s"] == 15
        assert joined.data["resumed"] is False
        assert len(joined.data["connection"]) == 22
        assert joined.retry is not None
        assert 1000 <= joined.retry <= 4000
        position = site.feed.publish("b:2", "note", b'{"x":1}')
        assert await stream.frame() == (str(position), "note", ("b:2",), {"x": 1}, None)


async def test_connections_are_handed_over_and_counted() -> None:
    """The socket of a stream belongs to the hub; uvicorn holds neither connection nor task, and the meter says so."""
    async with Site.open() as site:
        streams = [await site.stream("a:1") for _ in range(5)]
        for stream in streams:
            await stream.frame()
        assert site.meter.connections["sse"] == 5
        assert site.meter.connections_handed_over == 5
        await eventually_async(lambda: not site.server.server_state.tasks)
        assert not site.server.server_state.connections
        streams[0].close()
        await eventually_async(lambda: site.meter.connections_handed_over == 4)
        assert site.hub.describe("a:1")[0] == 4


async def test_resume_by_query_and_by_last_event_id() -> None:
    """What came after the position, then a heartbeat with the head, then live; Last-Event-ID beats the query."""
    async with Site.open() as site:
        first = site.feed.publish("a:1", "note", b"1")
        second = site.feed.publish("a:1", "note", b"2")
        third = site.feed.publish("a:1", "note", b"3")
        stream = await site.stream("a:1", position=first)
        frames = await stream.until(site.hub.head)
        assert [(frame.event, frame.id) for frame in frames] == [
            ("joined", str(first)),
            ("note", str(second)),
            ("note", str(third)),
            ("heartbeat", str(site.hub.head)),
        ]
        assert frames[0].data["resumed"] is True
        native = await site.stream("a:1", position=first, headers=[f"Last-Event-ID: {second}"])
        assert [frame.data for frame in await native.until(site.hub.head) if frame.event == "note"] == [3]
        site.feed.publish("a:1", "note", b"4")
        assert (await stream.frame()).data == (await native.frame()).data == 4


@pytest.mark.parametrize(
    ("position", "reason", "id"),
    [("zz.1000000.0", "epoch", None), ("e0.ffffffff.0", "future", None), ("e0.1.0", "history", "e0.1.0")],
)
async def test_positions_that_cannot_be_continued(position: str, reason: str, id: str | None) -> None:
    """A foreign, future or forgotten position is a reset, not an error; then live."""
    async with Site.open() as site:
        site.feed.publish("a:1", "note", b"1")
        stream = await site.stream("a:1", position=position)
        frames = await stream.until(site.hub.head)
        assert [frame.event for frame in frames] == ["joined", "reset", "heartbeat"]
        assert frames[0].id == id
        assert (frames[1].id, frames[1].data) == (None, {"channels": ["a:1"], "reason": reason})
        site.feed.publish("a:1", "note", b"2")
        assert (await stream.frame()).data == 2


async def test_states_come_first_and_events_after_them() -> None:
    """`state=true`: `joined` without id, the states in the order asked, the last with their position, then events."""
    async with Site.open() as site:
        site.reader.states = {"b:2": b'{"b":2}', "a:1": b"[1]"}
        site.reader.gate, site.reader.gated = asyncio.Event(), "read"
        opening = asyncio.create_task(site.stream("b:2", "a:1", "c:3", state=True))
        await site.reader.asked.wait()
        at = site.hub.head
        between = site.feed.publish("a:1", "note", b"1")
        site.reader.gate.set()
        stream = await opening
        frames = await stream.until(between)
        assert [(frame.event, frame.id, frame.data) for frame in frames[1:]] == [
            ("state", None, {"channel": "b:2", "state": {"b": 2}}),
            ("state", str(at), {"channel": "a:1", "state": [1]}),
            ("note", str(between), 1),
        ]
        assert (frames[0].event, frames[0].id) == ("joined", None)


async def test_states_of_channels_without_state() -> None:
    """Where no channel has a state, `joined` carries the head."""
    async with Site.open() as site:
        stream = await site.stream("a:1", state=True)
        joined = await stream.frame()
        assert joined.id == str(site.hub.head)


async def test_states_of_reset_channels_when_resuming() -> None:
    """With a position, states come only for the channels of the reset, without ids, before the others' history."""
    async with Site.open(history_events_max=2) as site:
        start = site.hub.head
        for number in range(5):
            site.feed.publish("a:1", "note", b"%d" % number)
        site.feed.publish("b:2", "note", b"9")
        site.reader.states = {"a:1": b'"a"', "b:2": b'"b"'}
        stream = await site.stream("a:1", "b:2", position=start, state=True)
        frames = await stream.until(site.hub.head)
        assert [(frame.event, frame.id is None) for frame in frames] == [
            ("joined", False),
            ("reset", True),
            ("state", True),
            ("note", False),
            ("heartbeat", False),
        ]
        assert frames[2].data == {"channel": "a:1", "state": "a"}
        assert frames[3].channels == ("b:2",)


async def test_http_1_0_gets_plain_blocks() -> None:
    """HTTP/1.0 does not know chunks: the blocks come as they are, and the end of the connection ends the stream."""
    async with Site.open() as site:
        stream = await site.stream("a:1", version="1.0")
        assert "transfer-encoding" not in stream.headers
        assert stream.headers["connection"] == "close"
        assert (await stream.frame()).event == "joined"
        site.feed.publish("a:1", "note", b"1")
        assert (await stream.frame()).data == 1
        assert site.meter.connections_handed_over == 1


async def test_a_channel_one_may_not_hear() -> None:
    """Nothing is streamed when one of the channels is forbidden; the problem names it."""
    async with Site.open() as site:
        site.reader.forbidden = {"ann": {"b:2"}}
        answer = await site.ask(
            target("a:1", "b:2"), "Accept: text/event-stream", f"Authorization: Bearer {site.token('ann')}"
        )
        assert (answer.status, answer.json["code"]) == (403, "LC305")
        assert answer.json["facts"] == {"channels": ["b:2"]}
        assert site.hub.places_taken == 0


async def test_tickets_only_where_allowed() -> None:
    """`?token=` takes a ticket, where the applications of all channels do, and never a token."""
    async with Site.open() as site:
        principal = site.tokens.verify(site.token("ann"))
        ticket = site.tokens.ticket(principal)
        connection = await site.ask(target("a:1", more=f"token={ticket}&wait=0"))
        assert connection.status == 200
        site.reader.tickets = False
        refused = await site.ask(target("a:1", more=f"token={ticket}"))
        assert (refused.status, refused.json["code"]) == (401, "LC306")
        wrong = await site.ask(target("a:1", more=f"token={site.token('ann')}"))
        assert wrong.json["code"] == "LC302"


async def test_a_stream_ends_with_its_token() -> None:
    """When the token expires the last frame is `close` with LC303, and the body ends properly."""
    async with Site.open() as site:
        stream = await site.stream("a:1", token=site.token("ann", life_s=0.7))
        close = await stream.next("close")
        assert close.data == {"code": "LC303", "name": "token_expired", "retry": "fresh"}
        assert close.id is None
        with pytest.raises(EOFError):
            await stream.frame()


async def test_a_token_is_refreshed_without_a_gap() -> None:
    """POST /events/token prolongs the very stream; what the new token may not hear is revoked first."""
    async with Site.open() as site:
        stream = await site.stream("a:1", "b:2", token=site.token("ann", life_s=1.5))
        joined = await stream.frame()
        site.reader.forbidden = {"bob": {"b:2"}}
        ends = time.time() + 60
        body = b'{"connection":"%b","token":"%b"}' % (
            joined.data["connection"].encode(),
            site.token("bob", life_s=60).encode(),
        )
        answer = await site.ask("/events/token", "Content-Type: application/json", method="POST", body=body)
        assert (answer.status, answer.json) == (200, {"channels": ["a:1"]})
        revoked = await stream.frame()
        assert (revoked.event, revoked.data) == ("revoked", {"channels": ["b:2"]})
        [listener] = list(site.hub._phases)
        assert listener.expires_at == pytest.approx(ends, abs=2)  # type: ignore[attr-defined]
        site.feed.publish("b:2", "note", b"1")
        site.feed.publish("a:1", "note", b"2")
        assert (await stream.frame()).data == 2


async def test_refreshing_what_is_not_there() -> None:
    """An unknown connection, a bad token, a bad body: numbers, and nothing changes."""
    async with Site.open() as site:
        await site.stream("a:1")
        for body, code in (
            (b'{"connection":"nobody","token":"%b"}' % site.token().encode(), "LC105"),
            (b'{"connection":"nobody","token":"x"}', "LC302"),
            (b'{"connection":5}', "LC102"),
            (b"{", "LC102"),
            (b'{"connection":"' + b"x" * 20_000 + b'","token":""}', "LC103"),
        ):
            answer = await site.ask("/events/token", method="POST", body=body)
            assert answer.json["code"] == code


async def test_a_new_token_that_may_hear_nothing_ends_the_stream() -> None:
    """When every channel is revoked the stream ends with LC305."""
    async with Site.open() as site:
        stream = await site.stream("a:1", token=site.token("ann"))
        joined = await stream.frame()
        site.reader.forbidden = {"bob": {"a:1"}}
        body = b'{"connection":"%b","token":"%b"}' % (joined.data["connection"].encode(), site.token("bob").encode())
        answer = await site.ask("/events/token", method="POST", body=body)
        assert answer.json == {"channels": []}
        assert (await stream.next("close")).data["code"] == "LC305"


async def test_revocation_in_the_stream() -> None:
    """A subject that loses its only channel hears what came before, `revoked`, `close`, and no more."""
    async with Site.open() as site:
        stream = await site.stream("a:1", token=site.token("ann"))
        await stream.frame()
        site.hub.deliver(
            [
                site.feed.transaction((["a:1"], "note", b"1")),
                site.feed.transaction((["a:1"], REVOKED, b"{}"), subject="ann"),
                site.feed.transaction((["a:1"], "note", b"2")),
            ]
        )
        frames = [await stream.frame() for _ in range(3)]
        assert [frame.event for frame in frames] == ["note", "revoked", "close"]
        assert frames[2].data["code"] == "LC305"
        with pytest.raises(EOFError):
            await stream.frame()


async def test_a_revocation_while_the_database_is_asked() -> None:
    """A revocation between authorisation and joining is not missed (reserve comes first)."""
    async with Site.open() as site:
        site.reader.gate = asyncio.Event()
        opening = asyncio.create_task(site.stream("a:1", "b:2", token=site.token("ann")))
        await site.reader.asked.wait()
        site.hub.deliver([site.feed.transaction((["a:1"], REVOKED, b"{}"), subject="ann")])
        site.reader.gate.set()
        stream = await opening
        assert (await stream.next("revoked")).data == {"channels": ["a:1"]}
        site.feed.publish("a:1", "note", b"1")
        site.feed.publish("b:2", "note", b"2")
        assert (await stream.frame()).data == 2


async def test_a_refusal_of_the_database_is_an_answer() -> None:
    """What the database cannot say is a problem document before the stream begins, and the place is given back."""
    async with Site.open() as site:
        site.reader.failure = Refusal("LC202")
        answer = await site.ask(target("a:1"), "Accept: text/event-stream")
        assert (answer.status, answer.json["code"]) == (503, "LC202")
        assert "retry-after" in answer.headers
        site.reader.failure = RuntimeError("secret detail")
        answer = await site.ask(target("a:1"), "Accept: text/event-stream")
        assert (answer.status, answer.json["code"]) == (500, "LC100")
        assert b"secret" not in answer.body
        assert site.hub.places_taken == 0


async def test_listeners_wait_until_the_feed_has_caught_up() -> None:
    """Before the feed has caught up a listener waits, a while, and is then refused with LC204."""
    async with Site.open(ready_wait_max_s=0.05) as site:
        site.hub.set_ready(False)
        answer = await site.ask(target("a:1"), "Accept: text/event-stream")
        assert (answer.status, answer.json["code"]) == (503, "LC204")
    async with Site.open() as site:
        site.hub.set_ready(False)
        opening = asyncio.create_task(site.stream("a:1"))
        await asyncio.sleep(0)
        site.hub.set_ready()
        assert (await (await opening).frame()).event == "joined"


async def test_too_many_listeners() -> None:
    """Beyond connections_max a listener is refused with LC404; when one leaves another may come."""
    async with Site.open(connections_max=2) as site:
        first, _ = await site.stream("a:1"), await site.stream("a:1")
        answer = await site.ask(target("a:1"), "Accept: text/event-stream")
        assert (answer.status, answer.json["code"]) == (503, "LC404")
        first.close()
        await eventually_async(lambda: site.hub.places_taken == 1)
        await site.stream("a:1")


async def test_drain_tells_everybody_to_come_back() -> None:
    """When the server stops each stream ends with `close` LC209 and a proper end of its body."""
    async with Site.open() as site:
        streams = [await site.stream("a:1") for _ in range(20)]
        site.server.should_exit = True
        for stream in streams:
            close = await stream.next("close")
            assert close.data == {"code": "LC209", "name": "shutting_down", "retry": "now"}
            with pytest.raises(EOFError):
                await stream.frame()


async def test_a_long_history_comes_in_pieces_that_a_slow_reader_can_take() -> None:
    """A history larger than the write buffer reaches a slow reader whole: it is read as fast as it is taken."""
    async with Site.open(
        write_buffer_max_bytes=64 << 10, flush_max_bytes=16 << 10, history_channel_max_bytes=8 << 20
    ) as site:
        start = site.hub.head
        for number in range(600):
            site.feed.publish("a:1", "note", b'[%d,"%b"]' % (number, b"x" * 8000))
        stream = await site.stream("a:1", position=start)
        await stream.frame()
        frames = await stream.until(site.hub.head)
        assert [frame.data[0] for frame in frames if frame.event == "note"] == list(range(600))
        assert site.meter.slow_aborts == 0


async def test_a_state_larger_than_the_write_buffer() -> None:
    """A state of several megabytes opens a stream all the same."""
    async with Site.open(write_buffer_max_bytes=64 << 10) as site:
        site.reader.states = {"a:1": b'"' + b"x" * (6 << 20) + b'"'}
        stream = await site.stream("a:1", state=True)
        assert len((await stream.next("state")).data["state"]) == 6 << 20
        site.feed.publish("a:1", "note", b"1")
        assert (await stream.next("note")).data == 1
        assert site.meter.slow_aborts == 0


async def test_a_reader_that_stops_in_its_history_is_cut() -> None:
    """A listener that takes nothing of its history is aborted after catch_up_wait_max_s; its place is free."""
    async with Site.open(
        write_buffer_max_bytes=64 << 10,
        flush_max_bytes=16 << 10,
        history_channel_max_bytes=32 << 20,
        catch_up_wait_max_s=0.2,
    ) as site:
        start = site.hub.head
        for _ in range(900):
            site.feed.publish("a:1", "note", b'"%b"' % (b"x" * 16_000))
        (await site.stream("a:1", position=start)).stop_reading()
        await eventually_async(lambda: site.meter.slow_aborts == 1)
        await eventually_async(lambda: site.hub.places_taken == 0)


async def test_a_reader_that_stops_reading_is_cut_and_others_are_not() -> None:
    """A reader that stops is aborted at the limit; the others get every event; the memory is given back."""
    async with Site.open(write_buffer_max_bytes=64 << 10) as site:
        (await site.stream("a:1")).stop_reading()
        readers = [await site.stream("a:1") for _ in range(5)]
        events = 0

        async def read_all(index: int) -> None:
            while (await readers[index].next("note")).data[0] < 999:
                pass

        reading = [asyncio.create_task(read_all(index)) for index in range(5)]
        while site.meter.slow_aborts == 0:
            events += 1
            assert events < 5_000, "the stalled reader was never cut"
            site.feed.publish("a:1", "note", b'[0,"%b"]' % (b"x" * 16_000))
            await asyncio.sleep(0.001)
        site.feed.publish("a:1", "note", b"[999]")
        await asyncio.gather(*reading)
        for reader in readers:
            notes = [frame.id for frame in reader.frames if frame.event == "note"]
            assert len(notes) == len(set(notes)) == events + 1
        await eventually_async(lambda: site.meter.connections_handed_over == 5)
        assert site.meter.slow_aborts == 1
