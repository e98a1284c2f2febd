"""The one round trip of a call on a real PostgreSQL: values, refusals, idempotency, broken connections."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import psycopg
import pytest

from lastcall.app import App
from lastcall.errors import Refusal
from lastcall.postgres.call import Identity
from lastcall.testing.desk import MEMBER, NOTE, Desk, define, key, opened
from lastcall.testing.fixtures import Database, Databases
from lastcall.testing.sample import app as sample
from lastcall.testing.waiting import eventually_async


@pytest.fixture(scope="session")
def database_apps() -> Sequence[App]:
    return (sample,)


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with opened(database) as made:
        yield made


async def test_a_call_is_committed_when_it_is_answered(desk: Desk, database: Database) -> None:
    """The answer is the function's value, and another connection sees what the call wrote."""
    value = await desk.value("write_note", **NOTE)
    assert database.execute("select id, body from sample.note") == [(value, "")]


async def test_the_role_and_claims_are_the_tokens(desk: Desk, database: Database) -> None:
    """SQL sees the role and the claims of the call, and nothing of the call before."""
    define(database, "who(out role text, out claims jsonb) language sql as 'select current_user, lastcall.claims()'")
    await desk.reload()
    assert await desk.value("who") == {"role": "member", "claims": json.loads(MEMBER.claims)}
    assert await desk.value("who", identity=Identity("anon", b'{"role":"anon"}')) == {
        "role": "anon",
        "claims": {"role": "anon"},
    }


async def test_a_role_without_the_right_is_refused(desk: Desk) -> None:
    """PostgreSQL's own grants decide: LC304, also where the catalogue of the gateway would be stale."""
    assert (await desk.refused("ban", subject="u2", topic="t")).code.number == "LC304"


@pytest.mark.parametrize("synchronous_commit", ["on", "local", "off"])
async def test_the_position_is_at_or_after_the_commit(
    databases: Databases, synchronous_commit: str, database_apps: Sequence[App]
) -> None:
    """The commit record lies before the answer's position, whether or not commits wait for the disk."""
    database = databases.create(database_apps)
    slot = f"{database.name}_p"
    with database.superuser() as owner:
        owner.execute(f"alter database {database.name} set synchronous_commit = {synchronous_commit}".encode())
        owner.execute("create publication p for all tables")
        owner.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        async with opened(database) as desk:
            answers = await asyncio.gather(*[desk.ask("write_note", **NOTE | {"number": n}) for n in range(20)])
        await eventually_async(lambda: len(commits_of_notes(owner, slot)) == 20)
        commits = commits_of_notes(owner, slot)
    for answer in answers:
        assert answer.position_lsn is not None
        assert answer.position_lsn > commits[answer.value]


def commits_of_notes(owner: psycopg.Connection[Any], slot: str) -> dict[bytes, int]:
    """The commit LSN of each note's id, from the log itself (pgoutput: Begin and Insert)."""
    rows = owner.execute(
        "select data from pg_logical_slot_peek_binary_changes(%s, null, null, 'proto_version', '1', "
        "'publication_names', 'p')",
        [slot],
    )
    commits: dict[bytes, int] = {}
    commit = 0
    for (data,) in rows:
        if data[:1] == b"B":
            (commit,) = struct.unpack_from(">Q", data, 1)
        elif data[:1] == b"I":
            (length,) = struct.unpack_from(">I", data, 9)
            commits[data[13 : 13 + length]] = commit
    return commits


