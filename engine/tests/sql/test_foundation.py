"""publish, revoke, claims and the clock: what the engine's SQL promises to an application's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from lastcall.config import Config
from lastcall.event import EVENT_NAME, RESERVED_EVENT_NAMES
from lastcall.testing.fixtures import Database

Connection = psycopg.Connection[tuple[object, ...]]
Message = tuple[str, dict[str, object]]


@pytest.fixture
def owner(database: Database) -> Iterator[Connection]:
    """The owner's connection."""
    with database.connect() as connection:
        yield connection


class Stream:
    """What comes out of the log: the messages of ours, and rows of lastcall.published."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.superuser() as superuser:
            superuser.execute("create publication heard for table lastcall.published with (publish = 'insert')")
            superuser.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [database.name])

    def raw(self) -> list[bytes]:
        """Each change since the last time, as pgoutput writes it."""
        with self.database.superuser() as superuser:
            rows = superuser.execute(
                "select data from pg_logical_slot_get_binary_changes(%s, null, null, "
                "'proto_version', '1', 'publication_names', 'heard', 'messages', 'true')",
                [self.database.name],
            ).fetchall()
        return [bytes(row[0]) for row in rows]  # type: ignore[call-overload]

    def messages(self) -> list[Message]:
        """Prefix and content of each message (pgoutput's `M`: flags, LSN, prefix, length, content)."""
        found = []
        for change in self.raw():
            if change[:1] == b"M":
                assert change[1] == 1, "transactional"
                prefix, _, rest = change[10:].partition(b"\0")
                found.append((prefix.decode(), json.loads(rest[4:])))
        return found


@pytest.fixture
def stream(database: Database) -> Stream:
    """Reads the log of the test's database from here on."""
    return Stream(database)


def refused(connection: Connection, statement: str, *parameters: object) -> str:
    """The SQLSTATE with which a statement is refused."""
    with pytest.raises(psycopg.Error) as error, connection.transaction():
        connection.execute(statement.encode(), parameters)
    return str(error.value.sqlstate)


def test_publish(owner: Connection, stream: Stream) -> None:
    """An event is in the log exactly when and where its transaction has committed."""
    with owner.transaction():
        owner.execute("select lastcall.publish('room:a-B_1', 'said', '{\"text\": \"é\\n\"}')")
        with pytest.raises(ZeroDivisionError), owner.transaction():
            owner.execute("select lastcall.publish('room:1', 'unsaid', '1')")
            raise ZeroDivisionError
        owner.execute("select lastcall.publish('room:2', 'said2', 'null')")
    with pytest.raises(ZeroDivisionError), owner.transaction():
        owner.execute("select lastcall.publish('room:1', 'unsaid', '1')")
        raise ZeroDivisionError
    assert stream.messages() == [
        ("lastcall.event", {"channel": "room:a-B_1", "event": "said", "data": {"text": "é\n"}}),
        ("lastcall.event", {"channel": "room:2", "event": "said2", "data": None}),
    ]


@pytest.mark.parametrize(
    "channel",
    [
        None,
        "",
        "room",
        "room:",
        ":1",
        "Room:1",
        "room:1 ",
        "room:é",
        "room:1\n",
        "r1:1",
        "a" * 32 + ":1",
        "a:" + "1" * 65,
    ],
)
def test_channel_is_checked(owner: Connection, stream: Stream, channel: str | None) -> None:
    """What is no channel is refused with LC401 and nothing is emitted."""
    assert refused(owner, "select lastcall.publish(%s, 'said', '1')", channel) == "LC401"
    assert refused(owner, "select lastcall.revoke('me', %s)", channel) == "LC401"
    assert stream.messages() == []


def test_longest_channel(owner: Connection, stream: Stream) -> None:
    """The longest channel there can be is accepted."""
    owner.execute("select lastcall.publish(%s, 'said', '1')", ["a" * 31 + ":" + "Z" * 64])
    assert len(stream.messages()) == 1


@pytest.mark.parametrize(
    "name", [None, "", "Said", "1said", "sa id", "said\n", "s" * 64, *sorted(RESERVED_EVENT_NAMES)]
)
def test_event_name_is_checked(owner: Connection, name: str | None) -> None:
    """What is no event's name, or is reserved by the protocol, is refused with LC410; Python refuses the same names."""
    assert refused(owner, "select lastcall.publish('room:1', %s, '1')", name) == "LC410"
    assert not EVENT_NAME.fullmatch(name or "") or name in RESERVED_EVENT_NAMES


def test_data_is_bounded(owner: Connection, stream: Stream) -> None:
    """Data of the limit is accepted; a byte more, and none at all, are refused with LC410."""
    limit = Config().event_data_max_bytes
    owner.execute("select lastcall.publish('room:1', 'said', to_jsonb(repeat('x', %s)))", [limit - 2])
    assert refused(owner, "select lastcall.publish('room:1', 'said', to_jsonb(repeat('x', %s)))", limit - 1) == "LC410"
    assert refused(owner, "select lastcall.publish('room:1', 'said', null)") == "LC410"
    assert len(stream.messages()) == 1


def test_revoke(owner: Connection, stream: Stream) -> None:
    """A revocation is in the log with its transaction; a subject has 1 to 255 characters."""
    owner.execute("select lastcall.revoke('user 7', 'room:1')")
    assert stream.messages() == [("lastcall.revoke", {"subject": "user 7", "channel": "room:1"})]
    for subject in (None, "", "x" * 256):
        assert refused(owner, "select lastcall.revoke(%s, 'room:1')", subject) == "LC108"


def test_table_path(database: Database, owner: Connection, stream: Stream) -> None:
    """Where others can emit messages, an event takes the table: a row that is gone at once, and the feed is told not to
    believe messages; when that has ended and `migrate` says so, it is a message again."""
    more = ", boolean" if database.server.installation.major >= 17 else ""
    with database.superuser() as superuser:
        superuser.execute(
            f"grant execute on function pg_logical_emit_message(boolean, text, text{more}) to public".encode()
        )
        assert owner.execute("select lastcall.choose_path()").fetchone() == (False,)
        assert owner.execute("select lastcall.messages_trusted()").fetchone() == (False,)
        owner.execute("select lastcall.publish('room:1', 'said', '1')")
        changes = stream.raw()
        assert [change[:1] for change in changes if change[:1] in b"MI"] == [b"I"]
        assert any(b"lastcall.event" in change and b'"channel": "room:1"' in change for change in changes)
        assert owner.execute("select count(*) from lastcall.published").fetchone() == (0,)
        superuser.execute(
            f"revoke execute on function pg_logical_emit_message(boolean, text, text{more}) from public".encode()
        )
    assert owner.execute("select lastcall.choose_path()").fetchone() == (True,)
    owner.execute("select lastcall.publish('room:1', 'said', '1')")
    assert len(stream.messages()) == 1


def test_claims(owner: Connection) -> None:
    """Claims are what the call came with, for the length of its transaction, and {} otherwise."""
    assert owner.execute("select lastcall.claims(), lastcall.claim('sub')").fetchone() == ({}, None)
    with owner.transaction():
        claims = {"sub": "7", "faction_id": 4711, "bars": [1, 2], "none": None}
        owner.execute("select set_config('lastcall.claims', %s, true)", [json.dumps(claims)])
        assert owner.execute("select lastcall.claims()").fetchone() == (claims,)
        row = owner.execute(
            "select lastcall.claim('sub'), lastcall.claim('faction_id'), lastcall.claim('bars'), lastcall.claim('none')"
        )
        assert row.fetchone() == ("7", "4711", "[1, 2]", None)
    assert owner.execute("select lastcall.claims()").fetchone() == ({},)


def test_clock_is_the_wall_clock(owner: Connection) -> None:
    """Unset, the clock of business rules is the transaction's own time."""
    assert owner.execute("select lastcall.now() = now()").fetchone() == (True,)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "Pacific/Apia"])
def test_set_now(owner: Connection, zone: str) -> None:
    """Set, it shows that moment and time goes on from there, whatever time zone a session has; NULL takes it back."""
    moment = datetime(2031, 7, 14, 12, 0, tzinfo=UTC)
    owner.execute("select lastcall.set_now(%s)", [moment])
    owner.execute("select set_config('TimeZone', %s, false)", [zone])
    first, later = (owner.execute("select lastcall.now()").fetchone() for _ in range(2))
    assert first and later
    assert timedelta(0) <= first[0] - moment < timedelta(seconds=60)  # type: ignore[operator]
    assert first[0] < later[0]  # type: ignore[operator]
    assert owner.execute("select lastcall.now() = lastcall.now(), pg_sleep(0)").fetchone() == (True, "")
    owner.execute("select lastcall.set_now('2001-01-01')")
    assert owner.execute("select lastcall.now() < '2001-01-03'").fetchone() == (True,)
    owner.execute("select lastcall.set_now(null)")
    assert owner.execute("select lastcall.now() = now()").fetchone() == (True,)


def test_set_now_is_checked(owner: Connection) -> None:
    """Infinity is no time of day."""
    assert refused(owner, "select lastcall.set_now('infinity')") == "LC108"
