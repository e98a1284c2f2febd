"""The load generator as Python sees it: start, wait until all are live, go, result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.programs import BUILD, BenchFailed, Program, cores

MARGIN_S = 30.0


@dataclass(frozen=True)
class Endpoint:
    """A running server: where and how to listen and to publish.

    pid: the process whose memory counts. metrics: whether it has `/metrics`, so that the hand-over can be checked.
    body: what is posted; `@` is replaced by 200 bytes of data.
    """

    port: int
    pid: int
    listen: str = "/events"
    listen_headers: Sequence[str] = ()
    publish: str = "/publish"
    publish_headers: Sequence[str] = ()
    body: str = "@"
    metrics: bool = False


class Quantiles(msgspec.Struct, frozen=True):
    """Latencies in milliseconds; -1 without samples."""

    count: int
    p50: float
    p99: float
    max: float


class Frames(msgspec.Struct, frozen=True):
    """Frames of the protocol that listeners received."""

    joined: int
    heartbeat: int
    reset: int
    close: int
    other: int


class Result(msgspec.Struct, frozen=True):
    """What the generator found; see c/report.c.

    right: every listener got every event exactly once, all in one order, and nothing else went wrong.
    first_ms, last_ms: from sending a publish request to the first and to the last listener that has the event.
    request_ms: from sending a request to its answer.
    orders: how many different orders of events the listeners saw.
    """

    right: bool
    listeners: int
    published: int
    answered: int
    deliveries: int
    window_s: float
    deliveries_per_s: float
    answered_per_s: float
    bytes_per_s: float
    generator_cpu: float
    first_ms: Quantiles
    last_ms: Quantiles
    request_ms: Quantiles
    lost: int
    doubled: int
    disordered: int
    orders: int
    foreign: int
    unreadable: int
    failures: int
    ended: int
    turned_away: int
    resumes: int
    frames: Frames
    bytes: int
    reads: int

    @property
    def bytes_per_delivery(self) -> float:
        """Bytes received (with framing and protocol frames) for each event."""
        return self.bytes_per_s / self.deliveries_per_s if self.deliveries_per_s else 0.0


class Live(msgspec.Struct, frozen=True):
    """All listeners are live: after how long, and after how many reconnects so far."""

    listeners: int
    took_s: float
    resumes: int


@dataclass(frozen=True)
class Load:
    """What the generator does to an endpoint; durations in milliseconds."""

    listeners: int = 0
    publishers: int = 0
    warmup_ms: int = 500
    window_ms: int = 2000
    requests_max: int = 10_000_000
    connect_ms: int = 60_000
    drain_ms: int = 20_000
    listen: str | None = None
    flags: Sequence[str] = field(default_factory=tuple)

    def arguments(self, endpoint: Endpoint) -> list[str]:
        """The generator's command line."""
        named: list[tuple[str, object]] = [
            ("port", endpoint.port),
            ("core", cores()[1]),
            ("path", self.listen or endpoint.listen),
            ("publish-path", endpoint.publish),
            ("body", endpoint.body),
            ("listeners", self.listeners),
            ("publishers", self.publishers),
            ("warmup-ms", self.warmup_ms),
            ("window-ms", self.window_ms),
            ("requests-max", self.requests_max),
            ("connect-ms", self.connect_ms),
            ("drain-ms", self.drain_ms),
            *(("header", header) for header in endpoint.listen_headers),
            *(("publish-header", header) for header in endpoint.publish_headers),
        ]
        pairs = [text for name, value in named for text in (f"--{name}", str(value))]
        return [*pairs, "--wait", *self.flags]


class Generator(Program):
    """One run of the load generator, which waits for `go` once all its listeners are live."""

    def __init__(self, endpoint: Endpoint, load: Load, folder: Path) -> None:
        self.load = load
        super().__init__([str(BUILD / "generator"), *load.arguments(endpoint)], folder / "generator.log")

    def live(self, within_s: float | None = None) -> Live:
        """Wait until all listeners are live (again)."""
        line = self.line(within_s or self.load.connect_ms / 1000 + MARGIN_S)
        found = msgspec.json.decode(line, type=dict[str, object])
        if found.get("phase") != "live":
            raise BenchFailed(f"the generator ended before all were live: {line}")
        return msgspec.convert(found, type=Live)

    def go(self) -> None:
        """Let the publishers begin."""
        self.say("go")

    def expect(self, count: int, publisher: int = 0) -> None:
        """Somebody else published `count` events as `publisher`; every listener must end with all of them."""
        self.say(f"expect {publisher} {count}")

    def end(self) -> None:
        """No more is to come; the result follows once everything has arrived."""
        self.say("end")

    def measured(self, *, must_be_right: bool = True) -> Result:
        """The result. Raises BenchFailed when the run was not right, unless that is what is asked for."""
        load = self.load
        line = self.line((load.warmup_ms + load.window_ms + load.drain_ms) / 1000 + MARGIN_S)
        while '"phase": "live"' in line:
            line = self.line()
        result = msgspec.json.decode(line, type=Result)
        if must_be_right and not result.right:
            raise BenchFailed(f"not every event was delivered exactly once and in order: {line}\n{self.errors()}")
        return result
