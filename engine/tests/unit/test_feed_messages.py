"""Messages in the log with our prefixes, which a superuser can write as he likes."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lastcall.event import RESERVED_EVENT_NAMES
from lastcall.feed.messages import PREFIXES, KindsReset, Malformed, Revocation, read
from lastcall.feed.render import Draft

LIMIT = 1000


def content(**members: object) -> bytes:
    """A JSON object."""
    return msgspec.json.encode(members)


def test_event_is_read() -> None:
    """An event's data reaches listeners byte for byte, its line breaks between members excepted."""
    text = b'{"channel": "bar:1", "event": "stock",\n"data": {"a":\r\n 1.50, "b": "\\n"}}'
    assert read("lastcall.event", text, LIMIT) == Draft(("bar:1",), "stock", b'{"a":   1.50, "b": "\\n"}')


def test_revocation_is_read() -> None:
    """A revocation names subject and channel, and tells its channel in its data."""
    found = read("lastcall.revoke", content(subject="user-1", channel="bar:1"), LIMIT)
    assert found == Revocation("user-1", "bar:1")
    assert isinstance(found, Revocation)
    assert found.draft() == Draft(("bar:1",), "revoked", b'{"channels":["bar:1"]}')


def test_reset_is_read() -> None:
    """The feed's own mark names kinds of channel and a reason."""
    found = read("lastcall.reset", content(kinds=["bar", "user"], reason="schema"), LIMIT)
    assert found == KindsReset(frozenset({"bar", "user"}), "schema")


def test_too_much_data_is_a_reset() -> None:
    """Data beyond the limit is not passed over in silence: the channel gets a reset."""
    found = read("lastcall.event", content(channel="bar:1", event="stock", data="x" * LIMIT), LIMIT)
    assert isinstance(found, Draft)
    assert found.name == "reset"
    assert json.loads(found.data) == {"channels": ["bar:1"], "reason": "overflow"}


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        ("lastcall.event", b""),
        ("lastcall.event", b"[]"),
        ("lastcall.event", b"{"),
        ("lastcall.event", content(channel="bar:1", event="stock")),
        ("lastcall.event", content(channel="Bar:1", event="stock", data=1)),
        ("lastcall.event", content(channel="bar:1\n", event="stock", data=1)),
        ("lastcall.event", content(channel="bar:1", event="Stock", data=1)),
        ("lastcall.event", content(channel=1, event="stock", data=1)),
        ("lastcall.event", b'{"channel":"bar:1","event":"stock","data":[1,}'),
        ("lastcall.event", b'{"channel":"bar:1","event":"stock","data":"\xff"}'),
        ("lastcall.event", b'{"channel":"bar:1","event":"stock","data":"a\nb"}'),
        ("lastcall.event", b"[" * 100_000),
        ("lastcall.revoke", content(subject="", channel="bar:1")),
        ("lastcall.revoke", content(subject="x" * 256, channel="bar:1")),
        ("lastcall.revoke", content(subject="x", channel="bar")),
        ("lastcall.reset", content(kinds="bar", reason="schema")),
        *[("lastcall.event", content(channel="bar:1", event=name, data=1)) for name in sorted(RESERVED_EVENT_NAMES)],
    ],
)
def test_malformed_message_is_refused(prefix: str, text: bytes) -> None:
    """What has not the form is Malformed: not JSON, not a channel, a reserved name, no UTF-8, a raw line break."""
    with pytest.raises(Malformed):
        read(prefix, text, LIMIT)


@given(st.sampled_from(sorted(PREFIXES)), st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
@example("lastcall.event", b'{"channel":"bar:1","event":"stock","data":' + b"[" * 5000 + b"]" * 5000 + b"}")
def test_garbage_is_refused(prefix: str, text: bytes) -> None:
    """Arbitrary bytes are read or Malformed, never another error, and never data with a line break."""
    try:
        found = read(prefix, text, 1 << 20)
    except Malformed:
        return
    if isinstance(found, Draft):
        assert b"\n" not in found.data and b"\r" not in found.data
        found.data.decode()
