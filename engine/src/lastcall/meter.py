"""What users and operators ask for, counted where it happens.

Counters on the hot path are plain integers of one object; `/metrics` reads them when it is asked. A metric is declared
here and nowhere else; `docs/reference/metrics.md` is checked against this page by a test.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

LATENCY_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(slots=True)
class Histogram:
    """Counts of durations in seconds by the upper bounds of LATENCY_BOUNDS_S; the last bucket is unbounded."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    total_s: float = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(LATENCY_BOUNDS_S, duration_s)] += 1
        self.total_s += duration_s


@dataclass(slots=True)
class Meter:
    """All counts of one node since its start. Gauges are set by whoever owns the number."""

    # feed
    feed_transactions: int = 0
    feed_events: int = 0
    feed_resets: int = 0
    feed_epochs: int = 0
    feed_reconnects: int = 0
    slot_retained_bytes: int = 0
    # hub
    deliveries: int = 0
    delivered_bytes: int = 0
    flushes: int = 0
    resumes: int = 0
    resume_resets: int = 0
    slow_aborts: int = 0
    heartbeats: int = 0
    history_events: int = 0
    history_bytes: int = 0
    # connections, by kind
    connections: dict[str, int] = field(default_factory=lambda: {"sse": 0, "websocket": 0, "long_poll": 0})
    connections_handed_over: int = 0
    connections_refused: int = 0
    # requests: (route, status) → count
    requests: dict[tuple[str, int], int] = field(default_factory=dict)
    idempotent_replays: int = 0
    state_retries: int = 0
    job_runs: dict[tuple[str, str], int] = field(default_factory=dict)
    alarms: dict[str, int] = field(default_factory=dict)
    # durations
    commit_to_write: Histogram = field(default_factory=Histogram)
    request_duration: Histogram = field(default_factory=Histogram)

    def alarm(self, name: str) -> None:
        """Something an operator must look at happened."""
        self.alarms[name] = self.alarms.get(name, 0) + 1


class Metric(NamedTuple):
    """One metric of `/metrics`: `lastcall_{name}`, a counter with `_total` behind it, a histogram with `_seconds`.

    labels: what its values differ by, where it has several.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final = (
    # What Meter counts, by the name of its attribute.
    Metric("feed_transactions", "counter", "Transactions that the feed has delivered."),
    Metric("feed_events", "counter", "Events that the feed has delivered."),
    Metric("feed_resets", "counter", "Stretches that the feed could not deliver and announced as a reset."),
    Metric("feed_epochs", "counter", "Epochs begun."),
    Metric("feed_reconnects", "counter", "Times that the feed has lost its source and found it again."),
    Metric("slot_retained_bytes", "gauge", "Write-ahead log that the slot keeps PostgreSQL from removing."),
    Metric("deliveries", "counter", "Events handed to listeners, once for each listener."),
    Metric("delivered_bytes", "counter", "Bytes handed to listeners."),
    Metric("flushes", "counter", "Writes of pending events to the members of an interest."),
    Metric("resumes", "counter", "Listeners that came back with a position."),
    Metric("resume_resets", "counter", "Of them, those that got a reset for a channel."),
    Metric("slow_aborts", "counter", "Listeners aborted because they did not read."),
    Metric("heartbeats", "counter", "Heartbeats sent, once for each listener."),
    Metric("history_events", "gauge", "Events kept for those who come back."),
    Metric("history_bytes", "gauge", "Bytes kept for those who come back."),
    Metric("connections", "gauge", "Listeners now.", ("kind",)),
    Metric("connections_handed_over", "gauge", "Listeners now whose socket belongs to the hub."),
    Metric("connections_refused", "counter", "Listeners refused because the node was full."),
    Metric("requests", "counter", "Requests answered.", ("route", "status")),
    Metric("idempotent_replays", "counter", "Calls answered with the stored answer of an earlier one."),
    Metric("state_retries", "counter", "Reads repeated because a delivered commit was not visible yet."),
    Metric("job_runs", "counter", "Jobs and timers by how they ended.", ("job", "outcome")),
    Metric("alarms", "counter", "What an operator must look at.", ("name",)),
    Metric("commit_to_write", "histogram", "Seconds from COMMIT, by the database's clock, to the write to listeners."),
    Metric("request_duration", "histogram", "Seconds from the request's head to the answer."),
    # What is asked of the other stations when `/metrics` is.
    Metric("epoch", "gauge", "1 for the epoch that the stream is in.", ("epoch",)),
    Metric("head_lsn", "gauge", "Place in the write-ahead log before which everything has been delivered."),
    Metric("unseen_transactions", "gauge", "Delivered transactions that no reader has seen yet."),
    Metric("ready", "gauge", "1 while /readyz answers 200."),
    Metric("pool_connections", "gauge", "Connections of the pool.", ("state",)),
    Metric("pool_waiting", "gauge", "Requests that wait for a connection."),
    Metric("resident_bytes", "gauge", "Memory of the process."),
    Metric("open_files", "gauge", "Open file descriptors of the process."),
    Metric("open_files_max", "gauge", "How many it may open."),
    Metric("started_at_seconds", "gauge", "When the process started, in seconds since 1970."),
)
"""Everything that `/metrics` shows."""
