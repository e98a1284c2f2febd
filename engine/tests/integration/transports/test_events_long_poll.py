"""Long-poll over real sockets (spec/protocol.md, 6)."""

from __future__ import annotations

import asyncio
import json

import pytest

from lastcall.event import REVOKED
from lastcall.testing.site import Answer, Site, target
from lastcall.testing.waiting import eventually_async


async def waiting(site: Site, *channels: str, more: str = "", headers: tuple[str, ...] = ()) -> asyncio.Task[Answer]:
    """A poll that waits, at the head."""
    before = site.hub.describe(channels[0])[0]
    poll = asyncio.create_task(site.ask(target(*channels, position=site.hub.head, more=more), *headers))
    await eventually_async(lambda: site.hub.describe(channels[0])[0] > before)
    return poll


async def test_without_a_position_the_head_at_once() -> None:
    """The first question is answered at once, with nothing but a place to go on from."""
    async with Site.open() as site:
        answer = await site.ask(target("a:1"))
        assert answer.json == {"position": str(site.hub.head), "events": []}
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"


async def test_events_after_the_position() -> None:
    """Everything after the position is answered at once, in order, with the head as the next position."""
    async with Site.open() as site:
        first = site.feed.publish("a:1", "note", b"1")
        second = site.feed.publish("b:1", "note", b"2")
        answer = await site.ask(target("a:1", "b:1", position=first))
        assert answer.json == {
            "position": str(site.hub.head),
            "events": [{"id": str(second), "event": "note", "channels": ["b:1"], "data": 2}],
        }


async def test_an_event_wakes_a_poll() -> None:
    """A poll that waits is answered when something comes on one of its channels, not before."""
    async with Site.open() as site:
        poll = await waiting(site, "a:1", "b:1")
        assert site.meter.connections["long_poll"] == 1
        site.feed.publish("c:1", "note", b"0")
        site.feed.publish("b:1", "note", b"1")
        assert [event["data"] for event in (await poll).json["events"]] == [1]
        assert site.meter.connections["long_poll"] == 0


async def test_nothing_comes() -> None:
    """After `wait` seconds the answer is empty, with the head of then; `wait=0` does not wait."""
    async with Site.open() as site:
        start = site.hub.head
        poll = await waiting(site, "a:1", more="wait=1")
        site.feed.publish("z:1", "note", b"0")
        answer = await poll
        assert answer.json == {"position": str(site.hub.head), "events": []}
        assert site.hub.head > start
        assert (await site.ask(target("a:1", position=start, more="wait=0"))).json["events"] == []


async def test_wait_is_bounded() -> None:
    """No poll waits longer than long_poll_wait_max_s, whatever it asks."""
    async with Site.open(long_poll_wait_max_s=0.05) as site:
        assert (await site.ask(target("a:1", position=site.hub.head, more="wait=999"))).status == 200


async def test_resets_and_states() -> None:
    """What cannot be continued is a reset that says why; with `state=true` its state comes along."""
    async with Site.open(history_events_max=2) as site:
        start = site.hub.head
        for number in range(5):
            site.feed.publish("a:1", "note", b"%d" % number)
        site.feed.publish("b:1", "note", b"9")
        site.reader.states = {"a:1": b"[]"}
        answer = (await site.ask(target("a:1", "b:1", position=start))).json
        assert answer["reset"] == [{"channels": ["a:1"], "reason": "history"}]
        assert [event["data"] for event in answer["events"]] == [9]
        assert "states" not in answer
        answer = (await site.ask(target("a:1", "b:1", position=start, state=True))).json
        assert answer["states"] == [{"channel": "a:1", "state": []}]
        assert answer["position"] == str(site.hub.head)
        fresh = (await site.ask(target("a:1", "b:1", state=True))).json
        assert fresh == {
            "position": str(site.hub.head),
            "events": [],
            "states": [{"channel": "a:1", "state": []}],
        }


async def test_a_long_history_is_cut() -> None:
    """An answer holds at most flush_max_bytes; `more` and the last event's position lead to the rest, exactly."""
    async with Site.open(flush_max_bytes=2048) as site:
        position = str(site.hub.head)
        for number in range(40):
            site.feed.publish("a:1", "note", json.dumps([number, "x" * 200]).encode())
        found, answers = [], 0
        while True:
            answer = (await site.ask(target("a:1", position=position, more="wait=0"))).json
            found += [event["data"][0] for event in answer["events"]]
            position = answer["position"]
            answers += 1
            if "more" not in answer:
                break
        assert found == list(range(40))
        assert answers > 3
        assert position == str(site.hub.head)


