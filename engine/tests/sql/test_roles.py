"""What each role may: every table × every role, every function × every role, in the engine and every application."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from lastcall.app import App, installed
from lastcall.postgres.sources import application_source, engine_source, sources_of
from lastcall.testing.fixtures import Database
from lastcall.testing.sample import app as sample

ROLES = ("anon", "member", "service", "lastcall_authenticator", "lastcall_replication")
ACTIONS = ("select", "insert", "update", "delete", "truncate")
APPS = (*installed(), sample)
FILES = [file for source in sources_of(APPS) for file in source.migrations]
TABLES = sorted(
    {
        name
        for file in FILES
        for name in re.findall(r"^create table (\w+\.\w+)", file.text, re.MULTILINE | re.IGNORECASE)
    }
)

# One row of each table of the engine that has none after `migrate`, so that there is something to hide.
ROWS = """
select lastcall.begin_epoch('e1', '1', 1, 's', '{}');
select lastcall.set_now('2030-01-01');
insert into lastcall.published (prefix, content) values ('p', '{}');
insert into lastcall.idempotency (issuer, subject, function, key, hash) values ('i', 's', 'f', 'k', '');
insert into lastcall.job_run (job, due_at) values ('j', now());
insert into lastcall.usage (day, subject, kind, count) values (now(), 's', 'k', 1);
select sample_api.write_note('t', 1, 1, 'b');
select sample_api.write_draft('t', 1, 1, 'b');
select sample_api.ban('s', 't');
"""

MAY_CALL = {
    "claim": "anon member service",
    "claims": "anon member service",
    "now": "anon member service",
    "keep": "anon member service",
    "publish": "service",
    "revoke": "service",
    "set_now": "",
    "emit": "",
    "check_channel": "",
    "choose_path": "",
    "set_publication": "",
}
"""The engine's functions that ordinary roles may call, and those that only the owner may. All others are for one of the
two logins: no role of a token may call them."""


@pytest.fixture(scope="module")
def database_apps() -> Sequence[App]:
    """Every installed application, and the sample."""
    return APPS


@pytest.fixture
def owner(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The owner, who may become every role."""
    with database.superuser() as connection:
        yield connection


def attempt(
    connection: psycopg.Connection[tuple[object, ...]], role: str, statement: sql.Composed
) -> psycopg.Cursor[tuple[object, ...]]:
    """Run a statement as `role` in a transaction that is rolled back."""
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        return connection.execute(statement)


def statement_for(action: str, table: str) -> sql.Composed:
    """The simplest statement that does `action` to the table."""
    text = {
        "select": "select from {}",
        "insert": "insert into {} default values",
        "delete": "delete from {}",
        "truncate": "truncate {}",
    }[action]
    return sql.SQL(text).format(sql.Identifier(*table.split(".")))


def column_of(connection: psycopg.Connection[tuple[object, ...]], table: str) -> sql.Identifier:
    """A column that an UPDATE may name."""
    row = connection.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped "
        "and attidentity = '' and attgenerated = '' order by attnum limit 1",
        [table],
    ).fetchone()
    assert row
    return sql.Identifier(str(row[0]))


def update(table: str, column: sql.Identifier) -> sql.Composed:
    """Set a column to itself."""
    return sql.SQL("update {} set {} = {}").format(sql.Identifier(*table.split(".")), column, column)


def insert_again(connection: psycopg.Connection[tuple[object, ...]], role: str, table: str) -> str | None:
    """The SQLSTATE with which `role` is refused to insert a copy of a row: row-level security's, not the key's."""
    name = sql.Identifier(*table.split("."))
    row = connection.execute(sql.SQL("select to_jsonb(t)::text from {} t limit 1").format(name)).fetchone()
    assert row
    copy = sql.SQL("insert into {} overriding system value select (jsonb_populate_record(null::{}, {})).*")
    with pytest.raises(psycopg.Error) as refused:
        attempt(connection, role, copy.format(name, name, sql.Literal(row[0])))
    return refused.value.sqlstate


def test_there_are_tables() -> None:
    """The generated tests below see the engine's tables and the applications'."""
    assert {"lastcall.migration", "lastcall.epoch", "sample.note"} < set(TABLES)


