"""DDL on watched tables and on the publication while the feed runs: right events, a reset, an alarm; never silence."""

from __future__ import annotations

import json

import pytest

from lastcall.feed.publication import publish_watches
from lastcall.feed.watch import Watch
from lastcall.testing.feeding import Feeding, told
from lastcall.testing.fixtures import Database
from lastcall.testing.waiting import eventually_async

SALE = Watch(table="app.sale", channel="bar:{bar}", event="sale", columns=("id", "note"))
GUEST = Watch(table="app.guest", channel="guest:{id}", event="guest", columns=("id",))
TABLES = """
    create schema app;
    create table app.sale (id bigint primary key, bar int, note text);
    alter table app.sale replica identity full;
    create table app.guest (id bigint primary key);
"""
BAR = frozenset({"bar"})


@pytest.fixture
def app(database: Database) -> Database:
    """A database with two watched tables."""
    with database.connect() as owner:
        owner.execute(TABLES)
    return database


def data(feeding: Feeding, name: str = "sale") -> list[object]:
    """The data of all events of that name."""
    return [json.loads(event.data) for event in feeding.sink.events if event.name == name]


async def resets(feeding: Feeding, kinds: frozenset[str], more_than: int = 0) -> None:
    """Wait for a reset(schema) of exactly these kinds, beyond the first few."""
    found = list(feeding.sink.resets)
    await eventually_async(
        lambda: sum(reset[:2] == (kinds, "schema") for reset in feeding.sink.resets) > more_than,
        what=f"a reset of {kinds}, beyond {found}",
    )


@pytest.mark.parametrize(
    "statement",
    [
        "alter table app.sale drop column note",
        "alter table app.sale rename column note to remark",
        "alter table app.sale rename column bar to place",
        "alter table app.sale alter column note type point using null",
        "alter table app.sale rename to sold",
        "alter table app.sale set schema public",
        "alter table app.sale replica identity default",
        "drop table app.sale",
    ],
)
async def test_watch_that_is_broken_is_reset_and_told(app: Database, statement: str) -> None:
    """When DDL takes away what a watch needs, its kinds are reset without waiting for a change, an alarm rises, the
    other watches go on; a change of such a table is a reset again, never a wrong event."""
    async with Feeding(app, [SALE, GUEST]) as feeding:
        with app.superuser() as superuser:
            superuser.execute("insert into app.sale values (1, 7, 'a')")
            superuser.execute(statement.encode())
            await resets(feeding, BAR)
            await eventually_async(lambda: feeding.meter.alarms.get("watch_broken"))
            if not statement.startswith("drop"):
                table = superuser.execute(
                    "select c.oid::regclass::text from pg_class c join pg_publication_rel on prrelid = c.oid"
                    " where c.relname in ('sale', 'sold')"
                ).fetchone()
                assert table is not None
                before = len(feeding.sink.resets)
                superuser.execute(f"insert into {table[0]} values (2, 8)".encode())
                superuser.execute(f"delete from {table[0]} where id = 2".encode())
                await feeding.settled()
                assert BAR in [kinds for kinds, _, _ in feeding.sink.resets[before:]]
            superuser.execute("insert into app.guest values (1)")
            await feeding.settled()
    assert data(feeding) == [{"id": 1, "note": "a"}]
    assert data(feeding, "guest") == [{"id": 1}]
    assert not any(kinds and "guest" in kinds for kinds, _, _ in feeding.sink.resets)


