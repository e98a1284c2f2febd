"""State fits the stream: a state and every event after its position are the truth, whatever is visible when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lastcall.auth import Principal
from lastcall.errors import Refusal
from lastcall.event import Transaction
from lastcall.feed.unseen import Unseen
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.postgres.call import Caller
from lastcall.postgres.pool import Pool
from lastcall.state import Reader
from lastcall.testing.feeding import Feeding
from lastcall.testing.fixtures import Database, Databases
from lastcall.testing.postgres_server import PostgresServer
from lastcall.testing.recording import RecordingSink
from lastcall.testing.sample import app as sample
from lastcall.testing.waiting import eventually_async

WRITERS = 3
RUNS = 1_000
MEMBER = Principal("u1", "member", {"sub": "u1", "role": "member"}, None)
WITHIN_S = 20.0

Action = Literal["insert", "update", "delete", "move", "undo", "commit", "hold", "rollback"]
Step = tuple[int, Action] | Literal["read", "release"]

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, WRITERS - 1),
            st.sampled_from(["insert", "update", "delete", "move", "undo", "commit", "hold", "hold", "rollback"]),
        ),
        st.just("read"),
        st.just("release"),
    ),
    min_size=4,
    max_size=16,
)
"""What three writers do, statement by statement: `hold` commits where listeners see it and readers do not, until
`release`. `read` takes a state, which waits meanwhile."""


class TellingSink(RecordingSink):
    """Wakes whoever waits for a delivery."""

    def __init__(self) -> None:
        super().__init__()
        self.delivered = asyncio.Event()

    def deliver(self, transactions: list[Transaction]) -> None:
        """Record and wake."""
        super().deliver(transactions)
        self.delivered.set()

    async def until(self, mark: str) -> None:
        """Wait until an event with this text has been delivered."""
        async with asyncio.timeout(WITHIN_S):
            while not any(mark.encode() in event.data for event in self.events):
                self.delivered.clear()
                await self.delivered.wait()


@dataclass
class Writer:
    """A session that writes to one topic; `held` is its COMMIT while that waits for a standby that never answers."""

    connection: psycopg.AsyncConnection[Any]
    writes: int = 0
    open: bool = False
    held: asyncio.Task[Any] | None = None


@dataclass
class World:
    """A database whose commits can be held invisible, a feed, a reader, and writers, in one loop."""

    database: Database
    runner: asyncio.Runner
    feeding: Feeding
    sink: TellingSink
    pool: Pool
    reader: Reader
    writers: list[Writer]
    killer: psycopg.AsyncConnection[Any]
    topics: int = 0
    reads: list[tuple[Position, asyncio.Task[Any]]] = field(default_factory=list)

    async def step(self, step: Step, topic: str) -> None:
        """Do one thing."""
        if step == "read":
            head = self.sink.head
            assert head is not None
            channel = f"topic:{topic}"
            self.reads.append((head, asyncio.create_task(self.reader.read(MEMBER, [channel], head))))
            # It runs beside what follows.
            await asyncio.sleep(0)
        elif step == "release":
            for writer in self.writers:
                await self.release(writer)
        else:
            writer = self.writers[step[0]]
            await self.release(writer) if writer.held else None
            await self.act(writer, step[1], topic)

    async def act(self, writer: Writer, action: Action, topic: str) -> None:
        """One statement of a writer, in a transaction that it opens where there is none."""
        execute = writer.connection.execute
        if action in {"commit", "hold", "rollback"}:
            if writer.open:
                await (self.hold(writer) if action == "hold" else execute(action.encode()))
                writer.open = False
            return
        if not writer.open:
            await execute("begin")
            writer.open = True
        writer.writes += 1
        # Each writer has rows of its own, so that none waits for another's lock.
        number = self.writers.index(writer)
        mine = "topic = %s and writer = %s and id = (select min(id) from sample.note where topic = %s and writer = %s)"
        which = [topic, number, topic, number]
        if action == "update":
            await execute(f"update sample.note set body = %s where {mine}".encode(), [str(writer.writes), *which])
        elif action == "delete":
            await execute(f"delete from sample.note where {mine}".encode(), which)
        elif action == "move":
            await execute(f"update sample.note set topic = 'away' where {mine}".encode(), which)
        elif action == "undo":
            await execute("savepoint s")
            await self.insert(writer, topic, number)
            await execute("rollback to savepoint s")
        await self.insert(writer, topic, number)

    async def insert(self, writer: Writer, topic: str, number: int) -> None:
        await writer.connection.execute(
            "insert into sample.note (topic, writer, number) values (%s, %s, %s)", [topic, number, writer.writes]
        )

    async def mark(self, writer: Writer) -> str:
        """Write something that can be waited for."""
        writer.writes += 1
        text = f"mark {self.writers.index(writer)} {writer.writes}."
        await writer.connection.execute(
            "insert into sample.note (topic, writer, number, body) values ('mark', 0, 0, %s)", [text]
        )
        return text

    async def hold(self, writer: Writer) -> None:
        """COMMIT with a wait for a standby: returns when the feed has delivered it, which readers do not see yet."""
        execute = writer.connection.execute
        mark = await self.mark(writer)
        await execute("set local synchronous_commit = on")
        writer.held = asyncio.create_task(execute("commit"))  # type: ignore[arg-type]
        await self.sink.until(mark)

    async def release(self, writer: Writer) -> None:
        """End the wait: the commit is seen."""
        if writer.held is not None:
            await self.killer.execute("select pg_cancel_backend(%s)", [writer.connection.info.backend_pid])
            await writer.held
            writer.held = None

    async def settle(self) -> None:
        """End what is open."""
        for writer in self.writers:
            await self.release(writer)
            if writer.open:
                await writer.connection.execute("rollback")
                writer.open = False

    async def run(self, steps: Sequence[Step]) -> None:
        """One run: the steps on a new topic, then the comparison of each state with the truth."""
        self.topics += 1
        topic = f"t{self.topics}"
        self.reads.clear()
        try:
            for step in ["read", *steps, "read"]:
                await self.step(step, topic)  # type: ignore[arg-type]
        finally:
            await self.settle()
        states = [(position, (await read)[f"topic:{topic}"]) for position, read in self.reads]
        truth = await self.truth(topic)
        # Whatever was committed before this mark is delivered before it.
        await self.sink.until(await self.mark(self.writers[0]))
        events = [event for event in self.sink.events if f"topic:{topic}" in event.channels]
        assert not self.sink.broken
        for position, state in states:
            rows = {note["id"]: note for note in json.loads(state or b"null")["notes"]}
            for event in events:
                if event.position > position:
                    apply(rows, event.name, json.loads(event.data))
            assert sorted(rows.values(), key=lambda note: note["id"]) == truth, f"state at {position}"
        self.sink.transactions.clear()

    async def truth(self, topic: str) -> list[dict[str, Any]]:
        """The table at the end."""
        cursor = await self.killer.execute(
            "select coalesce(jsonb_agg(to_jsonb(n) order by id), '[]') from sample.note n where topic = %s", [topic]
        )
        row = await cursor.fetchone()
        assert row is not None
        return list(row[0])


def apply(rows: dict[int, Any], name: str, data: Any) -> None:
    """What a client does with an event: whole values, so that applying one again changes nothing."""
    if name == "gone":
        rows.pop(data["key"]["id"], None)
    else:
        rows[data["id"]] = data


class Blind(Unseen):
    """Does not say what is unseen: the rule that is to be proved, taken out."""

    def up_to(self, lsn: int) -> list[int]:
        """Nothing."""
        return []


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of its own, whose commits can be made to wait."""
    with PostgresServer() as made:
        yield made


