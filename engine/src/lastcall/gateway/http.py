"""The little HTTP that the gateway needs, straight on ASGI: what a request carries, what an answer is.

Promises:

* A body is read up to `body_max_bytes` and no further (LC103); it must be JSON by its Content-Type (LC109), UTF-8 and
  free of NUL (LC102).
* An endpoint takes its own methods only (LC106) and is counted: route, status, duration.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from lastcall.errors import Refusal
from lastcall.meter import Meter

Header = tuple[bytes, bytes]
Handler = Callable[[Scope, Receive, Send], Awaitable[int]]
Decoded = TypeVar("Decoded")

JSON_TYPE: Final = (b"content-type", b"application/json")
NO_STORE: Final = (b"cache-control", b"no-store")
ONCE: Final = (b"idempotency-key", b"content-type", b"content-encoding", b"content-length")
"""Headers of which a second one would be another request."""


class Endpoint:
    """An ASGI endpoint of one route: `handler` answers and returns the status it answered with."""

    def __init__(self, route: str, methods: Iterable[str], handler: Handler, meter: Meter) -> None:
        self.route = route
        self.methods = frozenset(methods)
        self._handler = handler
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises Refusal for the front door to write."""
        began = time.perf_counter()
        status = 500
        try:
            if scope["type"] != "http" or scope["method"] not in self.methods:
                raise Refusal("LC106", facts={"methods": sorted(self.methods)})
            status = await self._handler(scope, receive, send)
        except Refusal as refusal:
            status = refusal.code.status
            raise
        finally:
            counts = self._meter.requests
            counts[self.route, status] = counts.get((self.route, status), 0) + 1
            self._meter.request_duration.observe(time.perf_counter() - began)


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name (lower case); the last of several. Raises Refusal LC101 for two where one must be."""
    pairs = scope["headers"]
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        for name in ONCE:
            if names.count(name) > 1:
                raise Refusal("LC101", f"the header {name.decode()} may be given once")
    return found


async def read_json_body(headers: Mapping[bytes, bytes], receive: Receive, body_max_bytes: int) -> bytes:
    """The whole body, which says that it is JSON; empty where there is none. Raises Refusal LC103, LC109, LC102."""
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > body_max_bytes:
        raise _too_large(body_max_bytes)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        body = await _read_on(body, receive, body_max_bytes)
    elif message["type"] == "http.disconnect":
        raise Refusal("LC101", "the client went away")
    if len(body) > body_max_bytes:
        raise _too_large(body_max_bytes)
    if body:
        _check_json(headers, body)
    return body


async def _read_on(body: bytes, receive: Receive, body_max_bytes: int) -> bytes:
    chunks, size, more = [body], len(body), True
    while more:
        if size > body_max_bytes:
            raise _too_large(body_max_bytes)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal("LC101", "the client went away")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
    return b"".join(chunks)


def decode(body: bytes, decoder: msgspec.json.Decoder[Decoded]) -> Decoded:
    """The body as the decoder's type. Raises Refusal LC102 saying where it does not fit."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal("LC102", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("LC102") from None


async def answer(send: Send, status: int, body: bytes, headers: Iterable[Header] = (JSON_TYPE, NO_STORE)) -> int:
    """Send a whole answer; returns the status."""
    every = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": every})
    await send({"type": "http.response.body", "body": body})
    return status


def _too_large(body_max_bytes: int) -> Refusal:
    return Refusal("LC103", facts={"bytes_max": body_max_bytes})


def _check_json(headers: Mapping[bytes, bytes], body: bytes) -> None:
    kind = headers.get(b"content-type", b"")
    if kind != b"application/json" and kind.partition(b";")[0].strip().lower() != b"application/json":
        raise Refusal("LC109")
    if b"content-encoding" in headers:
        raise Refusal("LC109")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Refusal("LC102", "the body is not UTF-8") from None
    if b"\0" in body:
        raise Refusal("LC102")
