"""`lastcall migrate` and `lastcall doctor`: what stands between the server and its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import typer
from rich.console import Console

from lastcall.app import installed
from lastcall.cli.options import AppNames, Data, DatabaseUrl, configured
from lastcall.config import Config
from lastcall.errors import LastcallError
from lastcall.postgres.doctor import examine
from lastcall.postgres.embedded import running_url

_console = Console()


class Unwell(LastcallError):
    """At least one check of the doctor failed."""


@asynccontextmanager
async def _examined(config: Config) -> AsyncIterator[str]:
    """The database of the running server where one runs, else of a start of our own."""
    from lastcall.node import owned_database  # noqa: PLC0415 - see serving.py

    running = None if config.database_url else running_url(Path(config.data))
    if running is not None:
        yield running
    else:
        async with owned_database(config) as url:
            yield url


async def _migrate(config: Config) -> None:
    from lastcall.node import owned_database, prepare  # noqa: PLC0415 - see serving.py

    async with owned_database(config) as url:
        await prepare(url, installed(config.apps), config, say=lambda text: _console.print(text, highlight=False))


def migrate(app: AppNames = None, data: Data = None, database_url: DatabaseUrl = None) -> None:
    """Bring the database to this version: roles, the engine's SQL, the applications' SQL, the publication."""
    config = configured({"apps": tuple(app) if app else None, "data": data, "database_url": database_url})
    asyncio.run(_migrate(config))


async def _doctor(config: Config) -> int:
    failed = 0
    async with _examined(config) as url:
        for finding in await examine(url, config):
            mark = "[green]ok[/]  " if finding.ok else "[red]bad[/] "
            _console.print(f"{mark} [bold]{finding.name}[/]: {finding.what}", highlight=False)
            if not finding.ok:
                failed += 1
                _console.print(f"     → {finding.remedy}", highlight=False)
    return failed


def doctor(data: Data = None, database_url: DatabaseUrl = None) -> None:
    """Examine the database and this machine, and say what to do about everything that is not as it should be."""
    failed = asyncio.run(_doctor(configured({"data": data, "database_url": database_url})))
    if failed:
        raise Unwell(f"{failed} check{'s' if failed > 1 else ''} failed; see above for what to do")


def add_to(command: typer.Typer) -> None:
    """Register the commands."""
    command.command()(migrate)
    command.command()(doctor)