@pytest.mark.parametrize(
    ("definition", "body", "arguments", "expected"),
    [
        ("(a numeric) returns numeric", "select a", b'{"a": 0.12345678901234567890}', b"0.12345678901234567890"),
        ("(a numeric) returns numeric", "select a", b'{"a": "NaN"}', b'"NaN"'),
        ("(a bigint) returns text", "select a", b'{"a": 9223372036854775807}', b'"9223372036854775807"'),
        ("(a bigint) returns bigint", "select a", b'{"a": "9007199254740993"}', b"9007199254740993"),
        ("(a text) returns text", "select a", rb'{"a": "\u00e9\n\"\ud83d\ude00"}', '"é\\n\\"😀"'.encode()),
        ("(a bigint, b int) returns bigint", "select a + b", b'{"a": 1e3, "b": -2.0}', b"998"),
        ("(a text) returns text", "select a", b'{"a": null}', b"null"),
        ("(a jsonb) returns jsonb", "select a", b'{"a": {"x": [1e2, "y"]}}', b'{"x": [100, "y"]}'),
        ("(a json) returns json", "select a", b'{"a": [1 ,2]}', b"[1 ,2]"),
        ("(a bigint[]) returns bigint[]", "select a", b'{"a": [1, null, 3]}', b"[1, null, 3]"),
        ("(a text[]) returns text[]", "select a", rb'{"a": ["a,b", "\"", "{}"]}', rb'["a,b", "\"", "{}"]'),
        ("(a date, b bool) returns text", "select a || b::text", b'{"a":"2026-11-20","b":true}', b'"2026-11-20true"'),
        (
            "(a timestamptz) returns timestamptz",
            "select a",
            b'{"a":"2026-11-20 10:00+02"}',
            b'"2026-11-20T08:00:00+00:00"',
        ),
        ("() returns void", "select 1", b"{}", b"null"),
        ("() returns setof integer", "select generate_series(1, 3)", b"{}", b"[1, 2, 3]"),
        ("() returns setof integer", "select 1 where false", b"{}", b"[]"),
        ("() returns table (a int)", "select 1", b"{}", b'[{"a": 1}]'),
        ("() returns table (a int, lastcall_row int)", "select 1, 2", b"{}", b'[{"a": 1, "lastcall_row": 2}]'),
        ("() returns setof sample.pair", "select 1, 'x'", b"{}", b'[{"one": 1, "two": "x"}]'),
        ("(a sample.pair) returns sample.pair", "select a", b'{"a": {"two": "x"}}', b'{"one": null, "two": "x"}'),
        ("(out a int, out b text)", "select 1, 'x'", b"{}", b'{"a": 1, "b": "x"}'),
        ("(inout a int)", "select a + 1", b'{"a": 1}', b"2"),
        ("(a int, b int default 5) returns int", "select a + b", b'{"a": 1}', b"6"),
        ("(a int default 1, b int default 5) returns int", "select a + b", b'{"b": 1}', b"2"),
        ('("a ""b" int, c sample."Odd") returns int', "select $1 + $2", b'{"a \\"b": 1, "c": 2}', b"3"),
    ],
)
async def test_values_in_and_out(
    database: Database, definition: str, body: str, arguments: bytes, expected: bytes
) -> None:
    """Each kind of argument and result travels as JSON, all digits kept, with a key and without."""
    database.execute('create domain sample."Odd" as integer check (value > 0)')
    database.execute("create type sample.pair as (one integer, two text)")
    database.execute("grant usage on schema sample to member")
    define(database, f"f{definition} language sql as $body${body}$body$")
    async with opened(database) as desk:
        answer = await desk.caller.call(MEMBER, desk.functions["f"], members(arguments))
        assert answer.value == expected
        kept = await desk.caller.call(MEMBER, desk.functions["f"], members(arguments), key(function="sample.f"))
        assert kept.value == expected


def members(text: bytes) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, msgspec.Raw])


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({}, {"topic": "missing", "writer": "missing", "number": "missing"}),
        (NOTE | {"surplus": 1}, {"surplus": "unknown"}),
        (NOTE | {"writer": "1"}, {"writer": "expected an integer"}),
        (NOTE | {"writer": True}, {"writer": "expected an integer"}),
        (NOTE | {"writer": [1]}, {"writer": "expected an integer"}),
        (NOTE | {"writer": 1.5}, {"writer": 'invalid input syntax for type integer: "1.5"'}),
        (NOTE | {"writer": 3000000000}, {"writer": 'value "3000000000" is out of range for type integer'}),
        (NOTE | {"topic": 1}, {"topic": "expected text"}),
        (NOTE | {"body": "nul\0"}, {"body": "PostgreSQL has no text with a NUL character"}),
    ],
)
async def test_arguments_that_do_not_fit_are_named(
    desk: Desk, arguments: dict[str, Any], wrong: dict[str, str]
) -> None:
    """LC108 says of each argument what is wrong with it."""
    refusal = await desk.refused("write_note", **arguments)
    assert refusal.code.number == "LC108"
    assert refusal.facts == {"arguments": wrong}


async def test_an_element_of_an_array_that_does_not_fit_names_the_array(database: Database) -> None:
    """What PostgreSQL reads only when the statement runs is named, too."""
    define(database, "f(a int, b int[]) returns int language sql as 'select a + b[1]'")
    async with opened(database) as desk:
        refusal = await desk.refused("f", a=1, b=["x"])
        assert (refusal.code.number, list(refusal.facts["arguments"])) == ("LC108", ["b"])


