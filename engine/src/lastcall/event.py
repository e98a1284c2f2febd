"""What travels from the feed to the hub: transactions of events, in commit order.

Everything here is immutable and free of I/O. `data` is JSON, encoded once by the feed and never decoded again on its
way to a listener.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from lastcall.position import Position

CHANNEL_TEXT_MAX = 96
CHANNEL: Final = re.compile(r"[a-z][a-z_]{0,30}:[A-Za-z0-9_-]{1,64}", re.ASCII)
"""A channel's name: what it is about, a colon, which one. `faction:4711`, `user:9f1c`."""

EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)

RESERVED_EVENT_NAMES: Final = frozenset(
    {"joined", "heartbeat", "reset", "state", "gone", "revoked", "close", "ack", "error", "open", "message"}
)
"""Names that the protocol itself uses (spec/protocol.md); neither a watch nor `publish` may take them."""

RESET: Final = "reset"
REVOKED: Final = "revoked"
GONE: Final = "gone"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One change: where it stands in the stream, on which channels it is heard, and what it says.

    position: unique among all events of the epoch; the ordinal is at least 1.
    channels: one or more channel names, no duplicates. The first watch that matches a change renders it, so one change
        is one event even where several channels hear it.
    name: matches EVENT_NAME. `reset`, `gone` and `revoked` come from the feed itself.
    data: one JSON value as UTF-8, no line feed in it.
    subject: only for `revoked`: whose connections leave the channels. Others ignore the event.
    """

    position: Position
    channels: tuple[str, ...]
    name: str
    data: bytes
    subject: str | None = None


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """One committed transaction, whole.

    commit_lsn: unique; the `lsn` of the positions of all its events.
    end_lsn: the head after it is `end_lsn.0`. It can equal the commit_lsn of the next transaction.
    xid: 32 bit transaction id as the write-ahead log has it.
    commit_time: seconds since 1970 by the database's clock.
    events: in the order in which the transaction made them; may be empty.
    """

    commit_lsn: int
    end_lsn: int
    xid: int
    commit_time: float
    events: tuple[Event, ...]
