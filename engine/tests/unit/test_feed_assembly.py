"""From raw messages to transactions: whole, in order, once, within limits, at stable positions."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcall.config import Config
from lastcall.event import Event, Transaction
from lastcall.feed.assembly import Assembly, Diverged, Finished, Mark, Reset
from lastcall.feed.catalog import PUBLISHED_ROWS, Catalog, TableFacts
from lastcall.feed.pgoutput import DecodeError
from lastcall.feed.watch import Watch
from lastcall.meter import Meter
from lastcall.position import Position

EPOCH = "e1"
SALE, OTHER, ROWS, TRUST = 10, 11, 12, 13
WATCH = Watch(table="bar.sale", channel=("bar:{bar}", "till:{till}"), event="sale", columns=("id",))
SHAPES = {
    SALE: ("bar", "sale", {"id": 23, "bar": 23, "till": 23}),
    OTHER: ("bar", "other", {"id": 23}),
    ROWS: ("lastcall", "published", {"id": 20, "prefix": 25, "content": 3802}),
    TRUST: ("lastcall", "path", {"only_row": 16, "messages": 16}),
}


def table(name: str, oid: int) -> TableFacts:
    """A table as the catalog has it."""
    return TableFacts(name, oid, "r", "p", "f", False, True, False, ("id",), (), ())


CATALOG = Catalog(
    170000, None, {name: table(name, oid) for name, oid in (("bar.sale", SALE), (PUBLISHED_ROWS, ROWS))}, {}
)


def text(value: str) -> bytes:
    """A zero-terminated string."""
    return value.encode() + b"\0"


def relation(oid: int, schema: str = "", name: str = "", columns: dict[str, int] | None = None) -> bytes:
    """R."""
    known = SHAPES.get(oid, ("", "", {}))
    columns = known[2] if columns is None else columns
    parts = [b"R", struct.pack(">I", oid), text(schema or known[0]), text(name or known[1]), b"f"]
    parts.append(struct.pack(">H", len(columns)))
    parts += [b"\1" + text(column) + struct.pack(">Ii", type_oid, -1) for column, type_oid in columns.items()]
    return b"".join(parts)


def row(*values: object) -> bytes:
    """TupleData."""
    parts = [struct.pack(">H", len(values))]
    for value in values:
        encoded = b"" if value is None else str(value).encode()
        parts.append(b"n" if value is None else b"t" + struct.pack(">I", len(encoded)) + encoded)
    return b"".join(parts)


def begin(commit_lsn: int, xid: int = 700, time_us: int = 0) -> bytes:
    """B."""
    return b"B" + struct.pack(">QqI", commit_lsn, time_us, xid)


def commit(commit_lsn: int, end_lsn: int) -> bytes:
    """C."""
    return b"C" + struct.pack(">BQQq", 0, commit_lsn, end_lsn, 0)


def insert(oid: int, *values: object) -> bytes:
    """I."""
    return b"I" + struct.pack(">I", oid) + b"N" + row(*values)


def update(oid: int, old: tuple[object, ...], new: tuple[object, ...]) -> bytes:
    """U with a full old row."""
    return b"U" + struct.pack(">I", oid) + b"O" + row(*old) + b"N" + row(*new)


def delete(oid: int, *values: object) -> bytes:
    """D with a full old row."""
    return b"D" + struct.pack(">I", oid) + b"O" + row(*values)


def truncate(*oids: int) -> bytes:
    """T."""
    return b"T" + struct.pack(">IB", len(oids), 0) + b"".join(struct.pack(">I", oid) for oid in oids)


def message(prefix: str, content: bytes = b"{}", *, transactional: bool = True) -> bytes:
    """M."""
    return b"M" + struct.pack(">BQ", transactional, 1) + text(prefix) + struct.pack(">I", len(content)) + content


def said(channel: str, data: object = 1) -> bytes:
    """A published event as a message."""
    return message("lastcall.event", msgspec.json.encode({"channel": channel, "event": "hello", "data": data}))


class Bench:
    """An assembly that has been told of all relations."""

    def __init__(self, *, trusted: bool = True, head_lsn: int = 0, **limits: int) -> None:
        self.meter = Meter()
        self.mismatches = 0
        self.assembly = Assembly(Config(**limits), [WATCH], self.meter, self._mismatch)
        self.assembly.learn(CATALOG, trusted=trusted)
        self.assembly.restart(EPOCH, head_lsn, None, None)
        self.take(*[relation(oid) for oid in SHAPES])

    def _mismatch(self) -> None:
        self.mismatches += 1

    def take(self, *messages: bytes) -> list[Finished]:
        """What these messages finish."""
        for each in messages:
            self.assembly.take(each)
        finished = list(self.assembly.finished)
        self.assembly.finished.clear()
        return finished

    def transaction(self, *changes: bytes, commit_lsn: int = 100) -> list[Finished]:
        """What one transaction finishes."""
        return self.take(begin(commit_lsn), *changes, commit(commit_lsn, commit_lsn + 8))


def events(finished: list[Finished]) -> list[Event]:
    """All events."""
    return [event for each in finished if isinstance(each, Transaction) for event in each.events]


def told(finished: list[Finished]) -> list[tuple[int, str, tuple[str, ...]]]:
    """(ordinal, name, channels) of all events."""
    return [(event.position.ordinal, event.name, event.channels) for event in events(finished)]


def resets(finished: list[Finished]) -> list[Reset]:
    """The resets."""
    return [each for each in finished if isinstance(each, Reset)]


def test_positions_count_raw_messages() -> None:
    """Message n has the ordinals 2n - 1 and 2n, foreign changes and messages counted, descriptions not."""
    finished = Bench().transaction(
        insert(SALE, 1, 7, None),
        insert(OTHER, 1),
        relation(SALE),
        message("foreign"),
        update(SALE, (1, 7, None), (1, 8, None)),
        said("bar:9"),
        delete(SALE, 1, 8, None),
    )
    assert told(finished) == [
        (2, "sale", ("bar:7",)),
        (7, "gone", ("bar:7",)),
        (8, "sale", ("bar:8",)),
        (10, "hello", ("bar:9",)),
        (11, "gone", ("bar:8",)),
    ]
    assert {event.position[:2] for event in events(finished)} == {(EPOCH, 100)}


def test_positions_do_not_depend_on_watches() -> None:
    """Another set of watches gives other events, but an event that both have stands at the same position."""
    without = Assembly(Config(), [], Meter(), lambda: None)
    without.learn(CATALOG, trusted=True)
    without.restart(EPOCH, 0, None, None)
    changes = [relation(SALE), begin(100), insert(SALE, 1, 7, 1), said("bar:9"), commit(100, 108)]
    for each in changes:
        without.take(each)
    assert told(without.finished) == [(4, "hello", ("bar:9",))]
    assert told(Bench().take(*changes))[1] == (4, "hello", ("bar:9",))


def test_transaction_of_nobodys_interest_moves_the_head() -> None:
    """A transaction without events makes no transaction for the sink, only a head."""
    bench = Bench()
    assert bench.transaction(insert(OTHER, 1), message("foreign")) == []
    assert bench.assembly.head_lsn == 108
    assert bench.assembly.last == Mark(100, 700, 0)


def test_message_outside_of_transactions_is_nothing() -> None:
    """A message that is not transactional is no event and has no ordinal, even within a transaction."""
    bench = Bench()
    aside = message("lastcall.event", b'{"channel":"bar:1","event":"hello","data":1}', transactional=False)
    assert bench.take(aside) == []
    assert told(bench.transaction(aside, said("bar:9"))) == [(2, "hello", ("bar:9",))]


def test_messages_are_believed_only_where_they_can_be_trusted() -> None:
    """Where anybody may emit messages, only rows of the engine's own table are believed; the rest raises an alarm."""
    content = msgspec.json.encode({"channel": "bar:1", "event": "hello", "data": 1}).decode()
    bench = Bench(trusted=False)
    changes = (said("bar:9"), insert(ROWS, 1, "lastcall.event", content), delete(ROWS, 1, "x", "{}"))
    assert told(bench.transaction(*changes)) == [(4, "hello", ("bar:1",))]
    assert bench.meter.alarms == {"message_untrusted": 1}


