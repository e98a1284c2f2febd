"""Tokens and tickets: who passes, who does not, and that nothing secret is repeated."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from lastcall.auth import ANONYMOUS, TICKET_TYPE, VERIFIED_MAX, Tokens, bearer
from lastcall.config import Config, ConfigError
from lastcall.errors import Refusal

SECRET = "s" * 40
NOW = 1_800_000_000.0


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def make(clock: Callable[[], float] | None = None, **settings: Any) -> Tokens:
    return Tokens(Config(jwt_secret=SECRET, **settings), clock or Clock())


def signed(payload: dict[str, Any], *, key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(payload, key, algorithm=algorithm, headers=header or None)


def payload(**changes: Any) -> dict[str, Any]:
    made = {"sub": "u1", "role": "member", "iss": "lastcall", "exp": NOW + 60} | changes
    return {name: value for name, value in made.items() if value is not None}


def number_of(tokens: Tokens, token: str, *, ticket: bool = False) -> str:
    with pytest.raises(Refusal) as caught:
        tokens.verify(token, ticket=ticket)
    assert token not in str(caught.value) or len(token) < 4
    assert SECRET not in str(caught.value)
    return caught.value.code.number


def pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_a_minted_token_is_verified() -> None:
    """What mint says is what verify reads, application claims included."""
    tokens = make()
    principal = tokens.verify(tokens.mint("u1", "member", {"bar_ids": [1, 2]}, 30))
    assert (principal.subject, principal.role, principal.expires_at, principal.ticket) == (
        "u1",
        "member",
        NOW + 30,
        False,
    )
    assert principal.claims["bar_ids"] == [1, 2]
    assert principal.claims["sub"] == "u1"
    assert principal.issuer == "lastcall"


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"exp": NOW - 1}, "LC303"),
        ({"exp": NOW}, "LC303"),
        ({"exp": None}, "LC302"),
        ({"exp": "soon"}, "LC302"),
        ({"exp": True}, "LC302"),
        ({"exp": 2**60}, "LC302"),
        ({"exp": float("inf")}, "LC302"),
        ({"nbf": NOW + 10}, "LC302"),
        ({"iss": None}, "LC302"),
        ({"iss": "somebody"}, "LC302"),
        ({"aud": "elsewhere"}, "LC302"),
        ({"role": None}, "LC302"),
        ({"role": "postgres"}, "LC302"),
        ({"role": ["member"]}, "LC302"),
        ({"sub": 7}, "LC302"),
        ({"sub": ""}, "LC302"),
        ({"sub": "x" * 256}, "LC302"),
        ({"deep": [{"a": "nul\0"}]}, "LC302"),
    ],
)
def test_a_token_that_lacks_something_is_refused(changes: dict[str, Any], number: str) -> None:
    """Every required claim, when missing, wrong or late, refuses with its number."""
    assert number_of(make(), signed(payload(**changes))) == number


def test_a_foreign_secret_is_refused() -> None:
    """A token that another secret signed does not pass."""
    assert number_of(make(), signed(payload(), key="x" * 40)) == "LC302"


def test_alg_none_is_refused() -> None:
    """An unsigned token does not pass, however `none` is spelled."""
    for spelling in ("none", "None", "NONE", "", None, ["HS256"]):
        parts = [json.dumps({"alg": spelling}).encode(), json.dumps(payload()).encode()]
        token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
        assert number_of(make(), token) == "LC302"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["rsa", "p256", "ed25519"],
)
def test_a_public_key_is_taken_beside_the_secret_and_never_as_a_secret(key: Any, algorithm: str) -> None:
    """The issuer's own key verifies its algorithm, and its text never serves as an HS256 secret."""
    tokens = make(jwt_public_key=pem(key))
    assert tokens.verify(signed(payload(), key=key, algorithm=algorithm)).subject == "u1"
    assert tokens.verify(signed(payload())).subject == "u1"
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(payload()).encode()).rstrip(b"=")
    for secret in (pem(key).encode(), pem(key).strip().encode()):
        mac = hmac.new(secret, head + b"." + body, hashlib.sha256).digest()
        forged = b".".join((head, body, base64.urlsafe_b64encode(mac).rstrip(b"="))).decode()
        assert number_of(tokens, forged) == "LC302"
    assert number_of(make(), signed(payload(), key=key, algorithm=algorithm)) == "LC302"


def test_only_the_one_algorithm_of_a_key_is_taken() -> None:
    """A second algorithm of the same key (RS512 for an RSA key) is refused."""
    key = rsa.generate_private_key(65537, 2048)
    assert number_of(make(jwt_public_key=pem(key)), signed(payload(), key=key, algorithm="RS512")) == "LC302"


