"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from lastcall.config import Config, load, with_secret

AppNames = Annotated[
    list[str] | None, typer.Option("--app", help="Application to serve; repeat for several. Default: all.")
]
Data = Annotated[str | None, typer.Option(help="Folder of the embedded database and the secret.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="Your own PostgreSQL (15 or newer), owner's login.")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.")]
Url = Annotated[str, typer.Option(help="Where the server is.")]
Token = Annotated[
    str | None,
    typer.Option(help="JWT. Without one, a token of the role `service` is minted from the secret of this folder."),
]


def configured(overrides: Mapping[str, object]) -> Config:
    """All settings, with the secret in place. Raises ConfigError."""
    return with_secret(load({name: value for name, value in overrides.items() if value is not None}))
