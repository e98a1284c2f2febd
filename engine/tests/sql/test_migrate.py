"""`migrate` brings any database up to date once, or says why not and keeps nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from lastcall.errors import StartRefused
from lastcall.postgres import migrate as module
from lastcall.postgres.logins import logins
from lastcall.postgres.migrate import LOCK_KEY, Report, migrate, pending
from lastcall.postgres.sources import ENGINE_FOLDER
from lastcall.testing.fixtures import Database, Databases, describe
from lastcall.testing.postgres_server import PostgresServer
from lastcall.testing.schema import SNAPSHOT, snapshot
from lastcall.testing.waiting import eventually_async

TABLE = "create table shop.item (id integer primary key);\nalter table shop.item enable row level security;\n"
FUNCTION = (
    "create or replace function shop_api.price({arguments}) returns integer language sql stable\n"
    "set search_path = pg_catalog, pg_temp as $$ {body} $$;\n"
)


@dataclass
class Shop:
    """An application whose SQL a test writes."""

    sql: Path
    name: str = "shop"
    schema: str = "shop"
    api_schema: str = "shop_api"

    def write(self, kind: str, name: str, text: str) -> None:
        (self.sql / kind).mkdir(exist_ok=True)
        (self.sql / kind / f"{name}.sql").write_text(text)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """An application with one table and one function."""
    app = Shop(tmp_path)
    app.write("migrations", "0001_item", TABLE)
    app.write("routines", "price", FUNCTION.format(arguments="id integer", body="select 1"))
    return app


async def run(database: Database, *apps: Shop) -> Report:
    return await migrate(database.owner_url, apps, database.config)


def functions(database: Database) -> list[str]:
    rows = database.execute("select oid::regprocedure::text from pg_proc where pronamespace = 'shop_api'::regnamespace")
    return sorted(str(row[0]) for row in rows)


async def test_from_nothing_and_again(empty_database: Database, shop: Shop) -> None:
    """An empty database gets everything once; doing it again does nothing."""
    said: list[str] = []
    report = await migrate(empty_database.owner_url, (shop,), empty_database.config, said.append)
    assert report.migrations[0] == "lastcall/0001_foundation"
    assert report.migrations[-1] == "shop/0001_item"
    assert report.routines[-1] == "shop/price"
    assert [line for line in said if line.startswith("migration")] == [
        f"migration {name}" for name in report.migrations
    ]
    before = snapshot(empty_database.owner_url)
    again = await run(empty_database, shop)
    assert not again.changed
    assert snapshot(empty_database.owner_url) == before


async def test_snapshot(empty_database: Database) -> None:
    """Migrations and routines amount to the schema snapshot (`python -m lastcall.testing.schema` writes it anew)."""
    await run(empty_database)
    assert snapshot(empty_database.owner_url) == SNAPSHOT.read_text(encoding="utf-8")


async def test_two_nodes_at_once(empty_database: Database, shop: Shop) -> None:
    """Nodes that migrate one database at the same time all succeed, and each migration is applied by one of them."""
    reports = await asyncio.gather(*(run(empty_database, shop) for _ in range(4)))
    migrations = [name for report in reports for name in report.migrations]
    assert len(migrations) == len(set(migrations))
    assert "shop/0001_item" in migrations


async def test_two_databases_at_once(databases: Databases, shop: Shop) -> None:
    """Two databases of one cluster, which share the roles and their passwords, can be migrated at the same time."""
    made = [databases.create(None) for _ in range(4)]
    reports = await asyncio.gather(*(run(database, shop) for database in made))
    assert all("shop/0001_item" in report.migrations for report in reports)


async def test_waits_for_another(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another migration holds the lock this one says that it waits; beyond the bound it is refused."""
    said: list[str] = []
    with empty_database.connect() as other:
        other.execute("select pg_advisory_lock(%s)", [LOCK_KEY])
        work = asyncio.create_task(migrate(empty_database.owner_url, (), empty_database.config, said.append))
        await eventually_async(lambda: said == ["waiting for another migration"])
        other.execute("select pg_advisory_unlock(%s)", [LOCK_KEY])
        assert (await work).changed
        other.execute("select pg_advisory_lock(%s)", [LOCK_KEY])
        monkeypatch.setattr(module, "LOCK_WAIT_MAX_S", 0.1)
        with pytest.raises(StartRefused, match="another migration of this database has been running"):
            await run(empty_database)


