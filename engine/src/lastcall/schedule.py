"""Jobs and timers: work that comes due by `lastcall.now()`, on the leader only.

Promises:

* A due time runs once: whoever inserts (job, due_at) into `lastcall.job_run` runs it. A SQL function runs in the very
  transaction of its row, so what it did and that it ran are one; a callable's row is there before it starts.
* The clock is `lastcall.now()`. It and what has run are read from the database every second, so that a clock that was
  moved, another leader's runs and a restart are all the same case.
* Due times that nobody ran (downtime, a clock moved ahead) are not made up for one by one: the latest one runs once,
  and its row counts the others in `missed`. A job that was never seen before begins with the next due time.
* In quiet hours nothing starts; what was due in them is logged as `quiet`.
* A timer is asked when it is due, when one of its `tables` may have changed, and when the clock was moved.
* A job never overlaps itself, and its failure never stops another. How each run ended is in its row.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import structlog
from cronsim import CronSim, CronSimError

from lastcall.app import App, Job, Node, Timer
from lastcall.config import Config
from lastcall.errors import Refusal, StartRefused
from lastcall.meter import Meter
from lastcall.postgres.call import SERVICE, Caller
from lastcall.postgres.pipeline import Command, Statement
from lastcall.postgres.signature import Signature

POLL_S: Final = 1.0
"""The clock and the timers that name tables are looked at this often."""

ASK_AGAIN_S: Final = 60.0
"""A timer that knows of nothing due is asked again this often, whatever its tables."""

CLOCK_MOVED_S: Final = 0.5
MISSED_COUNT_MAX: Final = 1_000
CALLABLE_RUN_MAX_S: Final = 3600.0
PURGE_ROWS_MAX: Final = 10_000
PURGE_ROUNDS_MAX: Final = 1_000
TIMER_PAUSE_S: Final = 0.1
"""A timer that is always due is asked this often at most."""

ENGINE: Final = "lastcall"
PURGE_CRON: Final = "17 * * * *"

_LAST_RUNS: Final = Statement(
    b"select lastcall.last_runs(array(select jsonb_array_elements_text($1::jsonb)))", b"lastcall_last_runs"
)
_LOSE: Final = Statement(b"select lastcall.lose_runs()")
_PURGE: Final = Statement(b"select lastcall.purge($1, $2, $3)")
_BEGIN: Final = Statement(b"select lastcall.begin_run($1, to_timestamp($2::double precision), $3)")
_END: Final = Statement(b"select lastcall.end_run($1, to_timestamp($2::double precision), $3, $4)")
_RESUME: Final = Statement(b"select set_config('role', 'none', true)")

_log = structlog.get_logger("lastcall.schedule")


class Functions(Protocol):
    """Finds SQL functions (gateway.Catalogue)."""

    async def internal(self, name: str) -> Signature:
        """The function `schema.function`. Raises Refusal LC107."""


class _Clock(msgspec.Struct):
    """What `lastcall.last_runs` answers."""

    now: float
    last: dict[str, float]


class Recurrence:
    """When a job is due. Raises StartRefused for a cron text or a time zone that is none."""

    def __init__(self, name: str, cron: str, timezone: str = "UTC", quiet: frozenset[int] = frozenset()) -> None:
        self._cron = cron
        self._quiet = quiet
        try:
            self._zone = ZoneInfo(timezone)
            CronSim(cron, datetime.now(self._zone))
        except (ZoneInfoNotFoundError, ValueError):
            raise StartRefused(f"the job {name}: there is no time zone {timezone}") from None
        except CronSimError as error:
            raise StartRefused(f"the job {name}: {cron!r} is no cron text ({error})") from None

    def latest(self, now: float) -> float | None:
        """The last due time at or before `now`."""
        return next(self._times(now + 1, reverse=True), None)

    def next(self, now: float) -> float | None:
        """The first due time after `now`."""
        return next(self._times(now), None)

    def between(self, after: float, before: float) -> int:
        """How many due times lie between the two, neither counted, at most MISSED_COUNT_MAX."""
        count = 0
        for due in self._times(after):
            if due >= before or count == MISSED_COUNT_MAX:
                break
            count += 1
        return count

    def quiet(self, moment: float) -> bool:
        """Whether `moment` lies in quiet hours, by the job's own time zone."""
        return datetime.fromtimestamp(moment, self._zone).hour in self._quiet

    def _times(self, start: float, *, reverse: bool = False) -> Any:
        # Whole seconds: a fraction of one would make the very second of a due time neither before nor after it.
        whole = datetime.fromtimestamp(int(start), UTC).astimezone(self._zone)
        return (moment.timestamp() for moment in CronSim(self._cron, whole, reverse=reverse))


