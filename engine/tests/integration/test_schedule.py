"""Jobs and timers on a real database whose clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from lastcall import schedule
from lastcall.app import App, Job, Node, Timer
from lastcall.errors import StartRefused
from lastcall.gateway import Catalogue
from lastcall.meter import Meter
from lastcall.schedule import Schedule
from lastcall.testing.desk import define, opened
from lastcall.testing.fixtures import Database
from lastcall.testing.sample import app as sample
from lastcall.testing.waiting import eventually_async

WRITE = "insert into sample.note (topic, writer, number) values ('job', 1, 1)"
Leader = Callable[..., AbstractAsyncContextManager[Schedule]]


@pytest.fixture(scope="session")
def database_apps() -> Sequence[App]:
    return (sample,)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at often, so that tests are short."""
    monkeypatch.setattr(schedule, "POLL_S", 0.05)


@pytest.fixture
def leader(database: Database) -> Leader:
    """Starts a leader with these jobs and timers."""

    @asynccontextmanager
    async def start(*work: Job | Timer, node: object = None, meter: Meter | None = None) -> AsyncIterator[Schedule]:
        app = msgspec.structs.replace(
            sample,
            jobs=tuple(each for each in work if isinstance(each, Job)),
            timers=tuple(each for each in work if isinstance(each, Timer)),
        )
        async with opened(database) as desk:
            catalogue = Catalogue(desk.caller, (app,))
            await catalogue.load()
            made = Schedule(database.config, desk.caller, catalogue, (app,), meter or Meter(), cast(Node, node))
            try:
                await made.start()
                yield made
            finally:
                await made.stop()

    return start


def set_now(database: Database, moment: str | None) -> None:
    database.execute("select lastcall.set_now(%s)", [moment])


def runs(database: Database, job: str = "sample.sweep") -> list[tuple[Any, ...]]:
    """Due time (UTC), outcome, missed and note of each run that is over, but for the first sight of the job."""
    return database.execute(
        "select to_char(due_at at time zone 'UTC', 'HH24:MI:SS'), outcome, missed, note from lastcall.job_run "
        "where job = %s and outcome not in ('new', 'running') order by due_at",
        [job],
    )


def seen(database: Database, job: str = "sample.sweep") -> bool:
    return bool(database.execute("select 1 from lastcall.job_run where job = %s and outcome = 'new'", [job]))


def effects(database: Database) -> int:
    return cast(int, database.execute("select count(*) from sample.note where topic = 'job'")[0][0])


def sweep(**changes: Any) -> Job:
    return Job(**{"name": "sweep", "cron": "0 * * * *", "run": "sample_api.sweep"} | changes)


@pytest.fixture
def writes(database: Database) -> None:
    define(database, f"sweep() returns void language sql security definer as $${WRITE}$$")
    set_now(database, "2026-11-20 10:30:00+00")


@pytest.mark.usefixtures("writes")
async def test_a_job_runs_when_it_is_due_and_not_before(database: Database, leader: Leader) -> None:
    """Seen first at half past, it runs at the full hour of the database's moved clock, once, and is counted."""
    meter = Meter()
    async with leader(sweep(), meter=meter):
        await eventually_async(lambda: seen(database))
        assert effects(database) == 0
        set_now(database, "2026-11-20 10:59:59.9+00")
        await eventually_async(lambda: runs(database) == [("11:00:00", "done", 0, "")])
        await eventually_async(lambda: meter.job_runs == {("sample.sweep", "done"): 1})
    assert effects(database) == 1


@pytest.mark.usefixtures("writes")
async def test_two_leaders_run_it_once(database: Database, leader: Leader) -> None:
    """However many believe to lead, each due time has one run and one effect."""
    async with leader(sweep()), leader(sweep()), leader(sweep()):
        await eventually_async(lambda: seen(database))
        for hour in (11, 12, 13):
            set_now(database, f"2026-11-20 {hour}:00:00+00")
            await eventually_async(lambda hour=hour: len(runs(database)) == hour - 10)
        # Three more looks of everyone change nothing.
        await asyncio.sleep(0.2)
    assert effects(database) == 3


@pytest.mark.usefixtures("writes")
async def test_missed_times_run_once_and_are_counted(database: Database, leader: Leader) -> None:
    """After a downtime of five hours the latest due time runs, and its row says how many were missed."""
    async with leader(sweep()):
        await eventually_async(lambda: seen(database))
    set_now(database, "2026-11-20 15:20:00+00")
    async with leader(sweep()):
        await eventually_async(lambda: runs(database) == [("15:00:00", "done", 4, "")])
    assert effects(database) == 1


