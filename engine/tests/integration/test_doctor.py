"""Every check of the doctor, broken for real, says what is wrong and what to do."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from lastcall.config import Config
from lastcall.postgres import doctor
from lastcall.postgres.doctor import CHECKS, Finding, examine
from lastcall.postgres.migrate import migrate
from lastcall.testing.fixtures import Database, Databases, describe
from lastcall.testing.postgres_server import PostgresServer
from lastcall.testing.sample import app as sample

NEVER_BAD = {"owner"}


@pytest.fixture(scope="module")
def sick() -> Iterator[PostgresServer]:
    """A server whose settings are all wrong, and whose roles may be damaged."""
    settings = {
        "wal_level": "replica",
        "max_slot_wal_keep_size": "-1",
        "max_replication_slots": "0",
        "max_wal_senders": "0",
        "max_connections": "20",
        "max_prepared_transactions": "0",
    }
    with PostgresServer(settings) as server:
        yield server


@pytest.fixture
async def sick_database(sick: PostgresServer) -> Database:
    """A database of the sick server that is migrated as superuser."""
    database = describe(sick, "postgres")
    await migrate(database.superuser_url, (), database.config)
    return database


async def findings(url: str, config: Config, **options: object) -> Mapping[str, Finding]:
    found = {finding.name: finding for finding in await examine(url, config, **options)}  # type: ignore[arg-type]
    for finding in found.values():
        assert finding.what
        assert bool(finding.remedy) != finding.ok, finding
    return found


async def broken(url: str, config: Config, name: str, **options: object) -> str:
    """The check `name` fails; what it says."""
    finding = (await findings(url, config, **options))[name]
    assert not finding.ok, finding
    return f"{finding.what} → {finding.remedy}"


async def test_well(database: Database) -> None:
    """On a migrated database whose slot is read, nothing but what the test server does without is found."""
    with database.connect() as owner:
        owner.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [database.config.slot])
    found = await findings(database.owner_url, database.config)
    assert {name for name, finding in found.items() if not finding.ok} == {"durability", "slot_active"}
    assert list(found) == [check(await facts(database)).name for check in CHECKS]


async def facts(database: Database) -> doctor.Facts:
    async with await psycopg.AsyncConnection.connect(database.owner_url, autocommit=True) as connection:
        return await doctor.gather(connection, database.owner_url, database.config, ())


async def test_unreachable(database: Database) -> None:
    """Where the database does not answer, that is the one finding, without the password."""
    (finding,) = await examine(database.owner_url.replace(f":{database.server.port}/", ":1/"), database.config)
    assert (finding.name, finding.ok) == ("connection", False)
    assert "lastcall_owner cannot log in at 127.0.0.1" in finding.what
    assert "lastcall-test" not in finding.what


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wal_level", "wal_level is replica → ALTER SYSTEM"),
        ("max_slot_wal_keep_size", "without bound"),
        ("max_replication_slots", "0 of 0 replication slots"),
        ("max_wal_senders", "0 of 0 WAL senders"),
        ("max_connections", "of 17 → raise max_connections"),
        ("durability", "fsync, full_page_writes off"),
    ],
)
async def test_settings(sick_database: Database, name: str, words: str) -> None:
    """A server with the wrong setting is found out."""
    assert words in await broken(sick_database.superuser_url, sick_database.config, name)


async def test_superuser_owner_is_told(sick_database: Database) -> None:
    """An owner who is a superuser works, and is told that less would do."""
    finding = (await findings(sick_database.superuser_url, sick_database.config))["owner"]
    assert "a superuser: more than is needed" in finding.what


@pytest.mark.parametrize(
    ("name", "damage", "repair", "words"),
    [
        ("roles", "alter role member bypassrls", "alter role member nobypassrls", "member has BYPASSRLS"),
        ("roles", "alter role anon login", "alter role anon nologin", "anon may log in"),
        (
            "roles",
            "alter role lastcall_replication noreplication",
            "alter role lastcall_replication replication",
            "lastcall_replication may not replicate",
        ),
        (
            "roles",
            "alter role lastcall_authenticator inherit",
            "alter role lastcall_authenticator noinherit",
            "lastcall_authenticator has INHERIT",
        ),
        ("roles", "alter role service rename to away", "alter role away rename to service", "service is missing"),
        (
            "memberships",
            "revoke member from lastcall_authenticator",
            "grant member to lastcall_authenticator",
            "lastcall_authenticator is no member of member",
        ),
        ("memberships", "grant service to member", "revoke service from member", "member is a member of service"),
        (
            "logins",
            "alter role lastcall_authenticator password 'forgotten'",
            "alter role lastcall_authenticator password null",
            "lastcall_authenticator cannot log in",
        ),
        (
            "emit",
            "grant execute on function pg_logical_emit_message(boolean, text, text{more}) to member",
            "revoke execute on function pg_logical_emit_message(boolean, text, text{more}) from member",
            "member may call pg_logical_emit_message",
        ),
    ],
)
async def test_cluster(sick_database: Database, name: str, damage: str, repair: str, words: str) -> None:
    """A role with too much or too little power is found out."""
    more = ", boolean" if sick_database.server.installation.major >= 17 else ""
    with sick_database.superuser() as superuser:
        superuser.execute(damage.format(more=more).encode())
        try:
            assert words in await broken(sick_database.superuser_url, sick_database.config, name)
        finally:
            superuser.execute(repair.format(more=more).encode())
    assert name == "logins" or (await findings(sick_database.superuser_url, sick_database.config))[name].ok


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("row_security", "alter table sample.note disable row level security", "is off on sample.note"),
        ("table_grants", "grant select on sample.note to member", "sample.note to member"),
        ("table_grants", "grant update (body) on sample.note to public", "sample.note to PUBLIC"),
        ("table_grants", "grant usage on sequence sample.note_id_seq to anon", "sample.note_id_seq to anon"),
        ("table_grants", "grant insert on lastcall.published to service", "lastcall.published to service"),
        (
            "function_grants",
            "grant execute on function sample_api.ban(text, text) to public",
            "sample_api.ban(text,text)",
        ),
        ("function_grants", "grant execute on function lastcall.emit(text, jsonb) to public", "lastcall.emit"),
        ("definers", "alter function sample_api.ban(text, text) reset search_path", "sample_api.ban(text,text)"),
        ("definers", "alter function lastcall.now() set search_path = public", "lastcall.now()"),
        ("migrations", "delete from lastcall.routine where name = 'publish'", "lastcall/publish"),
        (
            "migrations",
            "insert into lastcall.migration values ('lastcall', '9999_later', '')",
            "older than the database",
        ),
    ],
)
async def test_database(databases: Databases, name: str, damage: str, words: str) -> None:
    """A table, function or migration that is not as it should be is found out, in the engine and in an application."""
    database = databases.create((sample,))
    assert (await findings(database.owner_url, database.config))[name].ok
    database.execute(damage)
    assert words in await broken(database.owner_url, database.config, name)


async def test_nothing_migrated(empty_database: Database) -> None:
    """An empty database is told to be migrated, and nothing is asked of what is not there."""
    assert "nothing has been migrated yet" in await broken(
        empty_database.owner_url, empty_database.config, "migrations"
    )
    assert "row_security" not in await findings(empty_database.owner_url, empty_database.config)


async def test_application_to_migrate(database: Database) -> None:
    """An application whose SQL is not there yet is named."""
    assert "sample/0001_notes" in await broken(database.owner_url, database.config, "migrations", apps=(sample,))


async def test_old_version(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostgreSQL older than the oldest that is supported is told so."""
    monkeypatch.setattr(doctor, "VERSION_MIN", 990000)
    assert "is too old → upgrade to 15 or newer" in await broken(database.owner_url, database.config, "version")


