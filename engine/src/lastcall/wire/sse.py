"""Server-sent events (WHATWG HTML, "Server-sent events"), and the chunk that carries a block.

A chunk holds exactly one block. Blocks can then be joined, shared and cut without touching them again, which is worth
more than the seven bytes that one chunk around a whole flush would save.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LAST_CHUNK: Final = b"0\r\n\r\n"
"""Ends a chunked body (RFC 9112, 7.1)."""

_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


def one_line(data: bytes) -> bytes:
    """The same JSON on one line: raw line ends cannot be inside a JSON string, so each may become a space."""
    return data.translate(_LINE_ENDS) if b"\n" in data or b"\r" in data else data


def block(
    name: str, data: bytes, *, id: str | None, channels: Sequence[str] = (), retry_ms: int | None = None
) -> bytes:
    """One block, written as spec/protocol.md, 4 says: fields in that order, absent where they have no value."""
    head = f"retry: {retry_ms}\n" if retry_ms is not None else ""
    if id is not None:
        head += f"id: {id}\n"
    head += f"event: {name}\nchannel: {','.join(channels)}\ndata: " if channels else f"event: {name}\ndata: "
    return b"%b%b\n\n" % (head.encode("ascii"), one_line(data))


def chunk(body: bytes) -> bytes:
    """`body`, which must not be empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(body), body)