@pytest.mark.parametrize("role", ROLES)
def test_no_table_can_be_touched(owner: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    """No role may read, write or empty any table."""
    for table in TABLES:
        for action in ACTIONS:
            statement = update(table, column_of(owner, table)) if action == "update" else statement_for(action, table)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                attempt(owner, role, statement)


@pytest.mark.parametrize("role", ROLES)
def test_grants_by_mistake_show_nothing(
    owner: psycopg.Connection[tuple[object, ...]], database: Database, role: str
) -> None:
    """Where somebody grants every table to a role by mistake, row-level security still hides the neighbour's row, keeps
    it from being changed, and keeps a row from being put there."""
    with database.connect() as connection:
        connection.execute(ROWS.encode())
    for schema in sorted({table.partition(".")[0] for table in TABLES}):
        name = sql.Identifier(schema)
        owner.execute(sql.SQL("grant usage on schema {} to {}").format(name, sql.Identifier(role)))
        for kind in ("tables", "sequences"):
            owner.execute(
                sql.SQL("grant all on all {} in schema {} to {}").format(sql.SQL(kind), name, sql.Identifier(role))
            )
    seen = []
    for table in TABLES:
        (rows,) = owner.execute(
            sql.SQL("select count(*) from {}").format(sql.Identifier(*table.split(".")))
        ).fetchone() or (0,)
        seen += [table] if rows else []
        assert attempt(owner, role, statement_for("select", table)).rowcount == 0, table
        assert attempt(owner, role, update(table, column_of(owner, table))).rowcount == 0, table
        assert attempt(owner, role, statement_for("delete", table)).rowcount == 0, table
        if rows:
            assert insert_again(owner, role, table) == "42501", table
    assert {table for table in TABLES if table.startswith(("lastcall.", "sample."))} <= set(seen)


@pytest.mark.parametrize("role", ROLES[:3])
def test_engine_functions(owner: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    """A token's role may call the engine's functions that are meant for it and no other."""
    rows = owner.execute(
        "select proname::text, has_function_privilege(%s, oid, 'execute') from pg_proc "
        "where pronamespace = 'lastcall'::regnamespace order by 1",
        [role],
    ).fetchall()
    assert {name for name, allowed in rows if allowed} == {
        name for name, roles in MAY_CALL.items() if role in roles.split()
    }


@pytest.mark.parametrize("role", ["lastcall_authenticator", "lastcall_replication"])
def test_owner_functions(owner: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    """What only the owner may call, neither login may, and neither may publish."""
    for name in [name for name, roles in MAY_CALL.items() if not roles] + ["publish", "revoke"]:
        rows = owner.execute(
            "select has_function_privilege(%s, oid, 'execute') from pg_proc "
            "where pronamespace = 'lastcall'::regnamespace and proname = %s",
            [role, name],
        ).fetchall()
        assert rows == [(False,)], name


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "statement",
    [
        "select pg_logical_emit_message(true, 'lastcall.event', '{}')",
        "select pg_logical_emit_message(false, 'lastcall.event', '\\x00'::bytea)",
        "select lastcall.emit('lastcall.event', '{}')",
        "insert into lastcall.published (prefix, content) values ('lastcall.event', '{}')",
        "select lastcall.set_now('2030-01-01')",
    ],
)
def test_no_role_emits_an_event(owner: psycopg.Connection[tuple[object, ...]], role: str, statement: str) -> None:
    """No role can put an event into the stream past the checks of `publish`, nor move the clock."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        attempt(owner, role, sql.Composed([sql.SQL(statement)]))


@pytest.mark.parametrize("role", ["anon", "member"])
def test_ordinary_roles_publish_nothing(owner: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    """Only a service publishes and revokes by itself; members do through the application's functions."""
    for statement in ("select lastcall.publish('a:1', 'e', '1')", "select lastcall.revoke('s', 'a:1')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            attempt(owner, role, sql.Composed([sql.SQL(statement)]))
        attempt(owner, "service", sql.Composed([sql.SQL(statement)]))


def test_authenticator_becomes_three_roles(database: Database) -> None:
    """The pool's login may become anon, member and service, and nobody else; by itself it has none of their rights."""
    with psycopg.connect(database.authenticator_url, autocommit=True) as pool:
        for role in ("anon", "member", "service"):
            pool.execute(f"set role {role}".encode())
            pool.execute("reset role")
        for role in ("lastcall_owner", "lastcall_replication", "postgres"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                pool.execute(f"set role {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pool.execute("select lastcall.publish('a:1', 'e', '1')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pool.execute("create table public.mine ()")


def test_functions_are_closed(owner: psycopg.Connection[tuple[object, ...]]) -> None:
    """No function of engine or applications is open to PUBLIC, and each definer pins its search path."""
    schemas = [schema for source in sources_of(APPS) for schema in source.schemas]
    rows = owner.execute(
        "select p.oid::regprocedure::text from pg_proc p where p.pronamespace = any(%s::regnamespace[]) and ("
        "p.prorettype <> 'trigger'::regtype and has_function_privilege('public', p.oid, 'execute') "
        "or p.prosecdef and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp'])",
        [schemas],
    ).fetchall()
    assert rows == []


@pytest.mark.parametrize("source", [engine_source(), *map(application_source, APPS)], ids=lambda source: source.name)
def test_row_security_follows_at_once(source: object) -> None:
    """In every migration the statement after `create table` turns row-level security on."""
    for file in source.migrations:  # type: ignore[attr-defined]
        text = re.sub(r"--[^\n]*", "", file.text).lower()
        statements = [re.sub(r"\s+", " ", part).strip() for part in text.split(";")]
        for statement, following in zip(statements, [*statements[1:], ""], strict=True):
            found = re.match(r"create table (\S+)", statement)
            if found:
                assert following == f"alter table {found[1]} enable row level security", f"{file.name}: {found[1]}"


def test_privileges_script_is_shipped() -> None:
    """The script that a superuser runs lies where the documents say."""
    assert (Path(__file__).parents[2] / "src" / "lastcall" / "sql" / "privileges.sql").is_file()
