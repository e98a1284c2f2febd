"""The feed on a real PostgreSQL: what is committed is told, whole, once, in commit order, at stable positions."""

from __future__ import annotations

import asyncio
import json
import resource

import pytest

from lastcall.event import Transaction
from lastcall.feed.values import SESSION_SETTINGS
from lastcall.feed.watch import Watch
from lastcall.testing.feeding import Feeding, told
from lastcall.testing.fixtures import Database
from lastcall.testing.waiting import eventually_async

SALE = Watch(table="app.sale", channel="bar:{bar}", event="sale", columns=("id", "note"))
TABLES = """
    create schema app;
    create table app.sale (id bigint primary key, bar int, note text);
    alter table app.sale replica identity full;
    create table app.other (id bigint primary key);
"""


@pytest.fixture
def app(database: Database) -> Database:
    """A database with a watched table and another."""
    with database.connect() as owner:
        owner.execute(TABLES)
    return database


def ids(feeding: Feeding) -> list[int]:
    """The ids of all sales told, in order."""
    return [json.loads(event.data)["id"] for event in feeding.sink.events if event.name == "sale"]


async def test_row_written_by_any_client_is_told(app: Database) -> None:
    """Insert, update, move and delete by a plain SQL client are told with their channels, names and data."""
    async with Feeding(app, [SALE]) as feeding:
        app.execute("insert into app.sale values (1, 7, 'a')")
        app.execute("update app.sale set note = null")
        app.execute("update app.sale set bar = 8")
        app.execute("delete from app.sale")
        await feeding.settled()
    gone = {"event": "sale", "key": {"id": 1}}
    assert told(feeding.sink.events) == [
        ("sale", ("bar:7",), {"id": 1, "note": "a"}),
        ("sale", ("bar:7",), {"id": 1, "note": None}),
        ("gone", ("bar:7",), gone),
        ("sale", ("bar:8",), {"id": 1, "note": None}),
        ("gone", ("bar:8",), gone),
    ]


async def test_commit_order_is_the_order(app: Database) -> None:
    """A long transaction comes where it commits, behind the short ones that began later; what is rolled back never."""
    async with Feeding(app, [SALE]) as feeding:
        with app.connect(autocommit=False) as long, app.connect() as short, app.connect(autocommit=False) as undone:
            long.execute("insert into app.sale values (1, 7)")
            undone.execute("insert into app.sale values (2, 7)")
            short.execute("insert into app.sale values (3, 7)")
            long.execute("insert into app.sale values (4, 7)")
            undone.rollback()
            short.execute("insert into app.sale values (5, 7)")
            long.commit()
            short.execute("insert into app.sale values (6, 7)")
        await feeding.settled()
    assert ids(feeding) == [3, 5, 1, 4, 6]


async def test_commit_records_side_by_side_are_both_told(app: Database) -> None:
    """Where one commit record follows another at once, the end of the first is the place of the second; both come."""
    async with Feeding(app, [SALE]) as feeding:
        for number in range(0, 20, 2):
            with app.connect(autocommit=False) as one, app.connect(autocommit=False) as two:
                one.execute("insert into app.sale values (%s, 7)", [number])
                two.execute("insert into app.sale values (%s, 7)", [number + 1])
                one.commit()
                two.commit()
        await feeding.settled()
        pairs = [
            (a.end_lsn, b.commit_lsn)
            for a, b in zip(feeding.sink.transactions, feeding.sink.transactions[1:], strict=False)
        ]
    assert any(end == commit for end, commit in pairs), "no two commit records were side by side"
    assert ids(feeding) == list(range(20))


async def test_savepoints_and_exceptions_leave_nothing(app: Database) -> None:
    """What a savepoint or a caught exception rolled back is not told; what stands around it is, in order."""
    async with Feeding(app, [SALE]) as feeding:
        with app.connect(autocommit=False) as owner:
            owner.execute("insert into app.sale values (1, 7)")
            owner.execute("savepoint a")
            owner.execute("insert into app.sale values (2, 7)")
            owner.execute("savepoint b")
            owner.execute("insert into app.sale values (3, 7)")
            owner.execute("rollback to a")
            owner.execute("insert into app.sale values (4, 7)")
            owner.execute("release a")
            owner.execute(
                "do $$ begin insert into app.sale values (5, 7); begin insert into app.sale values (6, 7);"
                " perform 1/0; exception when division_by_zero then null; end; end $$"
            )
            owner.commit()
        await feeding.settled()
    assert ids(feeding) == [1, 4, 5]
    assert len(feeding.sink.transactions) == 1


