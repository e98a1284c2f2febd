"""The schema snapshot: what the engine's migrations and routines amount to, in one page (`sql/schema.sql`).

    python -m lastcall.testing.schema      writes it anew

Bodies are not in it; they are in sql/routines, one a file.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from lastcall.postgres.migrate import migrate
from lastcall.postgres.sources import ENGINE, ENGINE_FOLDER, query
from lastcall.testing.fixtures import describe
from lastcall.testing.postgres_server import PostgresServer

SNAPSHOT = ENGINE_FOLDER / "schema.sql"
HEADER = """-- Made by `python -m lastcall.testing.schema` from migrations and routines; a test compares.
-- It is read, never run. Bodies are in sql/routines.
"""


def snapshot(url: str, schema: str = ENGINE) -> str:
    """The text of the snapshot of a migrated database."""
    with psycopg.connect(url) as connection:
        connection.execute("set local search_path = pg_catalog")
        rows = connection.execute(query("schema"), {"schema": schema}).fetchall()
    return HEADER + "".join(f"{row[0]}\n" for row in rows)


def main(path: Path = SNAPSHOT) -> None:
    """Start a server, migrate an empty database, write the snapshot."""
    with PostgresServer() as server:
        server.create_database("snapshot")
        database = describe(server, "snapshot")
        asyncio.run(migrate(database.owner_url, (), database.config))
        path.write_text(snapshot(database.owner_url), encoding="utf-8")


if __name__ == "__main__":
    main()
