"""The contract of an application: everything the engine needs to know of one, as one object.

An application is found through the entry point group `lastcall.apps`; its value is an `App`. It owns a schema pair:
`{name}` (tables, granted to no one) and `{name}_api` (functions and views). Its SQL may call `lastcall.publish`,
`lastcall.now`, `lastcall.claims`, `lastcall.revoke`; the engine's SQL names no application.

Promises to an application:

* Its migrations run in order, once each, in a transaction each, as the owner; its routines are re-applied when changed.
* Its services are started after the feed has caught up, in order, and stopped in reverse; `stop` is called once.
* Its jobs run on the leader only, once per due time.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import msgspec
from starlette.routing import BaseRoute

from lastcall.config import Config
from lastcall.errors import Code, Refusal, StartRefused
from lastcall.event import CHANNEL
from lastcall.feed.watch import Watch

ENTRY_POINT_GROUP = "lastcall.apps"
_FIELD = re.compile(r"\{([a-z_][a-z0-9_]*)\}", re.ASCII)


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern of channels and the two SQL functions that rule it.

    pattern: `faction:{id}`; what stands for `{…}` matches `[A-Za-z0-9_-]{1,64}`.
    authorize: `schema.function(id text, …) → boolean`: may the current principal listen? It runs with the token's role
        and claims, when the channel is joined and when the token is refreshed. False, NULL and an error refuse.
    state: `schema.function(id text, …) → jsonb`: everything a client needs to know before it follows the events; same
        arguments, same role. None: the channel has no state.
    """

    pattern: str
    authorize: str
    state: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Names in braces, in order."""
        return tuple(_FIELD.findall(self.pattern))

    def match(self, channel: str) -> dict[str, str] | None:
        """The values of the fields when `channel` has this pattern, else None."""
        found = _compiled(self.pattern).fullmatch(channel)
        return None if found is None else found.groupdict()


_patterns: dict[str, re.Pattern[str]] = {}


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern not in _patterns:
        parts = _FIELD.split(pattern)
        text = "".join(
            f"(?P<{part}>[A-Za-z0-9_-]{{1,64}})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
        )
        _patterns[pattern] = re.compile(text, re.ASCII)
    return _patterns[pattern]


class Node(Protocol):
    """What a running node offers to an application's services, jobs and routes (`request.app.state.node`)."""

    config: Config
    demo: bool

    async def call(self, function: str, arguments: Mapping[str, Any], claims: Mapping[str, Any] | None = None) -> Any:
        """Call `schema.function` with named arguments in one transaction and return its JSON value. Without claims it
        runs as the role `service`. Raises Refusal."""

    def mint(self, subject: str, role: str, claims: Mapping[str, Any], life_s: float | None = None) -> str:
        """A token. Role must be on the allow-list."""


class Service(Protocol):
    """One service life: start, started, stop."""

    async def start(self, node: Node) -> None:
        """Return when started; long work goes into a task of the service's own. Raise StartRefused to stop the node."""

    async def stop(self) -> None:
        """End within a second. A second stop is harmless."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Work that recurs, on the leader only, fenced by (job, due time).

    name: unique within the application.
    cron: five fields (minute hour day month weekday), in `timezone`; or six, the first being seconds.
    run: a SQL function `schema.function` without arguments that the role `service` may call, or an async callable that
        takes the node. The function runs in the transaction of its row in `lastcall.job_run`; of due times that were
        missed (downtime, a moved clock) the latest runs, once.
    quiet: hours (0 to 23) at which it does not start; the run due then is skipped and logged as such.
    """

    name: str
    cron: str
    run: str | Callable[[Node], Awaitable[None]]
    timezone: str = "UTC"
    quiet: frozenset[int] = frozenset()


