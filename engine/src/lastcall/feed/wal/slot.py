"""Taking the slot: who holds it reads the log, and in which epoch.

Promises:

* `take` raises Refusal LC201, naming the holder as far as one may know, while somebody else holds the slot.
* A new epoch is a new row and a new slot. It is begun in an order in which each interruption leads the next start to
  begin once more, or into an epoch that nobody has seen: drop the slot, write the row, make the slot.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import psycopg
import structlog

from lastcall.errors import StartRefused
from lastcall.feed.epoch import Identity, Source, new_epoch, parse_row, why_new
from lastcall.feed.wal.session import Session
from lastcall.feed.wal.walsender import Walsender
from lastcall.position import format_lsn, parse_lsn

_log = structlog.get_logger("lastcall.feed")


class Known(NamedTuple):
    """What this process has delivered. start_lsn: where the last transaction committed, to meet it again."""

    epoch: str
    head_lsn: int
    start_lsn: int
    diverged: bool


class Taken(NamedTuple):
    """The slot is ours and streams. confirmed_lsn: what commits before it will not be sent. why_new: empty, or why the
    epoch is a new one."""

    epoch: str
    confirmed_lsn: int
    why_new: str


async def take(
    session: Session,
    walsender: Walsender,
    slot: str,
    source: Source,
    *,
    publication: int,
    fingerprints: str,
    known: Known,
) -> Taken:
    """Start streaming where we were, or in a new epoch. Raises Refusal LC201, StartRefused, psycopg.Error."""
    identity = await walsender.identify()
    row = parse_row(await session.ask("select lastcall.current_epoch(%s)", slot))
    continues = row is not None and row.epoch == known.epoch
    reason = why_new(
        row, source.slot, identity, publication=publication, head_lsn=known.head_lsn if continues else 0
    ) or ("diverged" if continues and known.diverged else "")
    if reason or row is None:
        epoch = await _begin_epoch(session, walsender, slot, source, identity, fingerprints, reason)
        start_lsn = 0
    else:
        epoch = row.epoch
        start_lsn = known.start_lsn if continues else 0
    await walsender.start(slot, start_lsn, _holder(source))
    # Read only now: nobody else can move it while we hold the slot.
    confirmed = await session.ask(
        "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s", slot
    )
    return Taken(epoch, parse_lsn(confirmed), reason)


def _holder(source: Source) -> str:
    return (source.slot and source.slot.holder) or "another process"


async def _begin_epoch(
    session: Session,
    walsender: Walsender,
    slot: str,
    source: Source,
    identity: Identity,
    fingerprints: str,
    reason: str,
) -> str:
    if source.slot is not None:
        dropped = False
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            await session.ask("select pg_drop_replication_slot(%s)", slot)
            dropped = True
        if not dropped:
            # Refused with the holder's name; should the slot have become free just now, the next try succeeds.
            await walsender.start(slot, 0, _holder(source))
            raise StartRefused(f"the replication slot {slot} must be made anew ({reason}) and was in use: try again")
    epoch = new_epoch()
    tell = _log.info if reason == "first" else _log.warning
    tell("a new epoch begins", reason=reason, slot=slot, epoch=epoch)
    await session.ask(
        "select lastcall.begin_epoch(%s, %s, %s, %s, %s)",
        epoch,
        identity.system_identifier,
        identity.timeline,
        slot,
        fingerprints,
    )
    consistent_lsn = await walsender.create_slot(slot)
    await session.ask("select lastcall.note_consistent_point(%s, %s::pg_lsn)", epoch, format_lsn(consistent_lsn))
    return epoch