async def test_frozen(database: Database, shop: Shop) -> None:
    """A migration that was changed after it was applied is refused by name; blanks at line ends are no change."""
    await run(database, shop)
    shop.write("migrations", "0001_item", TABLE.replace("\n", "  \r\n"))
    assert not (await run(database, shop)).changed
    shop.write("migrations", "0001_item", TABLE + "select 1;")
    with pytest.raises(StartRefused, match="shop/0001_item was changed after it was applied"):
        await run(database, shop)


async def test_older_installation(database: Database, shop: Shop) -> None:
    """A database that a newer version has migrated refuses the older one."""
    shop.write("migrations", "0002_later", "select 1;")
    await run(database, shop)
    (shop.sql / "migrations" / "0002_later.sql").unlink()
    with pytest.raises(StartRefused, match="shop/0002_later, this installation does not: it is older"):
        await run(database, shop)


async def test_out_of_order(database: Database, shop: Shop) -> None:
    """A new migration with a number below an applied one is refused: it would run in another order elsewhere."""
    shop.write("migrations", "0003_third", "select 1;")
    await run(database, shop)
    shop.write("migrations", "0002_second", "select 1;")
    with pytest.raises(StartRefused, match="shop/0002_second comes before 0003_third"):
        await run(database, shop)


async def test_failing_migration(database: Database, shop: Shop) -> None:
    """A migration that fails leaves nothing of itself, and file, line and PostgreSQL's words are named."""
    shop.write("migrations", "0002_broken", "create table shop.half ();\n\nselect no_such_column;\n")
    with pytest.raises(StartRefused, match=r'shop/0002_broken line 3: column "no_such_column" does not exist'):
        await run(database, shop)
    assert database.execute("select to_regclass('shop.half'), to_regclass('shop.item')::text") == [(None, "shop.item")]
    shop.write("migrations", "0002_broken", "select 1;")
    assert (await run(database, shop)).migrations == ("shop/0002_broken",)


async def test_row_security_is_demanded(database: Database, shop: Shop) -> None:
    """A migration that leaves a table without row-level security is refused whole, and the table is named."""
    shop.write("migrations", "0002_open", "create table shop.open (id integer primary key);")
    with pytest.raises(StartRefused, match=r"shop/0002_open leaves shop\.open without row-level security"):
        await run(database, shop)
    assert database.execute("select to_regclass('shop.open')") == [(None,)]


async def test_changed_routine(database: Database, shop: Shop) -> None:
    """A changed routine is applied again, and only that one."""
    await run(database, shop)
    shop.write("routines", "price", FUNCTION.format(arguments="id integer", body="select 2"))
    shop.write("routines", "worth", "create view shop_api.worth as select shop_api.price(1) as price;")
    assert (await run(database, shop)).routines == ("shop/price", "shop/worth")
    assert database.execute("select price from shop_api.worth") == [(2,)]


async def test_leftovers_are_dropped(database: Database, shop: Shop) -> None:
    """A routine with other arguments replaces the old one, and a removed file's routine, trigger and policy go: nothing
    that no file makes stays callable."""
    shop.write("routines", "gone", FUNCTION.format(arguments="", body="select 1").replace(".price", ".gone"))
    shop.write("routines", "touch", "create policy touch on shop.item using (true);")
    await run(database, shop)
    assert functions(database) == ["shop_api.gone()", "shop_api.price(integer)"]
    shop.write("routines", "price", FUNCTION.format(arguments="id text, day date", body="select 1"))
    (shop.sql / "routines" / "gone.sql").unlink()
    (shop.sql / "routines" / "touch.sql").unlink()
    await run(database, shop)
    assert functions(database) == ["shop_api.price(text,date)"]
    assert database.execute("select count(*) from pg_policy where polrelid = 'shop.item'::regclass") == [(0,)]
    assert database.execute("select count(*) from lastcall.routine where source = 'shop'") == [(1,)]