def test_trust_changes_at_its_place_in_the_stream() -> None:
    """A change of the path is heard in the log, holds from there on, and resets everything."""
    bench = Bench(trusted=True)
    finished = bench.transaction(update(TRUST, ("t", "t"), ("t", "f")), said("bar:9"))
    assert (events(finished), resets(finished)) == ([], [Reset(None, "schema")])
    finished = bench.transaction(insert(TRUST, "t", "t"), said("bar:9"), commit_lsn=200)
    assert (told(finished), resets(finished)) == ([(4, "hello", ("bar:9",))], [Reset(None, "schema")])


def test_malformed_message_harms_nothing() -> None:
    """A superuser's nonsense under our prefix raises an alarm, and the rest of the transaction is told."""
    bench = Bench()
    finished = bench.transaction(message("lastcall.event", b"\xff{"), insert(SALE, 1, 7, None))
    assert told(finished) == [(4, "sale", ("bar:7",))]
    assert bench.meter.alarms == {"message_malformed": 1}


def test_revocation_carries_its_subject() -> None:
    """A revocation is an event of its own at its place in the stream."""
    (event,) = events(Bench().transaction(message("lastcall.revoke", b'{"subject":"ann","channel":"bar:7"}')))
    assert (event.name, event.channels, event.subject) == ("revoked", ("bar:7",), "ann")
    assert event.position == Position(EPOCH, 100, 2)


