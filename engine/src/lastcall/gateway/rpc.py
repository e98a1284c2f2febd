"""`POST /rpc/{app}.{function}`: a JSON object of named arguments in, the function's value out, after COMMIT.

Promises (spec/protocol.md, 8):

* Each call is one transaction; the answer leaves after its COMMIT, with a position at or after it.
* With `Idempotency-Key` a call applies once. The key belongs to (issuer, subject, function) and to what was asked: the
  arguments by name, whatever the order of members and the blanks between them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from lastcall.auth import Principal
from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.gateway.admission import Admission
from lastcall.gateway.functions import Catalogue
from lastcall.gateway.http import JSON_TYPE, NO_STORE, Bodies, Header, answer, decode, headers_of
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.postgres.call import Answer, Caller, Identity, Key

PREFIX: Final = "/rpc/"
KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
Arguments = dict[str, msgspec.Raw]

_arguments: Final = msgspec.json.Decoder(Arguments)
_anything: Final = msgspec.json.Decoder(float_hook=Decimal)
_canonical: Final = msgspec.json.Encoder(order="deterministic", decimal_format="number")


def identity_of(principal: Principal) -> Identity:
    """As whom SQL runs for this principal."""
    return Identity(principal.role, msgspec.json.encode(principal.claims))


def request_hash(arguments: Mapping[str, msgspec.Raw]) -> bytes:
    """What is asked, as 32 bytes, whatever its members' order, blanks and escapes; numbers by their digits."""
    value = _anything.decode(msgspec.json.encode(arguments))
    return hashlib.sha256(_canonical.encode(value)).digest()


def key_of(principal: Principal, function: str, key: str | None, arguments: Mapping[str, msgspec.Raw]) -> Key | None:
    """The idempotency key of this call, None where it came without one. Raises Refusal LC004, LC005."""
    if key is None:
        return None
    if KEY.fullmatch(key) is None:
        raise Refusal("LC005")
    if principal.subject is None:
        raise Refusal("LC004")
    try:
        asked = request_hash(arguments)
    except (msgspec.DecodeError, RecursionError, ArithmeticError):
        raise Refusal("LC102") from None
    return Key(principal.issuer, principal.subject, function, key, asked)


class Rpc:
    """Calls one exposed function for a principal.

    head: the stream's head, for the epoch of positions.
    """

    def __init__(self, caller: Caller, catalogue: Catalogue, head: Callable[[], Position], meter: Meter) -> None:
        self._caller = caller
        self._catalogue = catalogue
        self._head = head
        self._meter = meter

    async def call(self, principal: Principal, function: str, arguments: Arguments, key: str | None) -> Answer:
        """The answer of `app.function`. Raises Refusal."""
        signature = await self._catalogue.exposed(function, principal)
        whole = key_of(principal, function, key, arguments)
        answered = await self._caller.call(identity_of(principal), signature, arguments, whole)
        self._meter.idempotent_replays += answered.replayed
        return answered

    def position(self, answered: Answer) -> str | None:
        """The answer's position in this stream; None before there is one, or where PostgreSQL could not be asked."""
        epoch, lsn, _ = self._head()
        if not lsn or answered.position_lsn is None:
            return None
        return str(Position(epoch, answered.position_lsn, 0))

    def headers(self, answered: Answer) -> list[Header]:
        """The answer's headers."""
        headers = [JSON_TYPE, NO_STORE]
        position = self.position(answered)
        if position is not None:
            headers.append((b"lastcall-position", position.encode()))
        if answered.replayed:
            headers.append((b"lastcall-replayed", b"true"))
        return headers


class RpcEndpoint:
    """The route's handler."""

    def __init__(self, rpc: Rpc, admission: Admission, config: Config) -> None:
        self._rpc = rpc
        self._admission = admission
        self._bodies = Bodies(config)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer one call."""
        principal = self._admission.admit(scope, "rpc")
        headers = headers_of(scope)
        key = headers.get(b"idempotency-key")
        body = await self._bodies.read(headers, receive)
        arguments = decode(body, _arguments) if body else {}
        function = scope["path_params"]["function"]
        answered = await self._rpc.call(principal, function, arguments, None if key is None else key.decode("latin-1"))
        return await answer(send, 200, answered.value, self._rpc.headers(answered))


class RpcRoute(BaseRoute):
    """`/rpc/{function}`, matched by how it begins: of all routes it is the one that is asked most often."""

    path: Final = "/rpc/{function}"

    def __init__(self, endpoint: ASGIApp) -> None:
        self.endpoint = endpoint

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this is a call, and of which function."""
        path: str = scope["path"]
        if scope["type"] == "http" and path.startswith(PREFIX) and path.find("/", len(PREFIX)) < 0:
            return Match.FULL, {"path_params": {"function": path[len(PREFIX) :]}}
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """It has no name."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.endpoint(scope, receive, send)
