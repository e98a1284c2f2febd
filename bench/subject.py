"""The server that is measured: lastcall as a user runs it, on a PostgreSQL that is as durable as a user's; and its hub
alone, without one."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.generator import Endpoint
from bench.programs import BenchFailed, Program, cores, on_core
from lastcall.testing.fixtures import Database, Databases
from lastcall.testing.postgres_server import DURABLE, PostgresServer
from lastcall.testing.sample import app as sample
from lastcall.testing.server import Server
from lastcall.testing.waiting import free_port

SAMPLE = "lastcall.testing.sample:app"
CHANNEL = "topic:bench"
BODY = '{"event":"bench","data":@}'
START_WITHIN_S = 30.0
UNLIMITED = "1000000000"

POSTGRES: Mapping[str, str] = {**DURABLE, "shared_buffers": "128MB", "max_wal_size": "1GB", "autovacuum": "on"}
"""PostgreSQL's own defaults where the test server differs from them; fsync on."""

SETTINGS: Mapping[str, str] = {
    "apps": SAMPLE,
    "requests_per_minute_max": UNLIMITED,
    "log_level": "warning",
}

_HANDED_OVER = re.compile(r"^lastcall_connections_handed_over(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)
_FLUSHES = re.compile(r"^lastcall_flushes(?:_total)?(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


@contextlib.contextmanager
def database() -> Iterator[Database]:
    """A durable PostgreSQL with the sample application in it."""
    with PostgresServer(POSTGRES) as server:
        yield Databases(server).create((sample,))


@dataclass(slots=True)
class Subject:
    """A lastcall server on the server's core: started, killed and started again."""

    server: Server
    database: Database

    @property
    def endpoint(self) -> Endpoint:
        """How to listen on and to publish to one channel."""
        assert self.server.process is not None
        return Endpoint(
            port=self.server.port,
            pid=self.server.process.pid,
            listen=f"/events?channel={CHANNEL}",
            listen_headers=(bearer(self.server, "member"),),
            publish=f"/channels/{CHANNEL}/events",
            publish_headers=(bearer(self.server, "service"),),
            body=BODY,
            metrics=True,
        )

    def calls(self, function: str, arguments: str) -> Endpoint:
        """How to call a function."""
        assert self.server.process is not None
        return Endpoint(
            port=self.server.port,
            pid=self.server.process.pid,
            publish=f"/rpc/{function}",
            publish_headers=(bearer(self.server, "member"),),
            body=arguments,
        )

    def start(self) -> None:
        """Start it on its core and wait until it is ready."""
        with on_core(cores()[0]):
            self.server.start(START_WITHIN_S)


def bearer(server: Server, role: str) -> str:
    """A line of a request."""
    return f"Authorization: Bearer {server.token(subject='bench', role=role)}"


@contextlib.contextmanager
def lastcall(database: Database, folder: Path, more: Mapping[str, str] | None = None) -> Iterator[Subject]:
    """A server on `database`, ready. more: settings beyond SETTINGS."""
    place = folder / "lastcall"
    place.mkdir(exist_ok=True)
    settings = {**SETTINGS, **(more or {}), "database_url": database.owner_url, "slot": database.config.slot}
    subject = Subject(Server(free_port(), place, settings), database)
    try:
        subject.start()
        yield subject
    finally:
        subject.server.stop()


@contextlib.contextmanager
def hub_alone(folder: Path) -> Iterator[Endpoint]:
    """The hub and its transport without PostgreSQL: `POST /publish` takes the data of an event."""
    port = free_port()
    command = [sys.executable, "-m", "lastcall.testing.hub_alone", "--port", str(port)]
    with Program(command, folder / "hub.log", cores()[0]) as program:
        deadline = time.monotonic() + START_WITHIN_S
        while not _answers(port):
            if time.monotonic() > deadline or program.process.poll() is not None:
                raise BenchFailed(f"the hub alone does not answer: {program.errors()}")
            time.sleep(0.02)
        yield Endpoint(port=port, pid=program.pid, listen=f"/events?channel={CHANNEL}", metrics=True)


def _answers(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=1.0).status_code == 200
    return False


def metric(endpoint: Endpoint, pattern: re.Pattern[str]) -> float:
    """A number of `/metrics`. Raises BenchFailed when it is not there."""
    text = httpx.get(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=10.0).text
    found = pattern.search(text)
    if found is None:
        raise BenchFailed(f"/metrics has no {pattern.pattern}")
    return float(found[1])


def check_handed_over(endpoint: Endpoint, listeners: int) -> None:
    """Raise BenchFailed unless every listening connection is handed over to the hub."""
    found = metric(endpoint, _HANDED_OVER)
    if found != listeners:
        raise BenchFailed(f"{found:.0f} of {listeners} connections are handed over")


def flushes(endpoint: Endpoint) -> float:
    """Flushes of the hub so far."""
    return metric(endpoint, _FLUSHES)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
