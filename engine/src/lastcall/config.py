"""Every setting, once: its name, type, default, bound and meaning.

Order of precedence, highest first: command line, environment (`LASTCALL_` and the name in capitals), `lastcall.toml` in
the working directory (or the file `LASTCALL_CONFIG` names), the default below. An unknown or ill-typed setting refuses
to start and is named. `docs/reference/settings.md` is checked against this module by a test.
"""

from __future__ import annotations

import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

ENVIRONMENT_PREFIX = "LASTCALL_"
CONFIG_FILE = "lastcall.toml"

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Size = Annotated[int, Meta(ge=1024)]


def _doc(description: str, **bounds: Any) -> Any:
    return Meta(description=description, **bounds)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one node. Units are the last part of a name: `_s`, `_ms`, `_bytes`, `_max` (a count)."""

    # Where it runs
    apps: Annotated[
        tuple[str, ...], _doc("Applications to serve, by entry point name; empty: every installed one.")
    ] = ()
    data: Annotated[str, _doc("Folder of the embedded database and the generated secret.")] = "data"
    database_url: Annotated[
        str, _doc("A PostgreSQL of your own (15 or newer) instead of the embedded one; owner's login.")
    ] = ""
    authenticator_url: Annotated[
        str, _doc("Login of the pool where it is not derived from database_url (least privilege).")
    ] = ""
    replication_url: Annotated[str, _doc("Login of the feed, likewise.")] = ""
    host: Annotated[str, _doc("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, _doc("Port to listen on.", ge=0, le=65535)] = 8000
    proxies_trusted: Annotated[
        tuple[str, ...], _doc("Addresses or networks of proxies whose `X-Forwarded-For` and `-Proto` are believed.")
    ] = ()
    log_level: Annotated[str, _doc("debug, info, warning or error.", pattern="^(debug|info|warning|error)$")] = "info"
    log_format: Annotated[str, _doc("console or json.", pattern="^(console|json)$")] = "console"

    # Who may
    jwt_secret: Annotated[
        str, _doc("HS256 secret of tokens, 32 bytes or more; empty: generated once into the data folder.")
    ] = ""
    jwt_public_key: Annotated[
        str, _doc("PEM public key (RS256, ES256, EdDSA) of an issuer of your own, beside the secret.")
    ] = ""
    jwt_issuer: Annotated[str, _doc("Required `iss` of tokens.")] = "lastcall"
    jwt_audience: Annotated[str, _doc("Required `aud` of tokens; empty: none.")] = ""
    token_life_s: Annotated[Seconds, _doc("Life of a token that the server itself issues.")] = 3600.0
    ticket_life_s: Annotated[Seconds, _doc("Life of a ticket (`?token=` on /events).")] = 60.0
    cors_origins: Annotated[tuple[str, ...], _doc("Origins allowed beside those that the applications name.")] = ()

    # Database
    pool_max: Annotated[Count, _doc("Connections of the pool.")] = 16
    pool_wait_max_s: Annotated[Seconds, _doc("A request waits this long for a connection, then 503.")] = 2.0
    statement_timeout_s: Annotated[Seconds, _doc("Longest statement of a request.")] = 10.0
    lock_timeout_s: Annotated[Seconds, _doc("Longest wait for a lock in a request.")] = 3.0

    # Feed
    slot: Annotated[str, _doc("Replication slot and publication.", pattern="^[a-z][a-z0-9_]{0,39}$")] = "lastcall"
    window_s: Annotated[Seconds, _doc("History that survives a restart, by commit time.")] = 120.0
    window_transactions_max: Annotated[Count, _doc("The same by transactions.")] = 100_000
    walsender_timeout_s: Annotated[
        Seconds, _doc("A leader without word from the database for this long stops leading.")
    ] = 3.0
    status_interval_s: Annotated[Seconds, _doc("Replication status is sent this often unasked.")] = 1.0
    events_per_transaction_max: Annotated[
        Count, _doc("More events of one transaction on one channel become one reset.")
    ] = 10_000
    transaction_max_bytes: Annotated[
        Size, _doc("Events of one transaction beyond this become a reset of their kinds.")
    ] = 64 << 20
    feed_yield_messages: Annotated[Count, _doc("Decoding yields to the loop after this many messages.")] = 2_000
    catalog_check_interval_s: Annotated[Seconds, _doc("Watched tables are looked at for DDL this often.")] = 5.0
    slot_wait_max_s: Annotated[Seconds, _doc("A new slot waits this long for open transactions to end.")] = 30.0
    reconnect_wait_max_s: Annotated[Seconds, _doc("Longest wait before the feed tries the database again.")] = 2.0

    # Hub
    history_events_max: Annotated[Count, _doc("Events kept per channel.")] = 1_000
    history_age_max_s: Annotated[Seconds, _doc("Events are kept this long.")] = 120.0
    history_channel_max_bytes: Annotated[Size, _doc("Bytes kept per channel.")] = 1 << 20
    history_max_bytes: Annotated[Size, _doc("Bytes kept in all.")] = 256 << 20
    heartbeat_interval_s: Annotated[Seconds, _doc("A heartbeat with the head goes to every listener this often.")] = (
        15.0
    )
    flush_wait_max_ms: Annotated[
        float, _doc("What comes during a flush waits at most this long for the next.", ge=0)
    ] = 5.0
    flush_turn_max_ms: Annotated[float, _doc("A flush gives way to other work after this long.", ge=0)] = 2.0
    flush_max_bytes: Annotated[Size, _doc("A flush is cut at this size.")] = 256 << 10
    write_buffer_max_bytes: Annotated[Size, _doc("A listener with more unread bytes than this is aborted.")] = 1 << 20

    # Transports
    connections_max: Annotated[Count, _doc("Listeners of one node.")] = 15_000
    channels_max: Annotated[Count, _doc("Channels of one connection.")] = 100
    long_poll_wait_max_s: Annotated[Seconds, _doc("Longest wait of a long-poll.")] = 30.0
    retry_min_ms: Annotated[Count, _doc("SSE `retry`, drawn per connection: from …")] = 1_000
    retry_max_ms: Annotated[Count, _doc("… to.")] = 4_000
    ready_wait_max_s: Annotated[
        Seconds, _doc("A listener waits this long for the feed to have caught up, then 503.")
    ] = 10.0
    catch_up_wait_max_s: Annotated[
        Seconds, _doc("A listener that takes no piece of its history for so long is aborted.")
    ] = 30.0
    url_max_bytes: Annotated[Size, _doc("Longest request target.")] = 16 << 10
    headers_max_bytes: Annotated[Size, _doc("Longest head of a request, without its target.")] = 32 << 10
    body_max_bytes: Annotated[Size, _doc("Largest request body.")] = 1 << 20
    head_wait_max_s: Annotated[Seconds, _doc("A request's head has to arrive within this time.")] = 15.0
    body_wait_max_s: Annotated[Seconds, _doc("A request's body has to arrive within this time.")] = 30.0
    event_data_max_bytes: Annotated[Size, _doc("Largest `data` of a published event.")] = 64 << 10
    websocket_frame_max_bytes: Annotated[Size, _doc("Largest frame a WebSocket client may send.")] = 64 << 10
    drain_s: Annotated[Seconds, _doc("At shutdown listeners get this long to take what is buffered.")] = 1.0

    # Gateway and state
    batch_calls_max: Annotated[Count, _doc("Calls in one POST /batch.")] = 20
    retries_max: Annotated[int, _doc("Retries of a call after a serialization failure or deadlock.", ge=0)] = 3
    state_wait_max_s: Annotated[Seconds, _doc("A state waits this long for a commit to become visible, then 503.")] = (
        2.0
    )
    idempotency_answer_max_bytes: Annotated[Size, _doc("Largest stored answer; a larger one is refused.")] = 64 << 10
    idempotency_days: Annotated[Count, _doc("Stored answers are kept this long.")] = 90
    requests_per_minute_max: Annotated[
        Count, _doc("Requests of one subject (or address) a minute, beyond them 429.")
    ] = 6_000


class ConfigError(Exception):
    """A setting is unknown or has the wrong type; the message names it, never its value (it may be a secret)."""


def names() -> tuple[str, ...]:
    """The settings' names, in the order of this page."""
    return tuple(field.name for field in msgspec.structs.fields(Config))