class Timer(msgspec.Struct, frozen=True, kw_only=True):
    """Second-precision due work: a SQL function that does what is due by `lastcall.now()` and says when to call again.

    run: `schema.function() → timestamptz`, which the role `service` may call: when the next thing is due, or NULL for
        none known. It does what is due itself, so that being asked once too often does nothing.
    tables: the application's tables whose changes make the timer look again at once.
    """

    name: str
    run: str
    tables: tuple[str, ...] = ()


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """What `lastcall demo` adds: data to see, services that move it, a page to open.

    hint: what to try, for the person at the terminal; `{data}` is the data folder.
    """

    page: str
    hint: str = ""
    seed: str | None = None
    routes: Sequence[BaseRoute] = ()
    services: Sequence[Callable[[], Service]] = ()


class App(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One application.

    name: `[a-z][a-z0-9_]{0,30}`; its schemas are `{name}` and `{name}_api`.
    sql: folder with `migrations/NNNN_name.sql` (frozen when merged) and `routines/*.sql` (one routine a file).
    watches, channels, jobs, timers: see there.
    routes: further HTTP routes, mounted under `/{name}`.
    services: factories; `leader_services` run on the leader only.
    static: folder of built pages, served under `/{name}/`; may be absent.
    cors_origins: origins whose pages may call (never `*` with credentials; tokens travel in headers).
    codes: numbers of its own, two capital letters and three digits, never `LC`.
    tickets: whether `?token=` is taken on /events for its channels.
    """

    name: str
    sql: Path
    watches: Sequence[Watch] = ()
    channels: Sequence[Channel] = ()
    routes: Sequence[BaseRoute] = ()
    services: Sequence[Callable[[], Service]] = ()
    leader_services: Sequence[Callable[[], Service]] = ()
    jobs: Sequence[Job] = ()
    timers: Sequence[Timer] = ()
    static: Path | None = None
    cors_origins: tuple[str, ...] = ()
    codes: Mapping[str, Code] = {}
    tickets: bool = False
    demo: Demo | None = None

    @property
    def schema(self) -> str:
        """Tables; granted to no one."""
        return self.name

    @property
    def api_schema(self) -> str:
        """Functions and views; what is here is exposed."""
        return f"{self.name}_api"

    @cached_property
    def channel_kinds(self) -> frozenset[str]:
        """The parts before the colon."""
        return frozenset(channel.pattern.partition(":")[0] for channel in self.channels)


def installed(names: Sequence[str] = ()) -> tuple[App, ...]:
    """The applications named, in that order; every installed one where none is named.

    A name is that of an entry point, or `module:attribute` for an application that is not installed; its module is
    looked for in the working directory, too.
    Raises StartRefused for an unknown name, or for two applications that claim one channel kind or one error number.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if any(":" in name for name in names) and "" not in sys.path:
        sys.path.insert(0, "")
    apps = tuple(
        EntryPoint("", name, ENTRY_POINT_GROUP).load() if ":" in name else _entry_point(found, name).load()
        for name in (names or sorted(found))
    )
    check_disjoint(apps)
    return apps


def find_channel(apps: Sequence[App], name: str) -> tuple[App, Channel, dict[str, str]]:
    """Whose channel `name` is, of which pattern, and what its fields are. Raises Refusal LC401 when it is no channel's
    name, LC409 when no application has such a channel."""
    if CHANNEL.fullmatch(name) is None:
        raise Refusal("LC401")
    for app in apps:
        for channel in app.channels:
            fields = channel.match(name)
            if fields is not None:
                return app, channel, fields
    raise Refusal("LC409", facts={"channel": name})


def _entry_point(found: Mapping[str, EntryPoint], name: str) -> EntryPoint:
    if name not in found:
        have = ", ".join(sorted(found)) or "none"
        raise StartRefused(f"there is no application named {name}; installed: {have}")
    return found[name]


def check_disjoint(apps: Sequence[App]) -> None:
    """Raise StartRefused when two applications claim the same channel kind or error number."""
    kinds: dict[str, str] = {}
    numbers: dict[str, str] = {}
    for app in apps:
        for kind in app.channel_kinds:
            if kinds.setdefault(kind, app.name) != app.name:
                raise StartRefused(f"{kinds[kind]} and {app.name} both claim the channels {kind}:…")
        for number in app.codes:
            if number.startswith("LC") or numbers.setdefault(number, app.name) != app.name:
                raise StartRefused(f"{app.name} claims the error number {number}, which is taken")