def test_marked_kinds_are_reset_behind_their_transaction() -> None:
    """A mark in the log, and a TRUNCATE, reset kinds of channel, after the events of their transaction."""
    mark = message("lastcall.reset", b'{"kinds":["bar"],"reason":"schema"}')
    finished = Bench().transaction(truncate(OTHER, SALE), insert(SALE, 1, 7, None), mark)
    assert [type(each) for each in finished] == [Transaction, Reset, Reset]
    assert resets(finished) == [Reset(frozenset({"bar", "till"}), "truncate"), Reset(frozenset({"bar"}), "schema")]


def test_truncate_of_an_unwatched_table_is_nothing() -> None:
    """A TRUNCATE that no watch concerns resets nobody."""
    assert Bench().transaction(truncate(OTHER)) == []


@pytest.mark.parametrize("trusting", [True, False])
def test_more_events_than_a_channel_takes_become_one_reset(trusting: bool) -> None:
    """Of a channel that had too many events in one transaction only a reset is left, at a position of its own; the
    others keep theirs, revocations always."""
    bench = Bench(events_per_transaction_max=3, trusted=trusting)
    changes = [insert(SALE, number, 7, 1 if number < 3 else None) for number in range(5)]
    if trusting:
        changes.append(message("lastcall.revoke", b'{"subject":"ann","channel":"bar:7"}'))
    finished = bench.transaction(*changes)
    last = 2 * len(changes)
    revoked = [(12, "revoked", ("bar:7",))] if trusting else []
    till = [(2, "sale", ("till:1",)), (4, "sale", ("till:1",)), (6, "sale", ("till:1",))]
    assert told(finished) == [*till, *revoked, (last + 1, "reset", ("bar:7",))]
    assert json.loads(events(finished)[-1].data) == {"channels": ["bar:7"], "reason": "overflow"}
    assert told(bench.transaction(*[insert(SALE, number, 7, 1) for number in range(3)], commit_lsn=200))[-1] == (
        6,
        "sale",
        ("bar:7", "till:1"),
    )


