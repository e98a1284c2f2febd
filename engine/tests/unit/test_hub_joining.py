"""The hub: who comes in, changes what it hears, loses a channel or is reset, misses nothing and hears nothing twice."""

from __future__ import annotations

import pytest

from lastcall.errors import Refusal
from lastcall.event import RESET, REVOKED
from lastcall.hub import Hub, Joiner, Subscriber
from lastcall.position import Position
from lastcall.testing.hub_world import Ear, World, plain


def _join_while_pending(world: World) -> Ear:
    """A listener that resumes between an event and its flush."""
    for _ in range(10):
        world.join(["a:1"])
    start = world.hub.head
    world.publish(["a:1"])
    world.publish(["a:1"])  # waits for the quiet time after the first flush
    ear = world.join(["a:1"], start)
    world.publish(["a:1"])
    world.settle()
    return ear


def test_a_joiner_waits_for_the_pending_flush() -> None:
    """Whoever joins while events are pending hears them once: as history, after the members were given them."""
    assert _join_while_pending(World()).heard() == [1, 2, 3]


def test_mutation_without_the_joining_queue_events_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admitting at once, without waiting for the pending flush, is found out."""

    def join_at_once(hub: Hub, joiner: Joiner, subscriber: Subscriber) -> bool:
        joiner.subscriber = subscriber
        joiner.target = hub._interests.of(joiner.encoding, subscriber.channels.union(joiner.starts))
        hub._admit(joiner)
        return True

    monkeypatch.setattr(Hub, "join", join_at_once)
    with pytest.raises(AssertionError):
        assert _join_while_pending(World()).heard() == [1, 2, 3]


def test_a_place_is_kept_from_the_reservation_on() -> None:
    """Nothing that is delivered between `reserve` and `join` is missed."""
    world = World()
    reservation = world.hub.reserve(None)
    start = world.hub.head
    world.publish(["a:1"])
    joiner = world.joiner(["a:1"], start, reservation=reservation)
    world.publish(["a:1"])
    ear = Ear(world)
    world.take_in(ear, joiner)
    assert ear.heard() == [1, 2]


def test_a_reset_of_the_feed_is_told_live_and_in_history() -> None:
    """A `reset` event reaches listeners at its position, with their own channels, and those who come later too."""
    world = World()
    start = world.hub.head
    ear = world.join(["a:1", "b:1"])
    world.publish(["a:1"], plain(RESET, ["a:1", "c:1"], {"reason": "truncate"}), ["a:1"])
    late = world.join(["a:1"], start)
    for one in (ear, late):
        [reset] = one.named("reset")
        assert reset.data == {"channels": ["a:1"], "reason": "truncate"}
        assert one.heard() == [1, 2]
        assert reset.id is not None


def test_revocation_takes_effect_in_stream_order() -> None:
    """The subject gets what was before the revocation, the frame `revoked`, and nothing of the channel after it."""
    world = World()
    ear = world.join(["a:1", "b:1"], subject="ann")
    other = world.join(["a:1", "b:1"], subject="bob")
    world.publish(["a:1"], plain(REVOKED, ["a:1"], {}, subject="ann"), ["a:1"], ["b:1"])
    assert ear.heard() == [1, 3]
    [revoked] = ear.named("revoked")
    assert revoked.data == {"channels": ["a:1"]}
    assert revoked.id is not None
    assert [frame.event for frame in ear.frames] == ["note", "revoked", "note"]
    assert other.heard() == [1, 2, 3]
    assert other.named("revoked") == []


def test_revocation_of_the_last_channel_ends_the_stream() -> None:
    """Whoever hears nothing any more is told LC305."""
    world = World()
    ear = world.join(["a:1"], subject="ann")
    world.publish(plain(REVOKED, ["a:1"], {}, subject="ann"))
    assert ear.ended is not None
    assert ear.ended.number == "LC305"
    assert world.hub.places_taken == 0


def test_revocation_while_a_listener_is_on_its_way_in() -> None:
    """A revocation between `reserve` and `join` is not missed."""
    world = World()
    reservation = world.hub.reserve("ann")
    joiner = world.joiner(["a:1", "b:1"], world.hub.head, reservation=reservation)
    world.publish(["a:1"], plain(REVOKED, ["a:1"], {}, subject="ann"), ["a:1"], ["b:1"])
    ear = Ear(world, "ann")
    world.take_in(ear, joiner)
    world.publish(["a:1"], ["b:1"])
    assert ear.heard() == [3, 5]
    assert [frame.data for frame in ear.named("revoked")] == [{"channels": ["a:1"]}]
    assert ear.channels == {"b:1"}


def test_revocation_while_waiting_for_the_pending_flush() -> None:
    """The same for a joiner that waits in the queue."""
    world = World()
    for _ in range(10):
        world.join(["a:1"])
    start = world.hub.head
    world.publish(["a:1"])
    world.publish(["a:1"])
    ear = world.join(["a:1"], start, subject="ann")
    assert not ear.channels
    world.publish(plain(REVOKED, ["a:1"], {}, subject="ann"), ["a:1"])
    world.settle()
    assert ear.heard() == [1, 2]
    assert ear.ended is not None


def test_a_new_epoch_resets_everybody() -> None:
    """After a new epoch each listener has a reset with a position of it, and goes on; old positions are resets."""
    world = World()
    ear = world.join(["a:1"])
    world.publish(["a:1"])
    old = ear.position
    world.epoch, world.lsn = "e1", 50
    world.hub.begin("e1", Position("e1", 50, 0))
    world.settle()
    [reset] = ear.named("reset")
    assert (reset.data["reason"], reset.id) == ("epoch", Position("e1", 50, 0))
    world.publish(["a:1"])
    world.settle()
    assert ear.heard() == [1, 2]
    assert [frame.data["reason"] for frame in world.join(["a:1"], old).named("reset")] == ["epoch"]
    assert world.join(["a:1"], reset.id).heard() == [2]


def test_the_same_epoch_again_delivers_nothing_twice() -> None:
    """A feed that starts over in the same epoch and delivers a stretch again is not heard twice."""
    world = World()
    ear = world.join(["a:1"])
    first, second = world.publish(["a:1"]), world.publish(["a:1"])
    world.settle()
    world.hub.begin("e0", Position("e0", 100, 0))
    world.hub.deliver([first, second, world.transaction(["a:1"])])
    world.settle()
    assert ear.heard() == [1, 2, 3]
    assert ear.named("reset") == []


def test_a_floor_beyond_the_head_is_a_reset() -> None:
    """When a feed cannot continue where the hub stopped, everybody is told."""
    world = World()
    ear = world.join(["a:1"])
    world.hub.begin("e0", Position("e0", 900, 0))
    world.settle()
    assert [frame.data["reason"] for frame in ear.named("reset")] == ["history"]


def test_reset_all_reaches_those_who_come_back_with_the_very_head() -> None:
    """The position alone does not say whether its owner saw the reset, so it is told again rather than missed."""
    world = World()
    gone = world.join(["a:1"])
    world.time.run(20)
    world.hub.leave(gone)
    world.hub.reset_all("schema")
    back = world.join(["a:1"], gone.position)
    assert len(back.named("reset")) == 1
    world.publish(["a:1"])
    assert world.join(["a:1"], world.hub.head).named("reset") == []


def test_reset_kinds_concerns_the_channels_of_these_kinds_only() -> None:
    """A changed watch resets its channels, for those who listen, who are on their way in and who come back."""
    world = World()
    ear = world.join(["a:1", "b:1"])
    reservation = world.hub.reserve(None)
    joiner = world.joiner(["a:2", "b:1"], world.hub.head, reservation=reservation)
    before = world.hub.head
    world.publish(["b:1"])
    world.hub.reset_kinds(frozenset({"a"}), "schema")
    world.settle()
    coming = Ear(world)
    world.take_in(coming, joiner)
    assert [frame.data for frame in ear.named("reset")] == [{"channels": ["a:1"], "reason": "schema"}]
    assert [frame.data for frame in coming.named("reset")] == [{"channels": ["a:2"], "reason": "schema"}]
    back = world.join(["a:9", "b:1"], before)
    assert [frame.data for frame in back.named("reset")] == [{"channels": ["a:9"], "reason": "history"}]
    assert ear.heard() == coming.heard() == back.heard() == [1]


def test_reset_all_while_a_listener_is_on_its_way_in() -> None:
    """A reset between `reserve` and `join` is told to the joiner."""
    world = World()
    reservation = world.hub.reserve(None)
    joiner = world.joiner(["a:1"], world.hub.head, reservation=reservation)
    world.hub.reset_all("schema")
    ear = Ear(world)
    world.take_in(ear, joiner)
    assert [frame.data for frame in ear.named("reset")] == [{"channels": ["a:1"], "reason": "schema"}]


def test_subscribe_brings_history_without_ids_and_labelled_with_the_new_channels() -> None:
    """A later subscribe gives each new channel's events once, and does not move the listener's position back."""
    world = World()
    start = world.hub.head
    ear = world.join(["a:1"])
    world.publish(["a:1", "b:1"])
    world.publish(["b:1"])
    world.settle()
    before = len(ear.frames)
    world.subscribe(ear, ["b:1"], start)
    frames = ear.frames[before:]
    assert [(frame.id, frame.channels, frame.data) for frame in frames[:-1]] == [
        (None, ("b:1",), 1),
        (None, ("b:1",), 2),
    ]
    assert (frames[-1].event, frames[-1].id) == ("heartbeat", world.hub.head)
    world.publish(["a:1", "b:1"])
    assert ear.frames[-1].channels == ("a:1", "b:1")


def test_subscribe_while_events_are_pending_in_both_interests() -> None:
    """A listener that moves to a larger interest hears pending events of both once."""
    world = World()
    for _ in range(10):
        world.join(["a:1"])
        world.join(["a:1", "b:1"])
    ear = world.join(["a:1"])
    world.publish(["a:1"], ["b:1"])
    world.publish(["a:1"], ["b:1"])
    world.subscribe(ear, ["b:1"])
    world.publish(["a:1"], ["b:1"])
    world.settle()
    assert ear.heard("a:1") == [1, 3, 5]
    assert ear.heard("b:1") == [6]


def test_drop_gives_everything_so_far_and_nothing_after() -> None:
    """An unsubscribe takes effect at once, without losing what was pending."""
    world = World()
    for _ in range(10):
        world.join(["b:1"])
    ear = world.join(["a:1", "b:1"])
    world.publish(["a:1"], ["b:1"])
    world.publish(["a:1"], ["b:1"])
    world.hub.drop(ear, ["a:1"])
    world.publish(["a:1"], ["b:1"])
    world.settle()
    assert ear.heard() == [1, 2, 3, 4, 6]
    assert ear.channels == {"b:1"}


def test_a_listener_that_leaves_while_it_waits_is_forgotten() -> None:
    """A joiner whose connection goes away in the queue leaves nothing behind."""
    world = World()
    members = [world.join(["a:1"]) for _ in range(10)]
    world.publish(["a:1"])
    world.publish(["a:1"])
    ear = world.join(["a:1"])
    world.hub.leave(ear)
    world.settle()
    for member in members:
        world.hub.leave(member)
    assert ear.frames == []
    assert world.hub.places_taken == 0
    assert world.hub.describe("a:1")[0] == 0
    assert not world.hub._interests._by_key
    assert not world.hub._interests._on_channel
    assert not world.hub._reservations


def test_places_are_bounded() -> None:
    """Beyond connections_max a listener is refused with LC404; a place given back can be taken again."""
    world = World(connections_max=2)
    first = world.join(["a:1"])
    reservation = world.hub.reserve(None)
    with pytest.raises(Refusal) as caught:
        world.hub.reserve(None)
    assert caught.value.code.number == "LC404"
    world.hub.release(reservation)
    world.hub.release(reservation)
    world.hub.leave(first)
    world.hub.leave(first)
    assert world.hub.places_taken == 0
    world.hub.reserve(None)
    world.hub.reserve(None)
