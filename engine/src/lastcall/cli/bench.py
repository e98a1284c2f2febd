"""`lastcall bench`: what does a running server deliver from here, and how fast?

The comparison with other servers is the repository's `make bench`; this is the one-minute check of one's own machine.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import Annotated, cast
from urllib.parse import urlsplit

import httpx
import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from lastcall.cli.options import Data, Token, Url
from lastcall.cli.tokens import service_token
from lastcall.errors import LastcallError

ANSWER_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 30.0
_MARK = b'"bench_sent_ns":'


class BenchFailed(LastcallError):
    """The measurement could not be made, or an event was lost or doubled."""


@dataclass(slots=True)
class Tally:
    """What all listeners together have received."""

    joined: int = 0
    received: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    all_joined: asyncio.Event = field(default_factory=asyncio.Event)
    all_received: asyncio.Event = field(default_factory=asyncio.Event)


class Listener(asyncio.Protocol):
    """One SSE connection that counts events by a mark in their data."""

    def __init__(self, request: bytes, tally: Tally, listeners: int, expected: int) -> None:
        self._request, self._tally = request, tally
        self._listeners, self._expected = listeners, expected
        self._rest = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not registered as asyncio's.
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.time_ns()
        buffer = self._rest + data
        *lines, self._rest = buffer.split(b"\n")
        for line in lines:
            if line.startswith(b"event: joined"):
                self._join()
            elif (at := line.find(_MARK)) >= 0:
                sent_ns = int(line[at + len(_MARK) :].split(b"}")[0].split(b",")[0])
                self._count((now_ns - sent_ns) / 1e6)

    def _join(self) -> None:
        if not self._open:
            self._open = True
            self._tally.joined += 1
            if self._tally.joined == self._listeners:
                self._tally.all_joined.set()

    def _count(self, latency_ms: float) -> None:
        self._tally.received += 1
        self._tally.latencies_ms.append(latency_ms)
        if self._tally.received == self._expected:
            self._tally.all_received.set()


async def _publish(client: httpx.AsyncClient, channel: str, events: int) -> None:
    for _ in range(events):
        body = msgspec.json.encode({"event": "bench", "data": {"bench_sent_ns": time.time_ns()}})
        answer = await client.post(f"/channels/{channel}/events", content=body)
        if answer.status_code != 202:
            raise BenchFailed(f"publishing was refused: HTTP {answer.status_code} {answer.text[:200]}")


async def _fan_out(url: str, token: str, channel: str, listeners: int, events: int, publishers: int) -> Tally:
    parts = urlsplit(url)
    port = parts.port or 80
    request = (
        f"GET /events?channel={channel} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()
    tally = Tally()
    loop = asyncio.get_running_loop()
    per_publisher = -(-events // publishers)
    expected = listeners * per_publisher * publishers
    connections = []
    try:
        for _ in range(listeners):
            made = await loop.create_connection(
                lambda: Listener(request, tally, listeners, expected), parts.hostname or "127.0.0.1", port
            )
            connections.append(made[0])
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await tally.all_joined.wait()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=ANSWER_TIMEOUT_S) as client:
            await asyncio.gather(*(_publish(client, channel, per_publisher) for _ in range(publishers)))
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await tally.all_received.wait()
    except TimeoutError:
        raise BenchFailed(
            f"{tally.joined} of {listeners} listeners joined; {tally.received} of {expected} events arrived in time"
        ) from None
    except OSError as error:
        raise BenchFailed(f"{url}: {error.strerror or error}") from None
    finally:
        for connection in connections:
            connection.abort()
    return tally


def bench(
    channel: Annotated[str, typer.Argument(help="A channel that the token may hear and publish on.")],
    listeners: Annotated[int, typer.Option(min=1, max=15_000)] = 200,
    events: Annotated[int, typer.Option(min=1, max=1_000_000)] = 1_000,
    publishers: Annotated[int, typer.Option(min=1, max=256)] = 4,
    url: Url = "http://127.0.0.1:8000",
    token: Token = None,
    data: Data = None,
) -> None:
    """Publish events to many listeners of a running server and report deliveries a second and latencies.

    The clock of both ends must be the same: run it on the server's own machine."""
    bearer = token or service_token(data)
    began = time.perf_counter()
    tally = uvloop.run(_fan_out(url, bearer, channel, listeners, events, publishers))
    took_s = time.perf_counter() - began
    quantiles = statistics.quantiles(tally.latencies_ms, n=100) if tally.received > 1 else tally.latencies_ms * 99
    table = Table("listeners", "events", "deliveries/s", "p50 ms", "p95 ms", "p99 ms")
    table.add_row(
        str(listeners),
        str(tally.received // listeners),
        f"{tally.received / took_s:,.0f}",
        *(f"{quantiles[percent - 1]:.2f}" for percent in (50, 95, 99)),
    )
    Console().print(table)


def add_to(command: typer.Typer) -> None:
    """Register the command."""
    command.command()(bench)