@pytest.mark.parametrize(
    ("how", "number", "facts", "detail"),
    [
        ("refuse", "SA001", {"asked": True}, "refused"),
        ("rule", "LC112", {}, "a rule of the application"),
        ("serialization", "LC210", {}, ""),
        ("divide", "LC108", {}, ""),
        ("secret", "LC100", {}, ""),
        ("sleep", "LC208", {}, ""),
    ],
)
async def test_errors_become_numbers(
    databases: Databases, database_apps: Sequence[App], how: str, number: str, facts: dict[str, Any], detail: str
) -> None:
    """Each SQLSTATE becomes its number; what PostgreSQL says of itself stays behind; the connection is good again."""
    database = databases.create(database_apps, {"statement_timeout_s": 0.3, "pool_max": 1})
    async with opened(database) as desk:
        refusal = await desk.refused("misbehave", how=how)
        assert (refusal.code.number, refusal.facts, refusal.detail) == (number, facts, detail)
        assert (refusal.incident is not None) == (number == "LC100")
        assert "hunter2" not in json.dumps(refusal.problem())
        assert (refusal.retry_after_s is not None) == (refusal.code.status == 503)
        assert await desk.value("misbehave", how="well") == "behaved"


async def test_a_function_that_calls_what_is_not_there_is_a_mistake_of_the_server(database: Database) -> None:
    """42883 from inside a function is LC100, not "unknown function"."""
    define(database, "f() returns int language plpgsql as 'begin return sample_api.nowhere(); end'")
    async with opened(database) as desk:
        assert (await desk.refused("f")).code.number == "LC100"


async def test_a_function_that_is_gone_is_unknown(database: Database) -> None:
    """A call prepared before the function was dropped is LC107."""
    define(database, "f() returns int language sql as 'select 1'")
    async with opened(database) as desk:
        assert await desk.value("f") == 1
        database.execute("drop function sample_api.f")
        assert (await desk.refused("f")).code.number == "LC107"


async def test_a_function_that_is_replaced_is_called_anew(database: Database) -> None:
    """A changed function answers with its new type at once, without a reconnect."""
    define(database, "f() returns int language sql as 'select 1'")
    async with opened(database) as desk:
        assert await desk.value("f") == 1
        database.execute("drop function sample_api.f")
        define(database, "f() returns text language sql as $$select 'now text'$$")
        assert await desk.value("f") == "now text"


async def test_a_constraint_checked_at_commit_is_an_error(database: Database) -> None:
    """What fails only at COMMIT is answered as a conflict, never as a success."""
    database.execute("create table sample.once (a int unique deferrable initially deferred)")
    define(
        database,
        "f(a int) returns int language sql security definer as 'insert into sample.once values (a) returning a'",
    )
    async with opened(database) as desk:
        assert await desk.value("f", a=1) == 1
        assert (await desk.refused("f", a=1)).code.number == "LC113"
        assert await desk.value("f", a=2) == 2


async def test_serialization_failures_are_repeated(database: Database) -> None:
    """A function that fails twice with 40001 succeeds on the third try, with one effect."""
    database.execute("create sequence sample.tries")
    define(
        database,
        """f() returns bigint language plpgsql security definer as $$
        declare try bigint := nextval('sample.tries');
        begin
            insert into sample.note (topic, writer, number) values ('t', 1, try);
            if try < 3 then raise exception using errcode = '40001'; end if;
            return try;
        end $$""",
    )
    async with opened(database) as desk:
        assert (await desk.ask("f", key=key(function="sample.f"))).value == b"3"
    assert database.execute("select number from sample.note") == [(3,)]


async def test_retries_are_bounded(databases: Databases, database_apps: Sequence[App]) -> None:
    """After `retries_max` repetitions a serialization failure is LC210."""
    database = databases.create(database_apps, {"retries_max": 2})
    database.execute("create sequence sample.tries")
    define(
        database,
        """f() returns bigint language plpgsql security definer as $$
        begin perform nextval('sample.tries'); raise exception using errcode = '40P01'; end $$""",
    )
    async with opened(database) as desk:
        assert (await desk.refused("f")).code.number == "LC210"
    assert database.execute("select last_value from sample.tries") == [(3,)]


