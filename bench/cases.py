"""The cases: each measures one thing once and says it in numbers. Rows (rows.py) are ratios of their medians."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from bench import direct, peers, subject
from bench.generator import Endpoint, Generator, Load, Result
from bench.programs import BenchFailed
from lastcall.testing.fixtures import Database

Numbers = dict[str, float]
SETTLE_S = 1.0
STORM_EVENTS_PER_S = 10

STORM_SETTINGS = {"history_events_max": "100000", "history_channel_max_bytes": str(256 << 20)}
"""History above the load: what is claimed is that nobody is reset either."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much: the whole protocol, or a quick look that only proves that everything counts right.

    spin: the generator never sleeps, so that no server pays for waking it; costs PostgreSQL its half of that core.
    """

    rounds: int = 5
    listeners: int = 3000
    idle: int = 15_000
    warmup_ms: int = 1000
    window_ms: int = 3000
    paced_ms: int = 3000
    seconds: int = 3
    clients: int = 16
    spin: bool = False


QUICK = Scale(rounds=1, listeners=40, idle=60, warmup_ms=50, window_ms=250, paced_ms=250, seconds=1, clients=4)


@dataclass(slots=True)
class Suite:
    """What the cases share: the scale, a folder for logs, one PostgreSQL for all rounds (made when first asked for)."""

    scale: Scale
    folder: Path
    exits: contextlib.ExitStack
    _database: Database | None = None

    @property
    def database(self) -> Database:
        """The durable PostgreSQL."""
        if self._database is None:
            self._database = self.exits.enter_context(subject.database())
        return self._database

    @property
    def postgres(self) -> str:
        """Its version; "none" where no case asked for it."""
        return "none" if self._database is None else self._database.server.installation.version

    @contextlib.contextmanager
    def lastcall(self) -> Iterator[Endpoint]:
        """A fresh server on it."""
        with subject.lastcall(self.database, self.folder) as running:
            yield running.endpoint

    def load(self, publishers: int, **more: object) -> Load:
        """Closed-loop publishers against all listeners of this scale."""
        scale = self.scale
        asked: dict[str, object] = {
            "listeners": scale.listeners,
            "publishers": publishers,
            "warmup_ms": scale.warmup_ms,
            "window_ms": scale.window_ms,
        }
        load = Load(**(asked | more))  # type: ignore[arg-type]
        return replace(load, flags=(*load.flags, "--spin")) if scale.spin else load

    def run(self, endpoint: Endpoint, load: Load) -> Result:
        """One run of the generator. Raises BenchFailed when it was not right or not all were handed over."""
        with Generator(endpoint, load, self.folder) as generator:
            generator.live()
            if endpoint.metrics:
                subject.check_handed_over(endpoint, load.listeners)
            generator.go()
            return generator.measured()


Peer = Callable[[Suite], AbstractContextManager[Endpoint]]
Case = Callable[[Suite], Numbers]


def c_server(suite: Suite) -> AbstractContextManager[Endpoint]:
    """The C server."""
    return peers.c_server(suite.folder)


def nchan(suite: Suite) -> AbstractContextManager[Endpoint]:
    """Nchan."""
    return peers.nchan(suite.folder)


def hub(suite: Suite) -> AbstractContextManager[Endpoint]:
    """lastcall's hub without a database."""
    return subject.hub_alone(suite.folder)


def node(suite: Suite) -> AbstractContextManager[Endpoint]:
    """lastcall, whole."""
    return suite.lastcall()


def bare(suite: Suite) -> Numbers:
    """The bare send() loop."""
    return {"per_s": peers.bare_loop(suite.folder, suite.scale.listeners, suite.scale.seconds)}


def fan_out(peer: Peer, publishers: int, *, listen: str | None = None, flags: tuple[str, ...] = ()) -> Case:
    """Deliveries a second to all listeners."""

    def measure(suite: Suite) -> Numbers:
        with peer(suite) as endpoint:
            result = suite.run(endpoint, suite.load(publishers, listen=listen, flags=flags))
        return {
            "per_s": result.deliveries_per_s,
            "bytes": result.bytes_per_delivery,
            "generator_cpu": result.generator_cpu,
        }

    return measure


def one_event_a_flush(suite: Suite) -> Numbers:
    """The hub alone with one publisher; fails when events shared a flush."""
    with hub(suite) as endpoint:
        before = subject.flushes(endpoint)
        result = suite.run(endpoint, suite.load(1))
        flushes = subject.flushes(endpoint) - before
    if flushes < result.published:
        raise BenchFailed(f"{result.published} events left in {flushes:.0f} flushes")
    return {"per_s": result.deliveries_per_s, "bytes": result.bytes_per_delivery, "generator_cpu": result.generator_cpu}