async def test_a_large_event_is_answered_alone() -> None:
    """One event that is larger than an answer may be is answered all the same."""
    async with Site.open(flush_max_bytes=1024) as site:
        start = site.hub.head
        site.feed.publish("a:1", "note", b'"%b"' % (b"x" * 5000))
        site.feed.publish("a:1", "note", b"2")
        answer = (await site.ask(target("a:1", position=start))).json
        assert len(answer["events"]) == 1
        assert answer["more"] is True


async def test_polling_is_as_exact_as_streaming() -> None:
    """A client that only polls, while events keep coming, has every event once, in order."""
    async with Site.open(flush_max_bytes=4096) as site:
        position = str(site.hub.head)
        found: list[int] = []

        async def poll() -> None:
            nonlocal position
            while len(found) < 500:
                answer = (await site.ask(target("a:1", "b:1", position=position))).json
                assert "reset" not in answer
                found.extend(event["data"] for event in answer["events"])
                position = answer["position"]

        polling = asyncio.create_task(poll())
        for number in range(500):
            site.feed.publish("a:1" if number % 3 else "b:1", "note", b"%d" % number)
            if number % 7 == 0:
                await asyncio.sleep(0.001)
        await polling
        assert found == list(range(500))


async def test_a_live_reset_is_among_the_events() -> None:
    """A reset of the feed comes in its place, with its position and reason."""
    async with Site.open() as site:
        start = site.hub.head
        transaction = site.feed.transaction((["a:1", "b:1"], "reset", b'{"reason":"truncate"}'))
        site.hub.deliver([transaction])
        answer = (await site.ask(target("a:1", position=start))).json
        assert answer["events"] == [
            {
                "id": str(transaction.events[0].position),
                "event": "reset",
                "data": {"channels": ["a:1"], "reason": "truncate"},
            }
        ]


async def test_a_reset_of_everything_wakes() -> None:
    """A poll that waits when everything is reset is told so at once."""
    async with Site.open() as site:
        poll = await waiting(site, "a:1")
        site.hub.reset_all("schema")
        assert (await poll).json["reset"] == [{"channels": ["a:1"], "reason": "history"}]


async def test_a_subject_that_loses_its_channels() -> None:
    """A revocation ends the wait: without any channel left with LC305, else with what the others have."""
    async with Site.open() as site:
        header = f"Authorization: Bearer {site.token('ann')}"
        alone = await waiting(site, "a:1", headers=(header,))
        both = await waiting(site, "b:1", "a:1", headers=(header,))
        site.hub.deliver(
            [
                site.feed.transaction((["a:1"], REVOKED, b"{}"), subject="ann"),
                site.feed.transaction((["a:1"], "note", b"1")),
            ]
        )
        answer = await alone
        assert (answer.status, answer.json["code"]) == (403, "LC305")
        assert (await both).json["events"] == []


async def test_a_poll_ends_with_its_token() -> None:
    """A poll does not wait beyond the end of its token."""
    async with Site.open() as site:
        header = f"Authorization: Bearer {site.token('ann', 0.3)}"
        answer = await site.ask(target("a:1", position=site.hub.head, more="wait=25"), header)
        assert answer.status == 200


async def test_a_client_that_goes_away_gives_its_place_back() -> None:
    """A poll whose client leaves is forgotten at once."""
    async with Site.open() as site:
        connection = await site.connect()
        connection.send(site.request(target("a:1", position=site.hub.head)))
        await eventually_async(lambda: site.hub.describe("a:1")[0] == 1)
        connection.close()
        await eventually_async(lambda: site.hub.places_taken == 0)
        assert site.hub.describe("a:1")[0] == 0


async def test_polls_on_one_connection() -> None:
    """Polls may follow each other on a connection that is kept."""
    async with Site.open() as site:
        connection = await site.connect()
        for number in range(3):
            start = site.hub.head
            site.feed.publish("a:1", "note", b"%d" % number)
            connection.send(site.request(target("a:1", position=start)))
            assert [event["data"] for event in (await connection.answer()).json["events"]] == [number]


async def test_drain_answers() -> None:
    """When the server stops, polls are answered with where to go on from."""
    async with Site.open() as site:
        poll = await waiting(site, "a:1")
        site.server.should_exit = True
        assert (await poll).json == {"position": str(site.hub.head), "events": []}


@pytest.mark.parametrize("subject", ["ann", None])
async def test_forbidden(subject: str | None) -> None:
    """Authorised like a stream."""
    async with Site.open() as site:
        site.reader.forbidden = {subject: {"a:1"}}
        headers = [f"Authorization: Bearer {site.token(subject)}"] if subject else []
        answer = await site.ask(target("a:1"), *headers)
        assert (answer.status, answer.json["code"]) == (403, "LC305")
