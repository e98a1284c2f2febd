"""What is kept of each channel, so that a listener that was away continues where it stopped.

Promises:

* Events of one channel are kept in the order in which they came, bounded by `history_events_max`, `history_age_max_s`
  and `history_channel_max_bytes`; all channels together by `history_max_bytes`, the oldest event going first.
* The *floor* of a channel is the last position that it may have forgotten: whoever is at or after it has missed
  nothing of what `after()` does not return. A floor never goes back.
* Memory is bounded in channels too: one of which nothing is kept any more, for as long as an event may be kept, is
  dropped, and its floor becomes every unknown channel's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from lastcall.config import Config
from lastcall.event import Event
from lastcall.position import Position

EVENT_OVERHEAD_BYTES: Final = 400
"""What an event costs beside its data: measured for one of one channel, with its place in the logs."""

_STALE_MIN: Final = 1_024


class Log:
    """The kept events of one channel."""

    __slots__ = ("channel", "events", "floor", "kept_bytes")

    def __init__(self, channel: str, floor: Position) -> None:
        self.channel = channel
        self.floor = floor
        self.events: deque[Event] = deque()
        self.kept_bytes = 0


Heard = tuple[Event, Sequence[str]]
"""An event, and those of its channels on which it is heard."""


class History:
    """The logs of all channels.

    now: seconds on a clock that never goes back.
    """

    def __init__(self, config: Config, now: Callable[[], float]) -> None:
        self._events_max = config.history_events_max
        self._age_max_s = config.history_age_max_s
        self._channel_max_bytes = config.history_channel_max_bytes
        self._max_bytes = config.history_max_bytes
        self._now = now
        self._floor = Position("0", 0, 0)
        self._clear()

    def _clear(self) -> None:
        self._logs: dict[str, Log] = {}
        self._kind_floors: dict[str, Position] = {}
        # Every kept event in the order in which it came, and some that its channel has forgotten meanwhile.
        self._order: deque[tuple[float, Log, Event]] = deque()
        self._emptied: deque[tuple[float, Log]] = deque()
        self.events = 0
        self.kept_bytes = 0

    def begin(self, floor: Position) -> None:
        """Forget everything; every channel's floor is `floor`."""
        self._clear()
        self._floor = floor

    def forget_kinds(self, kinds: frozenset[str], floor: Position) -> None:
        """Forget what the channels of these kinds have; `floor` becomes theirs, known or not."""
        for log in [log for channel, log in self._logs.items() if channel.partition(":")[0] in kinds]:
            while log.events:
                self._forget(log)
            log.floor = floor
        self._kind_floors |= dict.fromkeys(kinds, floor)

    def floor(self, channel: str) -> Position:
        """The last position that the channel may have forgotten."""
        log = self._logs.get(channel)
        return self._unknown_floor(channel) if log is None else log.floor

    def _unknown_floor(self, channel: str) -> Position:
        if not self._kind_floors:
            return self._floor
        return max(self._floor, self._kind_floors.get(channel.partition(":")[0], self._floor))

    def append(self, event: Event, channel: str) -> None:
        """Keep the event, whose position is after all others', as the channel's newest."""
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = Log(channel, self._unknown_floor(channel))
        size = len(event.data) + EVENT_OVERHEAD_BYTES
        log.events.append(event)
        log.kept_bytes += size
        self.events += 1
        self.kept_bytes += size
        self._order.append((self._now(), log, event))
        while len(log.events) > self._events_max or log.kept_bytes > self._channel_max_bytes:
            self._forget(log)
        if self.kept_bytes > self._max_bytes:
            self._forget_oldest()
        if len(self._order) > 2 * self.events + _STALE_MIN:
            self._order = deque(entry for entry in self._order if entry[2].position > entry[1].floor)

    def after(self, channel: str, position: Position) -> list[Event]:
        """The channel's kept events after `position`, oldest first. Complete when `position` is not below the floor."""
        log = self._logs.get(channel)
        found: list[Event] = []
        if log is not None:
            for event in reversed(log.events):
                if event.position <= position:
                    break
                found.append(event)
            found.reverse()
        return found

    def merged(self, starts: Mapping[str, Position]) -> list[Heard]:
        """What each channel has after its own start, in position order over all of them, each event once."""
        if len(starts) == 1:
            [(channel, start)] = starts.items()
            return [(event, (channel,)) for event in self.after(channel, start)]
        found: dict[Position, Event] = {}
        for channel, start in starts.items():
            for event in self.after(channel, start):
                found[event.position] = event
        return [(event, heard_on(event, starts)) for _, event in sorted(found.items())]

    def expire(self) -> None:
        """Forget what is too old. To be called now and then; a resume never depends on it."""
        too_old = self._now() - self._age_max_s
        while self._order and self._order[0][0] < too_old:
            _, log, event = self._order.popleft()
            if event.position > log.floor:
                self._forget(log)
        while self._emptied and self._emptied[0][0] < too_old:
            _, log = self._emptied.popleft()
            if not log.events and self._logs.get(log.channel) is log:
                del self._logs[log.channel]
                self._floor = max(self._floor, log.floor)

    def _forget(self, log: Log) -> None:
        event = log.events.popleft()
        size = len(event.data) + EVENT_OVERHEAD_BYTES
        log.floor = event.position
        log.kept_bytes -= size
        self.events -= 1
        self.kept_bytes -= size
        if not log.events:
            self._emptied.append((self._now(), log))

    def _forget_oldest(self) -> None:
        while self.kept_bytes > self._max_bytes:
            _, log, event = self._order.popleft()
            if event.position > log.floor:
                self._forget(log)


def heard_on(event: Event, starts: Mapping[str, Position]) -> Sequence[str]:
    """Those of the event's channels whose start is before it."""
    return [channel for channel in event.channels if channel in starts and starts[channel] < event.position]
