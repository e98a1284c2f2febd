"""The hub and its transports without PostgreSQL, for measuring and for tests of connections.

    python -m lastcall.testing.hub_alone --port 8001 [--flush-wait-ms 0] [--flush-turn-ms 1000]

Everybody may listen on everything. `POST /publish` takes the data of an event `bench` on `topic:bench`;
`POST /channels/{channel}/events` takes `{"event", "data"}`. Each request is one transaction, delivered in the request's
own turn: what the feed would do right after COMMIT. `GET /metrics` has the hub's counters.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from lastcall.auth import Principal, Tokens
from lastcall.config import Config
from lastcall.event import Event, Transaction
from lastcall.front import Front
from lastcall.hub import Hub
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.transports import Server, routes

CHANNEL: Final = "topic:bench"
SECRET: Final = "a secret of the hub alone, used by nobody else"  # noqa: S105
TRANSACTION_BYTES: Final = 256


class OpenReader:
    """Lets everybody hear everything. states: what it answers for a channel's state."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}

    async def refused(self, principal: Principal, channels: Sequence[str], position: Position) -> list[str]:
        """Nothing is."""
        return []

    async def read(
        self, principal: Principal, channels: Sequence[str], position: Position
    ) -> Mapping[str, bytes | None]:
        """What `states` says."""
        return {channel: self.states.get(channel) for channel in channels}

    def tickets_allowed(self, channels: Sequence[str]) -> bool:
        """Always."""
        return True


class Stream:
    """Makes the feed's calls: transactions with rising positions."""

    def __init__(self, hub: Hub, epoch: str = "e0") -> None:
        self.hub = hub
        self._epoch = epoch
        self._lsn = 1 << 24
        hub.begin(epoch, Position(epoch, self._lsn, 0))
        hub.set_ready()

    def transaction(self, *events: tuple[Sequence[str], str, bytes], subject: str | None = None) -> Transaction:
        """The next transaction, with events given as (channels, name, data). subject: of `revoked` events."""
        commit = self._lsn
        self._lsn += TRANSACTION_BYTES
        made = tuple(
            Event(Position(self._epoch, commit, ordinal), tuple(channels), name, data, subject)
            for ordinal, (channels, name, data) in enumerate(events, start=1)
        )
        return Transaction(commit, self._lsn, commit & 0xFFFF, time.time(), made)

    def publish(self, channel: str, name: str, data: bytes) -> Position:
        """Deliver a transaction of one event; its position."""
        transaction = self.transaction(([channel], name, data))
        self.hub.deliver([transaction])
        return transaction.events[0].position


class _Published(msgspec.Struct):
    event: str
    data: msgspec.Raw


def hub_routes(stream: Stream, meter: Meter) -> list[BaseRoute]:
    """Publishing without a database, and the counters."""

    async def publish(request: Request) -> Response:
        position = stream.publish(CHANNEL, "bench", await request.body())
        return Response(b'{"position":"%b"}' % str(position).encode(), 202, media_type="application/json")

    async def publish_on(request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=_Published)
        position = stream.publish(request.path_params["channel"], asked.event, bytes(asked.data))
        return Response(b'{"position":"%b"}' % str(position).encode(), 202, media_type="application/json")

    async def metrics(_: Request) -> Response:
        return PlainTextResponse("".join(f"lastcall_{name} {value}\n" for name, value in counters(meter).items()))

    return [
        Route("/publish", publish, methods=["POST"]),
        Route("/channels/{channel}/events", publish_on, methods=["POST"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]


def counters(meter: Meter) -> dict[str, int]:
    """The numbers of the hub and the transports."""
    found = {name: value for name in Meter.__slots__ if isinstance(value := getattr(meter, name), int)}
    return found | {f'connections{{kind="{kind}"}}': count for kind, count in meter.connections.items()}


async def serve(config: Config) -> None:
    """Run until a signal."""
    meter = Meter()
    hub = Hub(config, meter, asyncio.get_running_loop())
    stream = Stream(hub)
    tokens = Tokens(msgspec.structs.replace(config, jwt_secret=SECRET))
    every = [*routes(hub, tokens, OpenReader(), config, meter), *hub_routes(stream, meter)]
    await Server(Front(config, (), every, None, None), config, hub).serve()
    hub.stop()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="lastcall.testing.hub_alone", description="The hub without PostgreSQL.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--flush-wait-ms", type=float, default=0.0, help="events that come so soon leave together")
    parser.add_argument("--flush-turn-ms", type=float, default=1000.0, help="a flush gives way to other work so often")
    asked = parser.parse_args()
    config = Config(
        port=asked.port,
        connections_max=50_000,
        flush_wait_max_ms=asked.flush_wait_ms,
        flush_turn_max_ms=asked.flush_turn_ms,
    )
    uvloop.run(serve(config))


if __name__ == "__main__":
    main()