async def test_read_only(database: Database) -> None:
    """A database that takes no writes is told so."""
    database.execute(f"alter database {database.name} set default_transaction_read_only = on")
    assert "takes no writes" in await broken(database.owner_url, database.config, "version")
    with psycopg.connect(database.owner_url, options="-c default_transaction_read_only=off", autocommit=True) as owner:
        owner.execute(f"alter database {database.name} reset default_transaction_read_only".encode())


async def test_encoding(databases: Databases, postgres: PostgresServer) -> None:
    """A database in another encoding is told so."""
    with postgres.connect() as superuser:
        superuser.execute("create database latin template template0 encoding 'LATIN1' locale 'C' owner lastcall_owner")
    try:
        database = describe(postgres, "latin")
        assert "is in LATIN1 → make one" in await broken(database.owner_url, database.config, "encoding")
    finally:
        postgres.drop_database("latin")


async def test_slot(databases: Databases, database: Database) -> None:
    """A missing slot, one that nobody reads, and one of another database are told apart."""
    url, config = database.owner_url, database.config
    assert f"there is no replication slot {config.slot}" in await broken(url, config, "slot")
    database.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [config.slot])
    assert (await findings(url, config))["slot"].ok
    assert "nobody reads the slot" in await broken(url, config, "slot_active")
    other = databases.create((), {"slot": config.slot})
    assert f"belongs to the database {database.name}" in await broken(other.owner_url, other.config, "slot")