@pytest.mark.parametrize(
    ("statement", "after"),
    [
        ("alter table app.sale add column more int default 3", '{"id": 2, "note": "5"}'),
        ("alter table app.sale alter column note type int using 5", '{"id": 2, "note": 5}'),
        ("alter table app.sale alter column note type mood using 'fine'", '{"id": 2, "note": "fine"}'),
        ("alter table app.sale alter column id type text", '{"id": "2", "note": "5"}'),
        ("alter table app.sale alter column note type varchar(9)", '{"id": 2, "note": "5"}'),
        ("vacuum full app.sale", '{"id": 2, "note": "5"}'),
        ("alter table app.sale drop constraint sale_pkey, add primary key (bar, id)", '{"id": 2, "note": "5"}'),
    ],
)
async def test_table_that_still_fits_is_told_in_its_new_shape(app: Database, statement: str, after: str) -> None:
    """DDL that a watch survives changes the events from there on, in the same transaction even; where a column that is
    shown has another type, the kind is reset."""
    app.execute("create type app.mood as enum ('fine', '5')")
    async with Feeding(app, [SALE, GUEST]) as feeding:
        app.execute("insert into app.sale values (1, 7, '5')")
        with app.connect() as owner:
            owner.execute("set search_path = app")
            owner.execute(statement.encode())
            shown = owner.execute(
                "select atttypid::regtype::text from pg_attribute"
                " where attrelid = 'sale'::regclass and attname = 'note'"
            ).fetchone()
            note = {"integer": "5", "mood": "'fine'"}.get(str(shown and shown[0]), "'5'")
            changes_shape = any(
                word in statement for word in (" int using", "mood", " type text", "varchar", "primary")
            )
            if changes_shape:
                await resets(feeding, BAR)
            owner.execute(f"insert into app.sale (id, bar, note) values (2, 7, {note})".encode())
            owner.execute("delete from app.sale where id::text = '2'")
        await feeding.settled()
        await eventually_async(lambda: len(data(feeding)) + len(feeding.sink.resets) >= 2)
    assert data(feeding)[-1] == json.loads(after)
    assert bool(feeding.sink.resets) == changes_shape
    key = json.loads(after)["id"]
    wanted = {"bar": 7, "id": key} if "primary" in statement else {"id": key}
    assert data(feeding, "gone") == [{"event": "sale", "key": wanted}]
    assert feeding.meter.alarms.get("watch_broken") is None


async def test_ddl_and_rows_in_one_transaction(app: Database) -> None:
    """Rows before and behind an ALTER in one transaction are each told in the shape they were written in."""
    async with Feeding(app, [SALE]) as feeding:
        with app.connect(autocommit=False) as owner:
            owner.execute("insert into app.sale values (1, 7, '5')")
            owner.execute("alter table app.sale alter column note type int using note::int")
            owner.execute("insert into app.sale values (2, 7, 6)")
            owner.commit()
        await feeding.settled()
        await resets(feeding, BAR)
    assert data(feeding) == [{"id": 1, "note": "5"}, {"id": 2, "note": 6}]


async def test_type_that_is_new_is_learned(app: Database) -> None:
    """A column of a type that was made after the start: at most a reset until the catalog was asked, then events."""
    async with Feeding(app, [SALE], catalog_check_interval_s=60.0) as feeding:
        with app.connect() as owner:
            owner.execute("create type app.mood as enum ('fine')")
            owner.execute("alter table app.sale alter column note type app.mood using 'fine'")
            owner.execute("insert into app.sale values (1, 7, 'fine')")
            await resets(feeding, BAR)

            async def is_told() -> bool:
                owner.execute("insert into app.sale select coalesce(max(id), 0) + 1, 7, 'fine' from app.sale")
                await feeding.settled()
                return bool(data(feeding))

            await eventually_async(is_told)
    assert told(feeding.sink.events)[-1][2]["note"] == "fine"  # type: ignore[index]


async def test_table_made_anew_is_heard_again_after_migrate(app: Database) -> None:
    """A table that was dropped and made again is silent only until the next `migrate`; both ends are resets."""
    async with Feeding(app, [SALE, GUEST]) as feeding:
        app.execute("drop table app.sale")
        app.execute("create table app.sale (id bigint primary key, bar int, note text)")
        app.execute("alter table app.sale replica identity full")
        await resets(feeding, BAR)
        app.execute("insert into app.sale values (1, 7, 'unheard')")
        await feeding.publish()
        await resets(feeding, BAR, more_than=1)
        app.execute("insert into app.sale values (2, 7, 'heard')")
        await feeding.settled()
    assert data(feeding) == [{"id": 2, "note": "heard"}]


