"""PostgreSQL's logical decoding output `pgoutput`, protocol version 1: bytes in, messages out.

Promises:

* `decode` returns one message or raises DecodeError; nothing else, whatever the bytes are.
* Every byte of a message is accounted for: one too many or too few is a DecodeError.
* No I/O, no state: the meaning of a relation number, and the order of messages, are the caller's.

Source: PostgreSQL, "Logical Replication Message Formats". Of version 1 only: no streamed and no prepared transactions,
values as text (`binary` is not asked for). A message of an unknown type is refused: it could be a change.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from struct import Struct, error
from typing import Final, TypeAlias

import msgspec

PROTOCOL_VERSION: Final = 1


class DecodeError(Exception):
    """The bytes are not a message of pgoutput. The text never repeats them: they may hold a row."""


class Unchanged(Enum):
    """The value of a column that an UPDATE did not touch and that is stored out of line (TOAST): it is not sent."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
Value: TypeAlias = bytes | Unchanged | None
"""Text in UTF-8, NULL, or not sent."""
Row: TypeAlias = list[Value]


class Begin(msgspec.Struct, frozen=True, gc=False):
    """A transaction starts. commit_lsn: where its commit record lies. commit_time_us: microseconds since 2000."""

    commit_lsn: int
    commit_time_us: int
    xid: int


class Commit(msgspec.Struct, frozen=True, gc=False):
    """The transaction ends. end_lsn: just after its commit record."""

    commit_lsn: int
    end_lsn: int
    commit_time_us: int


class Origin(msgspec.Struct, frozen=True, gc=False):
    """The transaction came from another server."""

    lsn: int
    name: str


class Column(msgspec.Struct, frozen=True, gc=False):
    """A column as it was when the change was made. key: part of the replica identity (all are where it is FULL)."""

    name: str
    type_oid: int
    type_modifier: int
    key: bool


class Relation(msgspec.Struct, frozen=True):
    """What a relation number means from here on. identity: `d` default, `n` nothing, `f` full, `i` index."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


class Type(msgspec.Struct, frozen=True, gc=False):
    """A type that is not built in."""

    oid: int
    schema: str
    name: str


class Insert(msgspec.Struct, frozen=True, gc=False):
    """A row was made."""

    relation: int
    new: Row


class Update(msgspec.Struct, frozen=True, gc=False):
    """A row was changed. old: None where no column of the replica identity changed; old_full: all columns are in it,
    else only those of the replica identity (the others are NULL there)."""

    relation: int
    new: Row
    old: Row | None
    old_full: bool


class Delete(msgspec.Struct, frozen=True, gc=False):
    """A row was deleted. old, old_full: as in Update."""

    relation: int
    old: Row
    old_full: bool


class Truncate(msgspec.Struct, frozen=True, gc=False):
    """Tables were emptied, all at once."""

    relations: tuple[int, ...]


class Message(msgspec.Struct, frozen=True, gc=False):
    """What `pg_logical_emit_message` wrote. One that is not transactional stands outside of any transaction."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Decoded: TypeAlias = Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate | Message

_BEGIN = Struct(">QqI")
_COMMIT = Struct(">BQQq")
_MESSAGE = Struct(">BQ")
_COLUMN = Struct(">Ii")
_U64 = Struct(">Q")
_U32 = Struct(">I")
_U16 = Struct(">H")