@pytest.mark.usefixtures("writes")
async def test_a_clock_moved_back_runs_nothing_again(database: Database, leader: Leader) -> None:
    """A due time that was taken stays taken."""
    async with leader(sweep()):
        await eventually_async(lambda: seen(database))
        set_now(database, "2026-11-20 11:00:00+00")
        await eventually_async(lambda: effects(database) == 1)
        set_now(database, "2026-11-20 10:59:59.9+00")
        await asyncio.sleep(0.5)
        set_now(database, "2026-11-20 12:00:00+00")
        await eventually_async(lambda: effects(database) == 2)
    assert [run[0] for run in runs(database)] == ["11:00:00", "12:00:00"]


@pytest.mark.usefixtures("writes")
async def test_a_failed_job_is_logged_and_leaves_nothing(database: Database, leader: Leader) -> None:
    """What a failing function wrote is rolled back, its row says the number, and other jobs run."""
    define(
        database,
        f"fail() returns void language plpgsql security definer as $$begin {WRITE}; raise exception 'no'; end$$",
    )
    meter = Meter()
    async with leader(sweep(name="bad", run="sample_api.fail"), sweep(), meter=meter):
        await eventually_async(lambda: seen(database) and seen(database, "sample.bad"))
        set_now(database, "2026-11-20 11:00:00+00")
        await eventually_async(lambda: runs(database, "sample.bad") == [("11:00:00", "failed", 0, "LC112 rule_broken")])
        await eventually_async(lambda: runs(database) == [("11:00:00", "done", 0, "")])
        await eventually_async(lambda: meter.alarms == {"job_failed": 1})
    assert effects(database) == 1


@pytest.mark.usefixtures("writes")
async def test_quiet_hours_are_logged_and_not_run(database: Database, leader: Leader) -> None:
    """What is due in quiet hours does not run, and what was missed before them waits until they are over."""
    async with leader(sweep(quiet=frozenset({11, 12}), timezone="UTC")):
        await eventually_async(lambda: seen(database))
        set_now(database, "2026-11-20 11:00:00+00")
        await eventually_async(lambda: runs(database) == [("11:00:00", "quiet", 0, "")])
        set_now(database, "2026-11-20 13:00:00+00")
        await eventually_async(lambda: len(runs(database)) == 2)
    assert effects(database) == 1


@pytest.mark.usefixtures("writes")
async def test_a_callable_gets_the_node_and_its_failure_is_logged(database: Database, leader: Leader) -> None:
    """An async callable runs with the node; what it raises is named by its kind only."""
    node = SimpleNamespace()
    called: list[object] = []

    async def work(given: Node) -> None:
        called.append(given)

    async def fail(_: Node) -> None:
        raise ValueError("a secret")

    async with leader(sweep(run=work), sweep(name="bad", run=fail), node=node):
        await eventually_async(lambda: seen(database) and seen(database, "sample.bad"))
        set_now(database, "2026-11-20 11:00:00+00")
        await eventually_async(lambda: runs(database) == [("11:00:00", "done", 0, "")])
        await eventually_async(lambda: runs(database, "sample.bad") == [("11:00:00", "failed", 0, "ValueError")])
    assert called == [node]


@pytest.mark.usefixtures("writes")
async def test_a_run_that_its_leader_did_not_end_is_lost(database: Database, leader: Leader) -> None:
    """The next leader says so of it, and does not run it again."""
    began = asyncio.Event()
    count = 0

    async def endless(_: Node) -> None:
        nonlocal count
        count += 1
        began.set()
        await asyncio.Event().wait()

    async with leader(sweep(run=endless)):
        await eventually_async(lambda: seen(database))
        set_now(database, "2026-11-20 11:00:00+00")
        await began.wait()
    async with leader(sweep(run=endless)):
        await eventually_async(lambda: runs(database) == [("11:00:00", "lost", 0, "")])
        await asyncio.sleep(0.2)
    assert count == 1


@pytest.mark.usefixtures("writes")
async def test_a_read_only_database_is_waited_for(database: Database, leader: Leader) -> None:
    """While nothing can be written, nothing is tried in a circle; afterwards the due time runs."""
    async with leader(sweep()) as made:
        await eventually_async(lambda: seen(database))
        with database.superuser() as superuser:
            superuser.execute(f"alter database {database.name} set default_transaction_read_only = on".encode())
            superuser.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                "and usename = 'lastcall_authenticator'"
            )
            superuser.execute("set transaction_read_only = off")
            superuser.execute("select lastcall.set_now('2026-11-20 11:00:00+00')")
            asked = 0
            ask = made._caller.ask

            async def counted(*arguments: Any) -> bytes:
                nonlocal asked
                asked += 1
                return await ask(*arguments)

            made._caller.ask = counted  # type: ignore[method-assign]
            await asyncio.sleep(0.5)
            assert asked <= 20
            assert effects(database) == 0
            superuser.execute(f"alter database {database.name} reset default_transaction_read_only".encode())
            superuser.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                "and usename = 'lastcall_authenticator'"
            )
        await eventually_async(lambda: effects(database) == 1)


