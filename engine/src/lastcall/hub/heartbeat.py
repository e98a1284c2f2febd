"""Whose heartbeat comes when: members are spread over the interval, so that heartbeats never come as one burst."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lastcall.hub.interest import Subscriber

PHASES: Final = 64


class Phases:
    """The members in PHASES groups of nearly equal size; one group's turn comes every interval / PHASES."""

    __slots__ = ("_groups", "_joined", "_turn")

    def __init__(self) -> None:
        self._groups: list[set[Subscriber]] = [set() for _ in range(PHASES)]
        self._joined = 0
        self._turn = 0

    def add(self, subscriber: Subscriber) -> None:
        """Put a member into the next group."""
        self._joined = (self._joined + 1) % PHASES
        subscriber.phase = self._joined
        self._groups[self._joined].add(subscriber)

    def discard(self, subscriber: Subscriber) -> None:
        """Take a member out. Harmless when it is not in."""
        self._groups[subscriber.phase].discard(subscriber)

    def next(self) -> set[Subscriber]:
        """The group whose turn it is."""
        self._turn = (self._turn + 1) % PHASES
        return self._groups[self._turn]

    def __iter__(self) -> Iterator[Subscriber]:
        """All members; groups may change between two of them."""
        for group in self._groups:
            yield from list(group)
