"""The command line: `lastcall --help` is the manual."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from lastcall.cli import bench, database, listen, serving, shell, tokens
from lastcall.config import ConfigError
from lastcall.errors import LastcallError

EXIT_REFUSED = 2

command = typer.Typer(
    name="lastcall",
    help="""The realtime backend that makes polling unnecessary.

    What a PostgreSQL transaction commits reaches every listener, in commit order, once, resumable. Settings come from
    options, from LASTCALL_* in the environment, and from lastcall.toml, in that order.""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (serving, database, shell, listen, tokens, bench):
    module.add_to(command)


def main() -> None:
    """Run the command line. What is refused is said in one sentence, without a stack trace."""
    try:
        command()
    except (LastcallError, ConfigError) as refusal:
        Console(stderr=True).print(f"[bold red]lastcall:[/] {refusal}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_REFUSED)
