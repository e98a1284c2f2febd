"""Every codec against `to_jsonb` of a real PostgreSQL."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lastcall.feed.publication import read_catalog
from lastcall.feed.values import SESSION_SETTINGS, TypeFacts, codec, names_channels
from lastcall.feed.watch import Watch
from lastcall.testing.fixtures import Database, Databases

Connection = psycopg.Connection[tuple[object, ...]]
VALUES_PER_EXAMPLE = 20
SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TYPES = """
    create type mood as enum ('', 'fine', 'so so', 'quote"d', 'back\\slash', 'é', 'a,b', 'NULL', '{x}');
    create domain short as varchar(10);
    create domain shorter as short;
    create domain numbers as int[];
    create type pair as (a int, b text);
"""


def plain(number: float) -> str:
    """A float as PostgreSQL reads it."""
    return repr(number) if math.isfinite(number) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(number, "NaN")


def days(low: int, high: int) -> st.SearchStrategy[str]:
    """Dates and times PostgreSQL reads: BC, far years, microseconds."""
    years = st.integers(low, high).filter(lambda year: year != 0)
    moment = st.tuples(st.integers(1, 12), st.integers(1, 28), st.times())
    return st.tuples(years, moment).map(
        lambda parts: (
            f"{abs(parts[0]):04d}-{parts[1][0]:02d}-{parts[1][1]:02d} {parts[1][2].isoformat()}"
            + (" BC" if parts[0] < 0 else "")
        )
    )


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NUMERIC = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40).map(str),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "0.00", "-0.000", "1e-30", "1e100", "1.10"]),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
INFINITE = st.sampled_from(["infinity", "-infinity"])
MAC = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
INTERVAL = st.tuples(*[st.integers(-5000, 5000)] * 5).map(
    lambda parts: "{} years {} months {} days {} hours {} microseconds".format(*parts)
)
RANGE = st.tuples(st.integers(-9, 9), st.integers(10, 20)).map(lambda ends: f"[{ends[0]},{ends[1]})")
SCALARS: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.booleans().map(str),
    "smallint": st.integers(-(2**15), 2**15 - 1).map(str),
    "integer": st.integers(-(2**31), 2**31 - 1).map(str),
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "real": st.floats(width=32).map(plain),
    "double precision": st.floats().map(plain),
    "numeric": NUMERIC,
    "numeric(20,4)": st.decimals(-(10**14), 10**14, places=4).map(str),
    "text": TEXT,
    "varchar(30)": TEXT,
    "char(12)": TEXT,
    "name": TEXT,
    '"char"': st.sampled_from(["a", "", '"', "\\", "\\377"]),
    "mood": st.sampled_from(["", "fine", "so so", 'quote"d', "back\\slash", "é", "a,b", "NULL", "{x}"]),
    "shorter": st.text('ab "\\{},', max_size=10),
    "uuid": st.uuids().map(str),
    "inet": st.ip_addresses().map(str) | st.sampled_from(["10.1.2.3/8", "::1/64"]),
    "cidr": st.ip_addresses().map(str),
    "macaddr": MAC,
    "macaddr8": MAC,
    "bytea": st.binary(max_size=9).map(lambda raw: "\\x" + raw.hex()),
    "bit(5)": st.text("01", min_size=5, max_size=5),
    "varbit": st.text("01", max_size=9),
    "interval": INTERVAL,
    "money": st.integers(-(10**9), 10**9).map(lambda cents: str(Decimal(cents) / 100)),
    "int4range": RANGE | st.sampled_from(["empty", "(,)", "[3,3]"]),
    "tstzrange": st.sampled_from(["[2026-01-01 00:00+02,)", "empty"]),
    "int8multirange": st.lists(RANGE, max_size=2).map(lambda ranges: "{" + ",".join(ranges) + "}"),
    "date": st.dates(datetime.date(1, 1, 1)).map(str) | days(-4000, 12000) | INFINITE,
    "time": st.times().map(lambda time: time.isoformat()),
    "timetz": st.tuples(st.times(), st.integers(-12, 12)).map(lambda pair: f"{pair[0].isoformat()}{pair[1]:+03d}"),
    "timestamp": days(-4000, 20000) | INFINITE,
    "timestamptz": days(-4000, 20000) | INFINITE,
    "jsonb": JSON.map(json.dumps),
}
ELEMENTS = ["boolean", "integer", "bigint", "double precision", "numeric", "text", "mood", "shorter", "uuid", "bytea"]
ELEMENTS += ["timestamptz", "date", "jsonb", "inet", "int4range", '"char"']


@pytest.fixture(scope="module")
def connection(session_databases: Databases) -> Iterator[Connection]:
    """A session as the walsender's, in a database with types of its own."""
    database = session_databases.create(())
    with psycopg.connect(database.superuser_url, autocommit=True) as made:
        made.execute(TYPES.encode())
        for name, value in SESSION_SETTINGS.items():
            made.execute("select set_config(%s, %s, false)", [name, value])
        made.execute("set lc_monetary = 'C'")
        yield made
    session_databases.drop_all()


@pytest.fixture(scope="module")
def codec_of(connection: Connection) -> Callable[[str], Callable[[bytes], bytes] | None]:
    """The codec of a type, from facts that the engine's own routine tells."""

    def find(type_name: str) -> Callable[[bytes], bytes] | None:
        connection.execute(f"create temp table probe (value {type_name})".encode())
        try:
            (answer,) = connection.execute(
                "select lastcall.feed_catalog('x', array[(select relnamespace::regnamespace || '.probe' from pg_class"
                " where relname = 'probe')])"
            ).fetchone() or ({},)
        finally:
            connection.execute("drop table probe")
        assert isinstance(answer, dict)
        types = {facts["oid"]: TypeFacts(**facts) for facts in answer["types"]}
        (column,) = answer["tables"][0]["columns"]
        return codec(column["type"], types)

    return find


