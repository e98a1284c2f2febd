"""Publishing watches: what is refused, what is altered, and that writes are never broken."""

from __future__ import annotations

import psycopg
import pytest

from lastcall.errors import StartRefused
from lastcall.feed.publication import publish_watches, read_catalog, verify
from lastcall.feed.watch import Watch
from lastcall.testing.feeding import Feeding
from lastcall.testing.fixtures import Database

TABLES = """
    create schema app;
    create table app.sale (id bigint primary key, bar int not null, total numeric, place point,
        doubled int generated always as (bar * 2) stored);
    alter table app.sale replica identity full;
    create table app.keyed (id bigint primary key, bar int not null);
    create table app.bare (id bigint, bar int);
    create table app.full_bare (id bigint, bar int);
    alter table app.full_bare replica identity full;
    create table app.late (id bigint primary key deferrable, bar int);
    create table app.nothing (id bigint primary key, bar int);
    alter table app.nothing replica identity nothing;
    create table app.indexed (id bigint primary key, bar int not null, seat int not null, unique (bar, seat, id));
    alter table app.indexed replica identity using index indexed_bar_seat_id_key;
    create unlogged table app.unlogged (id bigint primary key, bar int);
    create table app.parted (id bigint primary key, bar int) partition by range (id);
    create table app.part partition of app.parted for values from (0) to (100);
    alter table app.part replica identity full;
    create table app.parent (id bigint primary key, bar int);
    alter table app.parent replica identity full;
    create table app.child () inherits (app.parent);
    create view app.seen as select * from app.sale;
    create materialized view app.kept as select * from app.sale;
    create sequence app.counted;
"""


def watch(table: str = "app.sale", **members: object) -> Watch:
    """A watch of `table` on `bar:{bar}`."""
    return Watch(**{"table": table, "channel": "bar:{bar}", "event": "sale", "columns": ("id",), **members})  # type: ignore[arg-type]


@pytest.fixture
def app(database: Database) -> Database:
    """A database with tables of every sort."""
    with database.connect() as owner:
        owner.execute(TABLES)
    return database


async def publish(database: Database, *watches: Watch) -> bool:
    """As `migrate` does."""
    async with await database.connect_async() as owner:
        return await publish_watches(owner, database.config, watches)


def published(database: Database) -> set[str]:
    """What the publication has beyond the engine's own."""
    rows = database.execute(
        "select schemaname || '.' || tablename from pg_publication_tables where pubname = %s", [database.config.slot]
    )
    return {str(name) for (name,) in rows if not str(name).startswith("lastcall.")}


INSERTS = frozenset({"insert"})


BAD = [
    (watch("app.gone"), "there is no table app.gone"),
    (watch("app.keyed"), "REPLICA IDENTITY FULL"),
    (watch("app.keyed", channel="bar:{id}", where={"bar": 1}), "without bar"),
    (watch("app.bare"), "no primary key"),
    (watch("app.full_bare"), "no primary key"),
    (watch("app.late", operations=INSERTS), "no usable replica identity"),
    (watch("app.nothing", operations=INSERTS), "no usable replica identity"),
    (watch("app.unlogged"), "unlogged"),
    (watch("app.parted", operations=INSERTS), "partitioned"),
    (watch("app.parent"), "child tables"),
    (watch("app.seen"), "view"),
    (watch("app.kept"), "materialised view"),
    (watch("app.counted"), "not a table"),
    (watch(columns=("id", "gone")), "no column gone"),
    (watch(columns=("place",)), "type point"),
    (watch(channel="bar:{total}"), "cannot stand in a channel"),
    (watch(event="reset"), "reserved"),
]


async def test_bad_watch_is_refused_and_nothing_changed(app: Database) -> None:
    """A watch that would be impossible, silent or a danger to writes is refused by name; the publication stays."""
    await publish(app, watch(operations=INSERTS))
    for bad, says in BAD:
        with pytest.raises(StartRefused, match=says):
            await publish(app, watch(operations=INSERTS), bad)
    assert published(app) == {"app.sale"}


