"""The pytest plugin for whole nodes: `serve(database)` runs `lastcall serve` in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from lastcall.testing.fixtures import Database, Databases
from lastcall.testing.sample import app as sample
from lastcall.testing.server import Server
from lastcall.testing.waiting import free_port

SAMPLE = "lastcall.testing.sample:app"


class Serve(Protocol):
    """Makes a server of `database` that is started, ready, and ended with the test."""

    def __call__(
        self,
        database: Database,
        *,
        apps: str = SAMPLE,
        url: str | None = None,
        started: bool = True,
        **settings: object,
    ) -> Server:
        """url: how the server reaches the database (through a proxy, say); by default the owner's."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A maker of servers."""
    made: list[Server] = []

    def make(
        database: Database, *, apps: str = SAMPLE, url: str | None = None, started: bool = True, **settings: object
    ) -> Server:
        folder = tmp_path / f"server{len(made)}"
        folder.mkdir()
        texts = {name: str(value) for name, value in settings.items()}
        texts |= {"database_url": url or database.owner_url, "slot": database.config.slot, "apps": apps}
        server = Server(free_port(), folder, texts, database.config.jwt_secret)
        made.append(server)
        return server.start() if started else server

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def sample_database(databases: Databases) -> Database:
    """A fresh database with the sample application in it."""
    return databases.create((sample,))
