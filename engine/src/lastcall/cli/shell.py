"""`lastcall psql`: the owner's SQL prompt on the server's database, wherever it is."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import typer

from lastcall.cli.options import Data, DatabaseUrl
from lastcall.config import load
from lastcall.errors import LastcallError
from lastcall.postgres.embedded import DATABASE, OWNER
from lastcall.postgres.installation import bundled


class NoDatabase(LastcallError):
    """There is no embedded database in the data folder."""


class _Record(msgspec.Struct):
    """What is needed of the embedded database's `postgres.json`."""

    port: int
    owner_password: str


def owner_environment(data: Path) -> dict[str, str]:
    """libpq's variables that reach the embedded database of this folder as its owner. Raises NoDatabase."""
    try:
        record = msgspec.json.decode((data / "postgres.json").read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError):
        raise NoDatabase(f"there is no embedded database in {data}; name its folder with --data") from None
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(record.port),
        "PGUSER": OWNER,
        "PGDATABASE": DATABASE,
        "PGPASSWORD": record.owner_password,
    }


def psql(context: typer.Context, data: Data = None, database_url: DatabaseUrl = None) -> None:
    """Open psql as the owner of the running server's database; what follows goes to psql (-c 'select 1')."""
    config = load({"data": data, "database_url": database_url})
    program = str(bundled().bin / "psql")
    if config.database_url:
        os.execv(program, [program, "-d", config.database_url, *context.args])  # noqa: S606 (the person's own prompt)
    environment = os.environ | owner_environment(Path(config.data))
    os.execve(program, [program, *context.args], environment)  # noqa: S606


def add_to(command: typer.Typer) -> None:
    """Register the command."""
    command.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)