@pytest.fixture(scope="module")
def world(server: PostgresServer) -> Iterator[World]:
    """One world for all runs."""
    database = Databases(server).create((sample,), {"state_wait_max_s": WITHIN_S})
    with asyncio.Runner() as runner:
        made = runner.run(build(database, runner))
        try:
            yield made
        finally:
            runner.run(tear_down(made))


async def build(database: Database, runner: asyncio.Runner) -> World:
    feeding = Feeding(database, sample.watches)
    feeding.sink = sink = TellingSink()
    await feeding.__aenter__()
    pool = Pool(database.authenticator_url, database.config)
    await pool.open()
    reader = Reader(Caller(pool, database.config), feeding.feed, (sample,), database.config, Meter())
    await reader.start()
    writers = [Writer(await database.connect_async()) for _ in range(WRITERS)]
    for writer in writers:
        await writer.connection.execute("set synchronous_commit = local")
    killer = await psycopg.AsyncConnection.connect(database.superuser_url, autocommit=True)
    # A synchronous standby that does not exist. Only now: some commands of the preparation always wait for it.
    await killer.execute("alter system set synchronous_standby_names = 'nobody'")
    await killer.execute("select pg_reload_conf()")
    return World(database, runner, feeding, sink, pool, reader, writers, killer)


