"""The pytest plugin: a real PostgreSQL for the session, a fresh database for each test.

    def test_something(database):
        with database.connect() as owner: …

A module or folder that needs applications in its database overrides the fixture `database_apps`:

    @pytest.fixture(scope="session")
    def database_apps(): return (app,)
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
import pytest

from lastcall.app import App
from lastcall.config import Config, checked
from lastcall.postgres.logins import logins
from lastcall.postgres.migrate import migrate
from lastcall.testing.postgres_server import OWNER, PASSWORD, TEST_SECRET, PostgresServer, sweep
from lastcall.testing.proxy import FaultProxy
from lastcall.testing.waiting import eventually, eventually_async, free_port

__all__ = ["Database", "Databases", "FaultProxy", "PostgresServer", "eventually", "eventually_async", "free_port"]

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """A database of one test, with every login it needs."""

    name: str
    server: PostgresServer
    config: Config
    owner_url: str
    authenticator_url: str
    replication_url: str
    superuser_url: str

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[tuple[object, ...]]:
        """A connection as owner."""
        return psycopg.connect(self.owner_url, autocommit=autocommit)

    def superuser(self, *, autocommit: bool = True) -> psycopg.Connection[tuple[object, ...]]:
        """A connection as superuser."""
        return psycopg.connect(self.superuser_url, autocommit=autocommit)

    async def connect_async(self, *, autocommit: bool = True) -> psycopg.AsyncConnection[tuple[object, ...]]:
        """A connection as owner, for coroutines."""
        return await psycopg.AsyncConnection.connect(self.owner_url, autocommit=autocommit)

    def execute(self, statement: str, parameters: Sequence[object] | None = None) -> list[tuple[object, ...]]:
        """Run one statement as owner in a transaction of its own; its rows."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []


class Databases:
    """Makes databases on one server from migrated templates, and drops what it made."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._templates: dict[tuple[str, ...], str] = {}
        self._made: list[str] = []

    def create(self, apps: Sequence[App] | None = (), settings: Mapping[str, object] | None = None) -> Database:
        """A fresh database: migrated with `apps`, or empty when `apps` is None. `settings` go into its config."""
        name = f"t{os.getpid()}_{next(_numbers)}"
        template = "template0" if apps is None else self._template(apps)
        self.server.create_database(name, template)
        self._made.append(name)
        return describe(self.server, name, settings)

    def drop_all(self) -> None:
        """Drop every database of this object, templates excepted."""
        while self._made:
            self.server.drop_database(self._made.pop())

    def _template(self, apps: Sequence[App]) -> str:
        key = tuple(f"{app.name}:{app.sql}" for app in apps)
        if key not in self._templates:
            name = f"template_{os.getpid()}_{next(_numbers)}"
            self.server.create_database(name)
            database = describe(self.server, name)
            # In a thread: a coroutine may ask for a database, and a loop cannot run in a loop.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(lambda: asyncio.run(migrate(database.owner_url, apps, database.config))).result()
            self._templates[key] = name
        return self._templates[key]


def describe(server: PostgresServer, name: str, settings: Mapping[str, object] | None = None) -> Database:
    """The logins and the config of database `name` on `server`."""
    owner_url = server.url(name, OWNER, PASSWORD)
    config = checked({"database_url": owner_url, "jwt_secret": TEST_SECRET, "slot": name, **(settings or {})})
    found = logins(config, owner_url)
    return Database(
        name=name,
        server=server,
        config=config,
        owner_url=owner_url,
        authenticator_url=found.authenticator,
        replication_url=found.replication,
        superuser_url=server.url(name),
    )


@pytest.fixture(scope="session")
def postgres_settings() -> Mapping[str, str]:
    """Settings of the session's PostgreSQL beyond the plugin's; override per folder if need be."""
    return {}


@pytest.fixture(scope="session")
def postgres(postgres_settings: Mapping[str, str]) -> Iterator[PostgresServer]:
    """The session's PostgreSQL (LASTCALL_TEST_POSTGRES chooses which)."""
    sweep()
    server = PostgresServer(postgres_settings)
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def session_databases(postgres: PostgresServer) -> Databases:
    """The session's templates."""
    return Databases(postgres)


@pytest.fixture(scope="session")
def database_apps() -> Sequence[App]:
    """Applications in the fixture `database`; override to have some."""
    return ()


@pytest.fixture
def databases(session_databases: Databases) -> Iterator[Databases]:
    """Makes further databases: `databases.create(apps, settings)`; dropped after the test with their slots."""
    try:
        yield session_databases
    finally:
        session_databases.drop_all()


@pytest.fixture
def database(databases: Databases, database_apps: Sequence[App]) -> Database:
    """A fresh, migrated database, dropped after the test with its slots."""
    return databases.create(database_apps)


@pytest.fixture
def empty_database(databases: Databases) -> Database:
    """A fresh database with nothing in it."""
    return databases.create(None)


@pytest.fixture
def make_server() -> Iterator[Callable[..., PostgresServer]]:
    """Makes started servers of the test's own (`make_server(settings)`), for faults; removed after the test."""
    made: list[PostgresServer] = []

    def make(settings: Mapping[str, str] | None = None, **options: str) -> PostgresServer:
        server = PostgresServer(settings, **options)  # type: ignore[arg-type]
        made.append(server)
        return server.start()

    try:
        yield make
    finally:
        for server in made:
            server.remove()


@pytest.fixture
def make_proxy() -> Iterator[Callable[[int], FaultProxy]]:
    """Makes fault proxies in front of a port of 127.0.0.1; closed after the test."""
    made: list[FaultProxy] = []

    def make(port: int) -> FaultProxy:
        proxy = FaultProxy(port)
        made.append(proxy)
        return proxy.start()

    try:
        yield make
    finally:
        for proxy in made:
            proxy.stop()
