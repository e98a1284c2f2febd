"""The publication: which tables PostgreSQL tells the feed about.

Promises:

* `publish_watches` (owner, from `migrate`) creates it before there is a slot, and from then on only alters it. It
  refuses watches that would be impossible, silent, or a danger to writes, and then has changed nothing.
* It waits at most LOCK_WAIT_MAX_S for a lock on a table.
* `read_catalog` (any login) says what stands; `verify` refuses to start with what `migrate` has not prepared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from lastcall.config import Config
from lastcall.errors import StartRefused
from lastcall.feed.catalog import Catalog, asked_for, problems, refuse
from lastcall.feed.watch import Watch, by_table, check, kinds_of
from lastcall.postgres.migrate import Connection

LOCK_WAIT_MAX_S: Final = 30


async def publish_watches(connection: Connection, config: Config, watches: Sequence[Watch]) -> bool:
    """Publish exactly the tables of these watches; True when that was a change. Raises StartRefused.

    Everything happens in one transaction. A change is live for a table once the transactions that were open then have
    ended; its channels get a `reset` from the feed.
    """
    check(watches)
    async with connection.transaction():
        await connection.execute("select set_config('lock_timeout', %s, true)", [f"{LOCK_WAIT_MAX_S}s"])
        catalog = await read_catalog(connection, config, watches)
        refuse(problems(watches, catalog, published=False))
        if catalog.publication is not None and catalog.publication.all_tables:
            raise StartRefused(f"the publication {config.slot} is FOR ALL TABLES: drop it and run `lastcall migrate`")
        tables = {table: sorted(kinds_of(group)) for table, group in by_table(watches).items()}
        cursor = await connection.execute(
            "select lastcall.set_publication(%s, %s)", [config.slot, msgspec.json.encode(tables).decode()]
        )
        row = await cursor.fetchone()
    return bool(row and row[0])


async def read_catalog(connection: Connection, config: Config, watches: Sequence[Watch]) -> Catalog:
    """What the catalog says of the publication and of the watched tables, in a snapshot of now."""
    cursor = await connection.execute("select lastcall.feed_catalog(%s, %s)", [config.slot, asked_for(watches)])
    row = await cursor.fetchone()
    assert row is not None
    return Catalog.parse(row[0])


def verify(watches: Sequence[Watch], catalog: Catalog) -> None:
    """Raise StartRefused unless every watch is ready to be decoded."""
    check(watches)
    refuse(problems(watches, catalog, published=True))
