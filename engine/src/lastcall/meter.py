"""What users and operators ask for, counted where it happens.

Counters on the hot path are plain integers of one object; `/metrics` reads them when it is asked. A metric is declared
here and nowhere else; `docs/reference/metrics.md` is checked against this page by a test.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

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