@pytest.fixture
def small_server(make_server: Callable[..., PostgresServer]) -> PostgresServer:
    """A server that gives a slot up after 48 MB of log."""
    return make_server({"max_slot_wal_keep_size": "48MB"})


async def test_retained_and_lost(
    small_server: PostgresServer, make_write: Callable[[PostgresServer, int], Awaitable[None]]
) -> None:
    """A slot that holds back too much log is told so before it is lost, and after."""
    database = describe(small_server, "postgres", {"slot": "held"})
    await migrate(database.superuser_url, (), database.config)
    with database.superuser() as superuser:
        superuser.execute("select pg_create_logical_replication_slot('held', 'pgoutput')")
    await make_write(small_server, 2)
    assert "MB of log are kept, of 48 MB" in await broken(database.superuser_url, database.config, "retained_bytes")
    await make_write(small_server, 4)
    assert "has lost its log" in await broken(database.superuser_url, database.config, "slot")


@pytest.fixture
def make_write() -> Callable[[PostgresServer, int], Awaitable[None]]:
    """Fills segments of the log (16 MB each) by leaving them early."""

    async def write(server: PostgresServer, segments: int) -> None:
        with server.connect() as superuser:
            for _ in range(segments):
                superuser.execute("select pg_logical_emit_message(false, 'fill', 'x')")
                superuser.execute("select pg_switch_wal()")
            superuser.execute("checkpoint")

    return write


async def test_clock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock differs from the database's is told so."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    assert re.search(r"clock is -3[56]\d\d\.\d\d s", await broken(database.owner_url, database.config, "clock"))


async def test_file_limit(databases: Databases) -> None:
    """A node that may serve more listeners than it may open files is told so."""
    database = databases.create((), {"connections_max": 2_000_000_000})
    assert "ulimit -n 2000000216" in await broken(database.owner_url, database.config, "file_limit")


def test_every_check_is_broken_here(database: Database) -> None:
    """No check is without a test above that breaks it."""
    found = asyncio.run(facts(database))
    names = {check(found).name for check in CHECKS}
    text = Path(__file__).read_text(encoding="utf-8")
    tried = set(re.findall(r'broken\(\s*\w+(?:\.\w+)*, \w+(?:\.\w+)*, "(\w+)"', text))
    tried |= set(re.findall(r'^        \(\s*"(\w+)",', text, re.MULTILINE))
    assert names - tried == NEVER_BAD
