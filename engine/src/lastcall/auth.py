"""Who is calling: tokens become principals, and nothing else does.

Promises:

* A token is a JWT (RFC 7519) signed with HS256 and the secret, or with the one algorithm of the configured public key.
  The key is chosen by the algorithm that *we* expect, never by what the token claims to be (RFC 8725, 3.1).
* `exp` and `iss` are required; `role` must be `anon`, `member` or `service`.
* A ticket is a token of a type and an audience of its own, good for `GET /events` only; neither passes for the other.
* No message, log line or error ever repeats a token or the secret.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from lastcall.config import Config, ConfigError
from lastcall.errors import Refusal

ROLES: Final = frozenset({"anon", "member", "service"})
SECRET_MIN_BYTES: Final = 32
RSA_KEY_MIN_BITS: Final = 2048
TOKEN_MAX_BYTES: Final = 8 << 10
SUBJECT_TEXT_MAX: Final = 255
VERIFIED_MAX: Final = 4_096
"""Tokens whose verification is remembered; beyond them the oldest is forgotten, and verified again when it is shown."""

TOKEN_TYPES: Final = frozenset({"jwt", "at+jwt"})
TICKET_TYPE: Final = "lastcall-ticket+jwt"
TICKET_AUDIENCE: Final = "lastcall:events"
_RESERVED: Final = frozenset({"sub", "role", "iss", "aud", "exp", "nbf", "iat", "jti"})


class Principal(msgspec.Struct, frozen=True):
    """Who a request, a connection or a call acts for.

    subject: who, as the issuer names them; None where the token names nobody.
    role: the database role that SQL runs as.
    claims: the token's payload as it came, `sub`, `role` and `iss` included: what `lastcall.claims()` answers in SQL.
    expires_at: seconds since 1970 when the token ends (for a ticket: the token it was made from); None: never.
    ticket: whether a ticket was shown instead of a token.
    """

    subject: str | None
    role: str
    claims: dict[str, Any]
    expires_at: float | None
    ticket: bool = False

    @property
    def issuer(self) -> str:
        """Who vouches for the subject; empty for the anonymous."""
        return str(self.claims.get("iss", ""))


ANONYMOUS: Final = Principal(subject=None, role="anon", claims={"role": "anon"}, expires_at=None)
"""Who calls without a token."""


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The token of `Authorization: Bearer …` (RFC 6750, 2.1), None where there is no such header.

    headers: an ASGI scope's, names in lower case. Raises Refusal LC302 for another scheme or two headers.
    """
    found: str | None = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if found is not None or scheme.lower() != b"bearer" or not token.strip():
                raise Refusal("LC302", "the Authorization header must be one Bearer token")
            found = token.strip().decode("latin-1")
    return found


