"""When a job is due: cron texts, time zones, quiet hours, missed times."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.errors import StartRefused
from lastcall.schedule import MISSED_COUNT_MAX, Recurrence


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def said(moment: float | None) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


def test_the_latest_and_the_next_due_time() -> None:
    """A moment that is due is the latest itself; the next one comes after it."""
    hourly = Recurrence("j", "0 * * * *")
    assert said(hourly.latest(at("2026-11-20 10:00:00"))) == "2026-11-20 10:00:00"
    assert said(hourly.latest(at("2026-11-20 10:00:00") + 0.5)) == "2026-11-20 10:00:00"
    assert said(hourly.latest(at("2026-11-20 10:00:00") - 0.5)) == "2026-11-20 09:00:00"
    assert said(hourly.next(at("2026-11-20 10:00:00"))) == "2026-11-20 11:00:00"
    assert said(hourly.next(at("2026-11-20 10:00:00") - 0.5)) == "2026-11-20 10:00:00"


def test_seconds() -> None:
    """Six fields begin with the second."""
    assert said(Recurrence("j", "*/10 * * * * *").next(at("2026-11-20 10:00:01"))) == "2026-11-20 10:00:10"


def test_the_time_zone_rules() -> None:
    """A job at three in Paris is due at two or at one by UTC, as summer time has it."""
    nightly = Recurrence("j", "0 3 * * *", "Europe/Paris")
    assert said(nightly.next(at("2026-10-24 12:00:00"))) == "2026-10-25 02:00:00"
    assert said(nightly.next(at("2026-07-01 12:00:00"))) == "2026-07-02 01:00:00"


def test_an_hour_that_does_not_exist_is_not_skipped() -> None:
    """On the night of the change to summer time a job at half past two still runs once."""
    nightly = Recurrence("j", "30 2 * * *", "Europe/Paris")
    before, after = at("2026-03-28 12:00:00"), at("2026-03-30 12:00:00")
    assert nightly.between(before, after) == 2


def test_quiet_hours_are_local() -> None:
    """Whether it is quiet is a question of the job's own clock."""
    job = Recurrence("j", "0 * * * *", "Europe/Paris", frozenset({23, 0}))
    assert job.quiet(at("2026-11-20 23:30:00", "Europe/Paris"))
    assert not job.quiet(at("2026-11-20 23:30:00", "UTC") + 3600)


def test_missed_times_are_counted_within_a_bound() -> None:
    """What lies between two moments is counted, neither of them, and never more than the bound."""
    minutely = Recurrence("j", "* * * * *")
    assert minutely.between(at("2026-11-20 10:00:00"), at("2026-11-20 10:05:00")) == 4
    assert minutely.between(at("2026-11-20 10:00:00"), at("2027-11-20 10:05:00")) == MISSED_COUNT_MAX


@pytest.mark.parametrize(("cron", "zone"), [("every day", "UTC"), ("61 * * * *", "UTC"), ("* * * * *", "Mars/Base")])
def test_nonsense_refuses_to_start(cron: str, zone: str) -> None:
    """A cron text or a time zone that is none is named."""
    with pytest.raises(StartRefused, match=r"the job app\.sweep"):
        Recurrence("app.sweep", cron, zone)


@given(
    st.sampled_from(["*/7 * * * *", "15 3 * * 1", "0 0 1 * *", "*/13 * * * * *"]),
    st.sampled_from(["UTC", "Europe/Paris", "America/New_York"]),
    st.floats(min_value=1.7e9, max_value=1.9e9),
)
def test_latest_and_next_are_neighbours(cron: str, zone: str, now: float) -> None:
    """Nothing is due between the latest and the next due time."""
    job = Recurrence("j", cron, zone)
    latest, coming = job.latest(now), job.next(now)
    assert latest is not None and coming is not None
    assert latest <= now < coming
    assert job.between(latest, coming) == 0
