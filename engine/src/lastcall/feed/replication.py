"""The envelope of a replication stream: what PostgreSQL wraps around each message, and what it is answered.

Promises:

* `Keepalive.parse` raises DecodeError on anything that is not one.
* `statuses` makes the pair of status updates that confirms what may be forgotten without making a fast shutdown wait.

Source: PostgreSQL, "Streaming Replication Protocol". At a shutdown the walsender ends once what was confirmed as
flushed equals what it has sent; only where that is 0/0 does it compare what was confirmed as written. A flush that is
held back for the history would therefore let the shutdown wait for ever. So the first update moves the slot, and the
second takes the flush back (which the slot ignores), so that the walsender is left with the written position.
"""

from __future__ import annotations

from struct import Struct, error
from typing import Final

import msgspec

from lastcall.feed.pgoutput import DecodeError

XLOG_DATA: Final = 0x77
KEEPALIVE: Final = 0x6B
PAYLOAD_AT: Final = 25
"""Where the payload of an XLogData message begins, after its letter, two addresses and the server's clock. They are
not needed: Begin and Commit carry better ones, and those of a Relation are 0/0."""

POSTGRES_EPOCH_S: Final = 946_684_800
"""2000-01-01 in seconds since 1970."""

_KEEPALIVE = Struct(">cQqB")
_STATUS = Struct(">cQQQqB")


class Keepalive(msgspec.Struct, frozen=True, gc=False):
    """Everything that commits before end_lsn has been sent. reply: an answer is wanted at once."""

    end_lsn: int
    sent_us: int
    reply: bool

    @classmethod
    def parse(cls, data: bytes) -> Keepalive:
        """Read `k`."""
        try:
            _, end, sent_us, reply = _KEEPALIVE.unpack(data)
        except error:
            raise DecodeError("a keepalive is ill-formed") from None
        return cls(end, sent_us, bool(reply))


def statuses(*, written: int, confirmed: int, now_us: int, ask: bool) -> tuple[bytes, bytes]:
    """The two updates to be sent together.

    written: everything before it was received. confirmed: the slot may forget everything before it; at most `written`.
    now_us: microseconds since 2000. ask: the server shall answer at once.
    """
    held = _STATUS.pack(b"r", written, min(confirmed, written), min(confirmed, written), now_us, 0)
    free = _STATUS.pack(b"r", written, 0, 0, now_us, ask)
    return held, free


def to_unix_s(time_us: int) -> float:
    """Microseconds since 2000 as seconds since 1970."""
    return POSTGRES_EPOCH_S + time_us / 1_000_000
