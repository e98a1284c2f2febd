"""The decoder of pgoutput: what PostgreSQL writes is read, and nothing else does harm."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lastcall.feed import replication
from lastcall.feed.pgoutput import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    DecodeError,
    Delete,
    Insert,
    Message,
    Origin,
    Relation,
    Truncate,
    Type,
    Update,
    decode,
)


def value(text: bytes | None) -> bytes:
    """One value of a tuple as PostgreSQL writes it."""
    return b"n" if text is None else b"t" + struct.pack(">I", len(text)) + text


ROW = struct.pack(">H", 3) + value(b"7") + value(None) + b"u"
GOLDEN = {
    b"B" + struct.pack(">QqI", 0x151CE00, 849_000_000_000_000, 730): Begin(0x151CE00, 849_000_000_000_000, 730),
    b"C" + struct.pack(">BQQq", 0, 0x151CE00, 0x151CE30, 5): Commit(0x151CE00, 0x151CE30, 5),
    b"O" + struct.pack(">Q", 9) + b"north\0": Origin(9, "north"),
    b"Y" + struct.pack(">I", 16400) + b"public\0mood\0": Type(16400, "public", "mood"),
    b"R"
    + struct.pack(">I", 16393)
    + b"public\0u\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0a\0\0\0\0\x19\0\0\0\x24": Relation(
        16393, "public", "u", "d", (Column("id", 23, -1, True), Column("a", 25, 36, False))
    ),
    b"R" + struct.pack(">I", 1) + b"\0pg_class\0n\0\0": Relation(1, "pg_catalog", "pg_class", "n", ()),
    b"I" + struct.pack(">I", 5) + b"N" + ROW: Insert(5, [b"7", None, UNCHANGED]),
    b"U" + struct.pack(">I", 5) + b"N" + ROW: Update(5, [b"7", None, UNCHANGED], None, False),
    b"U" + struct.pack(">I", 5) + b"K" + ROW + b"N" + ROW: Update(
        5, [b"7", None, UNCHANGED], [b"7", None, UNCHANGED], False
    ),
    b"U" + struct.pack(">I", 5) + b"O" + ROW + b"N" + ROW: Update(
        5, [b"7", None, UNCHANGED], [b"7", None, UNCHANGED], True
    ),
    b"D" + struct.pack(">I", 5) + b"K" + ROW: Delete(5, [b"7", None, UNCHANGED], False),
    b"D" + struct.pack(">I", 5) + b"O" + ROW: Delete(5, [b"7", None, UNCHANGED], True),
    b"T" + struct.pack(">IBII", 2, 1, 5, 6): Truncate((5, 6)),
    b"M" + struct.pack(">BQ", 1, 8) + b"lastcall.event\0" + struct.pack(">I", 2) + b"{}": Message(
        True, 8, "lastcall.event", b"{}"
    ),
    b"M" + struct.pack(">BQ", 0, 8) + b"\0" + struct.pack(">I", 0): Message(False, 8, "", b""),
}


@pytest.mark.parametrize(("data", "message"), GOLDEN.items(), ids=lambda item: type(item).__name__)
def test_message_is_decoded(data: bytes, message: object) -> None:
    """Every message of protocol version 1 is read to the last byte, wherever it begins in its buffer."""
    assert decode(data) == message
    assert decode(b"w" * 25 + data, 25) == message


@pytest.mark.parametrize("data", GOLDEN, ids=lambda data: chr(data[0]))
def test_cut_or_padded_message_is_refused(data: bytes) -> None:
    """A message that is cut anywhere, or has a byte too many, is a DecodeError."""
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode(data[:end])
    with pytest.raises(DecodeError):
        decode(data + b"\0")


@given(st.sampled_from(list(GOLDEN)), st.data())
def test_bent_message_decodes_or_is_refused(data: bytes, draw: st.DataObject) -> None:
    """Whatever single bytes are changed, the decoder answers with a message or a DecodeError."""
    bent = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        bent[draw.draw(st.integers(0, len(bent) - 1))] = draw.draw(st.integers(0, 255))
    try:
        decode(bytes(bent))
    except DecodeError:
        return


@given(st.binary(max_size=300), st.integers(0, 400))
@example(b"S" + bytes(20), 0)
@example(b"", 0)
@example(b"I\0\0\0\5N\xff\xff" + b"t\xff\xff\xff\xff", 0)
def test_garbage_decodes_or_is_refused(data: bytes, at: int) -> None:
    """Arbitrary bytes, read from an arbitrary place, never raise anything but DecodeError."""
    try:
        decode(data, at)
    except DecodeError:
        return


@given(st.binary(max_size=40))
def test_keepalive_decodes_or_is_refused(data: bytes) -> None:
    """A keepalive is read or refused with DecodeError."""
    try:
        keepalive = replication.Keepalive.parse(b"k" + data)
    except DecodeError:
        assert len(data) != 17
    else:
        assert len(data) == 17
        assert keepalive.reply == bool(data[16])


def test_status_is_a_pair() -> None:
    """The first update moves the slot and never beyond what was received; the second takes the flush back and asks."""
    held, free = replication.statuses(written=100, confirmed=900, now_us=-1, ask=True)
    assert held == struct.pack(">cQQQqB", b"r", 100, 100, 100, -1, 0)
    assert free == struct.pack(">cQQQqB", b"r", 100, 0, 0, -1, 1)