def both(connection: Connection, type_name: str, values: list[str]) -> list[tuple[str, str]]:
    """(text, to_jsonb) of each value. `format` calls the output function, as the log's reader does; a cast to text
    may write something else."""
    query = f"select format('%%s', v::{type_name}), to_jsonb(v::{type_name})::text from unnest(%s::text[]) v"
    rows = connection.execute(query.encode(), [values]).fetchall()
    return [(str(text), str(made)) for text, made in rows]


@pytest.mark.parametrize("type_name", SCALARS)
def test_scalar_is_what_to_jsonb_writes(
    connection: Connection, codec_of: Callable[[str], Callable[[bytes], bytes]], type_name: str
) -> None:
    """The bytes of a scalar are those of `to_jsonb`, for values of every kind."""
    encode = codec_of(type_name)

    @SETTINGS
    @given(st.lists(SCALARS[type_name], max_size=VALUES_PER_EXAMPLE))
    def check(values: list[str]) -> None:
        for text, made in both(connection, type_name, values):
            assert encode(text.encode()).decode() == made

    check()


def exact(text: str) -> object:
    """JSON with its numbers as they are meant."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def tokens(text: str) -> object:
    """JSON with its numbers as they are written."""
    return json.loads(text, parse_float=str, parse_int=str)


@pytest.mark.parametrize("type_name", ELEMENTS)
def test_array_is_what_to_jsonb_writes(
    connection: Connection, codec_of: Callable[[str], Callable[[bytes], bytes]], type_name: str
) -> None:
    """An array of one or more dimensions, with NULLs and odd bounds, is the array that `to_jsonb` makes."""
    encode = codec_of(f"{type_name}[]")
    element = SCALARS[type_name] | st.none()
    rows = st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(element, min_size=width, max_size=width), max_size=3)
    )
    bounds = st.sampled_from(["", "[5:5]={{{}}}"])

    @SETTINGS
    @given(rows, st.booleans(), bounds)
    def check(values: list[list[str | None]], flat: bool, bound: str) -> None:
        given_array: object = [value for row in values for value in row] if flat else values
        (text, made) = connection.execute(
            f"select format('%%s', a), to_jsonb(a)::text from (select %s::text[]::{type_name}[] a) one".encode(),
            [given_array],
        ).fetchone() or ("", "")
        found = encode(str(text).encode()).decode()
        assert tokens(found) == tokens(str(made))
        assert "\n" not in found

    check()


@pytest.mark.parametrize(
    ("type_name", "text"),
    [
        ("int[]", "[2:4]={1,NULL,3}"),
        ("int[]", "[0:1][-1:0]={{1,2},{3,4}}"),
        ("text[]", '[2:3]={a,"="}'),
        ("numbers", "{1,2}"),
        ("numbers", "{}"),
        ("text[]", "{}"),
        ("shorter[]", '{NULL,"NULL",""}'),
        ("int[]", "{{{1},{2}}}"),
    ],
)
def test_odd_array_is_what_to_jsonb_writes(
    connection: Connection, codec_of: Callable[[str], Callable[[bytes], bytes]], type_name: str, text: str
) -> None:
    """Lower bounds, domains over arrays and arrays of domains are written as `to_jsonb` does."""
    ((shown, made),) = both(connection, type_name, [text])
    assert tokens(codec_of(type_name)(shown.encode()).decode()) == tokens(made)


def test_json_keeps_its_text(connection: Connection, codec_of: Callable[[str], Callable[[bytes], bytes]]) -> None:
    """json stays as it was written, its line breaks excepted, and means what it meant."""
    encode = codec_of("json")

    @SETTINGS
    @given(JSON, st.sampled_from([None, 1, "\t", "\r\n"]))
    def check(value: object, indent: int | str | None) -> None:
        text = json.dumps(value, indent=indent)
        ((shown, made),) = both(connection, "json", [text])
        found = encode(shown.encode()).decode()
        assert "\n" not in found and "\r" not in found
        assert len(found) == len(text)
        assert exact(found) == exact(made) == exact(text)

    check()


@pytest.mark.parametrize(
    "type_name", ["pair", "pair[]", "point", "tsvector", "int2vector", "oidvector", "regclass", "pg_lsn"]
)
def test_unsupported_type_has_no_codec(
    codec_of: Callable[[str], Callable[[bytes], bytes] | None], type_name: str
) -> None:
    """Composite types and all others have no codec, also within an array."""
    assert codec_of(type_name) is None


async def test_channel_types(database: Database) -> None:
    """Only values whose text fits a channel's grammar may stand in a channel's name."""
    names = {"bigint": True, "text": True, "uuid": True, "date": True, "mood": True, "shorter": True, "boolean": False}
    names |= {"numeric": False, "jsonb": False, "int[]": False, "timestamptz": False, "numbers": False}
    async with await database.connect_async() as connection:
        await connection.execute("create schema app")
        await connection.execute(TYPES.encode())
        columns = ", ".join(f'"{name}" {name}' for name in names)
        await connection.execute(f"create table app.t ({columns})".encode())
        watch = Watch(table="app.t", channel="bar:1", event="x", columns=("text",))
        catalog = await read_catalog(connection, database.config, [watch])
    found = {c.name: names_channels(c.type, catalog.types) for c in catalog.tables["app.t"].columns}
    assert found == names
