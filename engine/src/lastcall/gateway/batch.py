"""`POST /batch`: several calls in one request, in order, each its own transaction (spec/protocol.md, 8).

Promises:

* At most `batch_calls_max` calls (LC110); the answer has as many members, in the same order.
* A failed call does not stop the next. A member is answered as the same call alone would be.
* Each call counts as one request of the rate limit.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from lastcall.auth import Principal
from lastcall.config import Config
from lastcall.errors import Language, Refusal, language_of
from lastcall.gateway.admission import Admission
from lastcall.gateway.http import Bodies, answer, decode, headers_of
from lastcall.gateway.rpc import Arguments, Rpc
from lastcall.wire import problem


class Member(msgspec.Struct):
    """One call of a batch."""

    function: str
    arguments: Arguments = {}
    key: str | None = None


_members: Final = msgspec.json.Decoder(list[Member])


class BatchEndpoint:
    """The route's handler."""

    def __init__(self, rpc: Rpc, admission: Admission, config: Config) -> None:
        self._rpc = rpc
        self._admission = admission
        self._calls_max = config.batch_calls_max
        self._bodies = Bodies(config)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer one batch."""
        principal = self._admission.admit(scope, "batch")
        headers = headers_of(scope)
        members = decode(await self._bodies.read(headers, receive), _members)
        if len(members) > self._calls_max:
            raise Refusal("LC110", facts={"calls_max": self._calls_max})
        self._admission.charge(principal, scope, "batch", len(members) - 1)
        language = language_of(headers.get(b"accept-language", b"").decode("latin-1"))
        answers = [await self._member(principal, member, language) for member in members]
        return await answer(send, 200, msgspec.json.encode(answers))

    async def _member(self, principal: Principal, member: Member, language: Language) -> dict[str, Any]:
        try:
            answered = await self._rpc.call(principal, member.function, member.arguments, member.key)
        except Refusal as refusal:
            return {"status": refusal.code.status, "problem": msgspec.Raw(problem.document(refusal, language))}
        whole: dict[str, Any] = {"status": 200, "value": msgspec.Raw(answered.value)}
        position = self._rpc.position(answered)
        if position is not None:
            whole["position"] = position
        if answered.replayed:
            whole["replayed"] = True
        return whole