class _Job:
    """A job with its recurrence."""

    def __init__(self, name: str, when: Recurrence, run: str | Callable[[Node], Awaitable[None]]) -> None:
        self.name = name
        self.when = when
        self.run = run


class _Timer:
    """A timer, and when it wants to be asked next.

    due: by lastcall.now(); None: nothing known. ask_at: whatever `due` says, and not_before: neither, by the monotonic
    clock.
    """

    def __init__(self, name: str, timer: Timer) -> None:
        self.name = name
        self.function = timer.run
        self.tables = frozenset(timer.tables)
        self.due: float | None = None
        self.ask_at = 0.0
        self.not_before = 0.0
        self.failures = 0

    def asked(self, due: float | None) -> None:
        """It was asked and said when it is due."""
        self.due, self.failures = due, 0
        self.not_before = time.monotonic() + TIMER_PAUSE_S
        self.ask_at = time.monotonic() + (POLL_S if self.tables else ASK_AGAIN_S)

    def failed(self) -> None:
        """It could not be asked: later, and later each time."""
        self.due = None
        self.ask_at = time.monotonic() + min(ASK_AGAIN_S, POLL_S * 2**self.failures)
        self.failures = min(self.failures + 1, 10)


class Schedule:
    """The leader's schedule. One service life: start, stop; a second stop is harmless."""

    def __init__(
        self, config: Config, caller: Caller, functions: Functions, apps: Sequence[App], meter: Meter, node: Node
    ) -> None:
        self._config = config
        self._caller = caller
        self._functions = functions
        self._apps = apps
        self._meter = meter
        self._node = node
        self._jobs: list[_Job] = []
        self._timers: list[_Timer] = []
        self._names = b"[]"
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._clock_seen: tuple[float, float] | None = None

    async def start(self) -> None:
        """Check what the applications named and begin. Raises StartRefused naming the job or timer that is unfit."""
        purge = Recurrence("purge", PURGE_CRON)
        self._jobs = [_Job(f"{ENGINE}.purge", purge, self._purge)]
        for app in self._apps:
            self._jobs += [_Job(f"{app.name}.{job.name}", _recurrence(app, job), job.run) for job in app.jobs]
            self._timers += [_Timer(f"{app.name}.{timer.name}", timer) for timer in app.timers]
        await self._check()
        self._names = msgspec.json.encode([job.name for job in self._jobs])
        await self._caller.ask(_LOSE)
        self._task = asyncio.create_task(self._run(), name="schedule")

    async def stop(self) -> None:
        """Start nothing more and end what runs; the next leader's log says of it that it was lost."""
        task, self._task = self._task, None
        tasks = [each for each in (task, *self._running.values()) if each is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def touched(self, table: str) -> None:
        """`schema.table` has changed: timers that name it look again at once."""
        for timer in self._timers:
            if table in timer.tables:
                timer.ask_at = 0.0
                self._wake.set()

    async def _check(self) -> None:
        names = [job.name for job in self._jobs] + [timer.name for timer in self._timers]
        for name in names:
            if names.count(name) > 1:
                raise StartRefused(f"two jobs or timers are named {name}")
        runs = [(job.name, job.run) for job in self._jobs] + [(timer.name, timer.function) for timer in self._timers]
        for name, run in runs:
            if isinstance(run, str):
                try:
                    (await self._functions.internal(run)).call({})
                except Refusal as refusal:
                    raise StartRefused(f"{name}: {run} cannot be run without arguments ({refusal})") from None

    async def _run(self) -> None:
        while True:
            wait_s = POLL_S
            try:
                wait_s = await self._turn()
            except Refusal as refusal:
                _log.warning("schedule waits for the database", code=refusal.code.number)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _turn(self) -> float:
        """Start what is due; how many seconds until the next look."""
        clock = msgspec.json.decode(await self._caller.ask(_LAST_RUNS, (self._names,)), type=_Clock)
        self._notice_moved(clock.now)
        waits = [POLL_S]
        for job in self._jobs:
            self._start_if_due(job, clock)
            coming = job.when.next(clock.now)
            if coming is not None:
                waits.append(coming - clock.now)
        for timer in self._timers:
            self._ask_if_due(timer, clock.now)
            if timer.due is not None and timer.name not in self._running:
                waits.append(max(timer.due - clock.now, timer.not_before - time.monotonic()))
        return max(0.001, min(waits))

    def _notice_moved(self, now: float) -> None:
        before, self._clock_seen = self._clock_seen, (now, time.monotonic())
        if before is not None:
            moved_s = (now - before[0]) - (self._clock_seen[1] - before[1])
            if abs(moved_s) > CLOCK_MOVED_S:
                for timer in self._timers:
                    timer.ask_at = 0.0

    # Jobs

    def _start_if_due(self, job: _Job, clock: _Clock) -> None:
        due = job.when.latest(clock.now)
        last = clock.last.get(job.name)
        if due is None or job.name in self._running:
            return
        if last is None:
            self._spawn(job.name, self._note(job.name, clock.now, "new", ""))
        elif due > last:
            missed = job.when.between(last, due)
            if job.when.quiet(due):
                self._spawn(job.name, self._note(job.name, due, "quiet", "", missed))
            elif not job.when.quiet(clock.now):
                self._spawn(job.name, self._run_job(job, due, missed))

    async def _run_job(self, job: _Job, due: float, missed: int) -> None:
        if missed:
            _log.warning("due times were missed", job=job.name, missed=missed)
        if isinstance(job.run, str):
            await self._run_function(job.name, job.run, due, missed)
        else:
            await self._run_callable(job.name, job.run, due, missed)

    async def _run_callable(self, name: str, run: Callable[[Node], Awaitable[None]], due: float, missed: int) -> None:
        begun = Command(_BEGIN, (name.encode(), repr(due).encode(), b"%d" % missed))
        try:
            await self._caller.transaction([begun])
        except Refusal as refusal:
            self._not_begun(name, refusal)
            return
        outcome, note = "done", ""
        try:
            async with asyncio.timeout(CALLABLE_RUN_MAX_S):
                await run(self._node)
        except Exception as error:
            outcome, note = "failed", _note_of(error)
            _log.exception("job failed", job=name)
        self._count(name, outcome)
        await self._caller.transaction([_ended(name, due, outcome, note)])

    async def _run_function(self, name: str, function: str, due: float, missed: int) -> bytes | None:
        """Run the function in the transaction of its row; what it answered, None when it did not run or failed."""
        call = (await self._functions.internal(function)).call({})
        commands = [
            Command(_BEGIN, (name.encode(), repr(due).encode(), b"%d" % missed)),
            SERVICE.command(),
            Command(call.statement, call.parameters),
            Command(_RESUME),
            _ended(name, due, "done", ""),
        ]
        try:
            rows = await self._repeat(commands)
        except Refusal as refusal:
            if refusal.code.number == "LC001" or refusal.code.number in {"LC202", "LC203", "LC211"}:
                self._not_begun(name, refusal)
            else:
                _log.error("job failed", job=name, code=refusal.code.number, detail=refusal.detail)
                await self._note(name, due, "failed", _note_of(refusal), missed)
            return None
        self._count(name, "done")
        return rows[2][0]

    async def _repeat(self, commands: Sequence[Command]) -> list[tuple[bytes | None, ...]]:
        """One transaction, repeated where others were in its way."""
        for _ in range(self._config.retries_max):
            try:
                return await self._caller.transaction(commands)
            except Refusal as refusal:
                if refusal.code.number != "LC210":
                    raise
        return await self._caller.transaction(commands)

    async def _note(self, name: str, due: float, outcome: str, note: str, missed: int = 0) -> None:
        """Take a due time without running it."""
        begun = Command(_BEGIN, (name.encode(), repr(due).encode(), b"%d" % missed))
        try:
            await self._caller.transaction([begun, _ended(name, due, outcome, note)])
        except Refusal as refusal:
            self._not_begun(name, refusal)
            return
        if outcome != "new":
            self._count(name, outcome)

    def _not_begun(self, name: str, refusal: Refusal) -> None:
        """Another leader was first, or the database does not answer; then the next look finds it still due."""
        if refusal.code.number != "LC001":
            _log.warning("job not begun", job=name, code=refusal.code.number)

    async def _purge(self, _: Node) -> None:
        days = b"%d" % self._config.idempotency_days
        for _round in range(PURGE_ROUNDS_MAX):
            if int(await self._caller.ask(_PURGE, (days, days, b"%d" % PURGE_ROWS_MAX))) < PURGE_ROWS_MAX:
                return

    # Timers

    def _ask_if_due(self, timer: _Timer, now: float) -> None:
        if timer.name in self._running or time.monotonic() < timer.not_before:
            return
        if timer.due is not None and timer.due <= now:
            self._spawn(timer.name, self._run_timer(timer, timer.due))
        elif time.monotonic() >= timer.ask_at:
            self._spawn(timer.name, self._ask_timer(timer))

    async def _run_timer(self, timer: _Timer, due: float) -> None:
        answer = await self._run_function(timer.name, timer.function, due, 0)
        if answer is None:
            timer.failed()
        else:
            self._asked(timer, answer)

    async def _ask_timer(self, timer: _Timer) -> None:
        try:
            signature = await self._functions.internal(timer.function)
            self._asked(timer, (await self._caller.call(SERVICE, signature, {})).value)
        except Refusal as refusal:
            _log.warning("timer not asked", timer=timer.name, code=refusal.code.number)
            timer.failed()

    def _asked(self, timer: _Timer, answer: bytes) -> None:
        timer.asked(_moment(answer))
        if timer.due is not None:
            # It may be due before the next look.
            self._wake.set()

    # Tasks

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside everything else."""

        async def bounded() -> None:
            try:
                await work
            except Refusal as refusal:
                _log.warning("schedule waits for the database", job=name, code=refusal.code.number)
            finally:
                del self._running[name]

        self._running[name] = asyncio.create_task(bounded(), name=f"job {name}")

    def _count(self, name: str, outcome: str) -> None:
        runs = self._meter.job_runs
        runs[name, outcome] = runs.get((name, outcome), 0) + 1
        if outcome == "failed":
            self._meter.alarm("job_failed")


def _recurrence(app: App, job: Job) -> Recurrence:
    return Recurrence(f"{app.name}.{job.name}", job.cron, job.timezone, job.quiet)


def _ended(name: str, due: float, outcome: str, note: str) -> Command:
    return Command(_END, (name.encode(), repr(due).encode(), outcome.encode(), note.encode()))


def _note_of(error: BaseException) -> str:
    """What the row says of a failure: a number or a kind, never a value."""
    return f"{error.code.number} {error.code.name}" if isinstance(error, Refusal) else type(error).__name__


def _moment(answer: bytes) -> float | None:
    """A timestamptz as JSON, as seconds since 1970; None for NULL and the infinities."""
    text = msgspec.json.decode(answer, type=str | None)
    if text is None or text.endswith("infinity"):
        return None
    return datetime.fromisoformat(text).timestamp()