class Tokens:
    """Verifies and mints tokens and tickets.

    clock: seconds since 1970.
    Raises ConfigError when the secret is shorter than 32 bytes or the public key is not one of RSA (2048 bits or more),
    P-256 or Ed25519.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        if len(config.jwt_secret.encode()) < SECRET_MIN_BYTES:
            raise ConfigError(f"setting jwt_secret: needs {SECRET_MIN_BYTES} bytes or more")
        self._secret = config.jwt_secret.encode()
        self._keys: dict[str, Any] = {"HS256": self._secret}
        if config.jwt_public_key:
            algorithm, key = _public_key(config.jwt_public_key)
            self._keys[algorithm] = key
        self._issuer = config.jwt_issuer
        self._audience = config.jwt_audience
        self._token_life_s = config.token_life_s
        self._ticket_life_s = config.ticket_life_s
        self._clock = clock
        self._verified: dict[str, Principal] = {}

    def __repr__(self) -> str:
        return "<Tokens>"

    def principal(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Whose request this is: of the bearer token, or ANONYMOUS without one. Raises Refusal LC302, LC303."""
        token = bearer(headers)
        return ANONYMOUS if token is None else self.verify(token)

    def verify(self, token: str, *, ticket: bool = False) -> Principal:
        """Whom `token` stands for. Raises Refusal LC303 when it has expired, LC302 for everything else.

        ticket: take a ticket (and nothing else); else a token (and nothing else).
        """
        if not ticket:
            known = self._verified.get(token)
            if known is not None and known.expires_at is not None and self._clock() < known.expires_at:
                return known
        payload = self._payload(token, ticket)
        if ticket:
            return _principal(payload["claims"], payload["until"], ticket=True)
        principal = _principal(payload, float(payload["exp"]), ticket=False)
        while len(self._verified) >= VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = principal
        return principal

    def mint(
        self, subject: str | None, role: str, claims: Mapping[str, Any] | None = None, life_s: float | None = None
    ) -> str:
        """A token of this server. Raises ValueError for a role that is not on the list, or a claim that the server
        sets itself (`sub`, `role`, `iss`, `aud`, `exp`, `nbf`, `iat`, `jti`)."""
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(sorted(ROLES))}")
        taken = _RESERVED.intersection(claims or {})
        if taken:
            raise ValueError(f"the server sets these claims itself: {', '.join(sorted(taken))}")
        now = self._clock()
        payload = dict(claims or {}) | {
            "role": role,
            "iss": self._issuer,
            "iat": int(now),
            "exp": now + (self._token_life_s if life_s is None else life_s),
            "jti": secrets.token_urlsafe(9),
        }
        if subject is not None:
            payload["sub"] = subject
        if self._audience:
            payload["aud"] = self._audience
        return jwt.encode(payload, self._secret, algorithm="HS256")

    def ticket(self, principal: Principal) -> str:
        """A ticket that stands for `principal` on `GET /events`: it opens for `ticket_life_s`, never longer than the
        token it is made from, and what it opens ends when that token does."""
        now = self._clock()
        ends = now + self._ticket_life_s
        payload = {
            "iss": self._issuer,
            "aud": TICKET_AUDIENCE,
            "iat": int(now),
            "exp": ends if principal.expires_at is None else min(ends, principal.expires_at),
            "claims": principal.claims,
            "until": principal.expires_at,
        }
        return jwt.encode(payload, self._secret, algorithm="HS256", headers={"typ": TICKET_TYPE})

    def _payload(self, token: str, ticket: bool) -> dict[str, Any]:
        if len(token) > TOKEN_MAX_BYTES:
            raise Refusal("LC302", f"the token is longer than {TOKEN_MAX_BYTES} bytes")
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            key = self._keys.get(algorithm) if isinstance(algorithm, str) else None
            if not isinstance(algorithm, str) or key is None or (ticket and algorithm != "HS256"):
                raise Refusal("LC302", "the token's algorithm is not accepted")
            kind = str(header.get("typ", "JWT")).lower()
            if (kind == TICKET_TYPE) is not ticket or (not ticket and kind not in TOKEN_TYPES):
                raise Refusal("LC302", "the token is not of the type that is needed here")
            audience = TICKET_AUDIENCE if ticket else self._audience
            payload = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=audience or None,
                options={"require": ["exp", "iss"], "verify_iat": False, "verify_exp": False, "verify_nbf": False},
            )
        except jwt.InvalidTokenError as error:
            # The library's message can repeat parts of the token; the kind of the error cannot.
            raise Refusal("LC302", _REASONS.get(type(error), "")) from None
        except (ValueError, TypeError, RecursionError):
            raise Refusal("LC302") from None
        self._check_times(payload)
        return payload

    def _check_times(self, payload: Mapping[str, Any]) -> None:
        now = self._clock()
        expires, begins = payload["exp"], payload.get("nbf", 0)
        for moment in (expires, begins):
            if isinstance(moment, bool) or not isinstance(moment, int | float) or not -(2**53) < moment < 2**53:
                raise Refusal("LC302", "exp and nbf must be seconds since 1970")
        if now >= expires:
            raise Refusal("LC303")
        if now < begins:
            raise Refusal("LC302", "the token is not valid yet")


def _principal(claims: dict[str, Any], expires_at: float | None, ticket: bool) -> Principal:
    role, subject = claims.get("role"), claims.get("sub")
    if not isinstance(role, str) or role not in ROLES:
        raise Refusal("LC302", "the token's role is not one of this server's")
    if subject is not None and not (isinstance(subject, str) and 0 < len(subject) <= SUBJECT_TEXT_MAX):
        raise Refusal("LC302", f"sub must be a text of 1 to {SUBJECT_TEXT_MAX} characters")
    if _has_nul(claims):
        raise Refusal("LC302", "PostgreSQL has no text with a NUL character")
    return Principal(subject=subject, role=role, claims=claims, expires_at=expires_at, ticket=ticket)


_REASONS: Final[dict[type[Exception], str]] = {
    jwt.InvalidSignatureError: "the signature does not fit",
    jwt.InvalidIssuerError: "the issuer is not this server's",
    jwt.InvalidAudienceError: "the audience is not this server's",
    jwt.MissingRequiredClaimError: "exp and iss are required",
}


def _public_key(pem: str) -> tuple[str, Any]:
    """The one algorithm that goes with a PEM public key, and the key."""
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError:
        raise ConfigError("setting jwt_public_key: not a PEM public key") from None
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_KEY_MIN_BITS:
        return "RS256", key
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256", key
    if isinstance(key, Ed25519PublicKey):
        return "EdDSA", key
    raise ConfigError(f"setting jwt_public_key: needs RSA of {RSA_KEY_MIN_BITS} bits or more, P-256 or Ed25519")


def _has_nul(value: Any) -> bool:
    """Whether a text anywhere in a JSON value holds U+0000, which jsonb cannot."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_nul(item) for item in value)
