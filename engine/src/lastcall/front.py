"""The front door: the one ASGI application of a node, around everything that answers.

Promises:

* Whatever is not answered further in is answered here with a numbered problem document: LC105, LC106, and LC100 with an
  incident number that finds the stack trace in the log. A client never sees one.
* A request target longer than `url_max_bytes` is LC104 before anything reads it.
* Pages of the origins that the settings and the applications name may call (CORS); no others. Credentials are never
  cookies, so `*` never occurs.
* Built pages are served with a policy that loads nothing from elsewhere; names with a hash are cached for ever.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from typing import Any, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lastcall.app import App
from lastcall.config import Config
from lastcall.errors import Refusal, language_of
from lastcall.wire import problem

ALLOWED_HEADERS: Final = (
    "Accept-Language",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
)
EXPOSED_HEADERS: Final = ("ETag", "Lastcall-Position", "Lastcall-Replayed", "Retry-After")
PREFLIGHT_LIFE_S: Final = 7200
PAGE_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
)
IMMUTABLE: Final = "public, max-age=31536000, immutable"

_log = structlog.get_logger("lastcall.front")


class Pages(StaticFiles):
    """An application's built pages."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with the headers that keep a page to itself."""
        response = await super().get_response(path, scope)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        # Pages of other origins get a further header (CORS), which a cache must not leave out.
        response.headers["Vary"] = "Origin"
        response.headers["Cache-Control"] = IMMUTABLE if "/assets/" in f"/{path}" else "no-cache"
        if response.headers.get("content-type", "").startswith("text/html"):
            response.headers["Content-Security-Policy"] = PAGE_POLICY
        return response


def _not_found(_: Any) -> Response:
    raise Refusal("LC105")


def routes_of(app: App, *, demo: bool) -> list[BaseRoute]:
    """What an application adds under `/{name}`: its own routes, the demonstration's, its pages."""
    inner: list[BaseRoute] = list(app.routes)
    if demo and app.demo is not None:
        inner += app.demo.routes
    if app.static is not None and app.static.is_dir():
        inner.append(Mount("/", Pages(directory=app.static, html=True)))
    return [Mount(f"/{app.name}", Router(inner, default=_refuse_unknown))] if inner else []


async def _refuse_unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise Refusal("LC105")


class Front:
    """The node's ASGI application: `routes` behind the promises of this page."""

    def __init__(
        self, config: Config, apps: Sequence[App], routes: Sequence[BaseRoute], home: str | None, state: Any
    ) -> None:
        self._url_max_bytes = config.url_max_bytes
        self._state = state
        every = list(routes)
        if home is not None:
            every.append(Route("/", lambda _: RedirectResponse(home), methods=["GET"]))
        origins = sorted({*config.cors_origins, *(origin for app in apps for origin in app.cors_origins)})
        inner: ASGIApp = Router(every, default=_refuse_unknown, redirect_slashes=True)
        self._inner: ASGIApp = Refusals(inner)
        self._for_pages: ASGIApp = self._inner
        if origins:
            self._for_pages = CORSMiddleware(
                self._inner,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=list(ALLOWED_HEADERS),
                expose_headers=list(EXPOSED_HEADERS),
                max_age=PREFLIGHT_LIFE_S,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("a node starts and stops its stations itself")
        scope["app"] = self._state
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > self._url_max_bytes:
            await refuse(scope, send, Refusal("LC104"))
            return
        # Without an origin no page asks, and CORS has nothing to say.
        inner = self._for_pages if b"origin" in dict(scope["headers"]) else self._inner
        await inner(scope, receive, send)


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


class _Answer:
    """What has been answered to one request so far.

    started: the status is out. replaced: the status was one without a number, and is held back.
    """

    __slots__ = ("_send", "replaced", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.replaced = False

    async def watch(self, message: Message) -> None:
        """`send`, for whoever answers further in."""
        if message["type"] == "http.response.start":
            self.replaced = message["status"] == 405 and not _numbered(message)
            self.started = not self.replaced
        if not self.replaced:
            await self.send(message)

    async def send(self, message: Message) -> None:
        """Send on. Raises ClientGone."""
        try:
            await self._send(message)
        except (RuntimeError, OSError) as error:
            # The connection was closed under the answer; nobody is there to be told, and nothing is wrong with us.
            _log.debug("client gone", reason=str(error))
            raise ClientGone from None


class Refusals:
    """Turns what was raised, or answered without a number, into problem documents."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(send)
        with contextlib.suppress(ClientGone):
            refusal = await self._refusal(scope, receive, answer)
            if refusal is not None and not answer.started:
                await refuse(scope, answer.send, refusal)

    async def _refusal(self, scope: Scope, receive: Receive, answer: _Answer) -> Refusal | None:
        """Let the inner application answer; what is to be answered in its place, if anything."""
        try:
            await self._inner(scope, receive, answer.watch)
        except Refusal as refusal:
            return refusal
        except ClientGone:
            raise
        except HTTPException as error:
            return _refusal_of(error)
        except Exception:
            incident = secrets.token_hex(4)
            _log.exception("request failed", incident=incident, path=scope.get("path"))
            return Refusal("LC100", incident=incident)
        return Refusal("LC106") if answer.replaced else None


def _refusal_of(error: HTTPException) -> Refusal:
    """What Starlette's router raises where a route does not take the method."""
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return Refusal("LC106", facts={"methods": sorted(part.strip() for part in allowed.split(",") if part.strip())})
    return Refusal("LC105" if error.status_code == 404 else "LC101")


def _numbered(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("content-type") == problem.MEDIA_TYPE


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer with the problem document, as HTTP or (before the upgrade) as a refused WebSocket handshake."""
    language = language_of(Headers(scope=scope).get("accept-language", ""))
    body = problem.document(refusal, language)
    headers = MutableHeaders(raw=[*problem.headers(refusal), (b"content-length", str(len(body)).encode())])
    prefix = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    await send({"type": f"{prefix}.start", "status": refusal.code.status, "headers": headers.raw})
    await send({"type": f"{prefix}.body", "body": b"" if scope.get("method") == "HEAD" else body})