async def test_prepared_transaction_is_told_when_it_commits(app: Database) -> None:
    """Two-phase commit: nothing at PREPARE, everything at COMMIT PREPARED, nothing for ROLLBACK PREPARED."""
    async with Feeding(app, [SALE]) as feeding:
        for name, number in (("kept", 1), ("lost", 2)):
            with app.connect() as owner:
                owner.execute("begin")
                owner.execute("insert into app.sale values (%s, 7)", [number])
                owner.execute(f"prepare transaction '{app.name}-{name}'".encode())
        app.execute("insert into app.sale values (3, 7)")
        await feeding.settled()
        assert ids(feeding) == [3]
        app.execute(f"rollback prepared '{app.name}-lost'")
        app.execute(f"commit prepared '{app.name}-kept'")
        await feeding.settled()
    assert ids(feeding) == [3, 1]


async def test_published_events_stand_in_the_order_of_the_transaction(app: Database) -> None:
    """`publish` and `revoke` are told between the rows of their transaction, at its commit, and not when undone."""
    async with Feeding(app, [SALE]) as feeding:
        with app.connect(autocommit=False) as owner:
            owner.execute("insert into app.sale values (1, 7)")
            owner.execute("select lastcall.publish('bar:9', 'hello', '{\"b\":1,\"a\":[1.50]}')")
            owner.execute("select lastcall.revoke('ann', 'bar:7')")
            owner.execute("insert into app.sale values (2, 7)")
            owner.commit()
            owner.execute("select lastcall.publish('bar:9', 'hello', '1')")
            owner.rollback()
        await feeding.settled()
    assert told(feeding.sink.events) == [
        ("sale", ("bar:7",), {"id": 1, "note": None}),
        ("hello", ("bar:9",), {"a": [1.5], "b": 1}),
        ("revoked", ("bar:7",), {"channels": ["bar:7"]}),
        ("sale", ("bar:7",), {"id": 2, "note": None}),
    ]
    assert [event.subject for event in feeding.sink.events] == [None, None, "ann", None]


async def test_published_events_without_trust_in_messages(app: Database) -> None:
    """Where everybody may emit messages, events go through the engine's table and forged messages are not believed;
    the change of the path resets everything at its place."""
    forged = 'select pg_logical_emit_message(true, \'lastcall.event\', \'{"channel":"bar:1","event":"x","data":1}\')'
    async with Feeding(app, [SALE]) as feeding:
        with app.superuser() as superuser:
            superuser.execute("update lastcall.path set messages = false")
            superuser.execute(forged)
            superuser.execute("select lastcall.publish('bar:9', 'hello', '1')")
            await feeding.settled()
            assert told(feeding.sink.events) == [("hello", ("bar:9",), 1)]
            assert feeding.sink.resets[0][:2] == (None, "schema")
            assert feeding.meter.alarms["message_untrusted"] == 1
    again = Feeding(app, [SALE])
    await again.start()
    assert told(again.sink.events) == [("hello", ("bar:9",), 1)]
    await again.stop()


async def test_superusers_nonsense_harms_nothing(app: Database) -> None:
    """Messages with our prefix and bad content, under any flag, raise alarms and nothing else."""
    async with Feeding(app, [SALE]) as feeding:
        with app.superuser() as superuser:
            for content in (
                "",
                "{",
                "[]",
                '{"channel":"x"}',
                "x" * 100_000,
                '{"channel":"bar:1","event":"reset","data":1}',
            ):
                superuser.execute("select pg_logical_emit_message(true, 'lastcall.event', %s)", [content])
                superuser.execute("select pg_logical_emit_message(false, 'lastcall.event', %s)", [content])
            superuser.execute("select pg_logical_emit_message(true, 'lastcall.revoke', '\\xff00'::bytea)")
            superuser.execute("select pg_logical_emit_message(true, 'foreign', '{}')")
        app.execute("insert into app.sale values (1, 7)")
        await feeding.settled()
    assert ids(feeding) == [1]
    assert feeding.meter.alarms == {"message_malformed": 7}


async def test_truncate_is_a_reset(app: Database) -> None:
    """TRUNCATE resets the watch's kinds behind its transaction; of an unwatched table it does nothing."""
    async with Feeding(app, [SALE]) as feeding:
        app.execute("truncate app.other")
        with app.connect(autocommit=False) as owner:
            owner.execute("insert into app.sale values (1, 7)")
            owner.execute("truncate app.sale, app.other")
            owner.execute("insert into app.sale values (2, 7)")
            owner.commit()
        await feeding.settled()
    assert ids(feeding) == [1, 2]
    names = [name for name, _ in feeding.sink.calls if name not in ("advance", "begin")]
    assert names == ["deliver", "reset_kinds"]
    assert [reset[:2] for reset in feeding.sink.resets] == [(frozenset({"bar"}), "truncate")]


