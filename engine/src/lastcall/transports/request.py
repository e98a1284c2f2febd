"""What a request for `/events` asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import unquote_plus

import msgspec

from lastcall.auth import ANONYMOUS, Principal, Tokens, bearer
from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.event import CHANNEL
from lastcall.position import Position

WAIT_DEFAULT_S: Final = 25.0
TOKEN_PROTOCOL: Final = "lastcall.token."  # noqa: S105 (a prefix, not a secret)

Headers = Iterable[tuple[bytes, bytes]]


class Asked(msgspec.Struct, frozen=True):
    """The query of one request.

    channels: well-formed, each once, in the order asked.
    ticket: what `token=` said.
    """

    channels: tuple[str, ...]
    position: Position | None = None
    state: bool = False
    wait_s: float = WAIT_DEFAULT_S
    ticket: str | None = None


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first header of that name, which is lower case."""
    return next((value for key, value in headers if key == name), None)


def read_query(query: bytes, config: Config) -> Asked:
    """Read the query. Raises Refusal LC101, LC104, LC401, LC402, LC403; unknown parameters are ignored."""
    if len(query) > config.url_max_bytes:
        raise Refusal("LC104")
    channels: list[str] = []
    single: dict[str, str] = {}
    for part in query.decode("latin-1").split("&") if query else ():
        name, _, value = part.partition("=")
        if "%" in value or "+" in value:
            value = unquote_plus(value)
        if name == "channel":
            channels.append(value)
            if len(channels) > config.channels_max:
                raise Refusal("LC402", facts={"channels_max": config.channels_max})
        elif name in {"position", "state", "wait", "token"} and single.setdefault(name, value) != value:
            raise Refusal("LC101", f"{name} is given twice")
    if single.get("state", "false") not in {"true", "false"}:
        raise Refusal("LC101", "state is true, or absent")
    return Asked(
        channels=well_formed(channels),
        position=read_position(single["position"]) if "position" in single else None,
        state=single.get("state") == "true",
        wait_s=_wait(single.get("wait"), config),
        ticket=single.get("token"),
    )


def well_formed(channels: Sequence[str]) -> tuple[str, ...]:
    """The channels, each once, in order. Raises Refusal LC401."""
    for channel in channels:
        if CHANNEL.fullmatch(channel) is None:
            raise Refusal("LC401")
    return tuple(dict.fromkeys(channels))


def read_position(text: str) -> Position:
    """Raises Refusal LC403."""
    try:
        return Position.parse(text)
    except ValueError:
        raise Refusal("LC403") from None


def _wait(text: str | None, config: Config) -> float:
    if text is None:
        return min(WAIT_DEFAULT_S, config.long_poll_wait_max_s)
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise Refusal("LC101", "wait is a number of seconds")
    return min(float(text), config.long_poll_wait_max_s)


def principal_of(tokens: Tokens, headers: Headers, ticket: str | None, subprotocols: Sequence[str] = ()) -> Principal:
    """Whose request this is: by the header, the WebSocket subprotocol, the ticket; else anonymous.

    Raises Refusal LC302, LC303.
    """
    token = bearer(headers)
    if token is None:
        token = next(
            (name.removeprefix(TOKEN_PROTOCOL) for name in subprotocols if name.startswith(TOKEN_PROTOCOL)), None
        )
    if token is not None:
        return tokens.verify(token)
    return ANONYMOUS if ticket is None else tokens.verify(ticket, ticket=True)


def allowed_origin(headers: Headers, origins: frozenset[str]) -> bool:
    """Whether a page of this origin may open a WebSocket (RFC 6455, 10.2). No `Origin`: not a page."""
    origin = header(headers, b"origin")
    if origin is None:
        return True
    text = origin.decode("latin-1")
    host = (header(headers, b"host") or b"").decode("latin-1").lower()
    return text in origins or (bool(host) and text.lower() in {f"http://{host}", f"https://{host}"})