async def test_a_large_argument_and_a_large_answer_pass(desk: Desk) -> None:
    """A megabyte each way, more than the socket takes at once."""
    text = "é" * 500_000
    assert await desk.value("echo", value=text) == text


async def test_more_kinds_of_calls_than_statements_are_kept(database: Database) -> None:
    """Every combination of defaults is answered right, though only some are prepared."""
    names = [f"a{n}" for n in range(5)]
    define(
        database,
        f"f({', '.join(f'{n} int default 0' for n in names)}) returns int language sql as 'select {' + '.join(names)}'",
    )
    async with opened(database) as desk:
        for bits in range(32):
            given = {name: 10**place for place, name in enumerate(names) if bits >> place & 1}
            assert await desk.value("f", **given) == sum(given.values())


def waiting(database: Database) -> bool:
    return bool(database.execute("select 1 from pg_locks where locktype = 'advisory' and not granted"))


async def test_a_connection_ended_before_the_result_changes_nothing(database: Database) -> None:
    """The backend is terminated inside the function: LC202, for it was rolled back; the pool recovers."""
    define(
        database,
        """f() returns int language plpgsql security definer as $$
        begin insert into sample.note (topic, writer, number) values ('f', 1, 1); perform pg_advisory_xact_lock(7);
        return 1; end $$""",
    )
    async with opened(database) as desk:
        with database.connect() as gate, database.superuser() as killer:
            gate.execute("select pg_advisory_lock(7)")
            call = asyncio.create_task(desk.ask("f"))
            await eventually_async(lambda: waiting(database))
            killer.execute("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted")
            with pytest.raises(Refusal) as caught:
                await call
            assert caught.value.code.number == "LC202"
        assert await desk.value("f") == 1
    assert database.execute("select count(*) from sample.note") == [(1,)]


async def test_a_cancelled_call_gives_the_pool_a_good_connection(
    databases: Databases, database_apps: Sequence[App]
) -> None:
    """A caller that goes away in the middle does not leave its transaction or its results to the next one."""
    database = databases.create(database_apps, {"pool_max": 1})
    async with opened(database) as desk:
        call = asyncio.create_task(desk.ask("misbehave", how="sleep"))
        await eventually_async(lambda: sleeping(database))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await desk.value("misbehave", how="well") == "behaved"


def sleeping(database: Database) -> bool:
    with database.superuser() as superuser:
        found = superuser.execute(
            "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        )
        return found.fetchone() is not None


async def test_a_read_only_database_refuses_writes(database: Database) -> None:
    """LC206 with Retry-After, and reading goes on."""
    with database.superuser() as superuser:
        superuser.execute(f"alter database {database.name} set default_transaction_read_only = on".encode())
    async with opened(database) as desk:
        refusal = await desk.refused("write_note", **NOTE)
        assert (refusal.code.number, refusal.retry_after_s) == ("LC206", 5.0)
        assert await desk.value("echo", value=1) == 1


async def test_the_exhausted_pool_refuses(databases: Databases, database_apps: Sequence[App]) -> None:
    """All connections busy for longer than the bound: LC203, and afterwards all is well."""
    database = databases.create(database_apps, {"pool_max": 1, "pool_wait_max_s": 0.2, "statement_timeout_s": 2})
    async with opened(database) as desk:
        busy = asyncio.create_task(desk.ask("misbehave", how="sleep"))
        await eventually_async(lambda: sleeping(database))
        assert (await desk.refused("echo", value=1)).code.number == "LC203"
        with pytest.raises(Refusal, match="LC208"):
            await busy
        assert await desk.value("echo", value=1) == 1


async def test_connections_ended_under_calls_are_noticed_at_once(
    databases: Databases, database_apps: Sequence[App]
) -> None:
    """Backends that end at any moment of a call leave it refused or answered, never waiting for a lost socket."""
    database = databases.create(database_apps, {"pool_max": 4})
    async with opened(database) as desk:

        async def call() -> str:
            try:
                await desk.ask("write_note", **NOTE)
            except Refusal as refusal:
                return refusal.code.number
            return ""

        with database.superuser() as superuser:
            for _ in range(60):
                calls = [asyncio.create_task(call()) for _ in range(8)]
                await asyncio.sleep(0)
                superuser.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and usename = 'lastcall_authenticator'"
                )
                async with asyncio.timeout(8):
                    assert set(await asyncio.gather(*calls)) <= {"", "LC202", "LC211"}
        assert await call() == ""