def test_a_weak_secret_or_key_refuses_to_start() -> None:
    """Too short a secret and an unfit public key are named, and their value is not."""
    with pytest.raises(ConfigError, match="jwt_secret") as caught:
        Tokens(Config(jwt_secret="short-and-secret"))
    assert "short-and-secret" not in str(caught.value)
    for bad in ("no key", pem(ec.generate_private_key(ec.SECP384R1())), pem(rsa.generate_private_key(65537, 1024))):
        with pytest.raises(ConfigError, match="jwt_public_key"):
            Tokens(Config(jwt_secret=SECRET, jwt_public_key=bad))


def test_the_secret_is_not_in_repr() -> None:
    """Printing the object shows nothing."""
    assert SECRET not in repr(make())


def test_a_ticket_is_taken_where_tickets_are_and_nowhere_else() -> None:
    """Ticket and token are two types: neither passes for the other, and the ticket carries the claims."""
    clock = Clock()
    tokens = make(clock)
    token = tokens.mint("u1", "member", {"faction_id": 7}, 3600)
    ticket = tokens.ticket(tokens.verify(token))
    shown = tokens.verify(ticket, ticket=True)
    assert (shown.subject, shown.role, shown.claims["faction_id"], shown.ticket) == ("u1", "member", 7, True)
    assert shown.expires_at == NOW + 3600
    assert shown.issuer == "lastcall"
    assert number_of(tokens, ticket) == "LC302"
    assert number_of(tokens, token, ticket=True) == "LC302"
    clock.now += 61
    assert number_of(tokens, ticket, ticket=True) == "LC303"


def test_a_ticket_never_outlives_its_token() -> None:
    """A token that ends in ten seconds makes a ticket that opens for ten seconds."""
    clock = Clock()
    tokens = make(clock)
    ticket = tokens.ticket(tokens.verify(tokens.mint("u1", "member", {}, 10)))
    clock.now += 11
    assert number_of(tokens, ticket, ticket=True) == "LC303"


def test_a_ticket_without_its_audience_is_refused() -> None:
    """The type alone does not make a ticket."""
    assert number_of(make(), signed(payload(), typ=TICKET_TYPE), ticket=True) == "LC302"


def test_the_audience_is_required_where_it_is_configured() -> None:
    """With `jwt_audience`, a token without it or with another one is refused, and minted tokens carry it."""
    tokens = make(jwt_audience="bar")
    assert tokens.verify(tokens.mint("u1", "member")).subject == "u1"
    assert number_of(tokens, signed(payload())) == "LC302"
    assert number_of(tokens, signed(payload(aud="other"))) == "LC302"


def test_a_remembered_token_still_expires() -> None:
    """The memory of verified tokens never lets one live longer, and it is bounded."""
    clock = Clock()
    tokens = make(clock)
    token = tokens.mint("u1", "member", {}, 10)
    assert tokens.verify(token) is tokens.verify(token)
    for number in range(VERIFIED_MAX + 5):
        tokens.verify(tokens.mint(str(number), "member"))
    assert len(tokens._verified) == VERIFIED_MAX
    clock.now += 11
    assert number_of(tokens, token) == "LC303"


def test_mint_refuses_roles_and_claims_of_its_own() -> None:
    """Neither another role nor a claim that the server sets can be smuggled in."""
    with pytest.raises(ValueError, match="role"):
        make().mint("u1", "owner")
    with pytest.raises(ValueError, match="exp"):
        make().mint("u1", "member", {"exp": 1})


def test_bearer_reads_one_header() -> None:
    """None without the header; another scheme, an empty one and two of them are refused."""
    assert bearer([]) is None
    assert bearer([(b"authorization", b"bearer abc")]) == "abc"
    for headers in (
        [(b"authorization", b"Basic abc")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
    ):
        with pytest.raises(Refusal, match="LC302"):
            bearer(headers)
    assert make().principal([]) is ANONYMOUS


@given(st.text(max_size=200) | st.builds(".".join, st.lists(st.text("aZ09-_=", max_size=40), min_size=3, max_size=3)))
def test_garbage_is_refused(text: str) -> None:
    """Any text that is not a token is LC302, never another error."""
    assert number_of(make(), text) == "LC302"


def test_a_token_over_the_limit_is_refused() -> None:
    """A huge token is refused before it is decoded."""
    assert number_of(make(), "a" * 10_000) == "LC302"
