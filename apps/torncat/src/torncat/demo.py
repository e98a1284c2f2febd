"""The demonstration: two invented factions, one small war that moves by itself, and a seat in it for every visitor."""

from __future__ import annotations

import asyncio
import contextlib
import random

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lastcall import Demo, Node, Refusal

STEP_MIN_S = 0.6
STEP_MAX_S = 2.4
BODY_MAX_BYTES = 1024
SESSION_LIFE_S = 12 * 3600.0


class SeatRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Who the visitor wants to be; nobody in particular by default."""

    member_id: int | None = None


async def take_seat(request: Request) -> Response:
    """`POST /torncat/demo/session`: a token for a member of the demonstration's first faction."""
    node: Node = request.app.state.node
    try:
        body = await request.body()
        if len(body) > BODY_MAX_BYTES:
            raise Refusal("LC103")
        wanted = msgspec.json.decode(body or b"{}", type=SeatRequest)
    except msgspec.DecodeError:
        raise Refusal("LC102") from None
    member = await node.call("torncat_api.demo_member", {"member_id": wanted.member_id})
    if member is None:
        raise Refusal("LC114", "the demonstration has no such member")
    token = node.mint(str(member["id"]), "member", {"faction_id": str(member["faction_id"])}, SESSION_LIFE_S)
    return JSONResponse(
        {
            "token": token,
            "expires_in_s": SESSION_LIFE_S,
            "member": {"id": member["id"], "name": member["name"]},
            "faction_id": member["faction_id"],
        },
        headers={"Cache-Control": "no-store"},
    )


class War:
    """Moves the demonstration's war, one call or one hit every second or two, until it is stopped."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def start(self, node: Node) -> None:
        """Begin to move."""
        self._task = asyncio.create_task(self._fight(node))

    async def stop(self) -> None:
        """Stop moving; a second stop is harmless."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _fight(self, node: Node) -> None:
        while True:
            # A database that is away for a moment must not end the war.
            with contextlib.suppress(Refusal):
                await node.call("torncat_api.demo_step", {})
            await asyncio.sleep(random.uniform(STEP_MIN_S, STEP_MAX_S))  # noqa: S311


demo = Demo(
    page="/torncat/",
    hint="""Open it in two windows side by side, or make a call from SQL and watch it arrive:
  .venv/bin/lastcall psql --data {data} \\
    -c 'insert into torncat.target_calls (caller_id, target_id) values (1002, 2020)'""",
    seed="torncat_api.demo_seed",
    routes=(Route("/demo/session", take_seat, methods=["POST"]),),
    services=(War,),
)