async def test_table_taken_out_of_the_publication_is_noticed(app: Database) -> None:
    """Somebody who takes a table out of the publication causes an alarm and resets, when it happens and when mended."""
    async with Feeding(app, [SALE, GUEST]) as feeding:
        app.execute(f"alter publication {feeding.config.slot} drop table only app.sale")
        await resets(feeding, BAR)
        assert feeding.meter.alarms["watch_broken"] >= 1
        app.execute("insert into app.sale values (1, 7, 'unheard')")
        await feeding.publish()
        await resets(feeding, BAR, more_than=1)
        app.execute("insert into app.sale values (2, 7, 'heard')")
        await feeding.settled()
    assert data(feeding) == [{"id": 2, "note": "heard"}]


async def test_ddl_while_nobody_reads_is_a_reset_at_the_next_start(app: Database) -> None:
    """What happened to a watched table between two processes is a reset in the stream of the second."""
    async with Feeding(app, [SALE, GUEST]) as feeding:
        app.execute("insert into app.sale values (1, 7, '5')")
        await feeding.settled()
    app.execute("alter table app.sale alter column note type int using note::int")
    app.execute("insert into app.sale values (2, 7, 6)")
    async with Feeding(app, [SALE, GUEST]) as again:
        await again.settled()
        await resets(again, BAR)
    assert again.sink.events[: len(feeding.sink.events)] == feeding.sink.events
    assert data(again) == [{"id": 1, "note": "5"}, {"id": 2, "note": 6}]
    assert len(again.sink.resets) == 1


async def test_watch_added_while_writers_are_open_is_live_behind_a_second_reset(app: Database) -> None:
    """A table is published while a transaction that wrote it is open: what that transaction wrote may not be told, so
    the kind is reset at the start and once more when the transaction has ended."""
    async with Feeding(app, [SALE]) as feeding:
        with app.connect(autocommit=False) as open_writer:
            open_writer.execute("insert into app.guest values (1)")
            async with await app.connect_async() as owner:
                await publish_watches(owner, feeding.config, [SALE, GUEST])
            await feeding.feed.stop()
            again = Feeding(app, [SALE, GUEST])
            await again.start()
            guest = frozenset({"guest"})
            await resets(again, guest)
            app.execute("insert into app.guest values (2)")
            await again.settled()
            open_writer.execute("insert into app.guest values (3)")
            assert sum(kinds == guest for kinds, _, _ in again.sink.resets) == 1
            open_writer.commit()
        await resets(again, guest, more_than=1)
        app.execute("insert into app.guest values (4)")
        await again.settled()
        await again.stop()
    told_ids = [json.loads(event.data)["id"] for event in again.sink.events if event.name == "guest"]
    # 1 and 3 stand before the second reset, told or not; 2 and 4 must be told.
    assert [number for number in told_ids if number in (2, 4)] == [2, 4]
    assert again.sink.resets[-1][:2] == (guest, "schema")
    ordered = [event.position for event in again.sink.events if json.loads(event.data).get("id") == 4]
    assert again.sink.resets[-1][2] < ordered[0]


async def test_publication_dropped_while_running(app: Database) -> None:
    """Without its publication the feed says so and goes on trying; `migrate` makes it anew, and a new epoch begins."""
    async with Feeding(app, [SALE]) as feeding:
        app.execute(f"drop publication {feeding.config.slot}")
        await eventually_async(lambda: feeding.meter.alarms.get("watch_broken"))
        app.execute("insert into app.sale values (1, 7, 'unheard')")
        await feeding.publish()
    again = Feeding(app, [SALE])
    async with again:
        app.execute("insert into app.sale values (2, 7, 'heard')")
        await again.settled()
    assert again.sink.epochs[0] not in feeding.sink.epochs
    assert data(again)[-1] == {"id": 2, "note": "heard"}
