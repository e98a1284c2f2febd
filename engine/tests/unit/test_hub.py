"""The hub: every listener each event once, in order, or a reset. Directed cases; see also test_hub_joining,
test_hub_property."""

from __future__ import annotations

import pytest

from lastcall.errors import Refusal
from lastcall.event import REVOKED
from lastcall.hub import Subscriber, Waiter
from lastcall.position import Position
from lastcall.testing.hub_world import Ear, World, plain
from lastcall.wire.encoding import SSE_CHUNKED, SSE_PLAIN, WEBSOCKET, Encoding


def test_an_idle_hub_flushes_in_the_same_turn() -> None:
    """What comes to an idle hub is written before `deliver` returns."""
    world = World()
    ear = world.join(["a:1"])
    world.publish(["a:1"])
    assert ear.heard() == [1]


def test_what_comes_during_a_flush_leaves_joined() -> None:
    """Events that come soon after a long flush share one write, at the latest after flush_wait_max_ms."""
    world = World(flush_wait_max_ms=5.0)
    ears = [world.join(["a:1"]) for _ in range(20)]
    world.publish(["a:1"])
    for _ in range(10):
        world.publish(["a:1"])
    assert [ear.writes for ear in ears] == [1] * 20
    world.time.run(0.0051)
    assert [ear.writes for ear in ears] == [2] * 20
    assert all(ear.heard() == list(range(1, 12)) for ear in ears)


def test_a_long_flush_gives_way_to_other_work() -> None:
    """A flush to many takes several turns of at most flush_turn_max_ms; what comes meanwhile leaves with the next."""
    world = World(flush_turn_max_ms=9.5, write_s=0.001, batch=5)
    ears = [world.join(["a:1"]) for _ in range(100)]
    world.publish(["a:1"])
    assert sum(len(ear.frames) for ear in ears) == 10
    world.publish(["a:1"])
    other = world.join(["a:1"])
    assert sum(len(ear.frames) for ear in ears) == 10
    world.settle()
    assert all(ear.heard() == [1, 2] for ear in ears)
    assert all(ear.writes - len(ear.named("heartbeat")) == 2 for ear in ears)
    assert other.heard() == []


def test_members_come_and_go_during_a_flush() -> None:
    """Who leaves during a flush is not written to, who changes is given its part first, who joins is not given it."""
    world = World(flush_turn_max_ms=0.5, batch=1)
    ears = [world.join(["a:1"]) for _ in range(10)]
    start = world.hub.head
    world.publish(["a:1"])
    waiting = [ear for ear in ears if not ear.frames]
    assert len(waiting) == 9
    world.hub.leave(waiting[0])
    world.subscribe(waiting[1], ["b:1"])
    assert waiting[1].heard() == [1]
    late, fresh = world.join(["a:1"], start), world.join(["a:1"])
    assert late.heard() == [1]
    world.publish(["a:1", "b:1"])
    world.settle()
    world.settle()
    assert waiting[0].frames == []
    assert fresh.heard() == [2]
    for ear in [*ears, late]:
        if not ear.gone:
            assert ear.heard() == [1, 2]


def test_a_new_round_waits_for_the_one_before() -> None:
    """When a listener that changes makes a new round begin, everybody is given the old one first."""
    world = World(flush_turn_max_ms=0.5, batch=1)
    ears = [world.join(["a:1"]) for _ in range(10)]
    world.publish(["a:1"])
    world.publish(["a:1"])
    world.hub.drop(ears[3], ["a:1"])
    assert ears[3].heard() == [1, 2]
    assert all(ear.heard() in ([1], [1, 2]) for ear in ears)
    world.settle()
    assert all(ear.heard() == [1, 2] for ear in ears)


def test_order_across_channels_is_position_order() -> None:
    """A listener of several channels hears them in the order of positions, whatever channel is written to first."""
    world = World()
    ear = world.join(["b:1", "a:1"])
    world.publish(["a:1"], ["b:1"], ["a:1"], ["b:1", "a:1"])
    assert [frame.id for frame in ear.frames] == sorted(frame.id for frame in ear.frames if frame.id)
    assert ear.heard() == [1, 2, 3, 4]


def test_an_event_on_two_channels_is_heard_once_with_the_listeners_own_channels() -> None:
    """One event is one frame, and names no channel that the listener does not listen on."""
    world = World()
    both, one = world.join(["a:1", "b:1"]), world.join(["b:1"])
    world.publish(["a:1", "b:1", "c:1"])
    assert [frame.channels for frame in both.frames] == [("a:1", "b:1")]
    assert [frame.channels for frame in one.frames] == [("b:1",)]


