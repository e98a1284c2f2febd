"""`lastcall serve` and `lastcall demo`: run a node until it is told to stop."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from lastcall.app import installed
from lastcall.cli.options import AppNames, Data, DatabaseUrl, Host, Port, configured
from lastcall.config import Config

DEMO_DATA = ".demo"
_console = Console(stderr=True)


def _say(text: str) -> None:
    _console.print(text, highlight=False, markup=False, soft_wrap=True)


def _run(config: Config, *, demo: bool) -> None:
    # A node is most of the program: whoever only mints a token does not wait for it.
    import uvloop  # noqa: PLC0415

    from lastcall.node import Node  # noqa: PLC0415

    node = Node(config, installed(config.apps), demo=demo, say=_say)
    uvloop.run(node.run())
    sys.stderr.flush()


def serve(
    app: AppNames = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Serve the installed applications on the embedded PostgreSQL, or on one of your own."""
    config = configured(
        {"apps": tuple(app) if app else None, "data": data, "database_url": database_url, "host": host, "port": port}
    )
    _run(config, demo=False)


def demo(data: Data = DEMO_DATA, host: Host = None, port: Port = None) -> None:
    """Serve everything with invented data that moves by itself, and print the address to open."""
    _run(configured({"data": data, "host": host, "port": port}), demo=True)


def add_to(command: typer.Typer) -> None:
    """Register the commands."""
    command.command()(serve)
    command.command()(demo)
