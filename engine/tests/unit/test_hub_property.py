"""The hub under random interleavings: each listener has, of each channel, exactly the events after where it joined, in
order, once; or a reset that says from where on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from lastcall.event import RESET, REVOKED
from lastcall.hub import Hub, Interest, Joiner, Subscriber
from lastcall.hub.history import History
from lastcall.hub.rounds import Round, Rounds
from lastcall.position import Position
from lastcall.testing.hub_world import Ear, World, plain

CHANNELS = ["a:1", "b:1", "c:1", "d:1"]
channels = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True)
subjects = st.sampled_from(["ann", "bob", None])


@dataclass
class Expected:
    """What a listener must have of one channel: everything in (start, end]; end None: up to now.

    early: it may have some of what is right before `start` too: a reset in catch-up was decided before it was written.
    """

    start: Position
    end: Position | None = None
    early: bool = False


@dataclass
class Kept:
    """A listener, and what is asked of it.

    stretches: per channel, what it must have heard, one entry per subscription or reset.
    seen: how many of its frames were looked at.
    """

    ear: Ear
    stretches: dict[str, list[Expected]] = field(default_factory=dict)
    got: dict[str, list[list[int]]] = field(default_factory=dict)
    seen: int = 0

    def begin(self, channel: str, start: Position, early: bool = False) -> None:
        """From here on the channel must be complete."""
        self.close(channel, None)
        self.stretches.setdefault(channel, []).append(Expected(start, early=early))
        self.got.setdefault(channel, []).append([])

    def close(self, channel: str, end: Position | None) -> None:
        """The current stretch ends; after a reset, wherever it had come to (None)."""
        if self.stretches.get(channel) and self.stretches[channel][-1].end is None:
            self.stretches[channel][-1].end = end or Position("~", 0, 0)


class HubMachine(RuleBasedStateMachine):
    """Random life of a hub with small bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            write_s=0.01,  # long against flush_wait_max_ms: nearly everything comes while events are pending
            batch=1,  # rounds take many turns
            history_events_max=6,
            flush_max_bytes=1024,
            write_buffer_max_bytes=2048,
            heartbeat_interval_s=1.0,
        )
        self.kept: list[Kept] = []
        self.coming: list[tuple[Kept, Joiner]] = []
        self.positions: list[Position] = [self.world.hub.head]
        self.epochs = 0
        for chosen in [["a:1"]] * 3 + [["a:1", "b:1"]] * 3:
            self.start_joining(chosen, "ann", None)
            self.finish_joining(0)

    # What the feed does

    @rule(events=st.lists(channels, min_size=0, max_size=4), long=st.booleans())
    def deliver(self, events: list[list[str]], long: bool) -> None:
        transaction = self.world.transaction(*events, filler="x" * 200 if long else "")
        self.world.hub.deliver([transaction])
        self.positions += [event.position for event in transaction.events] + [self.world.hub.head]

    @rule(batch=st.lists(st.lists(channels, min_size=1, max_size=2), min_size=1, max_size=5))
    def deliver_many(self, batch: list[list[list[str]]]) -> None:
        self.world.hub.deliver([self.world.transaction(*events) for events in batch])
        self.positions.append(self.world.hub.head)

    @rule()
    def advance(self) -> None:
        self.world.lsn += 10
        self.world.hub.advance(Position(self.world.epoch, self.world.lsn, 0))
        self.positions.append(self.world.hub.head)

    @rule(channel=st.sampled_from(CHANNELS), before=channels, after=channels)
    def reset_channel(self, channel: str, before: list[str], after: list[str]) -> None:
        self.world.publish(before, plain(RESET, [channel], {"reason": "truncate"}), after)

    @rule(lost=channels, before=channels, after=channels)
    def revoke(self, lost: list[str], before: list[str], after: list[str]) -> None:
        self.world.publish(before, plain(REVOKED, lost, {}, subject="ann"), after)

    @rule()
    def new_epoch(self) -> None:
        self.epochs += 1
        self.world.epoch, self.world.lsn = f"e{self.epochs}", 100
        self.world.hub.begin(self.world.epoch, Position(self.world.epoch, 100, 0))
        self.positions.append(self.world.hub.head)

    @rule()
    def reset_all(self) -> None:
        self.world.hub.reset_all("schema")

    @rule(kinds=st.frozensets(st.sampled_from(["a", "b"]), min_size=1))
    def reset_kinds(self, kinds: frozenset[str]) -> None:
        self.world.hub.reset_kinds(kinds, "schema")

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.004, 0.05, 1.1]))
    def pass_time(self, seconds: float) -> None:
        self.world.time.run(seconds)

    # What listeners do

    @rule(chosen=channels, subject=subjects, back=st.none() | st.integers(1, 12))
    def start_joining(self, chosen: list[str], subject: str | None, back: int | None) -> None:
        position = None if back is None else self.positions[-min(back, len(self.positions))]
        kept = Kept(Ear(self.world, subject))
        joiner = self.world.joiner(chosen, position, subject)
        for channel, start in joiner.starts.items():
            kept.begin(channel, start)
        self.kept.append(kept)
        self.coming.append((kept, joiner))

    @rule(data=st.data())
    def write_piece(self, data: st.DataObject) -> None:
        if self.coming:
            kept, joiner = data.draw(st.sampled_from(self.coming))
            piece = joiner.piece()
            if piece is not None:
                kept.ear.write(piece)

    @rule(index=st.integers(0, 9))
    def finish_joining(self, index: int) -> None:
        if self.coming:
            kept, joiner = self.coming.pop(index % len(self.coming))
            self.world.take_in(kept.ear, joiner)

    @rule(data=st.data(), chosen=channels, back=st.none() | st.integers(1, 8))
    def subscribe(self, data: st.DataObject, chosen: list[str], back: int | None) -> None:
        members = [kept for kept in self.kept if kept.ear.interest is not None]
        if members:
            kept = data.draw(st.sampled_from(members))
            new = [channel for channel in chosen if channel not in kept.ear.channels]
            position = None if back is None else self.positions[-min(back, len(self.positions))]
            if new and not self._waits(kept.ear):
                joiner = self.world.joiner(new, position, kept.ear.subject, ids=False, counts=False)
                for channel, start in joiner.starts.items():
                    kept.begin(channel, start)
                self.world.take_in(kept.ear, joiner)

    @rule(data=st.data(), chosen=channels)
    def unsubscribe(self, data: st.DataObject, chosen: list[str]) -> None:
        members = [kept for kept in self.kept if kept.ear.interest is not None and not self._waits(kept.ear)]
        if members:
            kept = data.draw(st.sampled_from(members))
            now = max([self.world.hub.head, *(event.position for event in self.world.events[-1:])])
            dropped = kept.ear.channels.intersection(chosen)
            self.world.hub.drop(kept.ear, chosen)
            self._look(kept)
            for channel in dropped:
                kept.close(channel, now)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        members = [kept for kept in self.kept if kept.ear.interest is not None]
        if members:
            kept = data.draw(st.sampled_from(members))
            self.world.hub.leave(kept.ear)
            self._look(kept)
            self.kept.remove(kept)

    def _waits(self, ear: Ear) -> bool:
        return any(
            joiner.subscriber is ear for interest in self.world.hub._interests.all() for joiner in interest.joining
        )

    # What must hold

    def _look(self, kept: Kept) -> None:
        """Sort new frames into the stretches of their channels."""
        for frame in kept.ear.frames[kept.seen :]:
            if frame.event == "reset":
                for channel in frame.data["channels"]:
                    kept.begin(channel, frame.id or frame.head, early=frame.id is None)
            elif frame.event == "revoked":
                for channel in frame.data["channels"]:
                    kept.close(channel, frame.id)
            elif frame.event == "note":
                for channel in frame.channels:
                    number = frame.data[0] if isinstance(frame.data, list) else frame.data
                    kept.got[channel][-1].append(number)
        kept.seen = len(kept.ear.frames)

    def _numbers(self, channel: str, stretch: Expected, got: list[int]) -> list[int]:
        """What the stretch holds; where it may begin early, from the first that was heard on."""
        notes = [
            (data[0] if isinstance(data := json.loads(event.data), list) else data, event.position)
            for event in self.world.events
            if channel in event.channels
        ]
        start, end = stretch.start, stretch.end
        if stretch.early and got:
            first = next(position for number, position in notes if number == got[0])
            if first.epoch != start.epoch or first <= start:
                start = Position(first.epoch, first.lsn, first.ordinal - 1)
        return [
            number
            for number, position in notes
            if position.epoch == start.epoch and position > start
            if end is None or end.epoch != position.epoch or position <= end
        ]

    @invariant()
    def nothing_is_missed_doubled_or_out_of_order(self) -> None:
        """Of each stretch, what was heard is a beginning of what had to be."""
        for kept in self.kept:
            self._look(kept)
            for channel, stretches in kept.stretches.items():
                for stretch, got in zip(stretches, kept.got[channel], strict=True):
                    assert got == self._numbers(channel, stretch, got)[: len(got)], (channel, stretch)

    @invariant()
    def ids_never_go_back(self) -> None:
        """Within an epoch a listener's position only moves forward; an event's id is never repeated."""
        for kept in self.kept:
            last: Position | None = None
            for frame in kept.ear.frames:
                if frame.id is not None:
                    if last is not None and frame.id.epoch == last.epoch:
                        assert frame.id >= last
                        assert frame.event in {"heartbeat", "reset"} or frame.id > last
                    last = frame.id

    @invariant()
    def accounts_balance(self) -> None:
        """Places taken are listeners and reservations; no interest is empty."""
        hub = self.world.hub
        members = sum(kept.ear.interest is not None for kept in self.kept)
        open_places = sum(reservation.counts for reservation in hub._reservations)
        assert hub.places_taken == members + open_places
        assert all(interest.members or interest.joining for interest in hub._interests.all())

    def teardown(self) -> None:
        """In the end everybody has everything."""
        for kept, joiner in self.coming:
            self.world.take_in(kept.ear, joiner)
        self.coming.clear()
        self.world.settle()
        assert self.world.hub._flush_due is None
        for kept in self.kept:
            self._look(kept)
            for channel, stretches in kept.stretches.items():
                if stretches[-1].end is None and not kept.ear.gone:
                    assert channel in kept.ear.channels
                    got = kept.got[channel][-1]
                    assert got == self._numbers(channel, stretches[-1], got), (channel, stretches[-1])
        for kept in self.kept:
            self.world.hub.leave(kept.ear)
        assert self.world.hub.places_taken == 0
        assert not self.world.hub._interests._by_key
        assert not self.world.hub._interests._on_channel


