"""One node: starts the stations in order, drains them in reverse.

Promises:

* `/healthz` answers as soon as the node listens; `/readyz` is 503 until the feed has passed what was committed before
  the start, and resumes wait for it. Applications' services and jobs start after that.
* A SIGINT or SIGTERM drains: no new work, listeners get what is pending and a `close` that says "now", then the feed,
  the pool and the embedded database stop, all within three seconds.
* What fails to start says why in one sentence (StartRefused), and whatever had started before is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Protocol

import msgspec
import structlog

from lastcall import admin, gateway, transports
from lastcall.app import App, Service
from lastcall.auth import Tokens
from lastcall.config import Config
from lastcall.errors import CODES, Refusal, StartRefused
from lastcall.feed.publication import publish_watches
from lastcall.feed.wal import WalFeed
from lastcall.front import Front, routes_of
from lastcall.hub import Hub
from lastcall.logs import set_up_logs
from lastcall.meter import Meter
from lastcall.postgres.call import SERVICE, Caller, Identity
from lastcall.postgres.embedded import Embedded
from lastcall.postgres.logins import logins
from lastcall.postgres.migrate import migrate, owner_connection
from lastcall.postgres.pool import Pool
from lastcall.schedule import Schedule
from lastcall.state import Reader

Say = Callable[[str], None]

READY_POLL_S: Final = 0.02
SERVICE_STOP_MAX_S: Final = 1.0
SLOT_WAIT_MAX_S: Final = 10.0
"""A server that was killed a moment ago still holds the slot, until PostgreSQL notices."""

_log = structlog.get_logger("lastcall.node")


def _silent(_: str) -> None:
    pass


def once(say: Say, text: str) -> Say:
    """Says `text` when it is first told anything, and nothing more: for who wants to know that, not what."""
    told = False

    def tell(_: str) -> None:
        nonlocal told
        if not told:
            told = True
            say(text)

    return tell


@asynccontextmanager
async def owned_database(config: Config, say: Say = _silent) -> AsyncIterator[str]:
    """The owner's connection string: of `database_url`, or of the embedded database, which runs as long as the block.

    Raises StartRefused.
    """
    if config.database_url:
        yield config.database_url
        return
    embedded = Embedded(Path(config.data), say)
    starting = asyncio.ensure_future(asyncio.to_thread(embedded.start))
    try:
        # A thread cannot be called off: who is cancelled meanwhile still waits for it, to stop what it has started.
        yield await asyncio.shield(starting)
    finally:
        await asyncio.wait({starting})
        await asyncio.to_thread(embedded.stop)


async def prepare(owner_url: str, apps: Sequence[App], config: Config, say: Say = _silent) -> None:
    """Roles, SQL and publication as this version needs them; nothing where they are so already. Raises StartRefused."""
    await migrate(owner_url, apps, config, say)
    async with await owner_connection(owner_url) as connection:
        if await publish_watches(connection, config, [watch for app in apps for watch in app.watches]):
            say("the publication names the watched tables")


class Node:
    """One node, from its settings and applications (lastcall.app.Node is what applications see of it).

    say: tells the person at the terminal what happens.
    """

    def __init__(self, config: Config, apps: Sequence[App], *, demo: bool = False, say: Say = _silent) -> None:
        self.config = config
        self.apps = tuple(apps)
        self.demo = demo
        self.meter = Meter()
        self.tokens = Tokens(config)
        self._say = say
        self._codes = {**CODES, **{number: code for app in apps for number, code in app.codes.items()}}
        self._ending = asyncio.Event()
        self._port = config.port
        self._caller: Caller | None = None
        self._catalogue: gateway.Catalogue | None = None

    # What applications use (lastcall.app.Node)

    async def call(self, function: str, arguments: Mapping[str, Any], claims: Mapping[str, Any] | None = None) -> Any:
        """Call `schema.function` in one transaction and return its value. Raises Refusal."""
        if self._caller is None or self._catalogue is None:
            raise Refusal("LC204")
        identity = SERVICE if claims is None else Identity(str(claims["role"]), msgspec.json.encode(claims))
        signature = await self._catalogue.internal(function)
        answer = await self._caller.call(
            identity, signature, {name: msgspec.json.encode(value) for name, value in arguments.items()}
        )
        return msgspec.json.decode(answer.value)

    def mint(self, subject: str, role: str, claims: Mapping[str, Any], life_s: float | None = None) -> str:
        """A token of this server."""
        return self.tokens.mint(subject, role, claims, life_s)

    # Life

    def end(self) -> None:
        """Drain and stop; `run` returns when that is done."""
        self._ending.set()

    async def run(self) -> None:
        """Start, serve until SIGINT, SIGTERM or `end`, and stop. Raises StartRefused, Refusal LC201."""
        set_up_logs(self.config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.end)
        async with AsyncExitStack() as stations:
            starting = asyncio.create_task(self._start(stations), name="start")
            await self._unless_ended(starting)
            await self._ending.wait()
            self._say("stopping")

    async def _unless_ended(self, starting: asyncio.Task[None]) -> None:
        """A Ctrl-C while it still starts ends it all the same."""
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
        finally:
            ending.cancel()

    async def _start(self, stations: AsyncExitStack) -> None:
        config, meter = self.config, self.meter
        owner_url = await stations.enter_async_context(owned_database(config, self._say))
        await prepare(owner_url, self.apps, config, once(self._say, "bringing the database to this version"))
        urls = logins(config, owner_url)

        pool = Pool(urls.authenticator, config)
        await pool.open()
        stations.push_async_callback(pool.close)
        caller = self._caller = Caller(pool, config, self._codes)
        catalogue = self._catalogue = gateway.Catalogue(caller, self.apps)
        await catalogue.load()

        hub = Hub(config, meter, asyncio.get_running_loop())
        stations.callback(hub.stop)
        watches = [watch for app in self.apps for watch in app.watches]
        feed = WalFeed(config, urls.replication, watches, meter)
        await feed.start(hub, wait_max_s=SLOT_WAIT_MAX_S)
        stations.push_async_callback(feed.stop)

        reader = Reader(caller, feed, self.apps, config, meter)
        await self._attach(stations, reader)
        usage = gateway.Usage(caller)
        await self._attach(stations, usage)
        routes = [
            *gateway.routes(config, hub, meter, self.tokens, reader, caller, catalogue, self.apps, usage),
            *transports.routes(hub, self.tokens, reader, config, meter, self._origins()),
            *admin.routes(config, hub, meter, feed, pool),
            *(route for app in self.apps for route in routes_of(app, demo=self.demo)),
        ]
        front = Front(config, self.apps, routes, self._home(), SimpleNamespace(state=SimpleNamespace(node=self)))
        await self._listen(stations, front, hub)

        await self._until_caught_up(feed, hub)
        await self._attach(stations, Schedule(config, caller, catalogue, self.apps, meter, self))
        await self._start_applications(stations)
        self._say(f"ready on {self._address()}{self._home() or ''} (Ctrl-C stops everything)")
        if self.demo:
            for app in self.apps:
                if app.demo is not None and app.demo.hint:
                    self._say(app.demo.hint.replace("{data}", config.data))

    async def _listen(self, stations: AsyncExitStack, front: Front, hub: Hub) -> None:
        """Bind, serve in a task of its own, and be drained first of all at the end."""
        bound = bind(self.config.host, self.config.port)
        server = transports.Server(front, self.config, hub)
        serving = asyncio.create_task(server.serve(sockets=[bound]), name="http")

        async def drain() -> None:
            server.should_exit = True
            await serving

        stations.push_async_callback(drain)
        self._port = bound.getsockname()[1]

    async def _until_caught_up(self, feed: WalFeed, hub: Hub) -> None:
        while not feed.caught_up:  # noqa: ASYNC110 - the feed says it nowhere else, and this is once in a node's life
            await asyncio.sleep(READY_POLL_S)
        hub.set_ready()

    async def _start_applications(self, stations: AsyncExitStack) -> None:
        for app in self.apps:
            demo = app.demo if self.demo else None
            if demo is not None and demo.seed is not None:
                await self.call(demo.seed, {})
            for make in (*app.services, *app.leader_services, *(demo.services if demo else ())):
                await self._attach(stations, _Bounded(make(), self))

    async def _attach(self, stations: AsyncExitStack, service: Station) -> None:
        await service.start()
        stations.push_async_callback(service.stop)

    def _origins(self) -> list[str]:
        return [origin for app in self.apps for origin in app.cors_origins]

    def _home(self) -> str | None:
        pages = [app.demo.page for app in self.apps if self.demo and app.demo is not None]
        pages += [f"/{app.name}/" for app in self.apps if app.static is not None and app.static.is_dir()]
        return pages[0] if pages else None

    def _address(self) -> str:
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self._port}"


class Station(Protocol):
    """One service life: start, started, stop."""

    async def start(self) -> None:
        """Return when started."""

    async def stop(self) -> None:
        """End; a second stop is harmless."""


class _Bounded:
    """An application's service as a station: its stop may take SERVICE_STOP_MAX_S, then the node goes on without it."""

    def __init__(self, service: Service, node: Node) -> None:
        self._service = service
        self._node = node

    async def start(self) -> None:
        await self._service.start(self._node)

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(SERVICE_STOP_MAX_S):
                await self._service.stop()
        except TimeoutError:
            _log.warning("service did not stop", service=type(self._service).__name__)


def bind(host: str, port: int) -> socket.socket:
    """A socket on this address. Raises StartRefused, naming what is in the way."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, number)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise StartRefused(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
    bound.setblocking(False)
    return bound