def _from_text(name: str, text: str) -> object:
    if name in {"apps", "cors_origins", "proxies_trusted"}:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def load(overrides: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """Read all sources and return the one Config. Raises ConfigError naming the setting that is wrong.

    overrides: what the command line named (None values are left out).
    environment: `os.environ` unless given.
    """
    environment = os.environ if environment is None else environment
    path = Path(environment.get(ENVIRONMENT_PREFIX + "CONFIG", CONFIG_FILE))
    values: dict[str, object] = {}
    if path.is_file():
        try:
            values |= tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML ({error})") from None
    elif ENVIRONMENT_PREFIX + "CONFIG" in environment:
        raise ConfigError(f"{path}: no such file (named by {ENVIRONMENT_PREFIX}CONFIG)")
    for variable, text in environment.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != ENVIRONMENT_PREFIX + "CONFIG":
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            values[name] = _from_text(name, text)
    values |= {name: value for name, value in (overrides or {}).items() if value is not None}
    return checked(values)


def checked(values: Mapping[str, object]) -> Config:
    """Turn names and values into a Config. Raises ConfigError naming the first setting that is unknown or ill-typed."""
    known = {field.name: field for field in msgspec.structs.fields(Config)}
    typed: dict[str, object] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown setting: {name}")
        try:
            typed[name] = msgspec.convert(value, known[name].type, strict=False)
        except msgspec.ValidationError as error:
            reason = str(error).split(" - at")[0]
            raise ConfigError(f"setting {name}: {reason}") from None
    return Config(**typed)  # type: ignore[arg-type]


SECRET_FILE = "secret"  # noqa: S105 - the name of the file, not what is in it


def with_secret(config: Config) -> Config:
    """The same settings with a `jwt_secret`: the one that is set, else the data folder's, made there at the first call.

    The file is readable by its owner alone. Raises ConfigError when it can neither be read nor made.
    """
    if config.jwt_secret:
        return config
    path = Path(config.data) / SECRET_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(48))
        secret = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"setting jwt_secret is empty and {path} cannot be used: {error.strerror}") from None
    return msgspec.structs.replace(config, jwt_secret=secret)