@pytest.mark.parametrize("identity", ["full", "default"])
async def test_value_out_of_line(app: Database, identity: str) -> None:
    """An unchanged TOASTed value is whole where the replica identity shows it and absent where not; a changed one is
    always whole."""
    app.execute(
        f"alter table app.sale replica identity {identity}; alter table app.sale alter note set storage external"
    )
    watch = Watch(table="app.sale", channel="row:{id}", event="sale", columns=("note", "bar"))
    long, longer = "é" * 50_000, "ü" * 50_000
    async with Feeding(app, [watch]) as feeding:
        app.execute("insert into app.sale values (1, 7, %s)", [long])
        app.execute("update app.sale set bar = 8")
        app.execute("update app.sale set note = %s", [longer])
        await feeding.settled()
    unchanged = {"note": long, "bar": 8} if identity == "full" else {"bar": 8}
    assert [data for _, _, data in told(feeding.sink.events)] == [
        {"note": long, "bar": 7},
        unchanged,
        {"note": longer, "bar": 8},
    ]


async def test_channel_out_of_line(app: Database) -> None:
    """A channel column that is stored out of line and unchanged is still known, since the identity shows it."""
    app.execute("alter table app.sale alter note set storage external")
    watch = Watch(table="app.sale", channel="note:{note}", event="sale", columns=("bar",))
    app.execute("insert into app.sale values (1, 7, %s)", ["n" * 64])
    async with Feeding(app, [watch]) as feeding:
        app.execute("update app.sale set bar = 8")
        app.execute("delete from app.sale")
        await feeding.settled()
    assert [(event.name, event.channels) for event in feeding.sink.events] == [
        ("sale", ("note:" + "n" * 64,)),
        ("gone", ("note:" + "n" * 64,)),
    ]


