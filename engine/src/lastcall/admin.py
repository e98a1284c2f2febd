"""What operators and machines ask of a node: is it alive, is it ready, what does it count.

Promises:

* `/healthz` answers 200 as long as the process answers anything.
* `/readyz` answers 200 when whoever comes can be served exactly: the feed has caught up and lives, the hub takes
  resumes, the database answers, and the node does not drain. Else LC204 with the reasons.
* `/metrics` is Prometheus' text format; every name is declared in meter.py. It asks nothing of the database.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.meter import LATENCY_BOUNDS_S, METRICS, Histogram, Meter, Metric
from lastcall.position import Position
from lastcall.postgres.pool import Stats

PREFIX: Final = "lastcall_"
_PROCESS: Final = Path("/proc/self")

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values by their labels."""


class Hub(Protocol):
    """What is asked of the hub."""

    @property
    def head(self) -> Position:
        """Everything before it has been delivered."""

    @property
    def ready(self) -> bool:
        """Whether resumes are served."""

    @property
    def draining(self) -> bool:
        """Whether the node stops."""


class Sized(Protocol):
    """Something that can be counted."""

    def __len__(self) -> int: ...


class Feed(Protocol):
    """What is asked of the feed."""

    @property
    def caught_up(self) -> bool:
        """Whether it has passed what was committed at its start."""

    @property
    def alive(self) -> bool:
        """Whether it hears from its source."""

    @property
    def unseen(self) -> Sized:
        """Delivered transactions that no reader has seen."""


class Pool(Protocol):
    """What is asked of the pool."""

    @property
    def answers(self) -> bool:
        """Whether the last attempt to connect succeeded."""

    def stats(self) -> Stats:
        """Connections in all and in use, requests that wait."""


class Admin:
    """Reads one node's numbers."""

    def __init__(self, hub: Hub, meter: Meter, feed: Feed, pool: Pool) -> None:
        self._hub = hub
        self._meter = meter
        self._feed = feed
        self._pool = pool
        self._open_files = float("nan")
        self._registry = CollectorRegistry()
        self._registry.register(_Reading(self))

    def reasons(self) -> list[str]:
        """Why the node is not ready; empty when it is."""
        checks = {
            "the feed has not caught up with the database": self._feed.caught_up,
            "the feed does not hear from the database": self._feed.alive,
            "the hub does not take resumes yet": self._hub.ready,
            "the node is stopping": not self._hub.draining,
            "the database takes no connections": self._pool.answers,
        }
        return [reason for reason, good in checks.items() if not good]

    async def healthz(self, _: Request) -> Response:
        """Alive."""
        return PlainTextResponse("ok\n", headers={"Cache-Control": "no-store"})

    async def readyz(self, _: Request) -> Response:
        """Ready, or LC204 with the reasons."""
        reasons = self.reasons()
        if reasons:
            raise Refusal("LC204", facts={"reasons": reasons})
        return JSONResponse({"ready": True}, headers={"Cache-Control": "no-store"})

    async def metrics(self, _: Request) -> Response:
        """All counts."""
        # With 15,000 of them this takes milliseconds, which listeners would notice.
        self._open_files = await asyncio.to_thread(_open_files)
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    def samples(self, metric: Metric) -> Samples:
        """The present values of one metric that is no histogram."""
        counted = getattr(self._meter, metric.name, None)
        if isinstance(counted, dict):
            return [(_labels(key), value) for key, value in counted.items()]
        if counted is not None:
            return [((), counted)]
        return self._asked(metric.name)

    def histogram(self, metric: Metric) -> Histogram:
        """The present counts of one histogram."""
        found = getattr(self._meter, metric.name)
        assert isinstance(found, Histogram)
        return found

    def _asked(self, name: str) -> Samples:
        """What is not counted but asked."""
        hub, pool = self._hub, self._pool.stats()
        busy, idle = float(pool.busy), float(pool.size - pool.busy)
        asked: dict[str, Samples] = {
            "epoch": [((hub.head.epoch,), 1.0)],
            "head_lsn": [((), float(hub.head.lsn))],
            "unseen_transactions": [((), float(len(self._feed.unseen)))],
            "ready": [((), float(not self.reasons()))],
            "pool_connections": [(("busy",), busy), (("idle",), idle)],
            "pool_waiting": [((), float(pool.waiting))],
            "resident_bytes": [((), _resident_bytes())],
            "open_files": [((), self._open_files)],
            "open_files_max": [((), float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))],
            "started_at_seconds": [((), _started_at())],
        }
        return asked[name]


class _Reading(Collector):
    """The registry's way of asking."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def describe(self) -> Iterator[Family]:
        """Names only, for the registry's own check."""
        return (_family(metric) for metric in METRICS)

    def collect(self) -> Iterator[Family]:
        """Every metric with its values."""
        for metric in METRICS:
            family = _family(metric)
            if isinstance(family, HistogramMetricFamily):
                counts = self._admin.histogram(metric)
                family.add_metric([], _buckets(counts), counts.total_s)
            else:
                for labels, value in self._admin.samples(metric):
                    family.add_metric(list(labels), value)
            yield family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    name = PREFIX + metric.name
    if metric.kind == "histogram":
        return HistogramMetricFamily(f"{name}_seconds", metric.help)
    if metric.kind == "counter":
        return CounterMetricFamily(name, metric.help, labels=list(metric.labels))
    return GaugeMetricFamily(name, metric.help, labels=list(metric.labels))


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as the format has them."""
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, LATENCY_BOUNDS_S), "+Inf"), histogram.counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


def _labels(key: object) -> tuple[str, ...]:
    return tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)


def _resident_bytes() -> float:
    try:
        return float(int((_PROCESS / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _open_files() -> float:
    try:
        return float(len(os.listdir(_PROCESS / "fd")))  # noqa: PTH208 (no object for each of 20,000)
    except OSError:
        return float("nan")


@cache
def _started_at() -> float:
    """The process's start: ticks after the boot, whose time is in /proc/stat (proc(5))."""
    try:
        ticks = int((_PROCESS / "stat").read_text().rpartition(")")[2].split()[19])
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return float(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration):
        return float("nan")


def routes(config: Config, hub: Hub, meter: Meter, feed: Feed, pool: Pool) -> list[BaseRoute]:
    """For the node to mount."""
    admin = Admin(hub, meter, feed, pool)
    return [
        Route("/healthz", admin.healthz, methods=["GET"]),
        Route("/readyz", admin.readyz, methods=["GET"]),
        Route("/metrics", admin.metrics, methods=["GET"]),
    ]
