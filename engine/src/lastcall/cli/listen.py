"""`lastcall tail` and `lastcall publish`: hear a channel, say something on one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import msgspec
import typer
from rich.console import Console

from lastcall.cli.options import Data, Token, Url
from lastcall.cli.tokens import service_token
from lastcall.errors import LastcallError

DEFAULT_URL = "http://127.0.0.1:8000"
SILENCE_MAX_S = 35.0
BACKOFF_MAX_S = 30.0
_QUIET = frozenset({"heartbeat", "joined"})
_console = Console()


class Unanswered(LastcallError):
    """The server refused or could not be reached; `str()` says which, in one sentence."""


def blocks(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The blocks of an SSE stream as fields (WHATWG HTML, "Interpreting an event stream")."""
    block: dict[str, str] = {}
    for line in lines:
        if not line:
            if block:
                yield block
            block = {}
            continue
        name, _, value = line.partition(":")
        if name:
            block[name] = value.removeprefix(" ")


def _problem(response: httpx.Response) -> str:
    try:
        document: dict[str, Any] = msgspec.json.decode(response.read())
        return f"{document['code']} {document['title']} {document.get('detail', '')}".strip()
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _show(block: dict[str, str], *, plain: bool) -> None:
    name = block.get("event", "message")
    if plain:
        typer.echo(msgspec.json.encode({**block, "data": msgspec.json.decode(block.get("data", "null"))}).decode())
        return
    if name not in _QUIET:
        clock = time.strftime("%H:%M:%S")
        _console.print(
            f"[dim]{clock}[/] [cyan]{block.get('channel', ''):<16}[/] [bold]{name}[/] ", end="", highlight=False
        )
        _console.print(block.get("data", ""), markup=False, soft_wrap=True)


def _follow(client: httpx.Client, channel: str, position: str | None, state: bool, plain: bool) -> Iterator[str | None]:
    """Yield the position after each block until the stream ends."""
    params = {"channel": channel, **({"state": "true"} if state else {})}
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": position} if position else {})}
    with client.stream("GET", "/events", params=params, headers=headers) as response:
        if response.status_code >= 500:
            raise httpx.TransportError(_problem(response))
        if response.status_code != 200:
            raise Unanswered(_problem(response))
        for block in blocks(response.iter_lines()):
            _show(block, plain=plain)
            yield block.get("id")


def tail(
    channel: Annotated[str, typer.Argument(help="The channel, kind:id.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    data: Data = None,
    state: Annotated[bool, typer.Option("--state", help="Show the channel's state first.")] = False,
    plain: Annotated[bool, typer.Option("--json", help="One JSON object a line, every frame.")] = False,
) -> None:
    """Print the events of a channel as they come; reconnect and resume until Ctrl-C."""
    position: str | None = None
    wait_s = 1.0
    timeout = httpx.Timeout(10.0, read=SILENCE_MAX_S)
    bearer = {"Authorization": f"Bearer {token or service_token(data)}"}
    with httpx.Client(base_url=url, timeout=timeout, headers=bearer) as client:
        try:
            while True:
                try:
                    for reached in _follow(client, channel, position, state, plain):
                        position, wait_s = reached or position, 1.0
                except httpx.TransportError as error:
                    Console(stderr=True).print(f"[dim]no connection ({error}); trying again[/]", highlight=False)
                time.sleep(random.uniform(wait_s / 2, wait_s))  # noqa: S311
                wait_s = min(wait_s * 2, BACKOFF_MAX_S)
        except KeyboardInterrupt:
            return


def publish(
    channel: Annotated[str, typer.Argument(help="The channel, kind:id.")],
    event: Annotated[str, typer.Argument(help="The event's name.")],
    json: Annotated[str, typer.Argument(metavar="JSON", help="The event's data.")] = "{}",
    url: Url = DEFAULT_URL,
    token: Token = None,
    data: Data = None,
) -> None:
    """Publish an event through the write-ahead log and print its position."""
    try:
        value = msgspec.json.decode(json)
    except msgspec.DecodeError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="JSON") from None
    bearer = {"Authorization": f"Bearer {token or service_token(data)}"}
    body = msgspec.json.encode({"event": event, "data": value})
    try:
        response = httpx.post(
            f"{url}/channels/{channel}/events",
            content=body,
            headers={**bearer, "Content-Type": "application/json"},
            timeout=10.0,
        )
    except httpx.TransportError as error:
        raise Unanswered(f"{url} does not answer ({error}); is the server running?") from None
    if response.status_code != 202:
        raise Unanswered(_problem(response))
    typer.echo(response.json()["position"])


def add_to(command: typer.Typer) -> None:
    """Register the commands."""
    command.command()(tail)
    command.command()(publish)
