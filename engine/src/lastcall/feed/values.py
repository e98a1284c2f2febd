"""From PostgreSQL's text to JSON, byte for byte as `to_jsonb` would write the value (spec/protocol.md, section 11).

Promises:

* A codec takes the UTF-8 text of a value that is not NULL and returns one JSON value as UTF-8 without a line break.
* Numbers, strings, booleans, and the members of an array have the bytes that `to_jsonb` gives them; between the members
  of an array there is no space. `json` stays as it was written, its line breaks outside of strings being spaces.
* `codec` returns None for a type that is not supported; it never guesses by a type's name alone.

The text must come from a session whose settings are SESSION_SETTINGS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

Codec: TypeAlias = Callable[[bytes], bytes]

SESSION_SETTINGS: Final[Mapping[str, str]] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
}
"""What the walsender's output functions depend on. `lc_monetary` is the database's own."""


class TypeFacts(msgspec.Struct, frozen=True, gc=False):
    """A row of pg_type, as far as a codec depends on it.

    kind: `b` base, `e` enum, `d` domain, `r` range, `m` multirange, `c` composite, `p` pseudo.
    element: the element type where it is an array, else 0. base: the type under a domain, else 0.
    extension: the extension that made it, or empty.
    """

    oid: int
    name: str
    kind: str
    element: int = 0
    base: int = 0
    extension: str = ""


Types: TypeAlias = Mapping[int, TypeFacts]

_TO_ESCAPE = re.compile(rb'[\x00-\x1f"\\]')
_encode: Final = msgspec.json.encode
_NOT_FINITE: Final = frozenset({b"NaN", b"Infinity", b"-Infinity"})


def number(text: bytes) -> bytes:
    """Integers: their text is JSON."""
    return text


def string(text: bytes) -> bytes:
    """A JSON string."""
    if _TO_ESCAPE.search(text) is None:
        return b'"%b"' % text
    return _encode(text.decode())


def boolean(text: bytes) -> bytes:
    """`t` or `f`."""
    return b"true" if text == b"t" else b"false"


def decimal(text: bytes) -> bytes:
    """numeric: all digits; what is no number is a string."""
    return b'"%b"' % text if text in _NOT_FINITE else text


def floating(text: bytes) -> bytes:
    """real and double precision: as the numeric of that text, hence without an exponent and without a minus zero."""
    if text in _NOT_FINITE:
        return b'"%b"' % text
    if text == b"-0":
        return b"0"
    return format(Decimal(text.decode()), "f").encode() if b"e" in text else text


def timestamp(text: bytes) -> bytes:
    """ISO 8601 with a T; `infinity` has no space to replace; ` BC` stays."""
    return b'"%b"' % text.replace(b" ", b"T", 1) if text[0] not in b"i-" else b'"%b"' % text


def timestamp_utc(text: bytes) -> bytes:
    """The same with the minutes of the offset, which is +00: the session's zone is UTC."""
    return timestamp(text.replace(b"+00", b"+00:00", 1) if text[0] not in b"i-" else text)


def document(text: bytes) -> bytes:
    """json, jsonb: inside strings a line break is always escaped, so what is found here is insignificant."""
    if b"\n" in text or b"\r" in text:
        return text.replace(b"\n", b" ").replace(b"\r", b" ")
    return text


_TOKEN = re.compile(rb'([{},])|"((?:[^"\\]|\\.)*)"|([^{},"]+)', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_NESTING = bytes.maketrans(b"{}", b"[]")


def array_of(element: Codec) -> Codec:
    """Arrays of any dimension; lower bounds are not shown, as in `to_jsonb`."""

    def array(text: bytes) -> bytes:
        if text[0] == 0x5B:  # [2:4]={…}
            text = text[text.index(b"=") + 1 :]
        if element is number:
            return text.translate(_NESTING).replace(b"NULL", b"null")
        return b"".join(_members(text, element))

    return array


def _members(text: bytes, element: Codec) -> list[bytes]:
    parts = []
    for punctuation, quoted, bare in _TOKEN.findall(text):
        if punctuation:
            parts.append(punctuation.translate(_NESTING))
        elif bare:
            parts.append(b"null" if bare == b"NULL" else element(bare))
        else:
            parts.append(element(_ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted))
    return parts


_BUILT_IN: Final[dict[int, Codec]] = {
    16: boolean,
    **dict.fromkeys((20, 21, 23), number),  # int8, int2, int4
    **dict.fromkeys((700, 701), floating),
    1700: decimal,
    **dict.fromkeys((18, 19, 25, 26, 1042, 1043), string),  # "char", name, text, oid, bpchar, varchar
    **dict.fromkeys((17, 142, 650, 774, 790, 829, 869), string),  # bytea, xml, cidr, macaddr8, money, macaddr, inet
    **dict.fromkeys((1560, 1562, 2950, 1186), string),  # bit, varbit, uuid, interval
    **dict.fromkeys((1082, 1083, 1266), string),  # date, time, timetz
    1114: timestamp,
    1184: timestamp_utc,
    **dict.fromkeys((114, 3802), document),
}
_VECTORS: Final = frozenset({22, 30})
"""int2vector and oidvector are arrays to the catalog, and have another text."""
_STRING_KINDS: Final = frozenset("erm")
_STRING_EXTENSIONS: Final = frozenset({"citext"})
_CHANNEL_TYPES: Final = frozenset({20, 21, 23, 26, 18, 19, 25, 1042, 1043, 2950, 1082})
_NESTING_MAX: Final = 32
"""Domains over arrays over domains …; beyond this the type is refused."""


def codec(oid: int, types: Types, depth: int = 0) -> Codec | None:
    """The codec of type `oid`, whose facts and those of the types it is made of are in `types`; None: not supported."""
    if oid in _BUILT_IN:
        return _BUILT_IN[oid]
    facts = types.get(oid)
    if facts is None or depth > _NESTING_MAX:
        return None
    if _is_string(facts):
        return string
    if facts.kind == "d":
        return codec(facts.base, types, depth + 1)
    if facts.element and oid not in _VECTORS:
        element = codec(facts.element, types, depth + 1)
        return None if element is None else array_of(element)
    return None


def names_channels(oid: int, types: Types, depth: int = 0) -> bool:
    """Whether a value of this type can stand in a channel's name: its text is what JSON shows, and fits the grammar."""
    facts = types.get(oid)
    if oid in _CHANNEL_TYPES:
        return True
    if facts is None or depth > _NESTING_MAX:
        return False
    if facts.kind == "d":
        return names_channels(facts.base, types, depth + 1)
    return facts.kind == "e" or (facts.kind == "b" and _is_string(facts))


def _is_string(facts: TypeFacts) -> bool:
    return facts.kind in _STRING_KINDS or (facts.extension in _STRING_EXTENSIONS and facts.name == facts.extension)
