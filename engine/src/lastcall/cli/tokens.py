"""`lastcall token`: mint a JWT."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from lastcall.auth import Tokens
from lastcall.cli.options import Data, configured

SERVICE_LIFE_S = 3600.0


def claims_of(pairs: list[str]) -> dict[str, object]:
    """`["a=1", "b=x"]` as claims; a value that is JSON is taken as JSON, else as text. Raises typer.BadParameter."""
    claims: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not name=value")
        try:
            claims[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            claims[name] = text
    return claims


def service_token(data: str | None = None) -> str:
    """A token of the role `service`, minted from the secret of this folder."""
    return Tokens(configured({"data": data})).mint("cli", "service", {}, SERVICE_LIFE_S)


def token(
    role: Annotated[str, typer.Option(help="anon, member or service.")],
    subject: Annotated[str, typer.Option("--subject", "--sub", help="Whose token it is (`sub`).")] = "cli",
    claim: Annotated[list[str] | None, typer.Option(help="A further claim, name=value; repeat for several.")] = None,
    life_s: Annotated[float, typer.Option(help="Seconds until it expires.")] = 3600.0,
    data: Data = None,
) -> None:
    """Mint a JWT from LASTCALL_JWT_SECRET (or the secret of the data folder) and print it."""
    claims = claims_of(claim or [])
    typer.echo(Tokens(configured({"data": data})).mint(subject, role, claims, life_s))


def add_to(command: typer.Typer) -> None:
    """Register the command."""
    command.command()(token)
