"""`GET /events`: one URL, and the request says which way (spec/protocol.md, 3); `POST /events/token`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from lastcall.auth import Principal, Tokens
from lastcall.config import Config
from lastcall.errors import CODES, Refusal, language_of
from lastcall.hub import Hub
from lastcall.meter import Meter
from lastcall.transports.adopted import Socket, Stream
from lastcall.transports.foreign import foreign_socket, foreign_stream
from lastcall.transports.handover import HANDOVER
from lastcall.transports.listener import Context
from lastcall.transports.long_poll import long_poll
from lastcall.transports.opening import open_stream, ready
from lastcall.transports.operations import refresh
from lastcall.transports.ports import Reader
from lastcall.transports.request import Asked, Headers, allowed_origin, header, principal_of, read_position, read_query
from lastcall.wire.encoding import JSON_LINES, SSE_CHUNKED, SSE_PLAIN, WEBSOCKET

PATH: Final = "/events"
SUBPROTOCOL: Final = "lastcall.v1"
TOKEN_BODY_MAX_BYTES: Final = 16 << 10

STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def routes(
    hub: Hub, tokens: Tokens, reader: Reader, config: Config, meter: Meter, origins: Iterable[str] = ()
) -> list[BaseRoute]:
    """The routes of this station. What they refuse is raised as Refusal, for whoever mounts them to answer.

    origins: whose pages may open a WebSocket beside the server's own.
    """
    context = Context(hub, tokens, reader, config, meter, frozenset(origins) | frozenset(config.cors_origins))
    return [
        Route(PATH, Events(context)),
        WebSocketRoute(PATH, Sockets(context)),
        Route(f"{PATH}/token", Refresh(context), methods=["POST"]),
    ]


class Events:
    """Listening over HTTP."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose by `Accept`. Raises Refusal before anything is sent."""
        if scope["method"] != "GET":
            raise Refusal("LC106")
        headers = scope["headers"]
        if _has_body(headers):
            raise Refusal("LC101", "a request to listen has no body")
        context = self._context
        asked = read_query(scope["query_string"], context.config)
        if not asked.channels:
            raise Refusal("LC408")
        principal = principal_of(context.tokens, headers, asked.ticket)
        await ready(context)
        if b"text/event-stream" in (header(headers, b"accept") or b"").lower():
            await self._stream(scope, receive, send, asked, principal)
        else:
            await long_poll(context, asked, principal, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send, asked: Asked, principal: Principal) -> None:
        context = self._context
        headers: Headers = scope["headers"]
        handover = scope.get("extensions", {}).get(HANDOVER)
        old = scope["http_version"] == "1.0"
        encoding = SSE_PLAIN if handover is None or old else SSE_CHUNKED
        secret = context.sessions.secret()
        reservation = context.hub.reserve(principal.subject)
        try:
            joiner = await open_stream(
                context,
                reservation,
                principal,
                encoding,
                channels=asked.channels,
                position=_last_event_id(headers, asked),
                state=asked.state,
                secret=secret,
            )
            if handover is not None and not handover.possible:
                raise Refusal("LC101", "a stream never ends, so nothing may be pipelined behind it")
            if handover is not None and old:
                handover.unchunked()
            await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
            stream = None
            if handover is not None:
                stream = handover.take(lambda transport: Stream(context, encoding, principal, transport, secret))
        except BaseException:
            context.hub.release(reservation)
            raise
        if handover is None:
            await foreign_stream(context, principal, secret, joiner, receive, send)
        elif stream is None:
            context.hub.release(reservation)
            body = b"" if old else SSE_PLAIN.closing(CODES["LC101"])
            await send({"type": "http.response.body", "body": body})
        else:
            await stream.catch_up(joiner)


class Sockets:
    """Listening over a WebSocket."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Refusal before the upgrade."""
        context = self._context
        await receive()  # websocket.connect
        headers: Headers = scope["headers"]
        subprotocols: Sequence[str] = scope.get("subprotocols", ())
        if not allowed_origin(headers, context.origins):
            raise Refusal("LC307")
        asked = read_query(scope["query_string"], context.config)
        principal = principal_of(context.tokens, headers, asked.ticket, subprotocols)
        language = language_of((header(headers, b"accept-language") or b"").decode("latin-1"))
        await ready(context)
        handover = scope.get("extensions", {}).get(HANDOVER)
        reservation = context.hub.reserve(principal.subject)
        try:
            joiner = await open_stream(
                context,
                reservation,
                principal,
                JSON_LINES if handover is None else WEBSOCKET,
                channels=asked.channels,
                position=asked.position,
                state=asked.state,
                secret=None,
            )
            await send(
                {"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in subprotocols else None}
            )
            taken = None
            if handover is not None:
                taken = handover.take(lambda transport, state: Socket(context, principal, transport, state, language))
        except BaseException:
            context.hub.release(reservation)
            raise
        if handover is None:
            await foreign_socket(context, principal, language, joiner, receive, send)
        elif taken is None:
            context.hub.release(reservation)
        else:
            socket, backlog = taken
            socket.take_backlog(backlog)
            await socket.catch_up(joiner)


class Refresh:
    """`POST /events/token`: a stream goes on with a new token, without a gap."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Refusal."""
        asked = await _read_body(Request(scope, receive), _NewToken, TOKEN_BODY_MAX_BYTES)
        context = self._context
        principal = context.tokens.verify(asked.token)
        listener = context.sessions.find(asked.connection)
        if listener is None or listener.gone:
            raise Refusal("LC105", "there is no such connection")
        heard = await refresh(context, listener, principal)
        if not heard:
            listener.end(CODES["LC305"])
        response = Response(msgspec.json.encode({"channels": heard}), media_type="application/json")
        await response(scope, receive, send)


class _NewToken(msgspec.Struct):
    connection: str
    token: str


async def _read_body(request: Request, shape: Any, most_bytes: int) -> Any:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            raise Refusal("LC103")
    try:
        return msgspec.json.decode(bytes(body), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("LC102") from None


def _has_body(headers: Headers) -> bool:
    for name, value in headers:
        if (name == b"content-length" and value.strip(b"0 ")) or name == b"transfer-encoding":
            return True
    return False


def _last_event_id(headers: Headers, asked: Asked) -> Any:
    """`Last-Event-ID` before the query: a native EventSource comes back with its old address."""
    last = header(headers, b"last-event-id")
    return read_position(last.decode("latin-1")) if last else asked.position
