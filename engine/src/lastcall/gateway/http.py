"""The little HTTP that the gateway needs, straight on ASGI: what a request carries, what an answer is.

Promises:

* A body is read up to `body_max_bytes` and no further (LC103), for `body_wait_max_s` and no longer (LC101); it must be
  JSON by its Content-Type (LC109), UTF-8 and free of NUL (LC102).
* An endpoint takes its own methods only (LC106) and is counted: route, status, duration.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.meter import Meter

Header = tuple[bytes, bytes]
Handler = Callable[[Scope, Receive, Send], Awaitable[int]]
Decoded = TypeVar("Decoded")

JSON_TYPE: Final = (b"content-type", b"application/json")
NO_STORE: Final = (b"cache-control", b"no-store")
_LATE: Final = "the body did not come in time"
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


class Bodies:
    """Reads request bodies within the bounds of the settings."""

    def __init__(self, config: Config) -> None:
        self._max_bytes = config.body_max_bytes
        self._wait_max_s = config.body_wait_max_s

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, which says that it is JSON; empty where there is none.

        Raises Refusal LC103, LC109, LC102; LC101 when it does not come in time.
        """
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large()
        body = await self._in_time(receive)
        if body:
            _check_json(headers, body)
        return body

    async def _in_time(self, receive: Receive) -> bytes:
        # What asyncio.timeout does, at a fifth of its price: nearly every body is there already.
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(self._wait_max_s, task.cancel, _LATE)
        try:
            return await self._receive(receive)
        except asyncio.CancelledError as error:
            if error.args == (_LATE,) and not task.uncancel():
                raise Refusal("LC101", _LATE) from None
            raise
        finally:
            timer.cancel()

    async def _receive(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal("LC101", "the client went away")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self) -> Refusal:
        return Refusal("LC103", facts={"bytes_max": self._max_bytes})


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