def latency(peer: Peer, listeners: int | None) -> Case:
    """One event at a time, to so many listeners (None: all): when it is at the first and at the last of them."""

    def measure(suite: Suite) -> Numbers:
        count = suite.scale.listeners if listeners is None else listeners
        load = suite.load(1, listeners=count, window_ms=suite.scale.paced_ms, flags=("--paced",))
        with peer(suite) as endpoint:
            result = suite.run(endpoint, load)
        return {"p50": result.last_ms.p50, "p99": result.last_ms.p99, "samples": result.last_ms.count}

    return measure


def commit_alone(suite: Suite) -> Numbers:
    """COMMIT by itself, with the same feed attached."""
    with suite.lastcall():
        taken = direct.commit_alone_ms(suite.database, suite.scale.paced_ms / 1000)
    return {"p50": direct.median(taken), "samples": len(taken)}


def idle_memory(peer: Peer) -> Case:
    """Bytes of the server's memory for each idle connection."""

    def measure(suite: Suite) -> Numbers:
        idle = suite.scale.idle
        with peer(suite) as endpoint:
            suite.run(
                endpoint, suite.load(1, listeners=10, requests_max=10)
            )  # so that nothing is loaded for the first time
            time.sleep(SETTLE_S)
            before = subject.resident_bytes(endpoint.pid)
            with Generator(endpoint, suite.load(0, listeners=idle), suite.folder) as generator:
                generator.live()
                if endpoint.metrics:
                    subject.check_handed_over(endpoint, idle)
                time.sleep(SETTLE_S)
                after = subject.resident_bytes(endpoint.pid)
                generator.end()
                generator.measured()
        return {"bytes": (after - before) / idle}

    return measure


def commits_attached(suite: Suite) -> Numbers:
    """Commits a second of a writing function while the feed reads along."""
    with suite.lastcall():
        return commits_detached(suite)


def commits_detached(suite: Suite) -> Numbers:
    """The same without."""
    return {"per_s": direct.commits_per_s(suite.database, suite.folder, suite.scale.clients, suite.scale.seconds)}


def calls(function: str) -> Case:
    """Requests a second of POST /rpc."""

    def measure(suite: Suite) -> Numbers:
        with subject.lastcall(suite.database, suite.folder) as running:
            endpoint = running.calls(function, direct.ARGUMENTS)
            load = suite.load(suite.scale.clients, listeners=0)
            with Generator(endpoint, load, suite.folder) as generator:
                generator.live()
                generator.go()
                result = generator.measured()
        return {"per_s": result.answered_per_s, "p50": result.request_ms.p50, "p99": result.request_ms.p99}

    return measure


def calls_directly(suite: Suite) -> Numbers:
    """The same function through the pool, without HTTP."""
    scale = suite.scale
    return {"per_s": direct.pool_calls_per_s(suite.database, suite.folder, scale.clients, scale.seconds)}


class Writing(threading.Thread):
    """Somebody who publishes events in SQL, numbered as the generator expects them, whatever the server does."""

    def __init__(self, database: Database, tag: str) -> None:
        super().__init__(daemon=True)
        self._connection = psycopg.connect(database.owner_url, autocommit=True)
        self._ended = threading.Event()
        self._tag, self.count = tag, 0

    def run(self) -> None:
        """Publish at a steady pace until told to stop."""
        statement = "select lastcall.publish(%s, 'bench', to_jsonb(%s::text))"
        while not self._ended.wait(1 / STORM_EVENTS_PER_S):
            data = f"~{self._tag}~000~{self.count + 1:08d}".rjust(198, "x")
            self._connection.execute(statement, (subject.CHANNEL, data))
            self.count += 1

    def stop(self) -> int:
        """No more. How many there were; a second stop is harmless."""
        self._ended.set()
        self.join()
        self._connection.close()
        return self.count


def storm(suite: Suite) -> Numbers:
    """Everybody comes back after a `kill -9` and a new start, while events go on; none lost, none twice."""
    tag = "strm"
    listeners = suite.scale.listeners
    writing = Writing(suite.database, tag)
    with subject.lastcall(suite.database, suite.folder, STORM_SETTINGS) as running, contextlib.ExitStack() as exits:
        load = suite.load(0, flags=("--resume", "--tag", tag))
        generator = exits.enter_context(Generator(running.endpoint, load, suite.folder))
        generator.live()
        subject.check_handed_over(running.endpoint, listeners)
        exits.callback(writing.stop)
        writing.start()
        time.sleep(SETTLE_S)
        running.server.kill()
        began = time.monotonic()
        running.start()
        ready_s = time.monotonic() - began
        generator.live()
        live_s = time.monotonic() - began
        subject.check_handed_over(running.endpoint, listeners)
        time.sleep(SETTLE_S)
        generator.expect(writing.stop())
        generator.end()
        result = generator.measured()
    return {"live_s": live_s, "after_ready_s": live_s - ready_s, "resumes": result.resumes, "events": result.published}