def test_an_event_is_encoded_once_per_encoding_and_visible_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred listeners cost one encoding."""
    world = World()
    for encoding in (SSE_PLAIN, SSE_CHUNKED, WEBSOCKET):
        for _ in range(100):
            world.hub.join(world.joiner(["a:1"], encoding=encoding), _Mute(encoding, None))
    encoded: list[str] = []
    whole = Encoding.event
    monkeypatch.setattr(Encoding, "event", lambda *args, **more: encoded.append("") or whole(*args, **more))
    world.publish(["a:1"])
    assert len(encoded) == 3
    assert world.meter.deliveries == 300


class _Mute(Subscriber):
    def writer(self):  # type: ignore[no-untyped-def]
        return bool

    def end(self, code):  # type: ignore[no-untyped-def]
        """Nobody ends it."""

    def abort(self):  # type: ignore[no-untyped-def]
        """Nobody aborts it."""


def test_resume_gives_what_came_after_the_position_then_live() -> None:
    """A listener that comes back gets the stretch it missed, once, and goes on."""
    world = World()
    world.publish(["a:1"])
    at = world.publish(["a:1"]).events[0].position
    world.publish(["a:1"], ["b:1"], ["a:1"])
    ear = world.join(["a:1"], at)
    assert ear.heard() == [3, 5]
    assert ear.frames[-1].event == "heartbeat"
    assert ear.position == world.hub.head
    world.publish(["a:1"])
    assert ear.heard() == [3, 5, 6]


def test_a_head_position_resumes_with_everything_after_it() -> None:
    """`S.0` means everything that commits before S: the transaction that commits at S comes after it."""
    world = World()
    world.publish(["a:1"])
    head = world.hub.head
    commit = world.publish(["a:1"])
    assert commit.commit_lsn == head.lsn  # the end of one transaction is the commit of the next
    assert world.join(["a:1"], head).heard() == [2]


@pytest.mark.parametrize(
    ("position", "reason"),
    [(Position("e9", 110, 0), "epoch"), (Position("e0", 10_000, 0), "future"), (Position("e0", 99, 0), "history")],
)
def test_positions_that_cannot_be_continued_lead_to_reset(position: Position, reason: str) -> None:
    """A position of another epoch, beyond the head or before the floor is a reset that says why, then live."""
    world = World()
    world.publish(["a:1"])
    ear = world.join(["a:1"], position)
    assert [(frame.data["channels"], frame.data["reason"], frame.id) for frame in ear.named("reset")] == [
        (["a:1"], reason, None)
    ]
    assert ear.heard() == []
    world.publish(["a:1"])
    assert ear.heard() == [2]


def test_reset_names_the_channels_not_the_connection() -> None:
    """Where one of two channels has forgotten too much, the other goes on without a gap."""
    world = World(history_events_max=2)
    start = world.hub.head
    for _ in range(5):
        world.publish(["a:1"])
    world.publish(["b:1"])
    ear = world.join(["a:1", "b:1"], start)
    assert [frame.data["channels"] for frame in ear.named("reset")] == [["a:1"]]
    assert ear.heard() == [6]


def test_history_comes_in_pieces_and_the_floor_is_looked_at_again() -> None:
    """A slow reader of a long history gets pieces; what was forgotten meanwhile is a reset, not a gap."""
    world = World(history_events_max=8, flush_max_bytes=1024)
    start = world.hub.head
    for _ in range(8):
        world.publish(["a:1"], filler="x" * 400)
    joiner = world.joiner(["a:1"], start)
    ear = Ear(world)
    piece = joiner.piece()
    assert piece is not None
    assert len(piece) < 2048
    ear.write(piece)
    for _ in range(20):
        world.publish(["a:1"], filler="x" * 400)
    world.take_in(ear, joiner)
    numbers = [data[0] for data in ear.heard()]
    resets = ear.named("reset")
    assert numbers == [*range(1, 9)]
    assert [frame.data["reason"] for frame in resets] == ["history"]
    world.publish(["a:1"])
    assert ear.heard()[-1] == 29


def test_a_flush_is_cut_and_the_rest_follows() -> None:
    """More than flush_max_bytes leaves in several writes, in order, nothing lost."""
    world = World(flush_max_bytes=1024, write_buffer_max_bytes=4096)
    ear = world.join(["a:1"])
    world.publish(*[["a:1"]] * 20, filler="x" * 300)
    assert ear.writes > 1
    world.settle()
    assert [data[0] for data in ear.heard()] == list(range(1, 21))


def test_what_waits_is_bounded() -> None:
    """Beyond write_buffer_max_bytes nothing waits in the hub: it is written, and slow readers are cut by it."""
    world = World(flush_max_bytes=1024, write_buffer_max_bytes=2048)
    ear = world.join(["a:1"])
    world.publish(*[["a:1"]] * 100, filler="x" * 300)
    assert ear.interest is not None
    assert sum(len(block) for block in ear.interest.pending) <= 2048


def test_a_gone_connection_does_not_disturb_others() -> None:
    """A writer that raises is passed over; every other member is written to exactly once."""
    world = World()
    ears = [world.join(["a:1"]) for _ in range(5)]
    ears[2].broken = True
    world.publish(["a:1"])
    world.settle()
    assert [ear.heard() for ear in ears] == [[1], [1], [], [1], [1]]


def test_heartbeats_tell_the_head_to_everybody_within_the_interval() -> None:
    """Every member gets one heartbeat per interval, with an id that is the head, after everything before it."""
    world = World(heartbeat_interval_s=15.0)
    ears = [world.join(["a:1"]) for _ in range(100)]
    world.hub.advance(Position("e0", 500, 0))
    world.time.run(15.1)
    assert {len(ear.named("heartbeat")) for ear in ears} == {1}
    assert {ear.position for ear in ears} == {Position("e0", 500, 0)}
    assert world.meter.heartbeats == 100


def test_a_heartbeat_never_overtakes_a_pending_event() -> None:
    """A heartbeat's id promises everything before it, so pending events are written first."""
    world = World(heartbeat_interval_s=0.01, flush_wait_max_ms=1000.0)
    ears = [world.join(["a:1"]) for _ in range(200)]
    world.publish(["a:1"])
    world.publish(["a:1"])
    world.time.run(2.0)
    for ear in ears:
        ids = [frame.id for frame in ear.frames if frame.id is not None]
        assert ids == sorted(ids)
        assert ear.heard() == [1, 2]


