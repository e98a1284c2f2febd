"""From a request to one SQL function, and back.

admission → functions → rpc │ batch │ publish → postgres/call
snapshot → state        openapi        usage
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from lastcall.app import App
from lastcall.auth import Tokens
from lastcall.config import Config
from lastcall.gateway.admission import Admission
from lastcall.gateway.batch import BatchEndpoint
from lastcall.gateway.functions import Catalogue
from lastcall.gateway.http import Endpoint, Handler
from lastcall.gateway.openapi import OpenApiEndpoint
from lastcall.gateway.publish import DescribeEndpoint, PublishEndpoint
from lastcall.gateway.rpc import Rpc, RpcEndpoint, RpcRoute
from lastcall.gateway.snapshot import Channels, Reader, StateEndpoint
from lastcall.gateway.usage import Usage
from lastcall.meter import Meter
from lastcall.postgres.call import Caller

__all__ = ["Admission", "Catalogue", "Usage", "routes"]


def routes(
    config: Config,
    channels: Channels,
    meter: Meter,
    tokens: Tokens,
    reader: Reader,
    caller: Caller,
    catalogue: Catalogue,
    apps: Sequence[App],
    usage: Usage | None = None,
) -> list[BaseRoute]:
    """The gateway's routes, for the node to mount. channels: the hub."""
    admission = Admission(tokens, config, usage)
    rpc = Rpc(caller, catalogue, lambda: channels.head, meter)
    publish = PublishEndpoint(rpc, caller, catalogue, admission, apps, config)
    describe = DescribeEndpoint(channels, reader, admission, apps)

    def route(path: str, methods: set[str], handler: Handler) -> Route:
        return Route(path, Endpoint(path, methods, handler, meter))

    return [
        RpcRoute(Endpoint(RpcRoute.path, {"POST"}, RpcEndpoint(rpc, admission, config).handle, meter)),
        route("/batch", {"POST"}, BatchEndpoint(rpc, admission, config).handle),
        route("/state/{channel}", {"GET", "HEAD"}, StateEndpoint(reader, channels, admission).handle),
        route("/channels/{channel}/events", {"POST"}, publish.handle),
        route("/channels/{channel}", {"GET", "HEAD"}, describe.handle),
        route("/openapi.json", {"GET", "HEAD"}, OpenApiEndpoint(catalogue, admission, apps, config).handle),
    ]
