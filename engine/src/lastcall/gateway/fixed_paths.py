"""The paths that every server has, as OpenAPI; spec/protocol.md is the normative description."""

from __future__ import annotations

from typing import Any, Final

from lastcall.config import Config

CHANNEL_PATTERN: Final = "^[a-z][a-z_]{0,30}:[A-Za-z0-9_-]{1,64}$"
_PLACE: Final = "[a-z0-9]{1,16}\\.(0|[1-9a-f][0-9a-f]{0,15})\\.(0|[1-9][0-9]{0,8})"
_PROBLEM: Final = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}

PROBLEMS: Final[dict[str, Any]] = {
    "4XX": {"description": "Refused; `code` says why and `retry` whether to try again."} | _PROBLEM,
    "500": {"description": "A mistake of the server; `incident` finds it in the log."} | _PROBLEM,
    "503": {"description": "Not at the moment.", "headers": _RETRY_AFTER} | _PROBLEM,
}
POSITION_HEADERS: Final[dict[str, Any]] = {
    "Lastcall-Position": {
        "description": "A position at or after the commit.",
        "schema": {"$ref": "#/components/schemas/Position"},
    },
    "Lastcall-Replayed": {
        "description": "`true`: the stored answer of an earlier call with this key.",
        "schema": {"const": "true"},
    },
}
KEY_PARAMETER: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes the call apply once; needs a token with a subject.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
}
COMPONENTS: Final[dict[str, Any]] = {
    "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    "schemas": {
        "Position": {"type": "string", "maxLength": 44, "pattern": f"^{_PLACE}$"},
        "Problem": {
            "type": "object",
            "description": "RFC 9457.",
            "required": ["type", "title", "status", "code", "name", "retry"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
                "name": {"type": "string"},
                "retry": {"enum": ["no", "now", "later", "fresh"]},
                "detail": {"type": "string"},
                "facts": {"type": "object"},
                "retry_after_s": {"type": "number"},
                "incident": {"type": "string"},
            },
        },
        "Event": {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "id": {"$ref": "#/components/schemas/Position"},
                "event": {"type": "string"},
                "channels": {"type": "array", "items": {"type": "string"}},
                "data": {},
            },
        },
    },
}
_POSITION: Final = {"$ref": "#/components/schemas/Position"}
_OPEN: Final[list[dict[str, list[str]]]] = [{}, {"bearer": []}]


def _json(description: str, schema: dict[str, Any], headers: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"description": description, "content": {"application/json": {"schema": schema}}}
    return found | ({"headers": headers} if headers else {})


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _in_path(pattern: str) -> dict[str, Any]:
    return {"name": "channel", "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}


def fixed(channel_pattern: str, config: Config) -> dict[str, Any]:
    """Every path but the functions'."""
    return {
        "/batch": {"post": _batch(config)},
        "/events": {"get": _events(channel_pattern, config)},
        "/events/token": {"post": _refresh()},
        "/tickets": {"post": _ticket()},
        "/state/{channel}": {"get": _state(channel_pattern)},
        "/channels/{channel}": {"get": _describe(channel_pattern)},
        "/channels/{channel}/events": {"post": _publish(channel_pattern)},
        "/openapi.json": {"get": _plain("openapi", "This description.", "application/json")},
        "/healthz": {"get": _plain("healthz", "The process answers.", "text/plain")},
        "/readyz": {"get": _plain("readyz", "The node serves.", "application/json")},
        "/metrics": {"get": _plain("metrics", "Prometheus text.", "text/plain")},
    }


def _batch(config: Config) -> dict[str, Any]:
    member = _object(
        {"function": {"type": "string"}},
        {"arguments": {"type": "object"}, "key": {"type": ["string", "null"]}},
    )
    one = _object(
        {"status": {"type": "integer"}},
        {
            "value": {},
            "position": _POSITION,
            "replayed": {"const": True},
            "problem": {"$ref": "#/components/schemas/Problem"},
        },
    )
    return {
        "operationId": "batch",
        "summary": "Several calls in order, each its own transaction.",
        "security": _OPEN,
        "requestBody": _body({"type": "array", "maxItems": config.batch_calls_max, "items": member}),
        "responses": {"200": _json("One member for each call.", {"type": "array", "items": one})} | PROBLEMS,
    }


def _events(channel_pattern: str, config: Config) -> dict[str, Any]:
    channels = {
        "type": "array",
        "minItems": 1,
        "maxItems": config.channels_max,
        "items": {"type": "string", "pattern": channel_pattern},
    }
    reset = _object({"channels": {"type": "array", "items": {"type": "string"}}, "reason": {"type": "string"}})
    poll = _object(
        {"position": _POSITION, "events": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}}},
        {
            "reset": {"type": "array", "items": reset},
            "states": {"type": "array", "items": _object({"channel": {"type": "string"}, "state": {}})},
            "more": {"const": True},
        },
    )
    wait = {"type": "number", "minimum": 0, "maximum": config.long_poll_wait_max_s}
    answer = _json("What happened since the position (long-poll).", poll)
    answer["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "operationId": "events",
        "summary": "Listen: server-sent events, WebSocket or long-poll, by the request's headers.",
        "security": _OPEN,
        "parameters": [
            {"name": "channel", "in": "query", "required": True, "explode": True, "schema": channels},
            {"name": "position", "in": "query", "schema": _POSITION},
            {"name": "state", "in": "query", "schema": {"enum": ["true", "false"]}},
            {"name": "wait", "in": "query", "schema": wait},
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "The position, where server-sent events are asked for.",
                "schema": {"type": "string"},
            },
        ],
        "responses": {"101": {"description": "WebSocket."}, "200": answer} | PROBLEMS,
    }


