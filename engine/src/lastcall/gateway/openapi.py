"""`GET /openapi.json`: this server described by OpenAPI 3.1, the functions from their own signatures and comments.

Promises:

* What is described is what the asking role may call: the anonymous see the functions of `anon`.
* Every status that is answered is named, every error has the one shape of RFC 9457.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from lastcall.app import App
from lastcall.config import Config
from lastcall.gateway import schemas
from lastcall.gateway.admission import Admission
from lastcall.gateway.fixed_paths import CHANNEL_PATTERN, COMPONENTS, KEY_PARAMETER, POSITION_HEADERS, PROBLEMS, fixed
from lastcall.gateway.functions import Catalogue
from lastcall.gateway.http import JSON_TYPE, NO_STORE, answer
from lastcall.postgres.signature import Signature

SECURED: Final[list[dict[str, list[str]]]] = [{"bearer": []}]
OPEN: Final[list[dict[str, list[str]]]] = [{}, {"bearer": []}]


def document(functions: dict[str, Signature], apps: Sequence[App], config: Config) -> dict[str, Any]:
    """The whole description. `functions` by `app.function`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lastcall",
            "version": version("lastcall"),
            "description": "Calls run one SQL function each; what they commit is heard on /events.",
        },
        "security": SECURED,
        "paths": fixed(_channel_pattern(apps), config)
        | {f"/rpc/{name}": {"post": operation(name, signature)} for name, signature in functions.items()},
        "components": COMPONENTS,
    }


def operation(name: str, signature: Signature) -> dict[str, Any]:
    """One function."""
    summary, _, description = signature.comment.partition("\n")
    found: dict[str, Any] = {
        "operationId": name,
        "tags": [name.partition(".")[0]],
        "summary": summary,
        "security": OPEN if "anon" in signature.roles else SECURED,
        "parameters": [KEY_PARAMETER],
        "requestBody": {
            "required": any(not parameter.optional for parameter in signature.parameters),
            "content": {"application/json": {"schema": schemas.arguments(signature)}},
        },
        "responses": {
            "200": {
                "description": "The function's value, after COMMIT.",
                "headers": POSITION_HEADERS,
                "content": {"application/json": {"schema": schemas.result(signature)}},
            }
        }
        | PROBLEMS,
    }
    if description.strip():
        found["description"] = description.strip()
    return found


def _channel_pattern(apps: Sequence[App]) -> str:
    kinds = sorted({kind for app in apps for kind in app.channel_kinds})
    return f"^({'|'.join(kinds)}):[A-Za-z0-9_-]{{1,64}}$" if kinds else CHANNEL_PATTERN


class OpenApiEndpoint:
    """The route's handler."""

    def __init__(self, catalogue: Catalogue, admission: Admission, apps: Sequence[App], config: Config) -> None:
        self._catalogue = catalogue
        self._admission = admission
        self._apps = apps
        self._config = config

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Describe the server to one principal."""
        principal = self._admission.admit(scope, "openapi")
        whole = document(self._catalogue.exposed_to(principal.role), self._apps, self._config)
        return await answer(send, 200, msgspec.json.encode(whole), (JSON_TYPE, NO_STORE))
