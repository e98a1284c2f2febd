"""What is kept of each channel: bounds, floors, and that nothing grows for ever."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from lastcall.config import Config
from lastcall.event import Event
from lastcall.hub.history import EVENT_OVERHEAD_BYTES, History
from lastcall.position import Position


class Clock:
    """Seconds, turned by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def history(clock: Callable[[], float], **settings: object) -> History:
    """A history that begins at e.0.0."""
    made = History(Config(**settings), clock)  # type: ignore[arg-type]
    made.begin(Position("e", 0, 0))
    return made


def event(number: int, *channels: str, size: int = 1) -> Event:
    """Event `number`."""
    return Event(Position("e", number, 1), channels or ("a:1",), "note", b"1" * size)


def lsns(events: list[Event]) -> list[int]:
    """Which events these are."""
    return [one.position.lsn for one in events]


def test_count_is_bounded_and_the_floor_is_the_last_forgotten() -> None:
    """The channel keeps its newest events, and its floor is the newest of those it has not."""
    kept = history(Clock(), history_events_max=3)
    for number in range(1, 8):
        kept.append(event(number), "a:1")
    assert lsns(kept.after("a:1", Position("e", 0, 0))) == [5, 6, 7]
    assert kept.floor("a:1") == Position("e", 4, 1)
    assert kept.floor("other:1") == Position("e", 0, 0)


def test_bytes_of_a_channel_are_bounded() -> None:
    """One channel's data never takes more than its share."""
    kept = history(Clock(), history_channel_max_bytes=4096)
    for number in range(1, 100):
        kept.append(event(number, size=1000), "a:1")
    assert lsns(kept.after("a:1", Position("e", 0, 0))) == [98, 99]
    assert kept.kept_bytes <= 4096


def test_an_event_larger_than_the_bound_is_not_kept_but_known() -> None:
    """An event that does not fit moves the floor, so that nobody resumes over it."""
    kept = history(Clock(), history_channel_max_bytes=1024)
    kept.append(event(1, size=5000), "a:1")
    assert kept.after("a:1", Position("e", 0, 0)) == []
    assert kept.floor("a:1") == Position("e", 1, 1)
    assert kept.kept_bytes == 0


def test_bytes_in_all_are_bounded_the_oldest_goes_first() -> None:
    """All channels share one bound; the oldest event of all goes first, whatever its channel."""
    size = 1024 - EVENT_OVERHEAD_BYTES
    kept = history(Clock(), history_max_bytes=4 * 1024)
    for number in range(1, 7):
        channel = f"c:{number % 3}"
        kept.append(event(number, channel, size=size), channel)
    everything = sorted(number for c in range(3) for number in lsns(kept.after(f"c:{c}", Position("e", 0, 0))))
    assert everything == [3, 4, 5, 6]
    assert kept.kept_bytes == 4 * 1024


def test_age_is_bounded_and_dropped_channels_keep_their_floor() -> None:
    """What is too old goes; a channel of which nothing is kept costs nothing, and a resume over it is still refused."""
    clock = Clock()
    kept = history(clock, history_age_max_s=10.0)
    kept.append(event(1), "a:1")
    clock.now = 5.0
    kept.append(event(2), "a:1")
    clock.now = 11.0
    kept.expire()
    assert lsns(kept.after("a:1", Position("e", 0, 0))) == [2]
    clock.now = 16.0
    kept.expire()
    clock.now = 30.0
    kept.expire()
    assert kept.floor("a:1") == Position("e", 2, 1)
    assert not kept._logs
    assert kept.events == kept.kept_bytes == 0


def test_bookkeeping_does_not_outgrow_what_is_kept() -> None:
    """A busy channel that keeps ten events does not leave a trace of the others."""
    kept = history(Clock(), history_events_max=10)
    for number in range(1, 20_000):
        kept.append(event(number), "a:1")
    assert len(kept._order) < 2_000


def test_begin_forgets_everything() -> None:
    """A new epoch has no past."""
    kept = history(Clock())
    kept.append(event(1), "a:1")
    kept.begin(Position("f", 5, 0))
    assert kept.after("a:1", Position("f", 5, 0)) == []
    assert kept.floor("a:1") == Position("f", 5, 0)
    assert kept.events == kept.kept_bytes == 0


CHANNELS = ["a:1", "b:1", "c:1"]


@given(
    st.lists(st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True), max_size=30),
    st.dictionaries(st.sampled_from(CHANNELS), st.integers(0, 31), min_size=1),
    st.integers(1, 10),
)
def test_merged_is_each_channels_events_after_its_start_once_in_order(
    made: list[list[str]], starts: dict[str, int], most: int
) -> None:
    """Merging channels gives what a plain list gives, for channels whose floor allows it."""
    kept = history(Clock(), history_events_max=most)
    events = [event(number, *channels) for number, channels in enumerate(made, start=1)]
    for one in events:
        for channel in one.channels:
            kept.append(one, channel)
    positions = {channel: Position("e", lsn, 1) for channel, lsn in starts.items()}
    honest = {channel: start for channel, start in positions.items() if start >= kept.floor(channel)}
    expected = []
    for one in events:
        heard = [channel for channel in one.channels if channel in honest and one.position > honest[channel]]
        if heard:
            expected.append((one, heard))
    assert [(one, list(heard)) for one, heard in kept.merged(honest)] == expected
