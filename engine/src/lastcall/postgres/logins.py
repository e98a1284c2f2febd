"""The three logins of a node: owner, authenticator, replication.

Promises:

* A password is derived from the token secret and the role's name, so that nothing needs to be stored or agreed upon:
  `migrate` sets it, `serve` knows it.
* Where `authenticator_url` or `replication_url` is configured, it is taken as it is (least privilege: a node that
  serves needs no owner).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lastcall.config import Config
from lastcall.errors import StartRefused

AUTHENTICATOR: Final = "lastcall_authenticator"
REPLICATION: Final = "lastcall_replication"
TOKEN_ROLES: Final = ("anon", "member", "service")


class Logins(NamedTuple):
    """Connection strings; they hold passwords, so they are never logged."""

    owner: str
    authenticator: str
    replication: str


def password(config: Config, role: str) -> str:
    """The derived password of `role`. Raises StartRefused without a secret."""
    if not config.jwt_secret:
        raise StartRefused(
            f"the password of {role} is derived from jwt_secret, which is not set: set LASTCALL_JWT_SECRET, or name "
            "the logins with LASTCALL_AUTHENTICATOR_URL and LASTCALL_REPLICATION_URL"
        )
    return hmac.new(config.jwt_secret.encode(), f"login {role}".encode(), hashlib.sha256).hexdigest()


def login(owner_url: str, role: str, secret: str) -> str:
    """The owner's connection string with another role and password."""
    given = conninfo_to_dict(owner_url).items()
    kept = {
        name: str(value) for name, value in given if value is not None and name not in {"user", "password", "passfile"}
    }
    return make_conninfo("", **kept, user=role, password=secret)


def logins(config: Config, owner_url: str) -> Logins:
    """All three, configured or derived from the owner's. Raises StartRefused when one can be neither."""
    return Logins(
        owner=owner_url,
        authenticator=config.authenticator_url or login(owner_url, AUTHENTICATOR, password(config, AUTHENTICATOR)),
        replication=config.replication_url or login(owner_url, REPLICATION, password(config, REPLICATION)),
    )


def login_refused(url: str, error: psycopg.Error) -> StartRefused:
    """What to tell an operator whose database does not let us in: the place and the user, never the password."""
    given = conninfo_to_dict(url)
    place = f"{given.get('host') or 'the local socket'}, database {given.get('dbname') or given.get('user')}"
    words = (error.diag.message_primary or str(error)).strip().splitlines()
    advice = ""
    if given.get("user") in {AUTHENTICATOR, REPLICATION} and "authentication failed" in str(error):
        advice = ": run `lastcall migrate` with the same jwt_secret, which sets its password"
    return StartRefused(f"{given.get('user')} cannot log in at {place}: {words[-1] if words else 'no answer'}{advice}")
