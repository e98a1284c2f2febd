"""A storm: writers commit, listeners listen, something breaks meanwhile; then each listener is compared with the truth.

The truth is a second, independent reader of the write-ahead log (a slot and a publication of its own, read by a few
lines that share nothing with the feed): what was committed, in commit order. Exact means: each listener has every event
of its channels once, in that order, and was never told to start anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import psycopg

from lastcall.testing.fixtures import Database
from lastcall.testing.listener import Listener
from lastcall.testing.waiting import eventually_async

TOPICS = 10
TRUTH_SLOT = "truth"
WRITE_RETRY_S = 0.05

SEED = 20_261_120

SHORT_WINDOW: Final[dict[str, object]] = {
    # The slot moves and is confirmed within the run …
    "window_s": 2,
    "heartbeat_interval_s": 1,
    # … and history is larger than the load, so that a reset would be a failure.
    "history_events_max": 100_000,
    "history_age_max_s": 600,
    "history_channel_max_bytes": 1 << 28,
    "history_max_bytes": 1 << 30,
    "log_level": "warning",
}

Note = tuple[str, int, int]
"""Topic, writer, number: unique for every note of a storm."""


def truth_begin(url: str) -> None:
    """From here on the truth is kept. url: a superuser's, straight to the server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create publication truth for table sample.note with (publish = 'insert')")
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (TRUTH_SLOT,))


def truth(url: str) -> list[Note]:
    """All notes committed since, in commit order; ends the keeping."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "select data from pg_logical_slot_get_binary_changes(%s, null, null, 'proto_version', '1', "
            "'publication_names', 'truth') where get_byte(data, 0) = ascii('I')",
            (TRUTH_SLOT,),
        ).fetchall()
        connection.execute("select pg_drop_replication_slot(%s)", (TRUTH_SLOT,))
        connection.execute("drop publication truth")
    return [_note(bytes(row[0])) for row in rows]


def _note(insert: bytes) -> Note:
    """The note of one Insert message: 'I', relation, 'N', column count, then each column as kind, length, text."""
    columns: list[str] = []
    at = 8
    while at < len(insert):
        length = int.from_bytes(insert[at + 1 : at + 5], "big")
        columns.append(insert[at + 5 : at + 5 + length].decode())
        at += 5 + length
    _, topic, writer, number, _ = columns
    return topic, int(writer), int(number)


@dataclass(slots=True)
class Writers:
    """Threads that each commit notes one by one on random topics, through any failure of the database."""

    url: str
    writers: int
    notes: int
    seed: int
    committed: int = 0
    failures: int = 0
    pause_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin to write."""
        for writer in range(self.writers):
            thread = threading.Thread(target=self._write, args=(writer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def done(self) -> bool:
        """Whether all has been written."""
        return all(not thread.is_alive() for thread in self._threads)

    def _write(self, writer: int) -> None:
        chance = random.Random(f"{self.seed}.{writer}")  # noqa: S311
        number = 0
        wait = threading.Event()
        while number < self.notes // self.writers:
            try:
                with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
                    while number < self.notes // self.writers:
                        # A number is never written twice: whether a commit that broke has happened, the truth knows.
                        number += 1
                        connection.execute(
                            "insert into sample.note (topic, writer, number) values (%s, %s, %s)",
                            (f"t{chance.randrange(TOPICS)}", writer, number),
                        )
                        with self._lock:
                            self.committed += 1
                        if self.pause_s:
                            wait.wait(self.pause_s)
            except psycopg.Error:
                with self._lock:
                    self.failures += 1
                wait.wait(WRITE_RETRY_S)


def topics_of(number: int, chance: random.Random) -> tuple[str, ...]:
    """Which channels listener `number` has: one to three of the ten."""
    return tuple(f"topic:t{topic}" for topic in sorted(chance.sample(range(TOPICS), 1 + number % 3)))


async def gather(make: Callable[..., Listener], listeners: int, seed: int) -> list[Listener]:
    """Start that many listeners on mixed channels and wait until all have joined."""
    chance = random.Random(seed)  # noqa: S311
    made = [make(*topics_of(number, chance)) for number in range(listeners)]
    await asyncio.gather(*(listener.start() for listener in made))
    return made


async def rage(writers: Writers, disturb: Sequence[Callable[[], Awaitable[None]]], within_s: float = 120.0) -> None:
    """Write to the end, and call each disturbance when its share of the notes is written."""
    writers.start()
    async with asyncio.timeout(within_s):
        for number, disturbance in enumerate(disturb, start=1):
            mark = writers.notes * number // (len(disturb) + 1)
            await eventually_async(lambda: writers.committed >= mark or writers.done, within_s)  # noqa: B023
            await disturbance()
        await eventually_async(lambda: writers.done, within_s)


async def compare(listeners: Sequence[Listener], notes: Sequence[Note], within_s: float = 60.0) -> int:
    """Wait until every listener has all of its notes, then compare. Returns how many deliveries were checked.

    Raises AssertionError naming the first listener that misses one, has one twice, or in another order, or was reset.
    """
    by_topic: dict[str, list[int]] = {}
    for index, (topic, _, _) in enumerate(notes):
        by_topic.setdefault(f"topic:{topic}", []).append(index)
    checked = 0
    for listener in listeners:
        expected = [notes[i] for i in sorted(i for channel in listener.channels for i in by_topic.get(channel, ()))]
        with contextlib.suppress(TimeoutError):
            await listener.until_heard(len(expected), within_s)
        heard = [(event.data["topic"], event.data["writer"], event.data["number"]) for event in listener.heard]
        assert not listener.resets, f"{listener.channels} was reset: {listener.resets[:2]}"
        assert heard == expected, difference(listener, heard, expected)
        checked += len(heard)
    return checked


def difference(listener: Listener, heard: Sequence[Note], expected: Sequence[Note]) -> str:
    """Where two sequences part, in a sentence."""
    missing, extra = len(set(expected) - set(heard)), len(heard) - len(set(heard))
    parted = next((i for i, (one, other) in enumerate(zip(heard, expected, strict=False)) if one != other), None)
    return (
        f"{listener.channels}: heard {len(heard)} of {len(expected)}, {missing} missing, {extra} twice, "
        f"first difference at {parted}, {listener.connections} connections"
    )


Disturbance = Callable[[], Awaitable[None]]


class Storm(Protocol):
    """Runs writers and listeners through disturbances and compares; returns the deliveries that were checked."""

    async def __call__(
        self,
        database: Database,
        listen: Callable[..., Listener],
        disturb: Sequence[Disturbance],
        *,
        listeners: int,
        notes: int,
        pause_s: float = 0.0,
    ) -> int: ...