@pytest.mark.parametrize(
    "good",
    [
        watch("app.keyed", operations=INSERTS),
        watch("app.keyed", channel="row:{id}"),
        watch("app.indexed", channel=("bar:{bar}", "seat:{bar}-{seat}")),
        watch("app.part"),
        watch("app.child", operations=INSERTS),
    ],
    ids=lambda value: value.table,
)
async def test_writes_go_on_after_publishing(app: Database, good: Watch) -> None:
    """A watch that is accepted never makes an INSERT, UPDATE, DELETE or TRUNCATE of its table fail."""
    app.execute("alter table app.child add primary key (id)")
    await publish(app, good)
    table = good.table.encode()
    with app.connect() as owner:
        columns = b"id, bar, seat" if b"indexed" in table else b"id, bar"
        values = b"1, 2, 3" if b"indexed" in table else b"1, 2"
        owner.execute(b"insert into %b (%b) values (%b)" % (table, columns, values))
        owner.execute(b"update %b set bar = 3" % table)
        owner.execute(b"update %b set id = 4" % table)
        owner.execute(b"delete from %b" % table)
        owner.execute(b"truncate %b" % table)


async def test_generated_columns_are_what_the_server_makes_of_them(app: Database) -> None:
    """A stored generated column is an event's member from PostgreSQL 18 on and a clear refusal before."""
    generated = watch(columns=("id", "doubled"))
    if app.server.installation.major < 18:
        with pytest.raises(StartRefused, match="generated"):
            await publish(app, generated)
        return
    async with Feeding(app, [generated]) as feeding:
        app.execute("insert into app.sale (id, bar) values (1, 21)")
        app.execute("update app.sale set bar = 22")
        sink = await feeding.settled()
    assert [event.data for event in sink.events if event.name == "sale"] == [
        b'{"id":1,"doubled":42}',
        b'{"id":1,"doubled":44}',
    ]


async def test_virtual_column_in_the_identity_is_refused(app: Database) -> None:
    """On PostgreSQL 18 a virtual generated column in the replica identity would break UPDATE, so it is refused."""
    if app.server.installation.major < 18:
        return
    app.execute("alter table app.sale add tripled int generated always as (bar * 3)")
    with pytest.raises(StartRefused, match="virtual generated column tripled"):
        await publish(app, watch())


async def test_publication_is_altered_never_made_anew(app: Database) -> None:
    """Tables come and go, the publication stays the same object; repeating changes nothing; the result verifies."""
    assert await publish(app, watch())
    ((oid,),) = app.execute("select oid from pg_publication")
    assert not await publish(app, watch())
    assert await publish(app, watch(), watch("app.part"))
    assert published(app) == {"app.sale", "app.part"}
    assert await publish(app, watch("app.part"))
    assert published(app) == {"app.part"}
    assert await publish(app)
    assert published(app) == set()
    assert app.execute("select oid from pg_publication") == [(oid,)]
    assert app.execute("select pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot from pg_publication") == [
        (True, True, True, True, False)
    ]


@pytest.mark.parametrize(
    "harm",
    [
        "alter publication {} set (publish = 'insert')",
        "alter publication {} set (publish_via_partition_root = true)",
        "alter publication {} set table only app.sale",
        "alter publication {} drop table only app.sale",
        "alter publication {} set table only app.sale where (bar > 1), only lastcall.published, only lastcall.path",
        "alter publication {} set table only app.sale, only lastcall.published (id), only lastcall.path",
        "drop publication {}",
    ],
)
async def test_altered_publication_is_refused_and_mended(app: Database, harm: str) -> None:
    """What somebody did to the publication is noticed before serving, and `migrate` mends it."""
    watches = [watch(operations=INSERTS)]
    await publish(app, *watches)
    app.execute(harm.format(app.config.slot))
    async with await app.connect_async() as owner:
        with pytest.raises(StartRefused, match="lastcall migrate"):
            verify(watches, await read_catalog(owner, app.config, watches))
        assert await publish_watches(owner, app.config, watches)
        verify(watches, await read_catalog(owner, app.config, watches))


async def test_publication_for_all_tables_is_refused(app: Database) -> None:
    """A publication of that name that reads every table is not ours to alter."""
    with app.superuser() as superuser:
        superuser.execute(f"create publication {app.config.slot} for all tables".encode())
    with pytest.raises(StartRefused, match="FOR ALL TABLES"):
        await publish(app, watch())


async def test_feed_login_may_ask_and_not_alter(app: Database) -> None:
    """The feed's login reads what it must know, and may neither publish nor read a table."""
    await publish(app, watch())
    async with await psycopg.AsyncConnection.connect(app.replication_url, autocommit=True) as feed:
        verify([watch()], await read_catalog(feed, app.config, [watch()]))
        for statement in (
            "select lastcall.set_publication('x', '{}')",
            "select * from lastcall.watched",
            "select * from lastcall.epoch",
            "select * from app.sale",
            "select lastcall.emit('lastcall.event', '{}')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await feed.execute(statement.encode())
