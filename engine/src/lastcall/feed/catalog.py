"""What the catalog says about watched tables, and what is wrong with a watch in its light.

Promises:

* `problems` names everything that would make a watch impossible, silent, or a danger to writes (PostgreSQL refuses an
  UPDATE of a published table without a usable replica identity), before it could do harm.
* `fingerprints` changes for a kind of channel whenever something changes that decides what is heard on it (a watch of a
  table that feeds it, the columns that such a watch names, what is wrong with it), else never.
* Nothing here asks a database; `Catalog.parse` reads what `lastcall.feed_catalog` answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from lastcall.errors import StartRefused
from lastcall.feed.values import TypeFacts, codec, names_channels
from lastcall.feed.watch import Watch, by_table, kinds_of

PUBLISHED_ROWS: Final = "lastcall.published"
"""Where `lastcall.publish` and `lastcall.revoke` go when messages cannot be trusted."""
PATH: Final = "lastcall.path"
"""Whether messages can be trusted. Published, so that the feed learns of a change at its place in the stream."""
ENGINE_TABLES: Final = (PUBLISHED_ROWS, PATH)

GENERATED_COLUMNS_SINCE: Final = 180000
_KINDS_NOT_WATCHED: Final = {
    "p": "is partitioned: truncating or detaching a partition makes no event (watch the partitions)",
    "v": "is a view: only tables have events",
    "m": "is a materialised view: only tables have events",
    "f": "is a foreign table: its changes are not in this database's log",
}


class ColumnFacts(msgspec.Struct, frozen=True):
    """A column as it is now. generated: empty, `s` stored, `v` virtual."""

    name: str
    type: int
    type_name: str
    generated: str = ""


class TableFacts(msgspec.Struct, frozen=True):
    """A table as it is now.

    kind, persistence, identity: letters of pg_class. key: the primary key's columns in its order. identity_columns:
    those that an UPDATE or DELETE shows of the old row. narrowed: its publication leaves out rows or columns.
    """

    name: str
    oid: int
    kind: str
    persistence: str
    identity: str
    children: bool
    published: bool
    narrowed: bool
    key: tuple[str, ...]
    identity_columns: tuple[str, ...]
    columns: tuple[ColumnFacts, ...]

    def column(self, name: str) -> ColumnFacts | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)


class PublicationFacts(msgspec.Struct, frozen=True):
    """A row of pg_publication, as far as it matters."""

    oid: int
    all_tables: bool = msgspec.field(name="puballtables")
    insert: bool = msgspec.field(name="pubinsert")
    update: bool = msgspec.field(name="pubupdate")
    delete: bool = msgspec.field(name="pubdelete")
    truncate: bool = msgspec.field(name="pubtruncate")
    via_root: bool = msgspec.field(name="pubviaroot")
    generated: str = msgspec.field(name="pubgencols", default="s")

    @property
    def whole(self) -> bool:
        """Whether it publishes every operation, and tables under their own names."""
        return self.insert and self.update and self.delete and self.truncate and not self.via_root


class Catalog(msgspec.Struct, frozen=True):
    """The answer of `lastcall.feed_catalog`."""

    version: int
    publication: PublicationFacts | None
    tables: dict[str, TableFacts]
    types: dict[int, TypeFacts]

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Catalog:
        """From the JSON value. Raises msgspec.ValidationError when it has another shape."""
        lists = msgspec.convert(answer, _Answer, strict=False)
        return cls(
            version=lists.version,
            publication=lists.publication,
            tables={table.name: table for table in lists.tables},
            types={facts.oid: facts for facts in lists.types},
        )


class _Answer(msgspec.Struct):
    version: int
    publication: PublicationFacts | None
    tables: list[TableFacts]
    types: list[TypeFacts]


def asked_for(watches: Sequence[Watch]) -> list[str]:
    """The tables to ask the catalog about."""
    return [*by_table(watches), *ENGINE_TABLES]


class Problem(NamedTuple):
    """What is wrong with a watch; watch None: with them all."""

    watch: Watch | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.watch is None else f"watch {self.watch.event} on {self.watch.table}: {self.reason}"


def problems(watches: Sequence[Watch], catalog: Catalog, *, published: bool) -> list[Problem]:
    """What is wrong with these watches. published: the publication must be there already."""
    found = [Problem(None, reason) for reason in _publication_problems(catalog)] if published else []
    for watch in watches:
        table = catalog.tables.get(watch.table)
        if table is None:
            found.append(Problem(watch, f"there is no table {watch.table}"))
            continue
        reasons = list(_table_problems(watch, table, catalog))
        if published and table.kind == "r":
            reasons += _membership_problems(table)
        found += [Problem(watch, f"{watch.table} {reason}") for reason in reasons]
    return found


def refuse(found: Sequence[Problem]) -> None:
    """Raise StartRefused that says everything `problems` found."""
    if found:
        raise StartRefused("; ".join(dict.fromkeys(map(str, found))))


def _publication_problems(catalog: Catalog) -> Iterable[str]:
    publication = catalog.publication
    if publication is None:
        yield "the publication is missing: run `lastcall migrate`"
        return
    if publication.all_tables:
        yield "the publication is FOR ALL TABLES and reads what no watch names: drop it and run `lastcall migrate`"
    if not publication.whole or (publication.generated != "s" and catalog.version >= GENERATED_COLUMNS_SINCE):
        yield "the publication was altered and leaves something out: run `lastcall migrate`"
    for name in ENGINE_TABLES:
        table = catalog.tables.get(name)
        if table is None or not table.published or table.narrowed:
            yield f"{name} is not in the publication: run `lastcall migrate`"


def _membership_problems(table: TableFacts) -> Iterable[str]:
    if not table.published:
        yield "is not in the publication: run `lastcall migrate`"
    elif table.narrowed:
        yield "has a row filter or a column list in the publication: run `lastcall migrate`"


def _table_problems(watch: Watch, table: TableFacts, catalog: Catalog) -> Iterable[str]:
    if table.kind != "r":
        yield _KINDS_NOT_WATCHED.get(table.kind, "is not a table")
        return
    if table.persistence != "p":
        yield "is unlogged or temporary: its changes are not in the log"
    if table.children:
        yield "has child tables, whose rows would make no event"
    if not table.key:
        yield "has no primary key: a row could not be named when it is gone"
    elif not table.identity_columns:
        yield "has no usable replica identity (a deferrable primary key is none): UPDATE and DELETE would fail"
    else:
        yield from _identity_problems(watch, table)
    yield from _column_problems(watch, table, catalog)
    if catalog.version >= GENERATED_COLUMNS_SINCE:
        virtual = [c.name for c in table.columns if c.generated == "v" and c.name in table.identity_columns]
        if virtual:
            yield f"has the virtual generated column {virtual[0]} in its replica identity: UPDATE and DELETE would fail"


def _identity_problems(watch: Watch, table: TableFacts) -> Iterable[str]:
    if not watch.sees_old_rows:
        return
    needed = dict.fromkeys((*watch.channel_columns, *(watch.where or ()), *table.key))
    missing = [name for name in needed if name not in table.identity_columns]
    if missing:
        yield (
            f"has a replica identity without {', '.join(missing)}, which UPDATE and DELETE must show of the old row: "
            f"ALTER TABLE {table.name} REPLICA IDENTITY FULL, or watch inserts only"
        )


def _column_problems(watch: Watch, table: TableFacts, catalog: Catalog) -> Iterable[str]:
    named = dict.fromkeys((*watch.columns, *watch.channel_columns, *(watch.where or ())))
    if watch.sees_old_rows:
        named |= dict.fromkeys(table.key)
    for name in named:
        column = table.column(name)
        if column is None:
            yield f"has no column {name}"
        elif column.generated and (column.generated != "s" or catalog.version < GENERATED_COLUMNS_SINCE):
            yield f"has {name} as a generated column, which this PostgreSQL does not send"
        elif codec(column.type, catalog.types) is None:
            yield f"has {name} of type {column.type_name}, which no event can carry"
        elif name in watch.channel_columns and not names_channels(column.type, catalog.types):
            yield f"has {name} of type {column.type_name}, which cannot stand in a channel's name"


def fingerprints(watches: Sequence[Watch], catalog: Catalog) -> dict[str, str]:
    """Kind of channel → digest of all that decides what is heard on it. Order counts: the first match renders."""
    wrong = problems(watches, catalog, published=True)
    groups: dict[str, list[Any]] = {kind: [] for kind in sorted(kinds_of(watches))}
    for name, group in sorted(by_table(watches).items()):
        form = [name, _shape(group, catalog.tables.get(name)), [_declaration(watch) for watch in group]]
        form.append(sorted(problem.reason for problem in wrong if problem.watch is None or problem.watch in group))
        for kind in kinds_of(group):
            groups[kind].append(form)
    encode = msgspec.json.Encoder(order="deterministic").encode
    return {kind: hashlib.sha256(encode(group)).hexdigest()[:16] for kind, group in groups.items()}


def _declaration(watch: Watch) -> list[Any]:
    return [watch.channels, watch.event, watch.columns, sorted(watch.operations), watch.where]


def _shape(watches: Sequence[Watch], table: TableFacts | None) -> list[Any]:
    """What of the table shows in events: its identity, its key, and the types of the columns named."""
    if table is None:
        return []
    named = {name for watch in watches for name in (*watch.columns, *watch.channel_columns, *(watch.where or ()))}
    columns = [(column.name, column.type_name) for column in table.columns if column.name in named]
    return [table.oid, table.key, table.identity_columns, columns]
