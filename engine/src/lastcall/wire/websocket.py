"""Frames that a server sends (RFC 6455, 5.2): never masked, never fragmented, never compressed."""

from __future__ import annotations

import struct
from typing import Final

_TEXT: Final = 0x81
_CLOSE: Final = 0x88
_REASON_MAX_BYTES: Final = 123

_header_16 = struct.Struct("!BBH").pack
_header_64 = struct.Struct("!BBQ").pack


def text_frame(payload: bytes) -> bytes:
    """One text frame; `payload` is UTF-8."""
    length = len(payload)
    if length < 126:
        return bytes((_TEXT, length)) + payload
    if length < 1 << 16:
        return _header_16(_TEXT, 126, length) + payload
    return _header_64(_TEXT, 127, length) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """The close frame (5.5.1): a code, and a reason for people, cut to what a control frame holds."""
    payload = code.to_bytes(2, "big") + reason.encode("ascii", "replace")[:_REASON_MAX_BYTES]
    return bytes((_CLOSE, len(payload))) + payload
