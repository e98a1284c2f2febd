"""Problem documents (RFC 9457): what a refused request, call or frame is answered with."""

from __future__ import annotations

from typing import Final

import msgspec

from lastcall.errors import Language, Refusal

MEDIA_TYPE: Final = "application/problem+json"

_encode = msgspec.json.Encoder().encode


def document(refusal: Refusal, language: Language = "en") -> bytes:
    """The refusal as JSON. Whole seconds are written without a fraction."""
    members = refusal.problem(language)
    wait = members.get("retry_after_s")
    if isinstance(wait, float) and wait.is_integer():
        members["retry_after_s"] = int(wait)
    return _encode(members)


def headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """The headers that go with the document; `Retry-After` is in whole seconds, rounded up (RFC 9110, 10.2.3)."""
    found = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
    if refusal.retry_after_s is not None:
        found.append((b"retry-after", str(max(1, -int(-refusal.retry_after_s // 1))).encode()))
    methods = refusal.facts.get("methods")
    if refusal.code.number == "LC106" and isinstance(methods, list):
        # RFC 9110, 15.5.6: a 405 names what is allowed.
        found.append((b"allow", ", ".join(methods).encode()))
    return found
