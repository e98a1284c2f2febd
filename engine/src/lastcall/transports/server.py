"""uvicorn's server, with the drain: listeners are told to come back before connections are closed."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from lastcall.config import Config
from lastcall.hub import Hub
from lastcall.transports.handover import HandoverWebSocketProtocol, bounded

BACKLOG: Final = 4_096
"""Connections that the kernel keeps until they are accepted: after a restart all clients come at once."""

DRAIN_POLL_S: Final = 0.02


def uvicorn_config(app: ASGIApp, config: Config) -> uvicorn.Config:
    """How uvicorn runs here: uvloop, the hand-over, no log of its own (it would print tickets in addresses), no
    compression, no timers per WebSocket (heartbeats do that)."""
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        loop="uvloop",
        http=bounded(config),
        ws=HandoverWebSocketProtocol,
        ws_max_size=config.websocket_frame_max_bytes,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(config.proxies_trusted),
        forwarded_allow_ips=list(config.proxies_trusted),
        backlog=BACKLOG,
        timeout_graceful_shutdown=1,
    )


class Server(uvicorn.Server):
    """uvicorn's server over a hub."""

    def __init__(self, app: ASGIApp, config: Config, hub: Hub) -> None:
        super().__init__(uvicorn_config(app, config))
        self._hub = hub
        self._drain_s = config.drain_s

    @property
    def port(self) -> int:
        """The port that was bound; to be asked once the server has started."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody, tell everybody, give them `drain_s` to take it, cut the rest; then uvicorn's own end."""
        for server in self.servers:
            server.close()
        await self.drain()
        await super().shutdown(sockets)

    async def drain(self) -> None:
        """End every stream with LC209. Harmless when done twice."""
        self._hub.drain()
        clock = asyncio.get_running_loop().time
        ends = clock() + self._drain_s
        while self._hub.places_taken and clock() < ends:  # noqa: ASYNC110 (the hub knows no asyncio)
            await asyncio.sleep(DRAIN_POLL_S)
        self._hub.abort_all()