async def tear_down(world: World) -> None:
    await world.reader.stop()
    for connection in (*(writer.connection for writer in world.writers), world.killer):
        await connection.close()
    await world.pool.close()
    await world.feeding.__aexit__(None, None, None)


@pytest.mark.timeout(600)
@settings(max_examples=RUNS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_a_state_and_what_comes_after_it_are_the_truth(world: World, steps: list[Step]) -> None:
    """Whatever concurrent writers do, and however long a commit stays invisible, no state lies about its position."""
    world.runner.run(world.run(steps))


def test_without_the_retry_a_state_lies(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same comparison fails where the reader does not ask what is unseen: the retry is what makes it true."""
    blind = SimpleNamespace(unseen=Blind())
    monkeypatch.setattr(world.reader, "_feed", blind)
    steps: list[Step] = [(0, "insert"), (0, "hold"), "read", "release"]

    async def lie() -> None:
        with pytest.raises(AssertionError, match="state at"):
            await world.run(steps)
        world.sink.transactions.clear()

    # The read has to come before the release, which the loop does not promise; so often it does.
    async def read_first() -> None:
        step = world.step

        async def patient(one: Step, topic: str) -> None:
            await step(one, topic)
            if one == "read":
                await world.reads[-1][1]

        monkeypatch.setattr(world, "step", patient)
        await lie()

    world.runner.run(read_first())


def test_a_state_that_cannot_be_had_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While visibility is held up for longer than the bound: LC205, for the state and for the authorisation."""
    monkeypatch.setattr(world.reader, "_wait_max_s", 0.1)

    async def held_up() -> None:
        writer = world.writers[0]
        await world.act(writer, "insert", "held")
        await world.hold(writer)
        writer.open = False
        head = world.sink.head
        assert head is not None
        with pytest.raises(Refusal, match="LC205"):
            await world.reader.read(MEMBER, ["topic:held"], head)
        with pytest.raises(Refusal, match="LC205"):
            await world.reader.refused(MEMBER, ["topic:held"], head)
        await world.release(writer)
        assert await world.reader.refused(MEMBER, ["topic:held"], head) == []

    world.runner.run(held_up())


def test_what_is_seen_is_forgotten_without_being_asked(world: World) -> None:
    """The sweep clears what nobody reads, so that the slot moves on; what is invisible it keeps."""

    async def quiet() -> None:
        writer = world.writers[0]
        await world.act(writer, "insert", "swept")
        await world.hold(writer)
        writer.open = False
        unseen = world.feeding.feed.unseen
        await world.reader._look()
        assert len(unseen) == 1
        await world.release(writer)
        await eventually_async(lambda: len(unseen) == 0, WITHIN_S)

    world.runner.run(quiet())