async def test_used_leftover_is_named(database: Database, shop: Shop) -> None:
    """A removed routine that something else still uses is not dropped behind its back: the migration is refused."""
    await run(database, shop)
    database.execute("create view shop.uses as select shop_api.price(1) as price")
    (shop.sql / "routines" / "price.sql").unlink()
    with pytest.raises(
        StartRefused, match=r"no longer has a routine that makes function shop_api\.price.*view shop\.uses"
    ):
        await run(database, shop)
    assert functions(database) == ["shop_api.price(integer)"]


async def test_moved_routine(database: Database, shop: Shop) -> None:
    """A routine that moves from one file to another stays."""
    await run(database, shop)
    (shop.sql / "routines" / "price.sql").rename(shop.sql / "routines" / "renamed.sql")
    assert (await run(database, shop)).routines == ("shop/renamed", "shop/price")
    assert functions(database) == ["shop_api.price(integer)"]


async def test_routines_in_any_order(database: Database, shop: Shop) -> None:
    """A body may call a routine of a later file, but not one that does not exist; syntax is checked, too."""
    shop.write(
        "routines",
        "above",
        FUNCTION.format(arguments="", body="select shop_api.price(1)").replace(".price(", ".above(", 1),
    )
    await run(database, shop)
    shop.write(
        "routines",
        "above",
        FUNCTION.format(arguments="", body="select shop_api.nothing()").replace(".price(", ".above("),
    )
    with pytest.raises(StartRefused, match=r"shop/above: function shop_api\.nothing\(\) does not exist"):
        await run(database, shop)
    shop.write(
        "routines",
        "above",
        "create or replace function shop_api.above() returns integer language plpgsql as $$ begin iff; end $$;",
    )
    with pytest.raises(StartRefused, match=r"shop/above: .*syntax error"):
        await run(database, shop)


async def test_nobody_may_call_by_default(database: Database, shop: Shop) -> None:
    """A function without a grant may be called by no role, and the tables' schema may not even be entered."""
    await run(database, shop)
    rows = database.execute(
        "select role, has_function_privilege(role, 'shop_api.price(integer)', 'execute'), "
        "has_schema_privilege(role, 'shop', 'usage'), has_schema_privilege(role, 'shop_api', 'usage'), "
        "has_schema_privilege(role, 'shop_api', 'create') from unnest(array['anon', 'member', 'service']) role"
    )
    assert rows == [(role, False, False, True, False) for role in ("anon", "member", "service")]


async def test_pending(database: Database, shop: Shop) -> None:
    """What would be applied is named without applying it."""
    async with await database.connect_async() as connection:
        assert await pending(connection, ()) == []
        assert await pending(connection, (shop,)) == ["shop/0001_item", "shop/price"]
        await run(database, shop)
        assert await pending(connection, (shop,)) == []


async def test_logins_work(make_server: Callable[..., PostgresServer]) -> None:
    """On a server that has never seen lastcall a superuser's migration makes the roles and logins that work; a new
    secret gives them new passwords."""
    server = make_server()
    first = describe(server, "postgres")
    assert set((await migrate(first.superuser_url, (), first.config)).passwords) >= {"lastcall_authenticator"}
    for url in (first.authenticator_url, first.replication_url):
        psycopg.connect(url).close()
    assert (await migrate(first.superuser_url, (), first.config)).passwords == ()
    second = describe(server, "postgres", {"jwt_secret": "another secret that is long enough to sign"})
    assert (await migrate(second.superuser_url, (), second.config)).passwords == (
        "lastcall_authenticator",
        "lastcall_replication",
    )
    psycopg.connect(second.authenticator_url).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(first.authenticator_url)


