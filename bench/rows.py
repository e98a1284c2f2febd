"""The rows of the table: which cases they are made of, and what is to be reached. The targets are those the project set
itself before it began."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench import cases
from bench.cases import Case, Numbers
from bench.programs import BenchFailed

OWN_INTEREST = "/events?channel=topic:bench&channel=topic:a{i}&channel=topic:b{i}"

CASES: Mapping[str, Case] = {
    "bare": cases.bare,
    "c 1": cases.fan_out(cases.c_server, 1),
    "c 4": cases.fan_out(cases.c_server, 4),
    "c 64": cases.fan_out(cases.c_server, 64),
    "nchan 4": cases.fan_out(cases.nchan, 4),
    "nchan 64": cases.fan_out(cases.nchan, 64),
    "hub 1": cases.one_event_a_flush,
    "lastcall 4": cases.fan_out(cases.node, 4),
    "lastcall 64": cases.fan_out(cases.node, 64),
    "lastcall own interests": cases.fan_out(cases.node, 4, listen=OWN_INTEREST),
    "lastcall websocket": cases.fan_out(cases.node, 4, flags=("--websocket",)),
    "memory": cases.idle_memory(cases.node),
    "memory nchan": cases.idle_memory(cases.nchan),
    "one listener": cases.latency(cases.node, 1),
    "commit": cases.commit_alone,
    "last listener": cases.latency(cases.node, None),
    "last listener c": cases.latency(cases.c_server, None),
    "commits attached": cases.commits_attached,
    "commits detached": cases.commits_detached,
    "calls": cases.calls("sample.write_draft"),
    "calls heard": cases.calls("sample.write_note"),
    "calls directly": cases.calls_directly,
    "storm": cases.storm,
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A bound on the ratio to another case; or, without one, on the value itself."""

    bound: float
    against: str | None = None
    sense: Literal["at least", "at most"] = "at least"
    whom: str = ""

    def reached(self, value: float) -> bool:
        """Whether the value keeps the bound."""
        return value >= self.bound if self.sense == "at least" else value <= self.bound


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    number: which number of the case counts. unit: how it is written ({} is the number). once: measured in the first
    round only. also: further cases that are reported beside it.
    """

    name: str
    work: str
    case: str
    number: str = "per_s"
    unit: str = "{:,.0f}/s"
    targets: Sequence[Target] = ()
    also: Sequence[tuple[str, str, str]] = ()
    once: bool = False

    def needs(self) -> list[str]:
        """The cases it is made of."""
        others = [target.against for target in self.targets if target.against] + [case for case, _, _ in self.also]
        return list(dict.fromkeys([self.case, *others]))


ROWS: Sequence[Row] = (
    Row(
        name="hub",
        work="fan-out to 3,000 SSE clients, hub alone, one event per flush",
        case="hub 1",
        targets=(Target(bound=0.7, against="c 1", whom="the C server"),),
        also=(("bare", "per_s", "where a bare `send()` loop makes {:,.0f}/s"),),
    ),
    Row(
        name="publishers-4",
        work="the same, published over HTTP by 4 publishers through COMMIT and WAL",
        case="lastcall 4",
        targets=(
            Target(bound=1.5, against="c 4", whom="the C server"),
            Target(bound=2.5, against="nchan 4", whom="Nchan"),
        ),
    ),
    Row(
        name="publishers-64",
        work="the same, 64 publishers",
        case="lastcall 64",
        targets=(
            Target(bound=8, against="c 64", whom="the C server"),
            Target(bound=10, against="nchan 64", whom="Nchan"),
        ),
    ),
    Row(
        name="interests",
        work="3,000 clients, each with its own interest of 3 channels, 4 publishers",
        case="lastcall own interests",
        targets=(Target(bound=0.5, against="lastcall 4", whom="the shared interest"),),
    ),
    Row(
        name="websocket",
        work="WebSocket, 4 publishers",
        case="lastcall websocket",
        targets=(Target(bound=0.8, against="lastcall 4", whom="SSE"),),
    ),
    Row(
        name="memory",
        work="idle memory per SSE connection at 15,000",
        case="memory",
        number="bytes",
        unit="{:,.0f} B",
        targets=(Target(bound=4096, sense="at most"),),
        also=(("memory nchan", "bytes", "Nchan {:,.0f} B"),),
        once=True,
    ),
    Row(
        name="one",
        work="HTTP publish → COMMIT → one listener, p50",
        case="one listener",
        number="p50",
        unit="{:.2f} ms",
        targets=(Target(bound=3, against="commit", sense="at most", whom="the COMMIT alone"),),
        also=(("one listener", "p99", "p99 {:.2f} ms"),),
    ),
    Row(
        name="last",
        work="the same → the last of 3,000 clients, p50",
        case="last listener",
        number="p50",
        unit="{:.1f} ms",
        targets=(Target(bound=2.5, against="last listener c", sense="at most", whom="the C server's last client"),),
    ),
    Row(
        name="commits",
        work="commits/s of a writing SQL function, 16 clients, feed attached",
        case="commits attached",
        targets=(Target(bound=0.85, against="commits detached", whom="not attached"),),
    ),
    Row(
        name="calls",
        work="`POST /rpc/f` requests/s, 16 clients",
        case="calls",
        targets=(Target(bound=0.5, against="calls directly", whom="`f` through the pool"),),
        also=(
            ("calls", "p50", "p50 {:.1f} ms"),
            ("calls heard", "per_s", "{:,.0f}/s where each call also makes an event"),
        ),
    ),
    Row(
        name="storm",
        work="reconnect storm: 3,000 clients resume after a restart; none lost, none twice",
        case="storm",
        number="live_s",
        unit="all live {:.1f} s after the start of the new server",
        also=(("storm", "after_ready_s", "{:.1f} s after it was ready"),),
        once=True,
    ),
)


Samples = dict[str, list[Numbers]]


def median_of(samples: Samples, case: str, number: str) -> float:
    """The median over the rounds."""
    return statistics.median(numbers[number] for numbers in samples[case])


def ratio(samples: Samples, row: Row, target: Target) -> float:
    """The ratio of medians; or the median itself for a target without a peer."""
    value = median_of(samples, row.case, row.number)
    if target.against is None:
        return value
    peer = median_of(samples, target.against, row.number)
    if min(value, peer) <= 0:
        raise BenchFailed(f"{row.name}: nothing was measured")
    return value / peer
