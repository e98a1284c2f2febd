"""A place in the stream: the one cursor that runs from PostgreSQL's write-ahead log to the browser.

Promises:

* A position is `epoch.lsn.ordinal`. It is opaque to clients and totally ordered within one epoch.
* Positions are global over all channels: one position resumes a connection that listens on many.
* The position of an event is its transaction's commit LSN and an ordinal from 1. Raw message n of the transaction has
  the ordinals 2n - 1 (`gone`, on the channels that a row has left) and 2n (what it became), so each event has its own;
  raw messages are counted before any mapping, so that a position does not depend on what is watched.
* `S.0` means "everything that commits before S": it is a head, never the position of an event.

Source: PostgreSQL, "Logical Streaming Replication Protocol": Begin carries the commit LSN, and commit LSNs are unique.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LSN_MAX = 0xFFFF_FFFF_FFFF_FFFF
_ORDINAL_MAX = 0xFFFF_FFFF
_TEXT = re.compile(r"([a-z0-9]{1,16})\.([0-9a-f]{1,16})\.([0-9]{1,10})", re.ASCII)

POSITION_TEXT_MAX_BYTES = 44
"""The longest text a position can have: 16 + 1 + 16 + 1 + 10 characters."""


class Position(NamedTuple):
    """`epoch.lsn.ordinal`; compare two of them only within one epoch.

    epoch: 1 to 16 characters of `[a-z0-9]`, new whenever the stream's history cannot be continued.
    lsn: byte address in the write-ahead log, unsigned 64 bit.
    ordinal: 0 for a head, else the place of the event within its transaction, unsigned 32 bit.
    """

    epoch: str
    lsn: int
    ordinal: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.lsn:x}.{self.ordinal}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `str()` wrote. Raises ValueError, which never repeats the text, on anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("not a position")
        position = cls(match[1], int(match[2], 16), int(match[3]))
        if position.ordinal > _ORDINAL_MAX or str(position) != text:
            raise ValueError("not a position")
        return position


def parse_lsn(text: str) -> int:
    """PostgreSQL's `16/B374D848` as an integer. Raises ValueError on anything else."""
    high, slash, low = text.partition("/")
    if not slash:
        raise ValueError("not an LSN")
    lsn = (int(high, 16) << 32) | int(low, 16)
    if not 0 <= lsn <= _LSN_MAX:
        raise ValueError("not an LSN")
    return lsn


def format_lsn(lsn: int) -> str:
    """The integer as PostgreSQL writes it: `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