PROFILE = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_random_interleavings() -> None:
    """Whatever order deliveries, joins, leaves, flushes, resets and epochs come in, nobody misses anything."""
    run_state_machine_as_test(HubMachine, settings=PROFILE)


def _join_at_once(hub: Hub, joiner: Joiner, subscriber: Subscriber) -> bool:
    joiner.subscriber = subscriber
    joiner.target = hub._interests.of(joiner.encoding, subscriber.channels.union(joiner.starts))
    hub._admit(joiner)
    return True


def _begin_without_finishing(rounds: Rounds, interest: Interest, data: bytes, events: int) -> None:
    rounds.open[interest] = Round(data, interest.members)


@pytest.mark.parametrize(
    ("owner", "method", "mutant"),
    [
        pytest.param(Hub, "join", _join_at_once, id="joining-queue"),
        pytest.param(Rounds, "begin", _begin_without_finishing, id="one-round-after-the-other"),
        pytest.param(Rounds, "bring_up", lambda rounds, subscriber: None, id="its-round-first"),
        pytest.param(Hub, "drop", lambda hub, subscriber, channels: None, id="revocation"),
        pytest.param(History, "floor", lambda history, channel: Position("", 0, 0), id="floor"),
    ],
)
def test_mutations_are_found(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, mutant: Any) -> None:
    """Taking a rule out of the hub makes the machine fail: it does look."""
    monkeypatch.setattr(owner, method, mutant)
    profile = settings(PROFILE, max_examples=2_000, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(HubMachine, settings=profile)