TIMER = """expire() returns timestamptz language plpgsql security definer as $$
begin
    perform nextval('sample.asked');
    with due as (delete from sample.note n where n.topic = 'alarm'
        and to_timestamp(n.number) <= lastcall.now() returning 1)
    insert into sample.note (topic, writer, number) select 'job', 1, count(*) from due having count(*) > 0;
    return (select to_timestamp(min(n.number)) from sample.note n where n.topic = 'alarm');
end$$"""


def define_timer(database: Database) -> None:
    """Deletes the alarms that are due and notes that it did, and counts how often it is asked."""
    database.execute("create sequence sample.asked")
    define(database, TIMER)


def alarm(database: Database, moment: str) -> None:
    """A row that is due at `moment`."""
    number = int(datetime.fromisoformat(moment).timestamp())
    database.execute("insert into sample.note (topic, writer, number) values ('alarm', 1, %s)", [number])


async def test_a_timer_runs_when_something_is_due(database: Database, leader: Leader) -> None:
    """Asked at the start, when it said it would be due, and when the clock was moved; due runs are logged."""
    define_timer(database)
    set_now(database, "2026-11-20 10:00:00+00")
    alarm(database, "2026-11-20 10:00:01+00")
    alarm(database, "2026-11-20 10:05:00+00")
    async with leader(Timer(name="expire", run="sample_api.expire")):
        await eventually_async(lambda: effects(database) == 1)
        assert runs(database, "sample.expire") == [("10:00:01", "done", 0, "")]
        set_now(database, "2026-11-20 10:06:00+00")
        await eventually_async(lambda: effects(database) == 2)


async def test_a_timer_looks_again_when_its_table_was_touched(
    database: Database, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new row that is due at once is found at once, though the timer knew of nothing."""
    monkeypatch.setattr(schedule, "POLL_S", 30.0)
    define_timer(database)
    set_now(database, "2026-11-20 10:00:00+00")
    async with leader(Timer(name="expire", run="sample_api.expire", tables=("sample.note",))) as made:
        await eventually_async(lambda: database.execute("select 1 from sample.asked where is_called"))
        alarm(database, "2026-11-20 09:59:59+00")
        made.touched("sample.banned")
        await asyncio.sleep(0.2)
        assert effects(database) == 0
        made.touched("sample.note")
        await eventually_async(lambda: effects(database) == 1, 10.0)


async def test_a_timer_that_names_tables_is_asked_without_being_told(database: Database, leader: Leader) -> None:
    """Whatever nobody reported is found within the poll."""
    define_timer(database)
    set_now(database, "2026-11-20 10:00:00+00")
    async with leader(Timer(name="expire", run="sample_api.expire", tables=("sample.note",))):
        alarm(database, "2026-11-20 09:59:59+00")
        await eventually_async(lambda: effects(database) == 1)


async def test_a_timer_that_fails_does_not_stop_the_others(database: Database, leader: Leader) -> None:
    """One raises whenever it is asked, the other does its work."""
    define_timer(database)
    define(database, "fail() returns timestamptz language plpgsql as $$begin raise exception 'no'; end$$")
    alarm(database, "2026-11-20 10:00:00+00")
    set_now(database, "2026-11-20 10:00:00+00")
    async with leader(Timer(name="bad", run="sample_api.fail"), Timer(name="expire", run="sample_api.expire")):
        await eventually_async(lambda: effects(database) == 1)


@pytest.mark.parametrize(
    ("work", "named"),
    [
        ((sweep(run="sample_api.nowhere"),), "sample_api.nowhere"),
        ((sweep(run="sample_api.echo"),), "sample_api.echo"),
        ((sweep(cron="whenever"),), "whenever"),
        ((sweep(), Timer(name="sweep", run="sample_api.sweep")), "sample.sweep"),
    ],
)
@pytest.mark.usefixtures("writes")
async def test_what_cannot_run_refuses_to_start(work: tuple[Job | Timer, ...], named: str, leader: Leader) -> None:
    """A function that is missing or needs arguments, a bad cron text and a name given twice are named."""
    with pytest.raises(StartRefused, match=named):
        async with leader(*work):
            pass
