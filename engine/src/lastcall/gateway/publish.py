"""`/channels/{channel}` and `/channels/{channel}/events`: describe a channel, publish on one (spec/protocol.md, 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from lastcall.app import App, find_channel
from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.event import EVENT_NAME, RESERVED_EVENT_NAMES
from lastcall.gateway.admission import Admission
from lastcall.gateway.functions import Catalogue
from lastcall.gateway.http import Bodies, answer, decode, headers_of
from lastcall.gateway.rpc import Rpc, identity_of
from lastcall.gateway.snapshot import Channels, Reader
from lastcall.postgres.call import Caller

PUBLISH: Final = "lastcall.publish"
SERVICE: Final = "service"


class PublishedEvent(msgspec.Struct):
    """The body of a publication."""

    event: str
    data: msgspec.Raw


_event: Final = msgspec.json.Decoder(PublishedEvent)


class PublishEndpoint:
    """`POST /channels/{channel}/events`: 202 with the position, after COMMIT."""

    def __init__(
        self, rpc: Rpc, caller: Caller, catalogue: Catalogue, admission: Admission, apps: Sequence[App], config: Config
    ) -> None:
        self._rpc = rpc
        self._caller = caller
        self._catalogue = catalogue
        self._admission = admission
        self._apps = apps
        self._bodies = Bodies(config)
        self._data_max_bytes = config.event_data_max_bytes

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Publish one event."""
        principal = self._admission.admit(scope, "publish")
        if principal.role != SERVICE:
            raise Refusal("LC301" if principal.expires_at is None else "LC304")
        channel = scope["path_params"]["channel"]
        find_channel(self._apps, channel)
        event = decode(await self._bodies.read(headers_of(scope), receive), _event)
        data = bytes(event.data)
        if (
            EVENT_NAME.fullmatch(event.event) is None
            or event.event in RESERVED_EVENT_NAMES
            or len(data) > self._data_max_bytes
        ):
            raise Refusal("LC410", facts={"bytes_max": self._data_max_bytes})
        if data == b"null":
            # A JSON null is data here; alone it would be SQL's NULL, the absence of it.
            data = b" null"
        arguments = {"channel": msgspec.json.encode(channel), "event": msgspec.json.encode(event.event), "data": data}
        signature = await self._catalogue.internal(PUBLISH)
        answered = await self._caller.call(identity_of(principal), signature, arguments)
        return await answer(send, 202, msgspec.json.encode({"position": self._rpc.position(answered)}))


class DescribeEndpoint:
    """`GET /channels/{channel}`: who listens, and from where a listener can resume."""

    def __init__(self, channels: Channels, reader: Reader, admission: Admission, apps: Sequence[App]) -> None:
        self._channels = channels
        self._reader = reader
        self._admission = admission
        self._apps = apps

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Describe one channel."""
        principal = self._admission.admit(scope, "describe")
        channel = scope["path_params"]["channel"]
        find_channel(self._apps, channel)
        if principal.role != SERVICE and await self._reader.refused(principal, [channel], self._channels.head):
            raise Refusal("LC301" if principal.expires_at is None else "LC305", facts={"channels": [channel]})
        listeners, head, floor = self._channels.describe(channel)
        body = {"channel": channel, "listeners": listeners, "head": str(head), "floor": str(floor)}
        return await answer(send, 200, msgspec.json.encode(body))