def decode(data: bytes, at: int = 0) -> Decoded:
    """The message that starts at `at` and fills `data` to its end. Raises DecodeError."""
    try:
        message, end = _DECODERS[data[at]](data, at + 1)
    except KeyError:
        raise DecodeError(f"a message of the unknown type {data[at]:#04x}") from None
    except (IndexError, ValueError, error):
        raise DecodeError("a message is cut short or ill-formed") from None
    if end != len(data):
        raise DecodeError("a message has another length than its parts")
    return message


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A string that ends in a zero byte. Bytes that are no UTF-8 raise ValueError."""
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _row(data: bytes, at: int) -> tuple[Row, int]:
    """TupleData. A length beyond the end is noticed by `decode`, since `at` never goes back."""
    row: Row = []
    append = row.append
    count = data[at] << 8 | data[at + 1]
    at += 2
    for _ in range(count):
        kind = data[at]
        if kind == 0x74:  # t: text
            start = at + 5
            at = start + int.from_bytes(data[at + 1 : start], "big")
            append(data[start:at])
        elif kind == 0x6E:  # n: NULL
            append(None)
            at += 1
        elif kind == 0x75:  # u: unchanged, out of line
            append(UNCHANGED)
            at += 1
        else:
            raise ValueError("a value of unknown form")
    return row, at


def _begin(data: bytes, at: int) -> tuple[Begin, int]:
    return Begin(*_BEGIN.unpack_from(data, at)), at + _BEGIN.size


def _commit(data: bytes, at: int) -> tuple[Commit, int]:
    _, commit_lsn, end_lsn, time_us = _COMMIT.unpack_from(data, at)
    return Commit(commit_lsn, end_lsn, time_us), at + _COMMIT.size


def _origin(data: bytes, at: int) -> tuple[Origin, int]:
    (lsn,) = _U64.unpack_from(data, at)
    name, at = _text(data, at + _U64.size)
    return Origin(lsn, name), at


def _relation(data: bytes, at: int) -> tuple[Relation, int]:
    (oid,) = _U32.unpack_from(data, at)
    schema, at = _text(data, at + _U32.size)
    name, at = _text(data, at)
    identity = chr(data[at])
    (count,) = _U16.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        key = bool(data[at] & 1)
        column, at = _text(data, at + 1)
        type_oid, modifier = _COLUMN.unpack_from(data, at)
        at += _COLUMN.size
        columns.append(Column(column, type_oid, modifier, key))
    # An empty namespace means pg_catalog.
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns)), at


def _type(data: bytes, at: int) -> tuple[Type, int]:
    (oid,) = _U32.unpack_from(data, at)
    schema, at = _text(data, at + _U32.size)
    name, at = _text(data, at)
    return Type(oid, schema or "pg_catalog", name), at


def _insert(data: bytes, at: int) -> tuple[Insert, int]:
    if data[at + 4] != 0x4E:  # N
        raise ValueError("an insert without a new row")
    row, end = _row(data, at + 5)
    return Insert(int.from_bytes(data[at : at + 4], "big"), row), end


def _update(data: bytes, at: int) -> tuple[Update, int]:
    relation = int.from_bytes(data[at : at + 4], "big")
    at += 4
    kind = data[at]
    old: Row | None = None
    if kind in (0x4F, 0x4B):  # O: the whole old row; K: its replica identity
        old, at = _row(data, at + 1)
    if data[at] != 0x4E:  # N
        raise ValueError("an update without a new row")
    new, at = _row(data, at + 1)
    return Update(relation, new, old, kind == 0x4F), at


def _delete(data: bytes, at: int) -> tuple[Delete, int]:
    kind = data[at + 4]
    if kind not in (0x4F, 0x4B):
        raise ValueError("a delete without an old row")
    row, end = _row(data, at + 5)
    return Delete(int.from_bytes(data[at : at + 4], "big"), row, kind == 0x4F), end


def _truncate(data: bytes, at: int) -> tuple[Truncate, int]:
    (count,) = _U32.unpack_from(data, at)
    at += _U32.size + 1
    end = at + count * _U32.size
    if end != len(data):
        raise ValueError("a truncate of another length")
    return Truncate(tuple(oid for (oid,) in _U32.iter_unpack(data[at:end]))), end


def _message(data: bytes, at: int) -> tuple[Message, int]:
    flags, lsn = _MESSAGE.unpack_from(data, at)
    prefix, at = _text(data, at + _MESSAGE.size)
    (length,) = _U32.unpack_from(data, at)
    at += _U32.size
    return Message(bool(flags & 1), lsn, prefix, data[at : at + length]), at + length


_DECODERS: Final[dict[int, Callable[[bytes, int], tuple[Decoded, int]]]] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("O"): _origin,
    ord("R"): _relation,
    ord("Y"): _type,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("M"): _message,
}
