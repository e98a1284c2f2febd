"""What makes two calls with one key the same request."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.gateway.rpc import request_hash

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def hash_of(text: str) -> bytes:
    return request_hash(msgspec.json.decode(text, type=dict[str, msgspec.Raw]))


def turned(value: Any) -> Any:
    """The same value with every object's members in the other order."""
    if isinstance(value, dict):
        return {name: turned(member) for name, member in reversed(value.items())}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_order_blanks_and_escapes_do_not_count(arguments: dict[str, Any]) -> None:
    """However a client writes the same arguments, they are the same."""
    plain = hash_of(json.dumps(arguments))
    assert hash_of(json.dumps(turned(arguments), indent=2)) == plain
    assert hash_of(json.dumps(arguments, ensure_ascii=False)) == plain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1}', '{"a": 2}'),
        ('{"a": 1}', '{"b": 1}'),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": 1.5}', '{"a": "1.5"}'),
        ('{"a": 1}', '{"a": 1, "b": null}'),
        ('{"a": [1, 2]}', '{"a": [2, 1]}'),
        ('{"a": {"b": 1}}', '{"a": {"b": 2}}'),
        ('{"a": 0.10000000000000000001}', '{"a": 0.1}'),
        ('{"a": 12345678901234567890123}', '{"a": 12345678901234567890124}'),
    ],
)
def test_what_differs_counts(one: str, other: str) -> None:
    """Another value, another name, another type and another digit are another request."""
    assert hash_of(one) != hash_of(other)