def test_transaction_that_is_too_large_resets_its_kinds() -> None:
    """Beyond the limit of bytes nothing of a transaction is kept but its revocations; the next is told as ever."""
    bench = Bench(transaction_max_bytes=10_000)
    changes = [insert(SALE, number, number, None) for number in range(1000)]
    revoke = message("lastcall.revoke", b'{"subject":"ann","channel":"bar:7"}')
    finished = bench.transaction(*changes, said("user:1"), revoke, *changes)
    assert told(finished) == [(2004, "revoked", ("bar:7",))]
    assert resets(finished) == [Reset(frozenset({"bar", "till", "user"}), "overflow")]
    assert bench.meter.alarms == {"transaction_too_large": 1}
    assert len(told(bench.transaction(insert(SALE, 1, 7, None), commit_lsn=200))) == 1


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        (relation(SALE, columns={"id": 23, "bar": 23}), "a column is gone"),
        (relation(SALE, columns={"id": 23, "bar": 23, "till": 99_999}), "a type is unknown"),
        (relation(SALE, name="sold"), "the table was renamed"),
        (relation(77, "bar", "sale", {"id": 23}), "another table has its name and not its columns"),
    ],
)
def test_table_that_no_longer_fits_resets_its_kinds(description: bytes, reason: str) -> None:
    """Changes that cannot be told reset the watch's kinds, once a transaction, and the catalog is asked again."""
    bench = Bench()
    oid = 77 if description.startswith(b"R" + struct.pack(">I", 77)) else SALE
    finished = bench.transaction(description, insert(oid, 1), delete(oid, 1), truncate(oid))
    assert events(finished) == [], reason
    assert resets(finished)[0] == Reset(frozenset({"bar", "till"}), "schema")
    assert bench.mismatches >= 1


def test_learning_mends_what_was_unknown() -> None:
    """Once the catalog knows a type, the same relation is rendered again without a new description."""
    from lastcall.feed.values import TypeFacts

    bench = Bench()
    described = relation(SALE, columns={"id": 99_999, "bar": 23, "till": 23})
    assert resets(bench.transaction(described, insert(SALE, 1, 7, None))) != []
    known = Catalog(170000, None, {}, {99_999: TypeFacts(99_999, "mood", "e")})
    bench.assembly.learn(known, trusted=True)
    (event,) = events(bench.transaction(insert(SALE, 1, 7, None), commit_lsn=200))
    assert event.data == b'{"id":"1"}'


@pytest.mark.parametrize(
    "messages",
    [
        [insert(SALE, 1, 7, None)],
        [commit(100, 108)],
        [begin(100), begin(200)],
        [begin(100), commit(101, 108)],
        [begin(100), insert(99, 1)],
        [begin(100), insert(ROWS, 1, None, "{}")],
    ],
    ids=["change outside", "commit outside", "nested", "other commit", "undescribed", "published row without prefix"],
)
def test_impossible_order_is_refused(messages: list[bytes]) -> None:
    """What PostgreSQL would never send ends the session instead of being guessed at."""
    with pytest.raises(DecodeError):
        Bench().take(*messages)


def test_what_commits_at_the_head_is_new() -> None:
    """The head is S.0: a transaction whose commit record begins where the other's ended is delivered."""
    bench = Bench()
    bench.take(begin(100), insert(SALE, 1, 7, None), commit(100, 148))
    assert bench.assembly.head_lsn == 148
    bench.assembly.restart(EPOCH, 148, bench.assembly.last, None)
    bench.take(relation(SALE))
    finished = bench.take(begin(148), insert(SALE, 2, 7, None), commit(148, 196))
    assert [event.position for event in events(finished)] == [Position(EPOCH, 148, 2)]


@pytest.mark.parametrize(
    "sends",
    [[begin(150, 701)], [begin(100, 701)], [begin(100, 700, 1)], [b"k"]],
    ids=["later", "other", "same at another time", "passed"],
)
def test_another_history_is_noticed(sends: list[bytes]) -> None:
    """Where the transaction that was delivered last does not come again, the log is another one."""
    bench = Bench()
    bench.assembly.restart(EPOCH, 108, Mark(100, 700, 0), Mark(100, 700, 0))
    with pytest.raises(Diverged):
        for each in sends:
            if each == b"k":
                bench.assembly.keepalive(100)
                bench.assembly.keepalive(160)
            else:
                bench.assembly.take(each)


