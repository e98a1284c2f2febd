"""The little HTTP that the gateway needs, straight on ASGI: what a request carries, what an answer is.

Promises:

* A body is read up to `body_max_bytes` and no further (LC103); it must be JSON by its Content-Type (LC109), UTF-8 and
  free of NUL (LC102).
* An endpoint takes its own methods only (LC106) and is counted: route, status, duration.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
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


def header(scope: Scope, name: bytes) -> str | None:
    """The one header of that name (lower case), None where it is absent. Raises Refusal LC101 for two of them."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise Refusal("LC101", f"the header {name.decode()} may be given once")
    return found[0].decode("latin-1").strip() if found else None


async def read_json_body(scope: Scope, receive: Receive, body_max_bytes: int) -> bytes:
    """The whole body, which says that it is JSON; empty where there is none. Raises Refusal LC103, LC109, LC102."""
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > body_max_bytes:
        raise _too_large(body_max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal("LC101", "the client went away")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > body_max_bytes:
            raise _too_large(body_max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            break
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if body:
        _check_json(scope, body)
    return body


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


def _check_json(scope: Scope, body: bytes) -> None:
    kind = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" or header(scope, b"content-encoding") is not None:
        raise Refusal("LC109")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Refusal("LC102", "the body is not UTF-8") from None
    if b"\0" in body:
        raise Refusal("LC102")