def _refresh() -> dict[str, Any]:
    heard = _object({"channels": {"type": "array", "items": {"type": "string"}}})
    return {
        "operationId": "refresh_token",
        "summary": "Give a stream a new token without a gap.",
        "security": _OPEN,
        "requestBody": _body(_object({"connection": {"type": "string"}, "token": {"type": "string"}})),
        "responses": {"200": _json("The channels still heard.", heard)} | PROBLEMS,
    }


def _ticket() -> dict[str, Any]:
    ticket = _object({"ticket": {"type": "string"}, "expires_in_s": {"type": "number"}})
    return {
        "operationId": "ticket",
        "summary": "A short-lived ticket for `?token=` on /events.",
        "responses": {"200": _json("The ticket.", ticket)} | PROBLEMS,
    }


def _state(channel_pattern: str) -> dict[str, Any]:
    headers = {"ETag": {"schema": {"type": "string"}}, "Lastcall-Position": POSITION_HEADERS["Lastcall-Position"]}
    return {
        "operationId": "state",
        "summary": "A channel's state, which holds every event at or before its position.",
        "security": _OPEN,
        "parameters": [
            _in_path(channel_pattern),
            {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
        ],
        "responses": {
            "200": _json("State and position.", _object({"position": _POSITION, "state": {}}), headers),
            "304": {"description": "Unchanged; the position is in the header.", "headers": headers},
        }
        | PROBLEMS,
    }


def _describe(channel_pattern: str) -> dict[str, Any]:
    described = _object(
        {"channel": {"type": "string"}, "listeners": {"type": "integer"}, "head": _POSITION, "floor": _POSITION}
    )
    return {
        "operationId": "describe_channel",
        "summary": "Who listens, and from where a listener can resume.",
        "security": _OPEN,
        "parameters": [_in_path(channel_pattern)],
        "responses": {"200": _json("The channel.", described)} | PROBLEMS,
    }


def _publish(channel_pattern: str) -> dict[str, Any]:
    event = _object({"event": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"}, "data": {}})
    return {
        "operationId": "publish",
        "summary": "An event without a table, through the write-ahead log (role `service`).",
        "parameters": [_in_path(channel_pattern)],
        "requestBody": _body(event),
        "responses": {"202": _json("Committed.", _object({"position": {"anyOf": [_POSITION, {"type": "null"}]}}))}
        | PROBLEMS,
    }


def _plain(name: str, summary: str, media_type: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "security": _OPEN,
        "responses": {"200": {"description": summary, "content": {media_type: {"schema": {}}}}} | PROBLEMS,
    }
