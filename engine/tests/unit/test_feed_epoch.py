"""Whether a stream can be continued."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lastcall.errors import StartRefused
from lastcall.feed.epoch import EpochRow, Identity, Slot, new_epoch, parse_row, parse_source, why_new
from lastcall.position import Position

ROW = EpochRow("e1", "7301", 1, "lastcall", "0/100", 16384)
SLOT = Slot("lastcall", "pgoutput", "logical", "app", wal_status="reserved", confirmed_flush_lsn="0/200")
IDENTITY = Identity("7301", 1, 0x300)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"row": None}, "first"),
        ({"slot": None}, "slot_missing"),
        ({"slot": msgspec.structs.replace(SLOT, wal_status="lost")}, "slot_lost"),
        ({"slot": msgspec.structs.replace(SLOT, invalidation_reason="idle_timeout")}, "slot_lost"),
        ({"slot": msgspec.structs.replace(SLOT, confirmed_flush_lsn=None)}, "slot_lost"),
        ({"slot": msgspec.structs.replace(SLOT, confirmed_flush_lsn="0/99")}, "slot_behind"),
        ({"identity": Identity("7302", 1, 0x300)}, "other_system"),
        ({"identity": Identity("7301", 2, 0x300)}, "other_timeline"),
        ({"identity": Identity("7301", 1, 0x2FF)}, "log_behind"),
        ({"row": msgspec.structs.replace(ROW, birth="1.5", birth_now="1.5")}, ""),
        ({"row": msgspec.structs.replace(ROW, birth="1.5", birth_now="2.5")}, "restored"),
        ({"row": msgspec.structs.replace(ROW, birth="1.5")}, ""),
        ({"row": msgspec.structs.replace(ROW, birth_now="2.5")}, ""),
        ({"publication": 16385}, "other_publication"),
        ({"publication": None}, "other_publication"),
    ],
)
def test_whatever_does_not_fit_ends_the_epoch(changes: dict[str, Any], reason: str) -> None:
    """Each mismatch between the row, the slot, the log and what was delivered is told by its name."""
    facts = {"row": ROW, "slot": SLOT, "identity": IDENTITY, "publication": 16384, "head_lsn": 0x300, **changes}
    row, slot, identity = facts.pop("row"), facts.pop("slot"), facts.pop("identity")
    assert why_new(row, slot, identity, **facts) == reason


def test_epoch_names_are_new_and_fit_a_position() -> None:
    """Names do not repeat, and a position with one can be read back."""
    names = {new_epoch() for _ in range(1000)}
    assert len(names) == 1000
    for name in names:
        assert Position.parse(f"{name}.1.0").epoch == name


SOURCE = {
    "database": "app",
    "recovery": False,
    "wal_level": "logical",
    "slot_wal_keep_mb": 4096,
    "flush_lsn": "0/300",
    "messages_trusted": True,
    "slot": None,
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recovery": True, "flush_lsn": None}, "standby"),
        ({"wal_level": "replica"}, "wal_level is replica"),
        ({"slot_wal_keep_mb": -1}, "max_slot_wal_keep_size"),
        ({"slot_wal_keep_mb": 0}, "max_slot_wal_keep_size"),
        ({"slot": {"slot_name": "lastcall", "plugin": "pgoutput", "database": "other"}}, "database other"),
        ({"slot": {"slot_name": "lastcall", "plugin": "wal2json", "database": "app"}}, "plugin wal2json"),
        ({"slot": {"slot_name": "lastcall", "slot_type": "physical"}}, "LASTCALL_SLOT"),
        ({"slot": {"slot_name": "x", "plugin": "pgoutput", "database": "app", "two_phase": True}}, "LASTCALL_SLOT"),
    ],
)
def test_server_that_cannot_feed_is_refused(changes: dict[str, Any], says: str) -> None:
    """A standby, a low wal_level, an unbounded slot and somebody else's slot are refused with what to do."""
    with pytest.raises(StartRefused, match=says):
        parse_source({**SOURCE, **changes}).check("lastcall")


def test_sound_server_is_taken() -> None:
    """A server that is as it must be, with our slot or none, is not refused, whatever else its rows hold."""
    parse_source(SOURCE).check("lastcall")
    ours = {"slot_name": "lastcall", "plugin": "pgoutput", "database": "app", "something": "new"}
    parse_source({**SOURCE, "slot": ours}).check("lastcall")
    assert parse_row(None) is None
