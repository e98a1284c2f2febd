"""The window: how much of the log is held back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lastcall.feed.window import BUCKETS, Window

STEPS = st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 3), st.integers(0, 1)), min_size=1, max_size=300)


def window(seconds: float = 10.0, transactions_max: int = 1_000_000, bytes_max: int = 1 << 40) -> Window:
    """A window that begins at 0."""
    made = Window(seconds=seconds, transactions_max=transactions_max, bytes_max=bytes_max)
    made.restart(0)
    return made


@given(STEPS)
def test_window_keeps_what_is_young(steps: list[tuple[int, float, int]]) -> None:
    """What happened within the window's seconds lies behind the floor, and what is older goes within a bucket."""
    kept = window()
    lsn, now, happened = 0, 1000.0, []
    for size, passed, transactions in steps:
        now += passed
        kept.note(lsn, now, transactions)
        happened.append((lsn, now))
        lsn += size
        floor = kept.floor(now, lsn)
        young = [at for at, time_s in happened if time_s >= now - 10.0]
        assert floor <= young[0]
        # A bucket spans a hundredth of the window, and leaves with its youngest.
        surely_old = [at for at, time_s in happened if time_s < now - 10.0 - 10.0 / BUCKETS]
        assert all(at < floor or at == 0 for at in surely_old)


@given(STEPS, st.integers(5, 400))
def test_window_is_bounded_by_transactions(steps: list[tuple[int, float, int]], most: int) -> None:
    """At most the allowed number of transactions is held back, however young they are."""
    kept = window(seconds=1e9, transactions_max=most)
    places, lsn = [], 0
    for size, passed, transactions in steps:
        kept.note(lsn, 1000.0 + passed, transactions)
        places += [lsn] * transactions
        lsn += size
    assert sum(at >= kept.floor(1000.0, lsn) for at in places) <= most


@given(STEPS, st.integers(100, 100_000))
def test_window_is_bounded_by_bytes(steps: list[tuple[int, float, int]], most: int) -> None:
    """At most the allowed bytes of log are held back."""
    kept = window(seconds=1e9, bytes_max=most)
    lsn = 0
    for size, passed, transactions in steps:
        kept.note(lsn, 1000.0 + passed, transactions)
        lsn += size
        assert lsn - kept.floor(1000.0, lsn) <= most


@given(STEPS, st.lists(st.floats(-1e6, 1e6), min_size=300, max_size=300))
def test_floor_never_goes_back(steps: list[tuple[int, float, int]], clock: list[float]) -> None:
    """Whatever the database's clock does, the floor rises only, and never beyond the head."""
    kept = window()
    lsn = floor = 0
    for (size, _, transactions), now in zip(steps, clock, strict=False):
        kept.note(lsn, now, transactions)
        lsn += size
        new = kept.floor(now, lsn)
        assert floor <= new <= lsn
        floor = new


def test_quiet_stretch_is_held_back_too() -> None:
    """A head that moves without transactions is let go of after the window's seconds, not at once."""
    kept = window()
    for second in range(30):
        kept.note(second * 100, 1000.0 + second, 0)
    assert 1800 <= kept.floor(1029.0, 3000) <= 1900


def test_empty_window_lets_everything_go() -> None:
    """Where nothing is young enough, the floor is the head."""
    kept = window()
    kept.note(0, 1000.0, 1)
    assert kept.floor(2000.0, 500) == 500
