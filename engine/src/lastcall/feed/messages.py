"""What `lastcall.publish`, `lastcall.revoke` and the feed itself put into the log, read with distrust.

A superuser can emit any message under any prefix; what does not have the form is worth nothing and harms nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lastcall.event import CHANNEL, EVENT_NAME, RESERVED_EVENT_NAMES, RESET, REVOKED
from lastcall.feed.render import Draft
from lastcall.feed.values import document

EVENT_PREFIX: Final = "lastcall.event"
REVOKE_PREFIX: Final = "lastcall.revoke"
RESET_PREFIX: Final = "lastcall.reset"
PREFIXES: Final = frozenset({EVENT_PREFIX, REVOKE_PREFIX, RESET_PREFIX})
SUBJECT_MAX: Final = 255


class Malformed(Exception):
    """The content has not the form that its prefix promises."""


class Revocation(msgspec.Struct, frozen=True):
    """The subject no longer hears the channel."""

    subject: str
    channel: str

    def draft(self) -> Draft:
        """The event that tells so."""
        return Draft((self.channel,), REVOKED, msgspec.json.encode({"channels": [self.channel]}))


class KindsReset(msgspec.Struct, frozen=True):
    """All channels of these kinds need their state anew."""

    kinds: frozenset[str]
    reason: str


class _Event(msgspec.Struct, frozen=True):
    channel: str
    event: str
    data: msgspec.Raw


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_revocation: Final = msgspec.json.Decoder(Revocation).decode
_decode_reset: Final = msgspec.json.Decoder(KindsReset).decode


def read(prefix: str, content: bytes, data_max_bytes: int) -> Draft | Revocation | KindsReset:
    """What a message of one of PREFIXES says; an event with too much data becomes a reset of its channel.

    Raises Malformed.
    """
    try:
        content.decode()
        if prefix == EVENT_PREFIX:
            return _event(_decode_event(content), data_max_bytes)
        if prefix == REVOKE_PREFIX:
            return _revocation(_decode_revocation(content))
        return _decode_reset(content)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise Malformed(f"a message of the prefix {prefix} is malformed") from None


def _event(found: _Event, data_max_bytes: int) -> Draft:
    if CHANNEL.fullmatch(found.channel) is None:
        raise ValueError("not a channel")
    if EVENT_NAME.fullmatch(found.event) is None or found.event in RESERVED_EVENT_NAMES:
        raise ValueError("not an event's name")
    data = bytes(found.data)
    if len(data) > data_max_bytes:
        return reset_of(found.channel, "overflow")
    return Draft((found.channel,), found.event, document(data))


def _revocation(found: Revocation) -> Revocation:
    if CHANNEL.fullmatch(found.channel) is None or not 1 <= len(found.subject) <= SUBJECT_MAX:
        raise ValueError("not a subject and a channel")
    return found


def reset_of(channel: str, reason: str) -> Draft:
    """The event that makes the channel's listeners fetch its state."""
    return Draft((channel,), RESET, msgspec.json.encode({"channels": [channel], "reason": reason}))