def test_keepalive_moves_the_head_only_between_transactions() -> None:
    """A keepalive within a transaction says nothing about it; one behind the head does not move it back."""
    bench = Bench()
    bench.assembly.keepalive(50)
    assert bench.assembly.head_lsn == 50
    bench.assembly.keepalive(40)
    bench.take(begin(100))
    bench.assembly.keepalive(90)
    assert bench.assembly.head_lsn == 50
    assert not bench.assembly.idle


CHANGES = st.sampled_from(
    [
        insert(SALE, 1, 7, 8),
        insert(SALE, 2, None, 8),
        insert(OTHER, 1),
        update(SALE, (1, 7, 8), (1, 8, 7)),
        delete(SALE, 1, 7, 8),
        truncate(SALE),
        said("bar:9"),
        message("foreign"),
    ]
)


class Server:
    """A slot as PostgreSQL has it: from a START on, whole transactions by commit, each session describing anew."""

    def __init__(self, transactions: list[tuple[list[bytes], int]]) -> None:
        self.transactions: list[tuple[int, int, int, list[bytes]]] = []
        lsn = 1000
        for xid, (changes, gap) in enumerate(transactions):
            # A gap of 0: this commit record follows the last one at once.
            commit_lsn = lsn + gap
            lsn = commit_lsn + 48
            self.transactions.append((commit_lsn, lsn, xid, changes))

    def session(self, start_lsn: int, confirmed_lsn: int) -> Iterator[Any]:
        """Messages, and keepalives as plain numbers."""
        yield confirmed_lsn
        described: set[int] = set()
        for commit_lsn, end_lsn, xid, changes in self.transactions:
            if commit_lsn < max(start_lsn, confirmed_lsn):
                continue
            yield begin(commit_lsn, xid)
            for change in changes:
                for oid in SHAPES:
                    if change[:1] in b"IUDT" and struct.pack(">I", oid) in change[:14] and oid not in described:
                        described.add(oid)
                        yield relation(oid)
                yield change
            yield commit(commit_lsn, end_lsn)
            yield end_lsn


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.lists(CHANGES, min_size=1, max_size=4), st.sampled_from([0, 0, 8, 500])), min_size=1, max_size=8
    ),
    st.data(),
)
def test_cuts_anywhere_change_nothing(transactions: list[tuple[list[bytes], int]], draw: st.DataObject) -> None:
    """Whatever sessions are cut wherever, and however far the slot has let go, the sink gets the same as from one."""
    server = Server(transactions)

    def run(cuts: list[int]) -> list[Finished]:
        meter = Meter()
        assembly = Assembly(Config(), [WATCH], meter, lambda: None)
        assembly.learn(CATALOG, trusted=True)
        assembly.restart(EPOCH, 1000, None, None)
        delivered: list[Finished] = []
        confirmed = 1000
        for cut in [*cuts, 10_000]:
            last = assembly.last
            start = last.commit_lsn if last else assembly.head_lsn
            expected = last if last is not None and confirmed <= last.commit_lsn else None
            assembly.restart(EPOCH, assembly.head_lsn, last, expected)
            for _, each in zip(range(cut), server.session(start, confirmed), strict=False):
                if isinstance(each, int):
                    assembly.keepalive(each)
                else:
                    assembly.take(each)
            delivered += assembly.finished
            if cuts and draw.draw(st.booleans()):
                confirmed = draw.draw(st.integers(confirmed, assembly.head_lsn))
        assert meter.feed_transactions == len(transactions)
        return delivered

    whole = run([])
    positions = [event.position for event in events(whole)]
    assert positions == sorted(set(positions))
    assert run(draw.draw(st.lists(st.integers(1, 40), max_size=6))) == whole