def test_heartbeats_keep_quiet_channels_above_the_floor() -> None:
    """A listener of a quiet channel resumes from its last heartbeat although busy channels have forgotten much."""
    world = World(history_events_max=3, heartbeat_interval_s=1.0)
    quiet = world.join(["quiet:1"])
    for _ in range(50):
        world.publish(["busy:1"])
    world.time.run(1.1)
    position = quiet.position
    assert position == world.hub.head
    world.hub.leave(quiet)
    world.publish(["busy:1"], ["quiet:1"])
    back = world.join(["quiet:1"], position)
    assert back.named("reset") == []
    assert back.heard() == [52]


def test_a_waiter_is_woken_by_its_channels_only() -> None:
    """A long-poll wakes after the flush of an event of its channels, once."""
    world = World()
    woken: list[str] = []
    waiter = Waiter(["a:1", "b:1"], "ann", lambda: woken.append("ann"))
    world.hub.wait(waiter)
    world.publish(["c:1"])
    assert woken == []
    world.publish(["a:1", "b:1"])
    world.settle()
    assert woken == ["ann"]
    assert world.hub.describe("a:1")[0] == 1
    world.hub.unwait(waiter)
    world.hub.unwait(waiter)
    world.publish(["a:1"])
    world.settle()
    assert woken == ["ann"]
    assert world.hub.describe("a:1")[0] == 0


def test_a_waiter_is_woken_when_its_subject_loses_a_channel() -> None:
    """A revocation ends a long-poll's wait, and is noted."""
    world = World()
    woken: list[str] = []
    waiter = Waiter(["a:1"], "ann", lambda: woken.append("ann"))
    world.hub.wait(waiter)
    world.publish(plain(REVOKED, ["a:1"], {}, subject="bob"))
    world.settle()
    assert woken == []
    world.publish(plain(REVOKED, ["a:1"], {}, subject="ann"))
    world.settle()
    assert woken == ["ann"]
    assert waiter.revoked == {"a:1"}


def test_drain_gives_what_is_pending_and_ends_every_stream() -> None:
    """At the end of a node everybody has everything, and is told to come back; nobody comes in any more."""
    world = World()
    ears = [world.join(["a:1"]) for _ in range(10)]
    world.publish(["a:1"])
    world.publish(["a:1"])
    waiting = world.join(["a:1"])
    world.hub.drain()
    assert all(ear.heard() == [1, 2] for ear in ears)
    assert {ear.ended.number for ear in [*ears, waiting] if ear.ended} == {"LC209"}
    assert all(ear.ended for ear in [*ears, waiting])
    assert world.hub.places_taken == 0
    with pytest.raises(Refusal) as caught:
        world.hub.reserve(None)
    assert caught.value.code.number == "LC209"
    world.hub.stop()
    world.hub.stop()


def test_describe_tells_listeners_head_and_floor() -> None:
    """Operators see how many listen, and from where a channel can be resumed."""
    world = World(history_events_max=1)
    world.join(["a:1"])
    world.join(["a:1", "b:1"])
    first = world.publish(["a:1"]).events[0].position
    world.publish(["a:1"])
    assert world.hub.describe("a:1") == (2, world.hub.head, first)
    assert world.hub.describe("z:1") == (0, world.hub.head, Position("e0", 100, 0))


def test_ready_is_told_once() -> None:
    """Whoever waits for the feed to have caught up is called when it has."""
    world = World()
    world.hub.set_ready(False)
    called: list[int] = []
    world.hub.when_ready(lambda: called.append(1))
    assert called == []
    world.hub.set_ready()
    world.hub.set_ready()
    world.hub.when_ready(lambda: called.append(2))
    assert called == [1, 2]


def test_the_meter_counts_deliveries() -> None:
    """A delivery is one event to one listener, joined or not."""
    world = World()
    for _ in range(3):
        world.join(["a:1"])
    world.publish(["a:1"], ["a:1"])
    world.settle()
    assert world.meter.deliveries == 6
    assert world.meter.flushes == 1
    assert sum(world.meter.commit_to_write.counts) == 1