async def test_large_transaction_is_one_call_and_yields_to_the_loop(app: Database) -> None:
    """50,000 rows arrive as one transaction, in order; meanwhile the loop gets its turns and memory stays bounded."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Feeding(app, [SALE], events_per_transaction_max=60_000, feed_yield_messages=500) as feeding:
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await asyncio.to_thread(
            app.execute, "insert into app.sale select g, g % 100, repeat('x', 50) from generate_series(1, 50000) g"
        )
        counting = asyncio.create_task(count())
        await feeding.settled()
        counting.cancel()
        after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (delivery,) = [argument for name, argument in feeding.sink.calls if name == "deliver"]
    assert isinstance(delivery, list)
    assert [len(transaction.events) for transaction in delivery] == [50_000]
    assert ids(feeding) == list(range(1, 50_001))
    assert turns >= 50_000 // 500
    assert after_kb - before_kb < 200 << 10


async def test_overflow_on_one_channel_leaves_the_others(app: Database) -> None:
    """One channel's 50,000 events become one reset, the other channel's rows of the same transaction are told."""
    async with Feeding(app, [SALE], events_per_transaction_max=1_000) as feeding:
        app.execute(
            "insert into app.sale select g, case when g % 100 = 0 then 8 else 7 end from generate_series(1, 50000) g"
        )
        await feeding.settled()
    (transaction,) = feeding.sink.transactions
    assert [event.channels for event in transaction.events[:-1]] == [("bar:8",)] * 500
    assert told(transaction.events[-1:]) == [("reset", ("bar:7",), {"channels": ["bar:7"], "reason": "overflow"})]


async def test_burst_is_one_delivery(app: Database) -> None:
    """What has arrived while the loop was busy is delivered in one call, so that it leaves in one flush."""
    async with Feeding(app, [SALE]) as feeding:
        with app.connect() as owner:
            # The loop stands still here: nothing is read until the next await.
            for number in range(200):
                owner.execute("insert into app.sale values (%s, 7)", [number])
        await feeding.settled()
        deliveries = [argument for name, argument in feeding.sink.calls if name == "deliver"]
    assert ids(feeding) == list(range(200))
    assert len(deliveries) < 20


async def test_history_survives_a_restart_at_the_same_positions(app: Database) -> None:
    """A new process is told the stretch since the floor again: same epoch, positions, events, resets."""
    feeding = Feeding(app, [SALE])
    async with feeding:
        app.execute("insert into app.sale values (1, 7), (2, 8)")
        app.execute("update app.sale set bar = 9 where id = 1")
        app.execute("select lastcall.publish('bar:9', 'hello', '1')")
        app.execute("truncate app.sale")
        await feeding.settled()
    app.execute("insert into app.sale values (3, 7)")
    again = Feeding(app, [SALE])
    async with again:
        await again.settled()
    first, second = feeding.sink, again.sink
    assert second.epochs == first.epochs
    assert second.floor == first.floor
    assert second.events[: len(first.events)] == first.events
    assert len(second.events) == len(first.events) + 1
    assert [reset[:2] for reset in second.resets] == [reset[:2] for reset in first.resets]


async def test_positions_do_not_move_when_watches_change(app: Database) -> None:
    """A restart with another set of watches re-tells the old stretch at the old positions, and resets what changed."""
    app.execute("alter table app.other replica identity full")
    first = Feeding(app, [SALE])
    async with first:
        app.execute("insert into app.other values (1); insert into app.sale values (1, 7)")
        await first.settled()
        assert first.sink.resets == []
    other = Watch(table="app.other", channel="other:{id}", event="other", columns=("id",))
    second = Feeding(app, [SALE, other])
    async with second:
        app.execute("insert into app.other values (2); insert into app.sale values (2, 7)")
        await second.settled()
        app.execute("insert into app.sale values (3, 7)")
        await second.settled()
    sales = [event for event in second.sink.events if event.name == "sale"]
    assert sales[: len(first.sink.events)] == first.sink.events
    others = [event for event in second.sink.events if event.name == "other"]
    # What was written before the table was published is not told; the reset stands behind it.
    assert [json.loads(event.data)["id"] for event in others] == [2]
    ((kinds, reason, head),) = second.sink.resets
    assert (kinds, reason) == (frozenset({"other"}), "schema")
    assert first.sink.events[-1].position < head < others[0].position
    third = Feeding(app, [SALE])
    async with third:
        await third.settled()
    assert [event for event in third.sink.events if event.name == "sale"] == sales
    assert [reset[:2] for reset in third.sink.resets] == [(frozenset({"other"}), "schema")]


async def test_every_type_as_the_log_has_it(app: Database) -> None:
    """Through the log, with its own session settings, a row reads as `to_jsonb` of that row."""
    rows = {
        "a": ("real", "1e-7", "float8", "-0"),
        "b": ("timestamptz", "2026-06-01 12:00+05", "timestamp", "0044-03-15 12:00 BC"),
        "c": ("interval", "1 mon -3 days 02:03:04.5", "timetz", "12:00:01+02"),
        "d": ("bytea", "\\x00ff", "jsonb", '{"b": [1.50, "\\n"]}'),
        "e": ("tstzrange", "[2026-01-01 00:00+02,)", "numeric", "NaN"),
        "f": ("text[]", '{"a,b",NULL,"\\""}', "date[]", "{{infinity},{0001-01-01 BC}}"),
        "g": ("boolean", "t", "char(5)", "ab"),
        "h": ("oid", "4294967295", "uuid", "123E4567-E89B-12D3-A456-426614174000"),
    }
    with app.superuser() as superuser:
        superuser.execute(f"alter database {app.name} set timezone = 'Asia/Tokyo'".encode())
        superuser.execute(f"alter database {app.name} set datestyle = 'German'".encode())
        superuser.execute(f"alter database {app.name} set intervalstyle = 'iso_8601'".encode())
        superuser.execute(f"alter database {app.name} set extra_float_digits = -5".encode())
        superuser.execute(f"alter database {app.name} set bytea_output = 'escape'".encode())
    with app.connect() as owner:
        for name, (one, _, two, _) in rows.items():
            owner.execute(f"create table app.{name} (id int primary key, one {one}, two {two})".encode())
            owner.execute(f"alter table app.{name} replica identity full".encode())
    watches = [Watch(table=f"app.{name}", channel="bar:{id}", event="e", columns=("id", "one", "two")) for name in rows]
    wanted = []
    async with Feeding(app, watches) as feeding:
        with app.connect() as owner:
            for name, value in SESSION_SETTINGS.items():
                owner.execute("select set_config(%s, %s, false)", [name, value])
            for name, (_, one, _, two) in rows.items():
                owner.execute(f"insert into app.{name} values (1, %s, %s)".encode(), [one, two])
                wanted += owner.execute(f"select to_jsonb(t) from app.{name} t".encode()).fetchall()
        await feeding.settled()
    assert [data for _, _, data in told(feeding.sink.events)] == [made for (made,) in wanted]


async def test_deliveries_and_heads_on_uvloop(app: Database) -> None:
    """The feed works on uvloop as on asyncio's own loop."""
    import uvloop

    async def main() -> list[Transaction]:
        async with Feeding(app, [SALE]) as feeding:
            app.execute("insert into app.sale values (1, 7)")
            await feeding.settled()
            return feeding.sink.transactions

    def run() -> list[Transaction]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())

    (transaction,) = await asyncio.to_thread(run)
    assert told(transaction.events) == [("sale", ("bar:7",), {"id": 1, "note": None})]


async def test_unseen_holds_until_a_snapshot_shows_it(app: Database) -> None:
    """What was delivered is unseen until the feed's own look, or a reader's, has seen it."""
    async with Feeding(app, [SALE]) as feeding:
        app.execute("insert into app.sale values (1, 7)")
        await feeding.settled()
        await eventually_async(lambda: len(feeding.feed.unseen) == 0)
        assert feeding.meter.slot_retained_bytes > 0