async def test_unprepared_owner(make_server: Callable[..., PostgresServer]) -> None:
    """An owner without rights is told what is missing and which script a superuser runs; after it, all goes."""
    server = make_server()
    database = describe(server, "bare")
    with server.connect() as superuser:
        superuser.execute("create role plain login password 'lastcall-test'")
        superuser.execute("create database bare owner lastcall_owner")
    url = server.url("bare", "plain")
    with pytest.raises(StartRefused) as refused:
        await migrate(url, (), database.config)
    for words in ("there is no role anon", "may not create schemas", "'lastcall.owner', 'plain'", "privileges.sql"):
        assert words in str(refused.value)
    with psycopg.connect(server.url("bare"), autocommit=True) as superuser:
        superuser.execute("select set_config('lastcall.owner', 'plain', false)")
        superuser.execute((ENGINE_FOLDER / "privileges.sql").read_bytes())
    config = database.config
    if server.installation.major < 16:
        urls = {"authenticator_url": server.url("bare"), "replication_url": server.url("bare")}
        config = describe(server, "bare", urls).config
    report = await migrate(url, (), config)
    assert report.notes == ()
    psycopg.connect(logins(config, url).authenticator).close()


async def test_owner_who_may_create_roles(make_server: Callable[..., PostgresServer]) -> None:
    """Where nobody is superuser (a managed database), an owner with CREATEROLE and REPLICATION does without the script
    from PostgreSQL 16 on, and is told that publish takes the slower path; before 16 it is told what is missing."""
    server = make_server()
    with server.connect() as superuser:
        superuser.execute("create role manager login createrole replication password 'lastcall-test'")
        superuser.execute("create database managed owner manager")
    url = server.url("managed", "manager")
    config = describe(server, "managed").config
    if server.installation.major < 16:
        with pytest.raises(StartRefused, match="there is no role lastcall_replication"):
            await migrate(url, (), config)
        return
    report = await migrate(url, (), config)
    assert "publish goes through a table" in report.notes[0]
    found = logins(config, url)
    psycopg.connect(found.authenticator).close()
    psycopg.connect(found.replication + " replication=database").close()


async def test_password_that_may_not_be_set(databases: Databases) -> None:
    """Where the owner may not set a login's password, the refusal says who may and what else to do."""
    database = databases.create(())
    with database.superuser() as superuser:
        superuser.execute("create role stranger login createrole password 'lastcall-test'")
        superuser.execute(f"grant all on database {database.name} to stranger".encode())
    try:
        other = databases.create(None, {"jwt_secret": "a secret that nobody has set a password from"})
        with other.superuser() as superuser:
            superuser.execute(f"grant all on database {other.name} to stranger".encode())
            superuser.execute("revoke lastcall_authenticator, lastcall_replication from stranger")
        url = other.owner_url.replace("lastcall_owner", "stranger")
        with pytest.raises(StartRefused, match="the owner may not set the password of lastcall_"):
            await migrate(url, (), other.config)
    finally:
        databases.drop_all()
        with database.server.connect() as superuser:
            superuser.execute("drop role stranger")
        repaired = databases.create(None)
        await run(repaired)


@pytest.mark.parametrize(("statement", "words"), [("LATIN1", "is not in UTF-8"), ("UTF8", "PostgreSQL 1. is too old")])
async def test_unfit_server(
    postgres: PostgresServer, statement: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database in another encoding, and a server that is too old, are refused before anything is done."""
    if statement == "UTF8":
        monkeypatch.setattr(module, "VERSION_MIN", 990000)
    with postgres.connect() as superuser:
        superuser.execute(f"create database unfit template template0 encoding '{statement}' locale 'C'".encode())
    try:
        database = describe(postgres, "unfit")
        with pytest.raises(StartRefused, match=words):
            await migrate(database.superuser_url, (), database.config)
    finally:
        postgres.drop_database("unfit")


async def test_database_that_is_not_there(database: Database) -> None:
    """A database that does not answer is a refusal without the password."""
    with pytest.raises(StartRefused, match="lastcall_owner cannot log in") as refused:
        await migrate(database.owner_url.replace(database.name, "nowhere"), (), database.config)
    assert "lastcall-test" not in str(refused.value)
