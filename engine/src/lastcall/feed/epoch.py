"""Whether the stream can be continued where it was, or another epoch must begin.

Positions of one epoch are comparable because they are places in one write-ahead log that the slot has read without a
gap. The row of `lastcall.epoch` says which log and which slot; whatever does not fit it ends the epoch. That another
slot of the same name took the place of ours while nobody was listening needs no notice here: the floor is what the slot
has confirmed, so that every position from before leads to a reset.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from lastcall.errors import StartRefused
from lastcall.position import parse_lsn

_EPOCH_BYTES = 5


def new_epoch() -> str:
    """A name that no other epoch has: ten hexadecimal digits."""
    return secrets.token_hex(_EPOCH_BYTES)


class EpochRow(msgspec.Struct, frozen=True):
    """A row of `lastcall.epoch`, and what it began with: the publication, and the data folder (birth), which is another
    one now where birth_now differs; None where that cannot be known."""

    epoch: str
    system_identifier: str
    timeline: int
    slot: str
    consistent_point: str
    publication: int | None = None
    birth: str | None = None
    birth_now: str | None = None


class Slot(msgspec.Struct, frozen=True):
    """A row of pg_replication_slots. holder: the application name of who reads it, as far as one may know."""

    slot_name: str
    plugin: str | None = None
    slot_type: str = "logical"
    database: str | None = None
    active: bool = False
    active_pid: int | None = None
    wal_status: str | None = None
    invalidation_reason: str | None = None
    confirmed_flush_lsn: str | None = None
    two_phase: bool = False
    holder: str | None = None

    @property
    def lost(self) -> bool:
        """Whether PostgreSQL has removed log that the slot needed, or invalidated it for another reason."""
        return self.wal_status == "lost" or self.invalidation_reason is not None or self.confirmed_flush_lsn is None

    @property
    def confirmed_lsn(self) -> int:
        """What commits before it will not be sent again."""
        return parse_lsn(self.confirmed_flush_lsn or "0/0")


class Source(msgspec.Struct, frozen=True):
    """The answer of `lastcall.feed_source`."""

    database: str
    recovery: bool
    wal_level: str
    slot_wal_keep_mb: int
    flush_lsn: str | None
    messages_trusted: bool
    slot: Slot | None

    def check(self, name: str) -> None:
        """Raise StartRefused where this server or this slot cannot feed us."""
        if self.recovery:
            raise StartRefused("this is a standby: name the primary in LASTCALL_DATABASE_URL")
        if self.wal_level != "logical":
            raise StartRefused(
                f"wal_level is {self.wal_level}: ALTER SYSTEM SET wal_level = 'logical', then restart PostgreSQL"
            )
        if self.slot_wal_keep_mb <= 0:
            raise StartRefused(
                "max_slot_wal_keep_size is not set, so that a node that is away could fill the disk with log: "
                "ALTER SYSTEM SET max_slot_wal_keep_size = '4GB'; SELECT pg_reload_conf()"
            )
        slot = self.slot
        if slot is not None and (slot.database != self.database or slot.plugin != "pgoutput" or slot.two_phase):
            raise StartRefused(
                f"the replication slot {name} is not ours (database {slot.database}, plugin {slot.plugin}): "
                "name another in LASTCALL_SLOT"
            )


class Identity(msgspec.Struct, frozen=True):
    """The answer of IDENTIFY_SYSTEM: which log this is, and how far it is written."""

    system_identifier: str
    timeline: int
    flush_lsn: int


def why_new(
    row: EpochRow | None,
    slot: Slot | None,
    identity: Identity,
    *,
    publication: int | None,
    head_lsn: int,
) -> str:
    """Why the stream cannot be continued, in one word for the alarm; empty when it can.

    head_lsn: what this process has delivered up to; 0 when nothing yet.
    """
    if row is None:
        return "first"
    reasons = {
        "slot_missing": slot is None,
        "slot_lost": slot is not None and slot.lost,
        "other_system": row.system_identifier != identity.system_identifier,
        "other_timeline": row.timeline != identity.timeline,
        "other_publication": row.publication is not None and row.publication != publication,
        "restored": None not in (row.birth, row.birth_now) and row.birth != row.birth_now,
        "log_behind": identity.flush_lsn < head_lsn,
        "slot_behind": slot is not None and slot.confirmed_lsn < parse_lsn(row.consistent_point),
    }
    return next((name for name, holds in reasons.items() if holds), "")


def parse_row(answer: Any) -> EpochRow | None:
    """What `lastcall.current_epoch` answered. Raises msgspec.ValidationError."""
    return msgspec.convert(answer, EpochRow | None)


def parse_source(answer: Any) -> Source:
    """What `lastcall.feed_source` answered. Raises msgspec.ValidationError."""
    return msgspec.convert(answer, Source)
