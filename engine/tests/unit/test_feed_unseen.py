"""Transactions that were delivered and may not be visible yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.feed.unseen import Snapshot, Unseen


def unseen(*entries: tuple[int, int]) -> Unseen:
    """Some (LSN, xid)."""
    made = Unseen()
    for entry in entries:
        made.add(*entry)
    return made


def test_snapshot_forgets_what_it_shows() -> None:
    """What is below xmin, or below xmax and not running, is visible; the rest stays, in order."""
    waiting = unseen((10, 99), (20, 100), (30, 104), (40, 105), (50, 110))
    waiting.seen("100:110:100,104")
    assert waiting.up_to(100) == [100, 104, 110]
    assert waiting.oldest() == 20
    assert waiting.up_to(30) == [100, 104]
    waiting.seen("111:111:")
    assert waiting.oldest() is None
    assert len(waiting) == 0


@given(st.integers(1 << 32, 1 << 60), st.integers(-(1 << 31), (1 << 31) - 1))
def test_xid_is_widened_to_the_nearest(xmax: int, distance: int) -> None:
    """A 32 bit id is the 64 bit id nearest to xmax, across any number of wraparounds."""
    snapshot = Snapshot(xmax, xmax, frozenset())
    assert snapshot.widen((xmax + distance) % (1 << 32)) == xmax + distance
    assert snapshot.shows((xmax + distance) % (1 << 32)) == (distance < 0)


@pytest.mark.parametrize("text", ["", "1:2", "a:b:", "1:2:3,", "1:2:x"])
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    """A malformed snapshot is a ValueError and forgets nothing."""
    waiting = unseen((1, 1))
    with pytest.raises(ValueError):
        waiting.seen(text)
    assert len(waiting) == 1
