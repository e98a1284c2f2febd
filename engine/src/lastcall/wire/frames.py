"""What a WebSocket client may say (spec/protocol.md, 5): three operations, read into typed values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from lastcall.errors import Refusal

Ref = Annotated[int, Meta(ge=-(2**53) + 1, le=2**53 - 1)]
Channels = Annotated[tuple[str, ...], Meta(min_length=1)]


class Subscribe(msgspec.Struct, frozen=True, tag_field="op", tag="subscribe"):
    """Listen on further channels, after `position` where one is given, with their state where asked."""

    ref: Ref
    channels: Channels
    position: str | None = None
    state: bool = False


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="op", tag="unsubscribe"):
    """Listen on these channels no longer."""

    ref: Ref
    channels: Channels


class Token(msgspec.Struct, frozen=True, tag_field="op", tag="token"):
    """Go on with this token."""

    ref: Ref
    token: str


Operation = Subscribe | Unsubscribe | Token

_operation: Callable[[bytes], Operation] = msgspec.json.Decoder(Operation).decode


class _Referred(msgspec.Struct):
    ref: Ref


_referred = msgspec.json.Decoder(_Referred).decode


def read_operation(text: bytes) -> Operation:
    """Read one frame. Raises Refusal LC406, whose detail never repeats the frame (it may hold a token)."""
    try:
        return _operation(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("LC406") from None


def ref_of(text: bytes) -> int | None:
    """The `ref` of a frame that is otherwise malformed, where it has one."""
    try:
        return _referred(text).ref
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
